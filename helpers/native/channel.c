// SPDX-License-Identifier: GPL-2.0-only
/*
 * The suite's end of a subject's socket.  cffi drops the GIL around each of these
 * calls, and each ends by its deadline.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Sends a request, with a descriptor unless `passed` is -1.  0 or -errno. */
static int channel_send(int socket, const struct request *request, int passed)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec vector = { (void *)request, sizeof(*request) };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
	struct cmsghdr *header;
	ssize_t sent;

	if (passed >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &passed, sizeof(passed));
	}
	do
		sent = sendmsg(socket, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

/* Waits for the first of two descriptors to become readable (or hung up); `second`
 * may be -1.  Returns 0 or 1 for the one that did, first before second; -ETIME at
 * the deadline. */
static int channel_wait(int first, int second, int timeout_ms)
{
	struct pollfd ready[2] = { { .fd = first, .events = POLLIN }, { .fd = second, .events = POLLIN } };
	int64_t deadline = now_ms() + timeout_ms;
	int count;

	for (;;) {
		int64_t left = deadline - now_ms();

		count = poll(ready, 2, left > 0 ? left : 0);
		if (count > 0)
			return ready[0].revents ? 0 : 1;
		if (count == 0)
			return -ETIME;
		if (errno != EINTR)
			return -errno;
	}
}

/* Reads a reply that is there; a passed descriptor goes to `*passed`, else -1.
 * 0, -EPIPE when the subject is gone, or -errno. */
static int channel_receive(int socket, struct reply *reply, int *passed)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec vector = { reply, sizeof(*reply) };
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	ssize_t got;

	*passed = -1;
	do
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(passed, CMSG_DATA(header), sizeof(*passed));
	return got == sizeof(*reply) ? 0 : -EPIPE;
}
