// SPDX-License-Identifier: GPL-2.0-only
/*
 * UFFDIO_COPY with UFFDIO_COPY_MODE_WP leaves a uffd-wp bit in a hugetlb range that is registered
 * for missing pages alone.  The text for the mailing list is in hugetlb-copy-wp.md.
 *
 *	cc -o hugetlb-copy-wp hugetlb-copy-wp.c -pthread && ./hugetlb-copy-wp
 *
 * Needs one free huge page of 2 MiB (vm.nr_hugepages), and a userfaultfd that sees the kernel's
 * faults (as root).  Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HUGE (2UL << 20)
#define PM_UFFD_WP (1ULL << 57)

static int target_uffd;
static struct uffdio_copy copy = { .len = HUGE, .mode = UFFDIO_COPY_MODE_WP };
static int error;

static void require(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	exit(2);
}

static char *map(int flags)
{
	char *start = mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	require(start != MAP_FAILED, "mmap");
	return start;
}

static int watch(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

	require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
	return uffd;
}

static void enrol(int uffd, uint64_t start, uint64_t mode)
{
	struct uffdio_register area = { .range = { start, HUGE }, .mode = mode };

	require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
}

static void *fill(void *unused)
{
	error = ioctl(target_uffd, UFFDIO_COPY, &copy) ? errno : 0;
	return unused;
}

int main(void)
{
	char *target = map(MAP_HUGETLB | MAP_HUGE_2MB), *source = map(0);
	struct uffdio_range range = { (uintptr_t)target, HUGE };
	struct uffdio_zeropage zeros = { .range = { (uintptr_t)source, HUGE } };
	int words = open("/proc/self/pagemap", O_RDONLY), source_uffd = watch();
	struct uffd_msg message;
	pthread_t thread;
	uint64_t word;

	target_uffd = watch();
	enrol(source_uffd, (uintptr_t)source, UFFDIO_REGISTER_MODE_MISSING);
	enrol(target_uffd, range.start, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);

	copy.dst = (uintptr_t)target;
	copy.src = (uintptr_t)source;
	require(pthread_create(&thread, NULL, fill, NULL) == 0, "pthread_create");
	require(read(source_uffd, &message, sizeof(message)) == sizeof(message), "a message");

	/* UFFDIO_COPY waits for its source, and holds no lock */
	require(ioctl(target_uffd, UFFDIO_UNREGISTER, &range) == 0, "UFFDIO_UNREGISTER");
	enrol(target_uffd, range.start, UFFDIO_REGISTER_MODE_MISSING);
	require(ioctl(source_uffd, UFFDIO_ZEROPAGE, &zeros) == 0, "UFFDIO_ZEROPAGE");
	pthread_join(thread, NULL);

	require(pread(words, &word, sizeof(word),
		      (uintptr_t)target / sysconf(_SC_PAGESIZE) * sizeof(word)) == sizeof(word),
		"pagemap");
	printf("UFFDIO_COPY with MODE_WP: %s\n", strerror(error));
	if (word & PM_UFFD_WP) {
		puts("BUG: a page that is not registered for write-protect has the uffd-wp bit");
		return 1;
	}
	puts("no page is write-protected");
	return 0;
}
