# SPDX-License-Identifier: GPL-2.0-only
"""What the running kernel and machine offer, probed once, and what a case may need of them.

A `Need` names what is missing and what to do, for the reason of a skip. Nothing here looks
at a version number to decide: versions only tell the reader where to find a thing. And no
probe rests on a behaviour that a case tests: a fault must fail cases, not skip them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOTTY
from functools import cache, partial
from mmap import PAGESIZE
from pathlib import Path

from helpers import pagemap, procfs, swap
from helpers.procfs import HUGETLB_KNOBS, MTHP_KNOBS, THP_KNOBS, chosen
from helpers.subject import Subject
from helpers.uapi import Advice, Category, Feature, Ioctl, Map, Prot
from helpers.uffd import DEVICE, Access, Userfaultfd

_SYSCTL = Path("/proc/sys/vm/unprivileged_userfaultfd")

FIRST_KERNEL = {
    Feature.MINOR_HUGETLBFS: "5.13",
    Feature.MINOR_SHMEM: "5.14",
    Feature.EXACT_ADDRESS: "5.18",
    Feature.WP_HUGETLBFS_SHMEM: "5.19",
    Feature.WP_UNPOPULATED: "6.4",
    Feature.POISON: "6.6",
    Feature.WP_ASYNC: "6.7",
    Feature.MOVE: "6.8",
    Feature.RWP: "7.3",
    Feature.RWP_ASYNC: "7.3",
}


@dataclass(frozen=True)
class Machine:
    """The running kernel, as this process may use it."""

    release: str
    access: Access | None  # None: no userfaultfd at all, for the reason in `closed`
    closed: str
    features: Feature
    privileged: bool  # PFNs in pagemap, kernel faults, other users' files
    thp: str  # always, madvise, never; "" without THP
    pmd_bytes: int  # of a PMD-mapped THP; 0 without THP
    zero_page_knob: bool  # huge zero pages are used
    pagemap_scan: bool
    guard_category: bool  # PAGEMAP_SCAN knows guard pages
    user_mode: bool  # UFFD_USER_MODE_ONLY is known
    kpageflags: bool  # /proc/kpageflags can be read
    advices: frozenset[Advice]  # those that madvise(2) knows
    soft_dirty: bool  # pagemap's bit 55 tells of writes
    droppable: bool  # MAP_DROPPABLE is known
    secret: bool  # memfd_secret(2) is known and enabled
    moves_pages: bool  # move_pages(2) is known
    open_to_all: bool  # vm.unprivileged_userfaultfd

    @property
    def pagemap_wp(self) -> bool:
        """Whether pagemap shows uffd-wp as bit 57. Looking for the bit would take a kernel that
        fails to set it for one that has none, so this asks for what came with it or after it."""
        return bool(self.features & (Feature.MINOR_SHMEM | Feature.WP_HUGETLBFS_SHMEM))

    @property
    def kernel_faults(self) -> bool:
        """Whether faults of the kernel's own accesses are delivered, too."""
        return self.access in (Access.SYSCALL, Access.DEVICE)

    def feature_names(self) -> list[str]:
        """The names of the features found; bit_N for those this suite has no name for."""
        named = [feature.name or "" for feature in Feature if feature in self.features]
        rest = int(self.features) & ~sum(Feature)
        return named + [f"bit_{bit}" for bit in range(64) if rest >> bit & 1]


def _access(subject: Subject) -> tuple[Access | None, str]:
    """The most able way to a userfaultfd, and why it isn't a better one."""
    reason = ""
    for access in Access:
        try:
            Userfaultfd.open(subject, access).close()
            return access, reason
        except OSError as error:
            reason = reason or procfs.errno_name(error.errno or 0)
    return None, reason


def _features(subject: Subject, access: Access | None) -> Feature:
    if access is None:
        return Feature(0)
    uffd = Userfaultfd.open(subject, access)
    try:
        return uffd.api()
    finally:
        uffd.close()


