// SPDX-License-Identifier: GPL-2.0-only
/*
 * Maps memory, registers it for write-protection, and does one step after another
 * on it, each timed around its calls.  What the steps cost is printed at the end,
 * so that nothing is written between them.
 *
 * usage: measure KIND THP FEATURES BYTES STEP[:EVERY]...
 *   KIND      anon, shmem (a shared memfd) or hugetlb (a private one, 2 MiB)
 *   THP       on or off: what madvise(2) asks for
 *   FEATURES  UFFD_FEATURE_* that UFFDIO_API asks for, or - for no userfaultfd
 *   STEP      a name of the table below, for each page or every EVERYth
 *
 * Prints a line for each step: its name, nanoseconds, and what it counted; for the
 * step `look`: VmPTE and AnonHugePages in bytes, and the bytes that PAGEMAP_SCAN
 * calls present, huge, zero page, and swapped (markers), or -1 where it is absent.
 *
 * The build defines the UAPI's numbers, from helpers/uapi.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "read_pages.h"
#include "uapi.h"

#define HUGE_BYTES (2UL << 20)
#define MARKER 0x4000000000000400UL	/* some pte that isn't zero */
#define SOFT_DIRTY (1UL << 55)

static char *start;		/* the memory under test */
static uint64_t bytes;
static uint64_t page_bytes;	/* of a page in it */
static int uffd = -1;
static int pagemap;
static uint64_t *tables;	/* as much memory as the range's page tables take */
static volatile uint64_t faults;	/* resolved by the thread of `serve` or by on_segv() */

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000UL + time.tv_nsec;
}

/* -- steps: each returns what it counted */

static void protect_range(uint64_t address, uint64_t length, uint64_t mode)
{
	struct uffdio_writeprotect range = { .start = address, .len = length, .mode = mode };

	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &range))
		die("UFFDIO_WRITEPROTECT");
}

static uint64_t step_protect(uint64_t every)
{
	(void)every;
	protect_range((uintptr_t)start, bytes, 1);
	return 0;
}

static uint64_t step_unprotect(uint64_t every)
{
	(void)every;
	protect_range((uintptr_t)start, bytes, 0);
	return 0;
}

static uint64_t step_read(uint64_t every)
{
	read_pages(start, start + bytes, every * page_bytes);
	return 0;
}

static uint64_t step_populate(uint64_t every)
{
	(void)every;
	if (madvise(start, bytes, MADV_POPULATE_READ))
		die("MADV_POPULATE_READ");
	return 0;
}

/* Counts the faults that were delivered to user space. */
static uint64_t step_write(uint64_t every)
{
	char *page;

	faults = 0;
	for (page = start; page < start + bytes; page += every * page_bytes)
		*(volatile char *)page = 1;
	return faults;
}

static void *serve(void *unused)
{
	struct uffd_message message;

	(void)unused;
	while (read(uffd, &message, sizeof(message)) == sizeof(message)) {
		faults++;
		protect_range(message.argument[1] & -page_bytes, page_bytes, 0);
	}
	return NULL;
}

/* Starts a thread that unprotects each page on which a writer waits. */
static uint64_t step_serve(uint64_t every)
{
	pthread_t thread;

	(void)every;
	errno = pthread_create(&thread, NULL, serve, NULL);
	if (errno)
		die("pthread_create");
	return 0;
}

static void on_segv(int number, siginfo_t *info, void *context)
{
	uintptr_t address = (uintptr_t)info->si_addr;

	(void)number;
	(void)context;
	faults++;
	if (address - (uintptr_t)start >= bytes ||
	    mprotect((void *)(address & -page_bytes), page_bytes, PROT_READ | PROT_WRITE))
		_exit(2);
}

static uint64_t step_mprotect(uint64_t every)
{
	struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO };

	(void)every;
	sigaction(SIGSEGV, &action, NULL);
	if (mprotect(start, bytes, PROT_READ))
		die("mprotect");
	return faults;
}

