// SPDX-License-Identifier: GPL-2.0-only
/*
 * PAGEMAP_SCAN does not report a written hugetlb page that MADV_DONTNEED has unmapped.
 * The text for the mailing list is in scan-hugetlb-dontneed.md.
 *
 *	cc -o scan-hugetlb-dontneed scan-hugetlb-dontneed.c && ./scan-hugetlb-dontneed
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs a free hugetlb
 * page of 2 MiB: vm.nr_hugepages).
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

#define SMALL 4096

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

/* Writes to a protected page of memory, has it unmapped, and tells whether a scan reports it. */
static int reported(int flags, size_t size)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	struct region found;
	struct scan scan = {
		.size = sizeof(scan),
		.flags = WP_MATCHING | CHECK_WPASYNC,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.category_mask = IS_WRITTEN,
		.return_mask = IS_WRITTEN,
	};
	int pagemap = open("/proc/self/pagemap", O_RDONLY), regions;
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *page;

	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd with WP_ASYNC");
	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | flags, -1, 0);
	require(page != MAP_FAILED, "mmap");
	*page = 1;
	area.range.start = protect.range.start = scan.start = (uintptr_t)page;
	area.range.len = protect.range.len = size;
	scan.end = scan.start + size;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");

	*page = 2;
	require(madvise(page, size, MADV_DONTNEED) == 0, "MADV_DONTNEED");
	regions = ioctl(pagemap, SCAN, &scan);
	require(regions >= 0, "PAGEMAP_SCAN");
	return regions;
}

int main(void)
{
	int shmem = reported(0, SMALL), hugetlb = reported(MAP_HUGETLB | 21 << 26, 2UL << 20);

	printf("a page that was written and then unmapped: shmem %s, hugetlb %s\n",
	       shmem ? "reported" : "not reported", hugetlb ? "reported" : "not reported: BUG");
	return !hugetlb;
}
