// SPDX-License-Identifier: GPL-2.0-only
/*
 * Taking the write-protection of several pages of a large folio makes all of them soft-dirty.
 * The text for the mailing list is in unprotect-soft-dirty.md.
 *
 *	cc -o unprotect-soft-dirty unprotect-soft-dirty.c && ./unprotect-soft-dirty
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs a THP and
 * CONFIG_MEM_SOFT_DIRTY).
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

#define HUGE (2UL << 20)
#define PAGES 3			/* one after another, from the second of the THP */
#define PM_SOFT_DIRTY (1ULL << 55)

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

static int soft_dirty(int pagemap, const char *start, size_t size)
{
	uint64_t words[PAGES];
	int i, pages = 0;

	require(pread(pagemap, words, sizeof(words), (uintptr_t)start / size * 8) == sizeof(words),
		"pagemap");
	for (i = 0; i < PAGES; i++)
		pages += !!(words[i] & PM_SOFT_DIRTY);
	return pages;
}

int main(void)
{
	size_t size = sysconf(_SC_PAGESIZE);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int pagemap = open("/proc/self/pagemap", O_RDONLY), found;
	int clear = open("/proc/self/clear_refs", O_WRONLY);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *start, *few;

	require(pagemap >= 0 && clear >= 0, "pagemap, clear_refs");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
	start = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(start != MAP_FAILED, "mmap");
	start += -(uintptr_t)start % HUGE;
	few = start + size;
	require(madvise(start, HUGE, MADV_HUGEPAGE) == 0, "MADV_HUGEPAGE");
	*start = 1;
	require(soft_dirty(pagemap, few, size) == PAGES, "no THP, or no soft-dirty bits");

	area.range.start = (uintptr_t)start;
	area.range.len = HUGE;
	protect.range.start = (uintptr_t)few;
	protect.range.len = PAGES * size;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
	require(write(clear, "4", 1) == 1, "clear_refs");
	require(soft_dirty(pagemap, few, size) == 0, "clear_refs clears no soft-dirty bit");
	protect.mode = 0;
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");

	found = soft_dirty(pagemap, few, size);
	printf("of %d pages that nobody has written to %d are soft-dirty%s\n", PAGES, found,
	       found ? ": BUG" : "");
	return found != 0;
}
