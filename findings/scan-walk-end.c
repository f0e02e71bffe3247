// SPDX-License-Identifier: GPL-2.0-only
/*
 * PAGEMAP_SCAN that finds more than 512 regions sets walk_end to where it has not stopped.
 * The text for the mailing list is in scan-walk-end.md.
 *
 *	cc -o scan-walk-end scan-walk-end.c && ./scan-walk-end
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here.
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

#define FEATURE_WP_ASYNC (1 << 15)	/* headers may be older than 6.7 */
#define IS_WRITTEN (1 << 1)
struct region {
	uint64_t start, end, categories;
};
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN _IOWR('f', 16, struct scan)

#define PAGES 1200

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

int main(void)
{
	static struct region found[PAGES];
	size_t size = sysconf(_SC_PAGESIZE), i;
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	struct scan scan = {
		.size = sizeof(scan), .vec = (uintptr_t)found, .vec_len = PAGES,
		.category_mask = IS_WRITTEN, .return_mask = IS_WRITTEN,
	};
	int pagemap = open("/proc/self/pagemap", O_RDONLY), regions;
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *start;

	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd with WP_ASYNC");
	start = mmap(NULL, PAGES * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(start != MAP_FAILED, "mmap");
	require(madvise(start, PAGES * size, MADV_NOHUGEPAGE) == 0, "MADV_NOHUGEPAGE");
	area.range.start = scan.start = (uintptr_t)start;
	area.range.len = PAGES * size;
	scan.end = scan.start + PAGES * size;
	protect.range = area.range;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
	for (i = 0; i < PAGES; i += 2)
		start[i * size] = 1;

	regions = ioctl(pagemap, SCAN, &scan);
	require(regions >= 0, "PAGEMAP_SCAN");
	printf("%d regions of %d were found, and the scan of %d pages says that it ended at page %d%s\n",
	       regions, PAGES / 2, PAGES, (int)((scan.walk_end - scan.start) / size),
	       scan.walk_end == scan.end ? "" : ": BUG");
	return scan.walk_end != scan.end;
}
