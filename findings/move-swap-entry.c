// SPDX-License-Identifier: GPL-2.0-only
/*
 * UFFDIO_MOVE of a write-protected page in swap takes the uffd-wp bit along, into a range that
 * is not registered for write-protect.  The text for the mailing list is in move-swap-entry.md.
 *
 *	cc -o move-swap-entry move-swap-entry.c && ./move-swap-entry
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs swap).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFDIO_MOVE		/* headers from before 6.8 */
struct uffdio_move {
	__u64 dst, src, len, mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#define PM_SWAP (1ULL << 62)
#define PM_UFFD_WP (1ULL << 57)

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

static uint64_t pagemap(int file, const char *page, size_t size)
{
	uint64_t word;

	require(pread(file, &word, sizeof(word), (uintptr_t)page / size * sizeof(word)) ==
		sizeof(word), "pagemap");
	return word;
}

int main(void)
{
	size_t size = sysconf(_SC_PAGESIZE);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	struct uffdio_move move = { 0 };
	int words = open("/proc/self/pagemap", O_RDONLY);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *from, *to;

	require(words >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
	from = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(from != MAP_FAILED, "mmap");
	to = from + size;

	*from = 1;
	require(madvise(from, size, MADV_PAGEOUT) == 0, "MADV_PAGEOUT");
	require(!!(pagemap(words, from, size) & PM_SWAP), "the page does not go to swap");

	area.range.start = protect.range.start = (uintptr_t)from;
	area.range.len = protect.range.len = size;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
	area.range.start = (uintptr_t)to;
	area.mode = UFFDIO_REGISTER_MODE_MISSING;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");

	move.src = (uintptr_t)from;
	move.dst = (uintptr_t)to;
	move.len = size;
	require(ioctl(uffd, UFFDIO_MOVE, &move) == 0, "UFFDIO_MOVE");
	if (pagemap(words, to, size) & PM_UFFD_WP) {
		puts("BUG: a page that is not registered for write-protect has the uffd-wp bit");
		return 1;
	}
	puts("the moved page is not write-protected");
	return 0;
}