def _scans(subject: Subject) -> bool:
    """Whether PAGEMAP_SCAN is there: a pagemap without ioctls says ENOTTY, even to nonsense."""
    return subject.main.syscall("ioctl", subject.pagemap, Ioctl.PAGEMAP_SCAN, 0).error != ENOTTY


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def probe(root: Subject) -> Machine:
    """Probes the running kernel on a fork of `root`. Raises SubjectLost."""
    subject = root.fork(seconds=30.0)
    try:
        access, closed = _access(subject)
        start = subject.mmap(PAGESIZE, Prot.RW, Map.PRIVATE | Map.ANONYMOUS)
        return Machine(
            release=os.uname().release,
            access=access,
            closed=closed,
            features=_features(subject, access),
            privileged=os.geteuid() == 0,
            thp=chosen(THP_KNOBS / "enabled"),
            pmd_bytes=int(procfs.read(THP_KNOBS / "hpage_pmd_size", "0")),
            zero_page_knob=procfs.read(THP_KNOBS / "use_zero_page") == "1",
            pagemap_scan=_scans(subject),
            guard_category=_answers(
                lambda: pagemap.scan(subject, start, start, returned=Category.GUARD)
            ),
            user_mode=_answers(lambda: Userfaultfd.open(subject, Access.USER_MODE_ONLY).close()),
            kpageflags=os.access("/proc/kpageflags", os.R_OK) and os.geteuid() == 0,
            advices=frozenset(
                advice for advice in Advice if _answers(partial(subject.madvise, start, 0, advice))
            ),
            # a mapping is born soft-dirty
            soft_dirty=bool(pagemap.words(subject, start, 1)[0] & pagemap.SOFT_DIRTY),
            droppable=_answers(
                lambda: subject.mmap(PAGESIZE, Prot.RW, Map.DROPPABLE | Map.ANONYMOUS)
            ),
            secret=_answers(lambda: subject.syscall("memfd_secret", 0)),
            moves_pages=_answers(lambda: subject.syscall("move_pages", 0, 0, 0, 0, 0, 0)),
            open_to_all=procfs.read(_SYSCTL) == "1",
        )
    finally:
        subject.close()


@dataclass(frozen=True)
class Need:
    """Something a case needs of the machine, and what to do where it is missing."""

    met: Callable[[Machine], bool]
    remedy: str


def disposable() -> bool:
    """Whether the running kernel can be thrown away, as that of a guest can."""
    return os.environ.get("UFFD_WP_DISPOSABLE") == "1"


def uffd_remedy(machine: Machine) -> str:
    """One line on what is missing for userfaultfd, and what to do; "" where nothing is."""
    if machine.access is None and machine.closed == "ENOSYS":
        return "the kernel has no userfaultfd: boot one with CONFIG_USERFAULTFD=y"
    if machine.access is None:
        return (
            f"userfaultfd is closed to this user ({machine.closed}): run as root, or set "
            f"vm.unprivileged_userfaultfd=1, or give read and write access to {DEVICE}"
        )
    if machine.access is Access.USER_MODE_ONLY:
        return (
            "only user-mode faults can be handled: run as root, or set "
            f"vm.unprivileged_userfaultfd=1, or give read and write access to {DEVICE}"
        )
    return ""


