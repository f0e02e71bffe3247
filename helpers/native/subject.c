// SPDX-License-Identifier: GPL-2.0-only
/*
 * The subject: a small process that holds the memory under test and does one
 * operation after another on command.  Each thread serves a socket of its own, so
 * a store that blocks on a write-protect fault is an answer that has not come yet,
 * and a subject that hangs or dies takes nothing of the suite with it.
 *
 * usage: subject SOCKET SCRATCH ADDRESS PARENT
 *   SOCKET   SOCK_SEQPACKET descriptor that carries requests (wire.h)
 *   SCRATCH  descriptor of shared memory for structures and page contents
 *   ADDRESS  where the scratch memory is to be mapped
 *   PARENT   pid of the suite, whose death is the subject's death
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "serve.h"
#include "wire.h"

#define MAX_SOCKETS 64

static int sockets[MAX_SOCKETS];	/* this process' ends, closed in a forked child */
static int socket_count;
static volatile uint64_t *interruptions;	/* SIGUSR1 handlers run; first word of the scratch */

static __thread sigjmp_buf trap;
static __thread volatile sig_atomic_t trap_armed;
static __thread struct reply trapped;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (!trap_armed) {
		signal(number, SIG_DFL);	/* a defect of ours: die of it when it comes again */
		return;
	}
	trap_armed = 0;
	trapped.signal = number;
	trapped.code = info->si_code;
	trapped.address = (uintptr_t)info->si_addr;
	siglongjmp(trap, 1);
}

static void on_interruption(int number)
{
	(void)number;
	__atomic_add_fetch(interruptions, 1, __ATOMIC_RELAXED);
}

static void install_handlers(void)
{
	/* SA_NODEFER: leaving by siglongjmp must not leave the signal blocked */
	struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct sigaction interruption = { .sa_handler = on_interruption, .sa_flags = SA_RESTART };

	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	sigaction(SIGUSR1, &interruption, NULL);
}

static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

/* Touch memory word by word; a SIGSEGV or SIGBUS becomes part of the reply. */
static void touch(const struct request *request, struct reply *reply)
{
	const uint64_t *argument = request->argument;
	volatile uint64_t *word = (volatile uint64_t *)(uintptr_t)argument[0];
	uint64_t stride = argument[1] / sizeof(*word);
	uint64_t i;

	memset(&trapped, 0, sizeof(trapped));
	if (sigsetjmp(trap, 0)) {
		*reply = trapped;
		return;
	}
	trap_armed = 1;
	switch (request->operation) {
	case OP_LOAD:
		for (i = 0; i < argument[2]; i++)
			reply->value += word[i * stride];
		break;
	case OP_STORE:
		for (i = 0; i < argument[2]; i++)
			word[i * stride] = argument[3] + i;
		break;
	case OP_ADD:
		for (i = 0; i < argument[2]; i++)
			reply->value = *word += argument[1];
		break;
	case OP_COPY:
		memcpy((void *)(uintptr_t)argument[0], (void *)(uintptr_t)argument[1], argument[2]);
		reply->value = argument[2];
		break;
	}
	trap_armed = 0;
}

static void call(const uint64_t *argument, struct reply *reply)
{
	errno = 0;
	reply->value = syscall(argument[0], argument[1], argument[2], argument[3], argument[4],
			       argument[5], argument[6]);
	reply->error = reply->value == -1 ? errno : 0;
}

static void do_one(const struct request *request, struct reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	if (request->operation == OP_SYSCALL)
		call(request->argument, reply);
	else if (request->operation != OP_CHILD)
		touch(request, reply);
	reply->messages = messages_served();
}

/* A child of this process does the requests and exits; its pagemap takes ours' number. */
static void do_in_child(const struct request *requests, struct reply *replies,
			const uint64_t *argument, struct reply *reply)
{
	pid_t parent = getpid();
	pid_t child = fork();
	uint64_t i;
	int status;

	if (child == 0) {
		die_with(parent);
		served_by_another();
		dup2(open("/proc/self/pagemap", O_RDONLY), argument[1]);
		for (i = 0; i < argument[0]; i++)
			do_one(&requests[i], &replies[i]);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		reply->error = errno;
	else
		reply->value = status;
	reply->messages = messages_served();
}

/*
 * Does a table of requests, and writes down the reply to each: once, or over and over
 * until, at the table's end, the stop word is set.
 */
static void do_batch(const uint64_t *argument, struct reply *reply)
{
	const struct request *requests = (const struct request *)(uintptr_t)argument[0];
	struct reply *replies = (struct reply *)(uintptr_t)argument[2];
	const volatile uint64_t *stop = (const volatile uint64_t *)(uintptr_t)argument[3];
	uint64_t i;

	do {
		for (i = 0; i < argument[1]; i++) {
			const struct request *request = &requests[i];

			do_one(request, &replies[i]);
			reply->value += !replies[i].error && !replies[i].signal;
			if (request->operation == OP_CHILD) {
				do_in_child(request + 1, &replies[i + 1], request->argument,
					    &replies[i]);
				i += request->argument[0];
			}
		}
	} while (stop && !*stop);
}

/* Returns false when the other end is gone. */
static int receive(int socket, struct request *request, int *passed)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec vector = { request, sizeof(*request) };
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	ssize_t got;

	do
		got = recvmsg(socket, &message, 0);
	while (got < 0 && errno == EINTR);
	*passed = -1;
	header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(passed, CMSG_DATA(header), sizeof(*passed));
	return got == sizeof(*request);
}

