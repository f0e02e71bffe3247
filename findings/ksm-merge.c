// SPDX-License-Identifier: GPL-2.0-only
/*
 * KSM takes the userfaultfd write-protection from the pages that it merges.
 * The text for the mailing list is in ksm-merge.md.
 *
 *	cc -o ksm-merge ksm-merge.c && ./ksm-merge
 *
 * It runs as root: it starts KSM, and puts its settings back.
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here.
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

#define PAGES 16
#define SCANS 4
#define KSM "/sys/kernel/mm/ksm/"
#define UFFD_WP (1ULL << 57)	/* of a pagemap word */
#define PFN ((1ULL << 55) - 1)

static int run_before = -1, pace_before = -1;

static int get(const char *name)
{
	FILE *file = fopen(name, "r");
	int value = -1;

	if (file && fscanf(file, "%d", &value) != 1)
		value = -1;
	if (file)
		fclose(file);
	return value;
}

static int put(const char *name, int value)
{
	FILE *file = fopen(name, "w");

	if (!file)
		return 0;
	fprintf(file, "%d", value);
	return fclose(file) == 0;
}

static void restore(void)
{
	if (pace_before >= 0)
		put(KSM "pages_to_scan", pace_before);
	if (run_before >= 0)
		put(KSM "run", run_before);
}

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

int main(void)
{
	size_t page = sysconf(_SC_PAGESIZE), size = PAGES * page;
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), pagemap, scans, i;
	int merged = 0, kept = 0;
	uint64_t words[PAGES];
	char *start;

	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
	start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(start != MAP_FAILED, "mmap");
	memset(start, 7, size);
	area.range.start = protect.range.start = (uintptr_t)start;
	area.range.len = protect.range.len = size;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");

	require(madvise(start, size, MADV_MERGEABLE) == 0, "MADV_MERGEABLE");
	run_before = get(KSM "run");
	pace_before = get(KSM "pages_to_scan");
	atexit(restore);
	scans = get(KSM "full_scans") + SCANS;
	require(put(KSM "pages_to_scan", 100000) && put(KSM "run", 1), KSM);
	for (i = 0; get(KSM "full_scans") < scans; i++) {
		require(i < 1000, "full scans of KSM");
		usleep(10000);
	}

	pagemap = open("/proc/self/pagemap", O_RDONLY);
	require(pagemap >= 0 && pread(pagemap, words, sizeof(words), (uintptr_t)start / page * 8) ==
		sizeof(words), "pagemap");
	for (i = 0; i < PAGES; i++) {
		merged += words[i] & PFN && (words[i] & PFN) == (words[!i] & PFN);
		kept += !!(words[i] & UFFD_WP);
	}
	printf("of %d protected pages %d were merged, and %d are still protected\n",
	       PAGES, merged, kept);
	return merged ? kept != PAGES : 2;
}
