// SPDX-License-Identifier: GPL-2.0-only
/*
 * UFFDIO_RWPROTECT of a PMD-mapped THP of shared memory succeeds and protects nothing.
 * The text for the mailing list is in rwp-shmem-thp.md.
 *
 *	cc -o rwp-shmem-thp rwp-shmem-thp.c && ./rwp-shmem-thp
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs RWP, Linux 7.3,
 * and a huge page).
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

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_RWP };
	struct uffdio_register area = { .mode = MODE_RWP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int memory = syscall(SYS_memfd_create, "shared", 0), i, small, huge;
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *start;

	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd with RWP");
	require(memory >= 0 && ftruncate(memory, 2 * HUGE) == 0, "memfd");
	start = mmap(NULL, 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(start != MAP_FAILED, "mmap");
	start += -(uintptr_t)start % HUGE;
	require(mmap(start, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0) ==
		start, "mmap");
	for (i = 0; i < 2 * PAGES; i++)
		start[i * 4096] = 1;
	require(madvise(start + HUGE, HUGE, MADV_COLLAPSE) == 0, "MADV_COLLAPSE");

	area.range.start = protect.range.start = (uintptr_t)start;
	area.range.len = protect.range.len = 2 * HUGE;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, RWPROTECT, &protect) == 0, "UFFDIO_RWPROTECT");
	small = having(pagemap, start, PM_UFFD);
	huge = having(pagemap, start + HUGE, PM_UFFD);
	printf("protected: %d of %d small pages, %d of %d pages of a THP, of which %d are mapped\n",
	       small, PAGES, huge, PAGES, having(pagemap, start + HUGE, PM_PRESENT));
	if (huge == PAGES)
		return 0;
	start[HUGE] = 2;	/* no message: it would wait for ever */
	puts("BUG: a write to the THP went through");
	return 1;
}
