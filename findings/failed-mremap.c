// SPDX-License-Identifier: GPL-2.0-only
/*
 * An mremap(2) that fails for want of memory loses the userfaultfd write-protection of the range
 * that it leaves where it was.  The text for the mailing list is in failed-mremap.md.
 *
 *	cc -o failed-mremap failed-mremap.c && ./failed-mremap GROUP
 *
 * GROUP is an empty memory cgroup, of v1 or v2, that this program may use: it sets its limit.
 * It runs as root.  Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here.
 */
#define _GNU_SOURCE
#include <errno.h>
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

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#define SIZE (256UL << 20)
#define UFFD_WP (1ULL << 57)	/* of a pagemap word */

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

/* One write(2) of TEXT to the file NAME; false where that fails. */
static int put(const char *folder, const char *name, const char *text)
{
	char path[4096];
	int file, done;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = open(path, O_WRONLY);
	if (file < 0)
		return 0;
	done = write(file, text, strlen(text)) > 0;
	close(file);
	return done;
}

static int get(const char *folder, const char *name, char *text, size_t size)
{
	char path[4096];
	int file;
	ssize_t got;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = open(path, O_RDONLY);
	if (file < 0)
		return 0;
	got = read(file, text, size - 1);
	close(file);
	text[got > 0 ? got : 0] = 0;
	return got > 0;
}

static size_t protected_pages(const char *start, size_t page)
{
	static uint64_t words[SIZE / 4096];
	size_t count = SIZE / page, found = 0, i;
	int pagemap = open("/proc/self/pagemap", O_RDONLY);

	require(pagemap >= 0, "pagemap");
	require(pread(pagemap, words, count * 8, (uintptr_t)start / page * 8) ==
		(ssize_t)(count * 8), "pagemap");
	close(pagemap);
	for (i = 0; i < count; i++)
		found += !!(words[i] & UFFD_WP);
	return found;
}

int main(int count, char **words)
{
	size_t page = sysconf(_SC_PAGESIZE), before, after;
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_UNPOPULATED };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	const char *group = words[1], *limit = "memory.max", *none = "max";
	char usage[32], *start, *target, *moved;
	int uffd, error;

	if (count != 2) {
		fprintf(stderr, "usage: %s GROUP\n", words[0]);
		return 2;
	}
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
	start = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	target = mmap(NULL, SIZE + 4096 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	require(start != MAP_FAILED && target != MAP_FAILED, "mmap");
	target += page;		/* page tables can't be moved as a whole */
	area.range.start = protect.range.start = (uintptr_t)start;
	area.range.len = protect.range.len = SIZE;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
	before = protected_pages(start, page);

	require(put(group, "cgroup.procs", "0"), "cgroup.procs");
	if (get(group, "memory.usage_in_bytes", usage, sizeof(usage))) {
		limit = "memory.limit_in_bytes";
		none = "-1";
		require(put(group, "memory.oom_control", "1"), "memory.oom_control");
	} else {
		require(get(group, "memory.current", usage, sizeof(usage)), "memory.current");
		require(put("/proc/self", "oom_score_adj", "-1000"), "oom_score_adj");
	}
	require(put(group, limit, usage), limit);
	moved = mremap(start, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, target);
	error = errno;
	put(group, limit, none);
	errno = error;
	require(moved == MAP_FAILED && error == ENOMEM, "mremap, which was to fail with ENOMEM");

	after = protected_pages(start, page);
	printf("protected pages before the mremap(2) that failed: %zu, after it: %zu\n",
	       before, after);
	return before != after;
}
