// SPDX-License-Identifier: GPL-2.0-only
/*
 * PAGEMAP_SCAN with PM_SCAN_WP_MATCHING protects a page that is being migrated only until it has
 * arrived.  The text for the mailing list is in scan-migration-entry.md.
 *
 *	cc -o scan-migration-entry scan-migration-entry.c -pthread && ./scan-migration-entry
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs Linux 6.7 and
 * two NUMA nodes: boot with numa=fake=2).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
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

#define PAGES 512
#define MOST_TRIES 500
#define MOVE 2	/* MPOL_MF_MOVE */

static void *pages[PAGES];
static unsigned long trips;

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

/* Sends the pages to the other node and back, for ever. */
static void *move(void *nothing)
{
	int nodes[PAGES], status[PAGES], i;

	for (;;) {
		for (i = 0; i < PAGES; i++)
			nodes[i] = ~trips & 1;
		require(syscall(SYS_move_pages, 0, (long)PAGES, pages, nodes, status, MOVE) >= 0,
			"move_pages between nodes 0 and 1");
		__atomic_add_fetch(&trips, 1, __ATOMIC_RELEASE);
	}
	return nothing;
}

/* Waits until no move is on its way that was when it is called. */
static void await_arrival(void)
{
	unsigned long seen = __atomic_load_n(&trips, __ATOMIC_ACQUIRE);

	while (__atomic_load_n(&trips, __ATOMIC_ACQUIRE) < seen + 2)
		sched_yield();
}

/* How many pages are reported as written; with WP_MATCHING they are protected. */
static int written(int pagemap, uint64_t flags)
{
	static struct region found[PAGES];
	struct scan scan = {
		.size = sizeof(scan),
		.flags = flags,
		.start = (uintptr_t)pages[0],
		.end = (uintptr_t)pages[0] + PAGES * 4096,
		.vec = (uintptr_t)found,
		.vec_len = PAGES,
		.category_mask = IS_WRITTEN,
		.return_mask = IS_WRITTEN,
	};
	int regions = ioctl(pagemap, SCAN, &scan), total = 0, i;

	require(regions >= 0, "PAGEMAP_SCAN");
	for (i = 0; i < regions; i++)
		total += (found[i].end - found[i].start) / 4096;
	return total;
}

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	int pagemap = open("/proc/self/pagemap", O_RDONLY), try, i, first, second;
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	pthread_t mover;
	char *start;

	require(pagemap >= 0, "pagemap");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd with WP_ASYNC");
	start = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	require(start != MAP_FAILED, "mmap");
	madvise(start, PAGES * 4096, MADV_NOHUGEPAGE);
	area.range.start = (uintptr_t)start;
	area.range.len = PAGES * 4096;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	for (i = 0; i < PAGES; i++)
		*(char *)(pages[i] = start + i * 4096) = 1;
	require(pthread_create(&mover, NULL, move, NULL) == 0, "pthread_create");
	await_arrival();

	for (try = 1; try <= MOST_TRIES; try++) {
		for (i = 0; i < PAGES; i++)
			start[i * 4096] = try;
		usleep(random() % 3000);
		first = written(pagemap, WP_MATCHING | CHECK_WPASYNC);
		await_arrival();
		second = written(pagemap, 0);
		if (second) {
			printf("try %d: %d pages were reported and protected; "
			       "BUG: %d are reported again, and nobody wrote to them\n",
			       try, first, second);
			return 1;
		}
	}
	printf("in %d tries no page was reported twice\n", MOST_TRIES);
	return 0;
}
