// SPDX-License-Identifier: GPL-2.0-only
/*
 * The four cases of the patch's thread with nothing around them, as one would write
 * them on the spot: what the benchmark's figures are held against.
 *
 * usage: bare CASE THP BYTES
 *   CASE  DEFAULT, PRE-READ, MADVISE or WP-UNPOPULATE
 *   THP   on or off
 *
 * Prints the nanoseconds that the prefault and the protection took.
 */
#define _GNU_SOURCE
#include <fcntl.h>
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

int main(int count, char **words)
{
	int unpopulated = count == 4 && !strcmp(words[1], "WP-UNPOPULATE");
	uint64_t bytes = count == 4 ? strtoul(words[3], NULL, 0) : 0, huge = 2UL << 20;
	struct uffdio_api api = { .api = 0xaa, .features = unpopulated ? 1 << 13 : 0 };
	struct uffdio_register registered = { .len = bytes, .mode = 2 };
	struct uffdio_writeprotect protected = { .len = bytes, .mode = 1 };
	struct timespec begun, faulted, ended;
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	char *space = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *memory = (char *)(((uintptr_t)space + huge - 1) & -huge);

	registered.start = protected.start = (uintptr_t)memory;
	if (madvise(memory, bytes, strcmp(words[2], "on") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE) ||
	    ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &registered))
		return 1;

	clock_gettime(CLOCK_MONOTONIC, &begun);
	if (!strcmp(words[1], "PRE-READ"))
		read_pages(memory, memory + bytes, 4096);
	else if (!strcmp(words[1], "MADVISE") && madvise(memory, bytes, MADV_POPULATE_READ))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &faulted);
	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &protected))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &ended);

	printf("%ld %ld\n",
	       (faulted.tv_sec - begun.tv_sec) * 1000000000 + faulted.tv_nsec - begun.tv_nsec,
	       (ended.tv_sec - faulted.tv_sec) * 1000000000 + ended.tv_nsec - faulted.tv_nsec);
	return 0;
}
