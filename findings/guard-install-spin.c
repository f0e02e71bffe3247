// SPDX-License-Identifier: GPL-2.0-only
/*
 * MADV_GUARD_INSTALL on a write-protected page of shared memory never returns.
 * The text for the mailing list is in guard-install-spin.md.
 *
 *	cc -o guard-install-spin guard-install-spin.c && ./guard-install-spin
 *
 * Exit status: 1 the bug shows, 0 it does not, 2 it can't be tried here.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define SECONDS 3

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
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int memory = syscall(SYS_memfd_create, "shared", 0), uffd, status;
	char *page;
	pid_t child;

	require(memory >= 0 && ftruncate(memory, size) == 0, "memfd");
	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	require(page != MAP_FAILED, "mmap");
	require(madvise(page, size, MADV_GUARD_INSTALL) == 0, "MADV_GUARD_INSTALL");
	require(madvise(page, size, MADV_GUARD_INSTALL + 1) == 0, "MADV_GUARD_REMOVE");

	child = fork();
	require(child >= 0, "fork");
	if (child == 0) {
		uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		require(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0, "userfaultfd");
		*page = 1;
		area.range.start = protect.range.start = (unsigned long)page;
		area.range.len = protect.range.len = size;
		require(ioctl(uffd, UFFDIO_REGISTER, &area) == 0, "UFFDIO_REGISTER");
		require(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
		alarm(SECONDS);
		require(madvise(page, size, MADV_GUARD_INSTALL) == 0, "MADV_GUARD_INSTALL");
		_exit(0);
	}
	require(waitpid(child, &status, 0) == child, "waitpid");
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
		printf("BUG: MADV_GUARD_INSTALL had not returned after %d seconds\n", SECONDS);
		return 1;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status))
		return 2;
	puts("MADV_GUARD_INSTALL returned");
	return 0;
}