struct categories {
	uint64_t mask;		/* all of these */
	uint64_t anyof;		/* one of these */
	uint64_t flags;
};

/* Adds up, for each category, the bytes of the pages that match; false without the ioctl. */
static int scan(struct categories wanted, uint64_t sums[64])
{
	static struct page_region regions[4096];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.flags = wanted.flags,
		.start = (uintptr_t)start,
		.end = (uintptr_t)start + bytes,
		.vec = (uintptr_t)regions,
		.vec_len = sizeof(regions) / sizeof(*regions),
		.category_mask = wanted.mask,
		.category_anyof_mask = wanted.anyof,
		.return_mask = wanted.mask | wanted.anyof | PAGE_IS_HUGE | PAGE_IS_PFNZERO,
	};
	long found, i;
	int bit;

	for (; scan.start < scan.end; scan.start = scan.walk_end) {
		found = ioctl(pagemap, PAGEMAP_SCAN, &scan);
		if (found < 0)
			return 0;
		for (i = 0; i < found; i++)
			for (bit = 0; bit < 64; bit++)
				if (regions[i].categories >> bit & 1)
					sums[bit] += regions[i].end - regions[i].start;
	}
	return 1;
}

/* Collects the pages that were written, and protects these again. */
static uint64_t step_scan(uint64_t every)
{
	struct categories written = {
		.mask = PAGE_IS_WRITTEN, .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
	};
	uint64_t sums[64] = { 0 };

	(void)every;
	if (!scan(written, sums))
		die("PAGEMAP_SCAN");
	return sums[__builtin_ctzl(PAGE_IS_WRITTEN)] / page_bytes;
}

/* Collects the soft-dirty pages, and clears the bits. */
static uint64_t step_softdirty(uint64_t every)
{
	static uint64_t entries[1 << 16];
	uint64_t first = (uintptr_t)start / page_bytes, count = bytes / page_bytes;
	uint64_t done, dirty = 0;
	ssize_t got, i;
	int clear;

	(void)every;
	for (done = 0; done < count; done += got / 8) {
		got = (count - done) * 8;
		if (got > (ssize_t)sizeof(entries))
			got = sizeof(entries);
		got = pread(pagemap, entries, got, (first + done) * 8);
		if (got <= 0)
			die("pagemap");
		for (i = 0; i < got / 8; i++)
			dirty += !!(entries[i] & SOFT_DIRTY);
	}
	clear = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	if (clear < 0 || write(clear, "4", 1) != 1)
		die("clear_refs");
	close(clear);
	return dirty;
}

/* Maps and touches the memory for `tables`. */
static uint64_t step_buffer(uint64_t every)
{
	(void)every;
	tables = mmap(NULL, bytes / 512, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (tables == MAP_FAILED)
		die("mmap");
	memset(tables, 1, bytes / 512);
	return 0;
}

/* Writes what a kernel must write to fill page tables: clears a table, then marks each entry. */
static uint64_t step_tables(uint64_t every)
{
	uint64_t *table, i;

	(void)every;
	for (table = tables; table < tables + bytes / 4096; table += 512) {
		memset(table, 0, 4096);
		__asm__ volatile("" : : "r"(table) : "memory");	/* two writes, not one */
		for (i = 0; i < 512; i++)
			table[i] = MARKER;
	}
	__asm__ volatile("" : : "r"(tables) : "memory");
	return 0;
}

/* -- proof */

static long long kilobytes(const char *path, const char *name)
{
	static char text[1 << 14];
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
	char *found;

	if (length < 0)
		die(path);
	close(file);
	text[length] = '\0';
	found = strstr(text, name);
	return found ? strtoll(found + strlen(name), NULL, 10) : 0;
}

static void look(void)
{
	struct categories any = { .anyof = PAGE_IS_PRESENT | PAGE_IS_SWAPPED };
	uint64_t shown[] = { PAGE_IS_PRESENT, PAGE_IS_HUGE, PAGE_IS_PFNZERO, PAGE_IS_SWAPPED };
	uint64_t sums[64] = { 0 };
	size_t i;
	int known;

	printf("look %lld", kilobytes("/proc/self/status", "VmPTE:") << 10);
	printf(" %lld", kilobytes("/proc/self/smaps_rollup", "AnonHugePages:") << 10);
	known = scan(any, sums);
	for (i = 0; i < sizeof(shown) / sizeof(*shown); i++)
		printf(" %lld", known ? (long long)sums[__builtin_ctzl(shown[i])] : -1LL);
	printf("\n");
}

/* -- arrangement */

static void open_userfaultfd(uint64_t features)
{
	struct uffdio_api api = { .api = 0xaa, .features = features };
	struct uffdio_register range = { .start = (uintptr_t)start, .len = bytes, .mode = 2 };

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | 1);		/* UFFD_USER_MODE_ONLY, 5.11 */
	if (uffd < 0 && errno == EINVAL)
		uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0)
		die("userfaultfd");
	if (ioctl(uffd, UFFDIO_API, &api))
		die("UFFDIO_API");
	if (ioctl(uffd, UFFDIO_REGISTER, &range))
		die("UFFDIO_REGISTER");
}

