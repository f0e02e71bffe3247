/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What travels between the suite and a subject: one request, one reply, each a
 * SOCK_SEQPACKET packet.  Python reads this file too, as its cdef, so it holds
 * declarations only: no include, no condition, no macro.
 */

enum operation {
	OP_SYSCALL,	/* number, six arguments           -> the system call's result */
	OP_LOAD,	/* address, stride, count          -> sum of the loaded words */
	OP_STORE,	/* address, stride, count, value   -> stores value, value + 1, ... */
	OP_ADD,		/* address, delta, times           -> the word after the last addition */
	OP_COPY,	/* destination, source, bytes      -> bytes */
	OP_THREAD,	/* with a socket                   -> 0; the thread reports its tid there */
	OP_FORK,	/* with a socket, served by the child -> the child's pid */
	OP_VFORK,	/* address, value: a vfork(2) child stores it -> its wait status */
	OP_ADOPT,	/* with a descriptor               -> its number in the subject */
	OP_SHARE,	/* descriptor                      -> 0, the reply carries a duplicate */
	OP_BATCH,	/* requests, count, replies, stop  -> how many requests succeeded */
	OP_CHILD,	/* count, pagemap; in a batch: a forked child does the next requests */
	OP_SERVE	/* two userfaultfds, pagemap, log, entries, bytes of a page -> 0: they are served */
};

struct request {
	uint64_t operation;
	uint64_t argument[7];
};

struct reply {
	int64_t value;
	int32_t error;		/* errno of a failed system call, else 0 */
	int32_t signal;		/* SIGSEGV or SIGBUS that ended a touch, else 0 */
	int32_t code;		/* si_code of that signal */
	int32_t messages;	/* in a batch: how many messages have been served so far */
	uint64_t address;	/* si_addr of that signal */
};

/* An entry of OP_SERVE's log, which begins with the number of messages. */
struct served {
	uint8_t message[32];
	uint64_t word;		/* the page's pagemap word before the fault was resolved */
};
