// SPDX-License-Identifier: GPL-2.0-only
/*
 * PAGEMAP_SCAN with PM_SCAN_WP_MATCHING and without a vector protects pages that do not match.
 * The text for the mailing list is in scan-without-vector.md.
 *
 *	cc -o scan-without-vector scan-without-vector.c && ./scan-without-vector
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
#define IS_FILE (1 << 2)
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

#define PAGES 8

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

/* How many pages are written; with WP_MATCHING they are protected again. */
static int written(struct scan scan, int pagemap, size_t size)
{
	struct region found[PAGES];
	int regions, i, pages = 0;

	scan.flags = 0;
	scan.vec = (uintptr_t)found;
	scan.vec_len = PAGES;
	scan.category_mask = scan.return_mask = IS_WRITTEN;
	regions = ioctl(pagemap, SCAN, &scan);
	require(regions >= 0, "PAGEMAP_SCAN");
	for (i = 0; i < regions; i++)
		pages += (found[i].end - found[i].start) / size;
	return pages;
}

int main(void)
{
	size_t size = sysconf(_SC_PAGESIZE), i;
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct scan scan = {
		.size = sizeof(scan),
		.flags = WP_MATCHING | CHECK_WPASYNC,
		.category_mask = IS_WRITTEN | IS_FILE,	/* which no page is */
	};
	int pagemap = open("/proc/self/pagemap", O_RDONLY), before, after;
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *start;

	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd with WP_ASYNC");
	start = mmap(NULL, PAGES * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(start != MAP_FAILED, "mmap");
	require(madvise(start, PAGES * size, MADV_NOHUGEPAGE) == 0, "MADV_NOHUGEPAGE");
	for (i = 0; i < PAGES; i++)
		start[i * size] = 1;
	area.range.start = scan.start = (uintptr_t)start;
	area.range.len = PAGES * size;
	scan.end = scan.start + PAGES * size;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");

	before = written(scan, pagemap, size);
	require(ioctl(pagemap, SCAN, &scan) == 0, "PAGEMAP_SCAN without a vector");
	after = written(scan, pagemap, size);
	printf("of %d written anonymous pages %d are still written after a scan for pages of files%s\n",
	       before, after, after == before ? "" : ": BUG");
	return after != before;
}