/* As the thread's program does: one anonymous mapping, larger than what is tested of it. */
static void map_anonymous(void)
{
	char *space = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (space == MAP_FAILED)
		die("mmap");
	start = (char *)(((uintptr_t)space + HUGE_BYTES - 1) & -HUGE_BYTES);
}

static void map_file(int file, int flags)
{
	map_anonymous();
	if (file < 0 || ftruncate(file, bytes))
		die("memfd_create");
	if (mmap(start, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0) == MAP_FAILED)
		die("mmap");
}

static void map(const char *kind, int huge)
{
	page_bytes = 4096;
	if (!strcmp(kind, "anon")) {
		map_anonymous();
	} else if (!strcmp(kind, "shmem")) {
		map_file(memfd_create("shmem", MFD_CLOEXEC), MAP_SHARED);
	} else {
		page_bytes = HUGE_BYTES;
		map_file(memfd_create("hugetlb", MFD_CLOEXEC | MFD_HUGETLB | 21 << 26), MAP_PRIVATE);
	}
	if (page_bytes == 4096 && madvise(start, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		die(huge ? "MADV_HUGEPAGE" : "MADV_NOHUGEPAGE");
}

static const struct {
	const char *name;
	uint64_t (*run)(uint64_t every);
} steps[] = {
	{ "read", step_read },			/* a load from each page, as PRE-READ does */
	{ "populate", step_populate },		/* MADV_POPULATE_READ */
	{ "protect", step_protect },
	{ "unprotect", step_unprotect },
	{ "serve", step_serve },
	{ "write", step_write },
	{ "mprotect", step_mprotect },
	{ "scan", step_scan },
	{ "softdirty", step_softdirty },
	{ "buffer", step_buffer },
	{ "tables", step_tables },
};

static void do_step(char *word)
{
	uint64_t begun, count, ended, every;
	char *colon = strchr(word, ':');
	size_t i;

	if (!strcmp(word, "look")) {
		look();
		return;
	}
	every = colon ? strtoul(colon + 1, NULL, 0) : 1;
	if (colon)
		*colon = '\0';
	for (i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		if (strcmp(word, steps[i].name))
			continue;
		begun = now();
		count = steps[i].run(every);
		ended = now();
		printf("%s %lu %lu\n", word, ended - begun, count);
		return;
	}
	errno = EINVAL;
	die(word);
}

int main(int count, char **words)
{
	int i;

	if (count < 5)
		return 2;
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bytes = strtoul(words[4], NULL, 0);
	map(words[1], !strcmp(words[2], "on"));
	if (strcmp(words[3], "-"))
		open_userfaultfd(strtoul(words[3], NULL, 0));
	for (i = 5; i < count; i++)
		do_step(words[i]);
	return 0;
}
