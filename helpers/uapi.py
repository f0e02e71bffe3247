# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of the user-space interfaces under test, independent of installed headers.

Sources: include/uapi/linux/userfaultfd.h, include/uapi/linux/fs.h (PAGEMAP_SCAN),
include/uapi/asm-generic/mman-common.h, lib/test_hmm_uapi.h,
Documentation/admin-guide/mm/pagemap.rst. A comment names the first kernel that has a number
where that is later than 5.7, which brought write-protect. The generic _IOC encoding is used
(x86, arm64, riscv, s390, loongarch).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

UFFD_API = 0xAA


class Feature(IntFlag):
    """UFFD_FEATURE_*, asked for and answered by UFFDIO_API."""

    PAGEFAULT_FLAG_WP = 1 << 0
    EVENT_FORK = 1 << 1
    EVENT_REMAP = 1 << 2
    EVENT_REMOVE = 1 << 3
    MISSING_HUGETLBFS = 1 << 4
    MISSING_SHMEM = 1 << 5
    EVENT_UNMAP = 1 << 6
    SIGBUS = 1 << 7
    THREAD_ID = 1 << 8
    MINOR_HUGETLBFS = 1 << 9  # 5.13
    MINOR_SHMEM = 1 << 10  # 5.14
    EXACT_ADDRESS = 1 << 11  # 5.18
    WP_HUGETLBFS_SHMEM = 1 << 12  # 5.19
    WP_UNPOPULATED = 1 << 13  # 6.4
    POISON = 1 << 14  # 6.6
    WP_ASYNC = 1 << 15  # 6.7
    MOVE = 1 << 16  # 6.8
    RWP = 1 << 17  # 7.3
    RWP_ASYNC = 1 << 18  # 7.3


class RegisterMode(IntFlag):
    """UFFDIO_REGISTER_MODE_*."""

    MISSING = 1 << 0
    WP = 1 << 1
    MINOR = 1 << 2  # 5.13
    RWP = 1 << 3  # 7.3


class ProtectMode(IntFlag):
    """UFFDIO_WRITEPROTECT_MODE_*, and UFFDIO_RWPROTECT_MODE_*, whose RWP is WP's bit."""

    WP = 1 << 0
    DONTWAKE = 1 << 1


class CopyMode(IntFlag):
    """UFFDIO_COPY_MODE_*; ZEROPAGE, CONTINUE, POISON and MOVE share DONTWAKE."""

    DONTWAKE = 1 << 0
    WP = 1 << 1


MOVE_ALLOW_SRC_HOLES = 1 << 1  # of UFFDIO_MOVE, 6.8


class FaultFlag(IntFlag):
    """UFFD_PAGEFAULT_FLAG_* of a page-fault message."""

    WRITE = 1 << 0
    WP = 1 << 1
    MINOR = 1 << 2  # 5.13
    RWP = 1 << 3  # 7.3


class Event(IntEnum):
    """UFFD_EVENT_*: what a message tells."""

    PAGEFAULT = 0x12
    FORK = 0x13
    REMAP = 0x14
    REMOVE = 0x15
    UNMAP = 0x16


def _iowr(kind: int, number: int, size: int) -> int:
    return 3 << 30 | size << 16 | kind << 8 | number


class Ioctl(IntEnum):
    """The ioctl requests; each carries the size in bytes of its structure."""

    UFFDIO_API = _iowr(0xAA, 0x3F, 24)
    UFFDIO_REGISTER = _iowr(0xAA, 0x00, 32)
    UFFDIO_UNREGISTER = 2 << 30 | 16 << 16 | 0xAA << 8 | 0x01
    UFFDIO_WAKE = 2 << 30 | 16 << 16 | 0xAA << 8 | 0x02
    UFFDIO_COPY = _iowr(0xAA, 0x03, 40)
    UFFDIO_ZEROPAGE = _iowr(0xAA, 0x04, 32)
    UFFDIO_MOVE = _iowr(0xAA, 0x05, 40)  # 6.8
    UFFDIO_WRITEPROTECT = _iowr(0xAA, 0x06, 24)
    UFFDIO_CONTINUE = _iowr(0xAA, 0x07, 32)  # 5.13
    UFFDIO_POISON = _iowr(0xAA, 0x08, 32)  # 6.6
    UFFDIO_RWPROTECT = _iowr(0xAA, 0x09, 24)  # 7.3
    UFFDIO_SET_MODE = 1 << 30 | 16 << 16 | 0xAA << 8 | 0x0A  # 7.3
    USERFAULTFD_IOC_NEW = 0xAA << 8 | 0x00  # 6.1
    PAGEMAP_SCAN = _iowr(ord("f"), 16, 96)  # 6.7
    HMM_DMIRROR_MIGRATE_TO_DEV = _iowr(ord("H"), 2, 40)  # of the test driver for device memory
    HMM_DMIRROR_MIGRATE_TO_SYS = _iowr(ord("H"), 3, 40)
    HMM_DMIRROR_SNAPSHOT = _iowr(ord("H"), 4, 40)
    HMM_DMIRROR_EXCLUSIVE = _iowr(ord("H"), 5, 40)
    HMM_DMIRROR_CHECK_EXCLUSIVE = _iowr(ord("H"), 6, 40)


