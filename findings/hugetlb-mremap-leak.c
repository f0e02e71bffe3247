// SPDX-License-Identifier: GPL-2.0-only
/*
 * mremap(2) of a part of a private hugetlb mapping leaks the reservation of the rest.
 *
 *	cc -o hugetlb-mremap-leak hugetlb-mremap-leak.c && ./hugetlb-mremap-leak
 *
 * Needs three free huge pages of 2 MiB (vm.nr_hugepages).  Exit status: 1 the bug shows, 0 it
 * does not, 2 it can't be set up.  Each run that shows it costs two huge pages until the next boot.
 */
#define _GNU_SOURCE
#include <linux/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE	(2UL << 20)
#define KNOB	"/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages"

static long reserved(void)
{
	FILE *file = fopen(KNOB, "r");
	long pages;

	if (!file || fscanf(file, "%ld", &pages) != 1) {
		perror(KNOB);
		exit(2);
	}
	fclose(file);
	return pages;
}

static char *must(void *mapped, const char *what)
{
	if (mapped == MAP_FAILED) {
		perror(what);
		exit(2);
	}
	return mapped;
}

int main(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	long before = reserved(), after;
	char *room, *memory, *moved;

	room = must(mmap(NULL, 10 * HUGE, PROT_NONE, flags | MAP_NORESERVE, -1, 0), "mmap");
	memory = (char *)(((unsigned long)room + HUGE - 1) & ~(HUGE - 1));
	must(mmap(memory, 3 * HUGE, PROT_READ | PROT_WRITE,
		  flags | MAP_FIXED | MAP_HUGETLB | (21 << MAP_HUGE_SHIFT), -1, 0),
	     "three huge pages");
	moved = must(mremap(memory + HUGE, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			    memory + 5 * HUGE), "mremap");
	munmap(moved, HUGE);
	munmap(memory, 3 * HUGE);
	after = reserved();
	printf("reserved huge pages: %ld before, %ld after all was unmapped\n", before, after);
	return after > before;
}
