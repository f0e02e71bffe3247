// SPDX-License-Identifier: GPL-2.0-only
/*
 * PAGEMAP_SCAN reports a huge page in device memory as written, and does not write-protect it.
 * The text for the mailing list is in scan-device-thp.md.
 *
 *	cc -o scan-device-thp scan-device-thp.c && ./scan-device-thp
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs root, and a
 * kernel with CONFIG_TEST_HMM that gives out a huge page).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

struct device_command {		/* lib/test_hmm_uapi.h is not installed */
	uint64_t address, buffer, pages, done, faults;
};
#define MIGRATE_TO_DEVICE _IOWR('H', 0x02, struct device_command)

#define HUGE (2UL << 20)

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

int main(void)
{
	size_t size = sysconf(_SC_PAGESIZE);
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct device_command command = { .pages = HUGE / size };
	struct region found;
	struct scan scan = {
		.size = sizeof(scan),
		.flags = WP_MATCHING | CHECK_WPASYNC,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.category_mask = IS_WRITTEN,
		.return_mask = IS_WRITTEN,
	};
	int device = open("/dev/hmm_dmirror0", O_RDWR), regions;
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *space, *memory;

	require(device >= 0, "/dev/hmm_dmirror0");
	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd with WP_ASYNC");
	space = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(space != MAP_FAILED, "mmap");
	memory = (char *)(((uintptr_t)space + HUGE - 1) & -HUGE);
	require(madvise(memory, HUGE, MADV_HUGEPAGE) == 0, "MADV_HUGEPAGE");
	memset(memory, 1, HUGE);

	area.range.start = scan.start = command.address = (uintptr_t)memory;
	area.range.len = HUGE;
	scan.end = scan.start + HUGE;
	command.buffer = (uintptr_t)malloc(HUGE);
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(device, MIGRATE_TO_DEVICE, &command) == 0, "the device takes no page");

	require(ioctl(pagemap, SCAN, &scan) == 1, "a scan that protects");
	regions = ioctl(pagemap, SCAN, &scan);
	require(regions >= 0, "a scan");
	if (regions) {
		printf("BUG: %lu bytes that were protected are written, as the next scan says\n",
		       (unsigned long)(found.end - found.start));
		return 1;
	}
	puts("what was protected is not reported as written");
	return 0;
}
