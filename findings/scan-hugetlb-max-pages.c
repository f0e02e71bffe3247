// SPDX-License-Identifier: GPL-2.0-only
/*
 * PAGEMAP_SCAN with PM_SCAN_WP_MATCHING passes over a written hugetlb page that max_pages has no
 * room for.  The text for the mailing list is in scan-hugetlb-max-pages.md.
 *
 *	cc -o scan-hugetlb-max-pages scan-hugetlb-max-pages.c && ./scan-hugetlb-max-pages
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs 3 free
 * hugetlb pages of 2 MiB: vm.nr_hugepages).
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
#define WP_MATCHING (1 << 0)
#define CHECK_WPASYNC (1 << 1)
struct region {
	uint64_t start, end, categories;
};
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN _IOWR('f', 16, struct scan)

#define HUGE (2UL << 20)
#define PAGES 3
#define SMALL 4096

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct region found[PAGES];
	struct scan scan = {
		.size = sizeof(scan),
		.flags = WP_MATCHING | CHECK_WPASYNC,
		.vec = (uintptr_t)found,
		.vec_len = PAGES,
		.max_pages = HUGE / SMALL + 1,
		.category_mask = IS_WRITTEN,
		.return_mask = IS_WRITTEN,
	};
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int regions, round, i, reported = 0, left;
	char *start;

	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd with WP_ASYNC");
	start = mmap(NULL, PAGES * HUGE, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | 21 << 26, -1, 0);
	require(start != MAP_FAILED, "mmap of hugetlb pages");
	for (i = 0; i < PAGES; i++)
		start[i * HUGE] = 1;
	area.range.start = (uintptr_t)start;
	area.range.len = PAGES * HUGE;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");

	/* a harvest as the document has it: go on at walk_end until all is scanned */
	scan.start = (uintptr_t)start;
	scan.end = scan.start + PAGES * HUGE;
	for (round = 0; scan.start < scan.end && round < 2 * PAGES; round++) {
		regions = ioctl(pagemap, SCAN, &scan);
		require(regions >= 0, "PAGEMAP_SCAN");
		for (i = 0; i < regions; i++)
			reported += (found[i].end - found[i].start) / HUGE;
		scan.start = scan.walk_end;
	}

	scan.start = (uintptr_t)start;
	scan.flags = 0;
	scan.max_pages = 0;
	left = ioctl(pagemap, SCAN, &scan);
	printf("of %d written pages %d were reported; %s\n", PAGES, reported,
	       left ? "BUG: others are still written" : "none is written any more");
	return reported != PAGES;
}
