// SPDX-License-Identifier: GPL-2.0-only
/*
 * A write to a page that is write-protected by a userfaultfd which is being closed is retried
 * inside the kernel for ever, and close(2) never gets the CPU.  The text for the mailing list is in
 * release-livelock.md.
 *
 *	cc -o release-livelock release-livelock.c -pthread && ./release-livelock
 *
 * Run it in a guest: a kernel with one CPU, and without preemption, locks up.
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGES 512
#define WRITERS 2
#define SECONDS 20

static char *start;
static size_t size;

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

static void *keep_writing(void *unused)
{
	size_t i;

	for (;;)
		for (i = 0; i < PAGES; i++)
			__atomic_add_fetch(start + i * size, 1, __ATOMIC_RELAXED);
	return unused;
}

/* Protects all and closes the userfaultfd, until the time is over. */
static void protect_and_close(void)
{
	time_t end = time(NULL) + SECONDS;
	cpu_set_t first;
	int i;

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	require(sched_setaffinity(0, sizeof(first), &first) == 0, "sched_setaffinity");
	for (i = 0; i < WRITERS; i++) {
		pthread_t thread;

		require(pthread_create(&thread, NULL, keep_writing, NULL) == 0, "pthread_create");
	}
	while (time(NULL) < end) {
		struct uffdio_api api = { .api = UFFD_API };
		struct uffdio_register area = {
			.range = { (uintptr_t)start, PAGES * size },
			.mode = UFFDIO_REGISTER_MODE_WP,
		};
		struct uffdio_writeprotect protect = {
			.range = area.range,
			.mode = UFFDIO_WRITEPROTECT_MODE_WP,
		};
		int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

		require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
		require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
		require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
		close(uffd);
	}
	_exit(0);
}

int main(void)
{
	int memory = syscall(SYS_memfd_create, "shared", 0), status;
	struct timespec pause = { .tv_nsec = 100000000 };
	pid_t child;
	int i;

	size = sysconf(_SC_PAGESIZE);
	require(memory >= 0 && ftruncate(memory, PAGES * size) == 0, "memfd");
	start = mmap(NULL, PAGES * size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	require(start != MAP_FAILED, "mmap");
	child = fork();
	require(child >= 0, "fork");
	if (child == 0)
		protect_and_close();
	for (i = 0; i < 20 * SECONDS; i++) {
		if (waitpid(child, &status, WNOHANG) == child) {
			puts("each close returned");
			return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
		}
		nanosleep(&pause, NULL);
	}
	puts("BUG: a close has not returned");
	kill(child, SIGKILL);
	return 1;
}
