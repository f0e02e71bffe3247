/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdint.h>

/*
 * Loads from each page.  A load of the huge zero page takes so little that the loop's
 * place in a cache line is 5 % of it: so that both programs pay the same, it starts one.
 */
static __attribute__((noinline, aligned(64))) void read_pages(char *page, char *end,
							       uint64_t step)
{
	for (; page < end; page += step)
		*(volatile char *)page;
}
