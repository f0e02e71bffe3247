// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of shared memory that are protected by UFFDIO_RWPROTECT lose it when the kernel unmaps them.
 * The text for the mailing list is in rwp-shmem-unmap.md.
 *
 *	cc -o rwp-shmem-unmap rwp-shmem-unmap.c && ./rwp-shmem-unmap
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs RWP, Linux 7.3,
 * and swap or a huge page).
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

#define FEATURE_RWP (1 << 17)	/* headers may be older than 7.3 */
#define MODE_RWP (1 << 3)
#define RWPROTECT _IOWR(UFFDIO, 0x09, struct uffdio_writeprotect)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define PM_PRESENT (1ULL << 63)
#define PM_UFFD (1ULL << 57)
#define HUGE (2UL << 20)
#define PAGES 512

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

/* How many of the pages have a bit of pagemap. */
static int having(int pagemap, const char *start, uint64_t bit)
{
	uint64_t words[PAGES];
	int i, pages = 0;

	require(pread(pagemap, words, sizeof(words), (uintptr_t)start / 4096 * 8) == sizeof(words),
		"pagemap");
	for (i = 0; i < PAGES; i++)
		pages += !!(words[i] & bit);
	return pages;
}

/* A mapping of the file, on a boundary of 2 MiB. */
static char *map(int memory)
{
	char *start = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	require(start != MAP_FAILED, "mmap");
	start += -(uintptr_t)start % HUGE;
	require(mmap(start, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0) ==
		start, "mmap");
	return start;
}

/* What is done to a file: from the mapping that is protected, or from another one. */
enum act { RECLAIM, COLLAPSE_ELSEWHERE, PUNCH_ONE_PAGE };

/* How many pages but the first lose their protection; -1 if that can't be tried. */
static int lost(int uffd, int pagemap, enum act act)
{
	struct uffdio_register area = { .mode = MODE_RWP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int memory = syscall(SYS_memfd_create, "shared", 0), i, failed;
	char *start, *other;

	require(memory >= 0 && ftruncate(memory, HUGE) == 0, "memfd");
	start = map(memory);
	other = map(memory);
	for (i = 0; i < PAGES; i++)
		other[i * 4096] = 1;
	if (act == PUNCH_ONE_PAGE && madvise(other, HUGE, MADV_COLLAPSE))
		return -1;
	madvise(start, HUGE, MADV_NOHUGEPAGE);	/* so that no PMD maps them */
	for (i = 0; i < PAGES; i++)
		start[i * 4096] = 1;
	area.range.start = protect.range.start = (uintptr_t)start;
	area.range.len = protect.range.len = HUGE;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, RWPROTECT, &protect) == 0, "UFFDIO_RWPROTECT");
	require(having(pagemap, start, PM_UFFD) == PAGES, "not all pages are protected");
	if (act == RECLAIM)
		failed = madvise(start, HUGE, MADV_PAGEOUT) ||
			 having(pagemap, start, PM_PRESENT) == PAGES;
	else if (act == COLLAPSE_ELSEWHERE)
		failed = madvise(other, HUGE, MADV_COLLAPSE);
	else
		failed = fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
	if (failed)
		return -1;
	if (having(pagemap, start, PM_UFFD) == 0)
		start[4096] = 2;	/* no message: it would wait for ever */
	return PAGES - 1 - having(pagemap, start, PM_UFFD);
}

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_RWP };
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int reclaim, collapse, punch;

	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd with RWP");
	reclaim = lost(uffd, pagemap, RECLAIM);
	collapse = lost(uffd, pagemap, COLLAPSE_ELSEWHERE);
	punch = lost(uffd, pagemap, PUNCH_ONE_PAGE);
	printf("of %d pages that are protected, lose it (-1: not to be tried here):\n"
	       "  to swap: %d\n"
	       "  by MADV_COLLAPSE of another mapping: %d\n"
	       "  by a hole in the place of another page of their THP: %d\n",
	       PAGES - 1, reclaim, collapse, punch);
	if (reclaim < 0 && collapse < 0 && punch < 0)
		return 2;
	if (reclaim <= 0 && collapse <= 0 && punch <= 0)
		return 0;
	puts("BUG: pages that were protected are so no longer, and written to without a message");
	return 1;
}
