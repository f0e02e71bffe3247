// SPDX-License-Identifier: GPL-2.0-only
/*
 * Serves a userfaultfd within the subject: each message goes to a log, and a fault is
 * resolved by unprotecting its page.  A child that EVENT_FORK tells of is served too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "serve.h"
#include "wire.h"
#include "uapi.h"

#define EVENT_PAGEFAULT 0x12
#define EVENT_FORK 0x13
#define UFFDIO_WRITEPROTECT 0xc018aa06
#define UFFDIO_WAKE 0x8010aa02
#define LOG_IS_FULL 3

/* held while a message is read and served, so that what it woke is seen after it */
static pthread_mutex_t serving = PTHREAD_MUTEX_INITIALIZER;
static volatile uint64_t *count;	/* the log, in memory that children share */
static uint64_t capacity, page_bytes;	/* page_bytes: of the served memory */
static int epoll, pagemap, ours[2];
static int from_outside;		/* this is a child of the process that serves */

void served_by_another(void)
{
	from_outside = 1;
}

int messages_served(void)
{
	int served;

	if (!count)
		return 0;
	if (from_outside)	/* the mutex is another one here, and only faults can be told of */
		return *count;
	pthread_mutex_lock(&serving);
	served = *count;
	pthread_mutex_unlock(&serving);
	return served;
}

static void resolve(int uffd, uint64_t address)
{
	struct uffdio_writeprotect page = { address & -page_bytes, page_bytes, 0 };

	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &page))
		ioctl(uffd, UFFDIO_WAKE, &page);	/* it faults again, and is logged again */
}

/* Reads and serves one message. */
static void serve_one(int uffd)
{
	struct served *entry = (struct served *)(count + 1) + *count;
	struct epoll_event child = { .events = EPOLLIN };
	struct uffd_message message;

	if (read(uffd, &message, sizeof(message)) != sizeof(message))
		return;
	memcpy(entry->message, &message, sizeof(message));
	entry->word = 0;
	if (message.event == EVENT_PAGEFAULT && (uffd == ours[0] || uffd == ours[1]) &&
	    pread(pagemap, &entry->word, 8, message.argument[1] / getpagesize() * 8) != 8)
		entry->word = 0;
	++*count;
	if (message.event == EVENT_PAGEFAULT)
		resolve(uffd, message.argument[1]);
	if (message.event == EVENT_FORK) {
		child.data.fd = message.argument[0];
		epoll_ctl(epoll, EPOLL_CTL_ADD, child.data.fd, &child);
	}
}

/*
 * When the log is full, a page is told of again and again, though it was unprotected each
 * time: nobody who waits for it would come to an end.
 */
static void *serve_all(void *nothing)
{
	struct epoll_event ready;

	while (*count < capacity) {
		if (epoll_wait(epoll, &ready, 1, -1) < 1)
			continue;
		pthread_mutex_lock(&serving);
		serve_one(ready.data.fd);
		pthread_mutex_unlock(&serving);
	}
	_exit(LOG_IS_FULL);
	return nothing;
}

int serve_messages(const uint64_t *argument)
{
	pthread_t thread;
	int i;

	pagemap = argument[2];
	count = (volatile uint64_t *)(uintptr_t)argument[3];
	capacity = argument[4];
	page_bytes = argument[5];
	*count = 0;
	/* epoll, unlike poll, holds no reference that would keep a closed userfaultfd open */
	epoll = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < 2; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.fd = argument[i] };

		ours[i] = argument[i];
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, ours[i], &event))
			return errno;
	}
	return pthread_create(&thread, NULL, serve_all, NULL);
}
