// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device that takes a write-protected zero page drops its protection.  The text for the
 * mailing list is in device-zero-page.md.
 *
 *	cc -o device-zero-page device-zero-page.c && ./device-zero-page
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here (it needs root, and a
 * kernel with CONFIG_TEST_HMM).
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

#define PM_UFFD_WP (1ULL << 57)

struct device_command {		/* lib/test_hmm_uapi.h is not installed */
	uint64_t address, buffer, pages, done, faults;
};
#define MIGRATE_TO_DEVICE _IOWR('H', 0x02, struct device_command)

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

static int is_protected(const char *page, size_t size)
{
	static int file = -1;
	uint64_t word;

	if (file < 0)
		file = open("/proc/self/pagemap", O_RDONLY);
	require(pread(file, &word, sizeof(word), (uintptr_t)page / size * sizeof(word)) ==
		sizeof(word), "pagemap");
	return !!(word & PM_UFFD_WP);
}

int main(void)
{
	size_t size = sysconf(_SC_PAGESIZE);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	struct device_command command = { .pages = 1 };
	int device = open("/dev/hmm_dmirror0", O_RDWR);
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char *page, *buffer;

	require(device >= 0, "/dev/hmm_dmirror0");
	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	buffer = malloc(size);
	require(page != MAP_FAILED && buffer, "memory");

	*(volatile char *)page;		/* maps the zero page */
	area.range.start = protect.range.start = command.address = (uintptr_t)page;
	area.range.len = protect.range.len = size;
	command.buffer = (uintptr_t)buffer;
	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
	require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
	require(is_protected(page, size), "the zero page is not protected");

	ioctl(device, MIGRATE_TO_DEVICE, &command);	/* fails where the device gets no page */
	if (!is_protected(page, size)) {
		*(volatile char *)page = 1;		/* waits for ever where it is protected */
		puts("BUG: the page is not write-protected any more, and was written to");
		return 1;
	}
	puts("the page is write-protected still");
	return 0;
}
