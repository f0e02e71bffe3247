// SPDX-License-Identifier: GPL-2.0-only
/*
 * Removing pages of shared memory from their file keeps their write-protection, though
 * userfaultfd.rst says that it is dropped.  The text for the mailing list is in
 * removal-keeps-markers.md.
 *
 *	cc -o removal-keeps-markers removal-keeps-markers.c && ./removal-keeps-markers
 *
 * Exit status: 1 the kernel differs from the document, 0 it does not, 2 it can't be tried here.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PM_UFFD_WP (1ULL << 57)
#define PAGES 3

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

int main(void)
{
	size_t size = sysconf(_SC_PAGESIZE), i;
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	const char *ways[PAGES] = { "MADV_REMOVE", "hole punching", "truncation" };
	int memory = syscall(SYS_memfd_create, "shared", 0), kept = 0;
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	uint64_t words[PAGES];
	char *start;

	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
	require(memory >= 0 && ftruncate(memory, PAGES * size) == 0, "memfd");
	start = mmap(NULL, PAGES * size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	require(start != MAP_FAILED, "mmap");
	for (i = 0; i < PAGES; i++)
		start[i * size] = 1;
	area.range.start = protect.range.start = (uintptr_t)start;
	area.range.len = protect.range.len = PAGES * size;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");

	require(madvise(start, size, MADV_REMOVE) == 0, "MADV_REMOVE");
	require(fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, size, size) == 0,
		"FALLOC_FL_PUNCH_HOLE");
	require(ftruncate(memory, 2 * size) == 0 && ftruncate(memory, PAGES * size) == 0,
		"ftruncate");
	require(pread(pagemap, words, sizeof(words), (uintptr_t)start / size * 8) == sizeof(words),
		"pagemap");
	for (i = 0; i < PAGES; i++) {
		printf("%s: %s\n", ways[i],
		       words[i] & PM_UFFD_WP ? "still protected" : "not protected any more");
		kept += !!(words[i] & PM_UFFD_WP);
	}
	return kept != 0;
}