UFFD_USER_MODE_ONLY = 1  # flag of userfaultfd(2) and USERFAULTFD_IOC_NEW, 5.11


class Prot(IntFlag):
    """PROT_*."""

    NONE = 0
    READ = 1
    WRITE = 2
    RW = READ | WRITE


class Map(IntFlag):
    """MAP_*."""

    SHARED = 0x01
    PRIVATE = 0x02
    DROPPABLE = 0x08  # 6.11
    FIXED = 0x10
    ANONYMOUS = 0x20
    GROWSDOWN = 0x100
    NORESERVE = 0x4000
    FIXED_NOREPLACE = 0x100000


class Advice(IntEnum):
    """MADV_*."""

    NORMAL = 0
    SEQUENTIAL = 2
    WILLNEED = 3
    DONTNEED = 4
    FREE = 8
    REMOVE = 9
    DONTFORK = 10
    DOFORK = 11
    MERGEABLE = 12
    UNMERGEABLE = 13
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    WIPEONFORK = 18
    KEEPONFORK = 19
    COLD = 20
    PAGEOUT = 21
    POPULATE_READ = 22  # 5.14
    POPULATE_WRITE = 23  # 5.14
    DONTNEED_LOCKED = 24  # 5.18
    COLLAPSE = 25  # 6.1
    GUARD_INSTALL = 102  # 6.13
    GUARD_REMOVE = 103  # 6.13


class Category(IntFlag):
    """PAGE_IS_* of PAGEMAP_SCAN (6.7)."""

    WPALLOWED = 1 << 0
    WRITTEN = 1 << 1
    FILE = 1 << 2
    PRESENT = 1 << 3
    SWAPPED = 1 << 4
    PFNZERO = 1 << 5
    HUGE = 1 << 6
    SOFT_DIRTY = 1 << 7
    GUARD = 1 << 8  # 6.16
    ACCESSED = 1 << 9  # 7.3


class ScanFlag(IntFlag):
    """PM_SCAN_*."""

    WP_MATCHING = 1 << 0
    CHECK_WPASYNC = 1 << 1


# since 5.1 the numbers are those of all machines
NEW_SYSCALLS = {
    "pidfd_open": 434,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "process_madvise": 440,  # 5.10
    "memfd_secret": 447,  # 5.14
}

MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
MFD_CLOEXEC, MFD_HUGETLB, MFD_HUGE_2MB = 1, 4, 21 << 26
MPOL_BIND, MPOL_MF_STRICT, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL = 2, 1, 2, 4
O_TMPFILE = 0o20200000
AT_FDCWD = -100
MLOCK_ONFAULT = 1
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
FUTEX_WAKE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP, FUTEX_PRIVATE_FLAG = 1, 4, 5, 128
PTRACE_PEEKDATA, PTRACE_POKEDATA, PTRACE_SEIZE, PTRACE_INTERRUPT = 2, 5, 0x4206, 0x4207
SPLICE_F_GIFT = 8
SCHED_FIFO = 1
WALL = 0x40000000  # __WALL of wait4(2): threads, too
SA_ONSTACK = 0x08000000
BUS_MCEERR_AR = 4  # si_code of SIGBUS: memory that is accessed has failed
EHWPOISON = 133  # an errno that Python has no name for before 3.14
BUS_MCEERR_AR = 4  # si_code of a SIGBUS on a poisoned page