static void answer(int socket, struct reply *reply, int passed)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec vector = { reply, sizeof(*reply) };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
	struct timespec moment = { .tv_nsec = 50000000 };	/* each try tells the log */
	struct cmsghdr *header;

	if (passed >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &passed, sizeof(passed));
	}
	/* ENOBUFS: helpers/memcg.py has set a limit, and lifts it when it sees us asleep here.  A
	 * first call of nanosleep(2) would touch a fresh page, for which there is no memory. */
	while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0 &&
	       (errno == EINTR || (errno == ENOBUFS && !syscall(SYS_nanosleep, &moment, NULL))))
		;
}

static void keep_socket(int socket)
{
	int slot = __atomic_fetch_add(&socket_count, 1, __ATOMIC_RELAXED);

	if (slot >= MAX_SOCKETS)
		_exit(1);
	sockets[slot] = socket;
}

static void serve(int socket);

static void *thread_main(void *socket)
{
	struct reply hello = { .value = syscall(SYS_gettid) };

	answer((intptr_t)socket, &hello, -1);
	serve((intptr_t)socket);
	return NULL;
}

static int start_thread(int socket)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	keep_socket(socket);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 256 << 10);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, thread_main, (void *)(intptr_t)socket);
	pthread_attr_destroy(&attributes);
	return error;
}

/* In the child, `*socket` becomes the passed one and the parent's are closed. */
static pid_t split(int *socket, int passed)
{
	pid_t parent = getpid();
	pid_t child = fork();

	if (child) {
		close(passed);
		return child;
	}
	die_with(parent);
	while (socket_count)
		close(sockets[--socket_count]);
	keep_socket(passed);
	*socket = passed;
	return 0;
}

/* The child shares the memory, and this thread waits for its end. */
static void store_in_vforked(const uint64_t *argument, struct reply *reply)
{
	pid_t child = vfork();
	int status = 0;

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		*(volatile uint64_t *)(uintptr_t)argument[0] = argument[1];
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		reply->error = errno;
	reply->value = status;
}

static void serve(int socket)
{
	struct request request;
	struct reply reply;
	int passed, shared;

	while (receive(socket, &request, &passed)) {
		const uint64_t *argument = request.argument;

		memset(&reply, 0, sizeof(reply));
		shared = -1;
		switch (request.operation) {
		case OP_SYSCALL:
			call(argument, &reply);
			break;
		case OP_BATCH:
			do_batch(argument, &reply);
			break;
		case OP_THREAD:
			reply.error = start_thread(passed);
			break;
		case OP_FORK:
			reply.value = split(&socket, passed);
			if (reply.value == 0)
				continue;	/* the child: its first request comes next */
			reply.error = reply.value < 0 ? errno : 0;
			break;
		case OP_VFORK:
			store_in_vforked(argument, &reply);
			break;
		case OP_ADOPT:
			reply.value = passed;
			break;
		case OP_SHARE:
			shared = argument[0];
			break;
		case OP_SERVE:
			reply.error = serve_messages(argument);
			break;
		default:
			touch(&request, &reply);
		}
		answer(socket, &reply, shared);
	}
}

int main(int count, char **words)
{
	struct stat scratch;
	int socket, memory;
	void *wanted;

	if (count != 5)
		return 2;
	socket = atoi(words[1]);
	memory = atoi(words[2]);
	wanted = (void *)strtoul(words[3], NULL, 0);
	die_with(atoi(words[4]));
	if (fstat(memory, &scratch))
		return 2;
	interruptions = mmap(wanted, scratch.st_size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED_NOREPLACE, memory, 0);
	if (interruptions != wanted)
		return 2;
	install_handlers();
	keep_socket(socket);
	serve(socket);
	_exit(0);
}