UFFD = Need(
    lambda m: m.access is not None, "userfaultfd is closed or absent: see the head of the run"
)
KERNEL_FAULTS = Need(
    lambda m: m.kernel_faults,
    "faults of the kernel's own accesses can't be handled: run as root, or set "
    f"vm.unprivileged_userfaultfd=1, or give read and write access to {DEVICE}",
)
ROOT = Need(lambda m: m.privileged, "needs root: run as root")
NUMA = Need(
    lambda m: m.moves_pages and len(procfs.numa_nodes()) > 1,
    "pages can't be moved from one NUMA node to another: run it in a guest, by ./run-in-vm.sh, or "
    "boot with numa=fake=2, and from 7.3 on with CONFIG_NUMA_MIGRATION=y",
)
DISPOSABLE = Need(
    lambda _: disposable(),
    "it may hang the kernel, or changes its settings: run it in a guest, by ./run-in-vm.sh, or set "
    "UFFD_WP_DISPOSABLE=1 where the running kernel can be thrown away",
)
LOW_ADDRESSES = Need(
    lambda m: m.privileged and int(procfs.read("/proc/sys/vm/mmap_min_addr", "0")) > PAGESIZE,
    "needs root, and a vm.mmap_min_addr to stay below: run as root, sysctl vm.mmap_min_addr=65536",
)
DEVICE_OPEN = Need(
    lambda _: os.access(DEVICE, os.R_OK | os.W_OK),
    f"{DEVICE} is absent or closed: boot Linux 6.1 or later, and run as root",
)
USER_MODE = Need(
    lambda m: m.user_mode, "the kernel has no UFFD_USER_MODE_ONLY: boot Linux 5.11 or later"
)
PAGEMAP_WP = Need(
    lambda m: m.pagemap_wp, "pagemap doesn't show uffd-wp (bit 57): boot Linux 5.14 or later"
)
PAGEMAP_SCAN = Need(
    lambda m: m.pagemap_scan, "the kernel has no PAGEMAP_SCAN: boot Linux 6.7 or later"
)
GUARD_CATEGORY = Need(
    lambda m: m.guard_category, "PAGEMAP_SCAN knows no guard pages: boot Linux 6.16 or later"
)
ZERO_PAGE_SEEN = Need(
    lambda m: m.pagemap_scan or m.kpageflags,
    "nothing tells a zero page here: boot Linux 6.7 or later, or run as root",
)
HUGE_ZERO_PAGE_SEEN = Need(
    lambda m: m.pagemap_scan, "nothing tells a huge zero page here: boot Linux 6.7 or later"
)
WP_SHMEM = Need(
    lambda m: Feature.WP_HUGETLBFS_SHMEM in m.features,
    "the kernel can't write-protect shmem and hugetlb: boot Linux 5.19 or later "
    "with CONFIG_PTE_MARKER_UFFD_WP=y",
)
THP = Need(
    lambda m: m.thp in ("always", "madvise"),
    f"transparent huge pages are off: echo madvise > {THP_KNOBS}/enabled",
)
MTHP = Need(
    lambda _: MTHP_KNOBS.exists(), "the kernel has no THPs of 16 KiB: boot Linux 6.8 or later"
)
FILE_MTHP = Need(
    lambda _: (MTHP_KNOBS / "shmem_enabled").exists(),
    "the kernel has no THPs of 16 KiB in shared memory: boot Linux 6.11 or later",
)
HUGE_ZERO_PAGE = Need(
    lambda m: m.zero_page_knob, f"huge zero pages are off: echo 1 > {THP_KNOBS}/use_zero_page"
)
HUGETLB = Need(
    lambda _: HUGETLB_KNOBS.exists(), "the kernel has no 2 MiB hugetlb pages: CONFIG_HUGETLBFS=y"
)
SWAP = Need(
    lambda _: swap.offered(),
    "no swap: run as root on a kernel with CONFIG_ZRAM, or add a swap device (swapon(8))",
)
SWAPOFF = Need(
    lambda _: swap.exclusive(),
    "swap that the machine has is never turned off: run as root on a machine without, or in a "
    "guest, by ./run-in-vm.sh",
)


@cache
def feature(wanted: Feature) -> Need:
    """The need of userfaultfd features; shared, so that equal needs are one."""
    names = "|".join(part.name or "" for part in wanted)
    first = max((FIRST_KERNEL.get(part, "5.7") for part in wanted), key=_numeric, default="5.7")
    return Need(
        lambda m: wanted in m.features,
        f"the kernel lacks UFFD_FEATURE_{names}: boot Linux {first} or later",
    )


_FIRST_ADVICE = {
    Advice.POPULATE_READ: "5.14",
    Advice.POPULATE_WRITE: "5.14",
    Advice.DONTNEED_LOCKED: "5.18",
    Advice.COLLAPSE: "6.1",
    Advice.GUARD_INSTALL: "6.13",
    Advice.GUARD_REMOVE: "6.13",
}


@cache
def advice(wanted: Advice) -> Need:
    """The need of a madvise(2) advice."""
    first = _FIRST_ADVICE.get(wanted)
    remedy = f"boot Linux {first} or later" if first else "see its CONFIG option in madvise(2)"
    return Need(lambda m: wanted in m.advices, f"the kernel has no MADV_{wanted.name}: {remedy}")


DISK = Path(sys.executable).resolve()  # a file that is there anyway
DISK_FILE = Need(
    lambda _: procfs.file_system(DISK) not in ("tmpfs", "hugetlbfs"),
    "Python itself lies on a tmpfs: install it on a disk",
)
SOFT_DIRTY = Need(
    lambda m: m.soft_dirty,
    "the kernel has no soft-dirty bit: boot one with CONFIG_MEM_SOFT_DIRTY=y",
)
DROPPABLE = Need(lambda m: m.droppable, "the kernel has no MAP_DROPPABLE: boot Linux 6.11 or later")
SECRET = Need(
    lambda m: m.secret,
    "memfd_secret(2) is absent or off: boot Linux 5.14 or later with secretmem.enable=1",
)


def _numeric(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
