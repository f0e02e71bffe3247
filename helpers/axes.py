# SPDX-License-Identifier: GPL-2.0-only
"""The axes, as data: memory kinds, page states, THP, features; and a `Setup`, one point of them.

A combination that makes no sense isn't there; one that the machine can't offer is skipped
with the remedy of the `Need` that is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import ENOMEM
from functools import cache
from itertools import product
from mmap import PAGESIZE
from pathlib import Path

from helpers import hugepages, machine, procfs
from helpers.machine import Need
from helpers.procfs import HUGETLB_BYTES
from helpers.subject import Subject
from helpers.uapi import (
    MFD_CLOEXEC,
    MFD_HUGE_2MB,
    MFD_HUGETLB,
    O_TMPFILE,
    Advice,
    Feature,
    Map,
    Prot,
    RegisterMode,
)
from helpers.uffd import Access

# -- memory kinds


@dataclass(frozen=True)
class Backing:
    """A mapping made for a case: where it starts, and the file's descriptor (-1: none)."""

    start: int
    file: int = -1


@dataclass(frozen=True)
class Kind:
    """A kind of memory: how to map it, and what follows from it."""

    name: str
    family: str  # anon, shmem, hugetlb, disk
    shared: bool
    open_file: Callable[[Subject], int] | None
    needs: tuple[Need, ...] = ()

    @property
    def page_bytes(self) -> int:
        """The unit that is protected and faulted."""
        return HUGETLB_BYTES if self.family == "hugetlb" else PAGESIZE

    @property
    def hugetlb(self) -> bool:
        return self.family == "hugetlb"

    @property
    def anonymous(self) -> bool:
        """Whether no file or shared object stands behind the mapping."""
        return self.family == "anon"

    def map(self, subject: Subject, size: int, at: int = 0) -> Backing:
        """Maps `size` bytes, readable and writable, at `at` or where the arena has room.
        Raises OSError."""
        flags = Map.SHARED if self.shared else Map.PRIVATE
        if self.hugetlb and not self.shared:
            # moving a part leaks the reservation of the rest: findings/hugetlb-mremap-leak.md
            flags |= Map.NORESERVE
            if hugepages.available() < size // self.page_bytes:
                raise OSError(ENOMEM, "no free hugetlb pages")
        if self.open_file is None:
            return Backing(subject.mmap(size, Prot.RW, flags | Map.ANONYMOUS, at=at))
        file = self.open_file(subject)
        subject.syscall("ftruncate", file, size)
        return Backing(subject.mmap(size, Prot.RW, flags, file, at=at), file)


def _memfd(flags: int = 0) -> Callable[[Subject], int]:
    def opened(subject: Subject) -> int:
        return subject.syscall("memfd_create", subject.text("tested"), flags | MFD_CLOEXEC)

    return opened


def tmpfs_folder() -> str:
    """A folder on a tmpfs that this user may write to; "" where there is none."""
    for line in procfs.read("/proc/self/mounts").splitlines():
        _, folder, kind, options = line.split()[:4]
        if kind == "tmpfs" and options.startswith("rw") and os.access(folder, os.W_OK):
            return folder
    return ""


def _tmpfs_file(subject: Subject) -> int:
    return subject.open(tmpfs_folder(), O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)


@cache
def disk_folder(kind: str) -> str:
    """A folder on such a file system that this user may write to; "" where there is none."""
    mounts = [line.split()[1] for line in procfs.read("/proc/self/mounts").splitlines()]
    for folder in (*mounts, "/var/tmp", os.path.expanduser("~")):
        if os.access(folder, os.W_OK) and procfs.file_system(Path(folder)) == kind:
            return folder
    return ""


def _disk(kind: str) -> tuple[Kind, Kind]:
    """The kinds of memory that map a file on such a file system, shared and private."""

    def opened(subject: Subject) -> int:
        return subject.open(disk_folder(kind), O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)

    needs = (Need(lambda _: bool(disk_folder(kind)), f"no writable folder on {kind}: mount one"),)
    shared = Kind(f"{kind}_shared", "disk", True, opened, needs)
    return shared, Kind(f"{kind}_private", "disk", False, opened, needs)


TMPFS = Need(lambda _: bool(tmpfs_folder()), "no writable tmpfs: mount -t tmpfs none /dev/shm")
_SHMEM_NEEDS = (machine.WP_SHMEM,)
_HUGETLB_NEEDS = (machine.HUGETLB, machine.WP_SHMEM)
_HUGETLB_FILE = _memfd(MFD_HUGETLB | MFD_HUGE_2MB)

anon = Kind("anon", "anon", False, None)
memfd_shared = Kind("memfd_shared", "shmem", True, _memfd(), _SHMEM_NEEDS)
memfd_private = Kind("memfd_private", "shmem", False, _memfd(), _SHMEM_NEEDS)
tmpfs = Kind("tmpfs", "shmem", True, _tmpfs_file, (*_SHMEM_NEEDS, TMPFS))
shared_anon = Kind("shared_anon", "shmem", True, None, _SHMEM_NEEDS)
hugetlb_shared = Kind("hugetlb_shared", "hugetlb", True, _HUGETLB_FILE, _HUGETLB_NEEDS)
hugetlb_private = Kind("hugetlb_private", "hugetlb", False, _HUGETLB_FILE, _HUGETLB_NEEDS)
ext4_shared, ext4_private = _disk("ext4")
xfs_shared, xfs_private = _disk("xfs")

ANON = (anon,)
SHARED_SHMEM = (memfd_shared, tmpfs, shared_anon)
SHMEM = (*SHARED_SHMEM, memfd_private)
HUGETLB = (hugetlb_shared, hugetlb_private)
FILE_BACKED = (*SHMEM, *HUGETLB)
KINDS = (*ANON, *FILE_BACKED)
ALIKE = (tmpfs, shared_anon)  # they go memfd_shared's way through the kernel
# one for each way
DISTINCT_SMALL = (anon, memfd_shared, memfd_private)
DISTINCT = (*DISTINCT_SMALL, *HUGETLB)
DISK_SHARED, DISK_PRIVATE = (ext4_shared, xfs_shared), (ext4_private, xfs_private)
DISK = (*DISK_SHARED, *DISK_PRIVATE)  # for async alone


# -- page states


@dataclass(frozen=True)
class State:
    """What the tested page is before the act; `region.ARRANGEMENTS` makes and proves it."""

    name: str
    small: tuple[Kind, ...]  # the kinds that can be in this state with THP off (or have none)
    huge: tuple[Kind, ...] = ()  # and with THP on
    needs: tuple[Need, ...] = ()
    populated: bool = False  # the page has contents of its own

    def fits(self, kind: Kind, thp: bool) -> bool:
        """Whether this combination makes sense."""
        return kind in (self.huge if thp else self.small)


none_pte = State("none_pte", (*KINDS, *DISK), ANON)
none_pmd = State("none_pmd", (*KINDS, *DISK), ANON)
zero_page = State("zero_page", ANON, ANON, (machine.ZERO_PAGE_SEEN,))
huge_zero_page = State(
    "huge_zero_page", (), ANON, (machine.HUGE_ZERO_PAGE, machine.HUGE_ZERO_PAGE_SEEN)
)
populated = State("populated", (*KINDS, *DISK), populated=True)
pmd_mapped = State("pmd_mapped", (), (*ANON, *SHARED_SHMEM), populated=True)
pte_mapped = State("pte_mapped", (), (*ANON, *SHARED_SHMEM), populated=True)
file_mapped = State("file_mapped", (memfd_private, hugetlb_private, *DISK_PRIVATE), populated=True)
file_pmd_mapped = State("file_pmd_mapped", (), (memfd_private,), populated=True)
cached = State("cached", (*FILE_BACKED, *DISK), SHARED_SHMEM, populated=True)
swapped = State(  # tmpfs and shared_anon are swapped as memfd_shared is
    "swapped", (*ANON, memfd_shared, memfd_private), (*ANON, memfd_shared), (machine.SWAP,), True
)

NONE = (none_pte, none_pmd)
ZERO = (zero_page, huge_zero_page)
THP_STATES = (pmd_mapped, pte_mapped)
POPULATED = (populated, file_mapped, *THP_STATES)
STATES = (*NONE, *ZERO, *POPULATED, cached)
SMALL_STATES = (*NONE, zero_page, populated, file_mapped, pte_mapped, cached)  # not mapped by a PMD


# -- features


@dataclass(frozen=True)
class Features:
    """What UFFDIO_API is asked for."""

    name: str
    wanted: Feature

    @property
    def markers(self) -> bool:
        """Whether none ptes of anonymous memory take markers (WP_ASYNC implies it)."""
        return bool(self.wanted & (Feature.WP_UNPOPULATED | Feature.WP_ASYNC))


plain = Features("plain", Feature(0))
wpu = Features("wpu", Feature.WP_UNPOPULATED)
asynchronous = Features("async", Feature.WP_ASYNC)
SYNC = (plain, wpu)
FEATURES = (*SYNC, asynchronous)


# -- a point of the axes


@dataclass(frozen=True)
class Setup:
    """One combination of the axes, with what the case adds to it."""

    kind: Kind
    state: State
    thp: bool
    features: Features
    also: Feature = Feature(0)  # features the case itself is about
    mode: RegisterMode = RegisterMode.WP
    access: Access | None = None  # None: the most able one the machine offers
    advice: Advice | None = None  # that the case takes

    @property
    def name(self) -> str:
        """kind-state-thp-features-advice; hugetlb memory has no THP."""
        thp = () if self.kind.hugetlb else ("thp_on" if self.thp else "thp_off",)
        advice = () if self.advice is None else (self.advice.name.lower(),)
        return "-".join((self.kind.name, self.state.name, *thp, self.features.name, *advice))

    @property
    def asked(self) -> Feature:
        """All features that UFFDIO_API is asked for."""
        return self.features.wanted | self.also

    @property
    def protectable(self) -> bool:
        """Whether UFFDIO_WRITEPROTECT takes hold: of none ptes of anonymous memory, only
        with markers (NONE-1)."""
        return self.features.markers or not self.kind.anonymous or self.state not in NONE

    @property
    def needs(self) -> Iterator[Need]:
        """What the machine must offer."""
        yield machine.UFFD
        if self.asked:
            yield machine.feature(self.asked)
        yield from self.kind.needs
        yield from self.state.needs
        if self.thp:
            yield machine.THP
            if not self.kind.anonymous:
                yield machine.advice(Advice.COLLAPSE)
        if self.advice is not None:
            yield machine.advice(self.advice)


def protectable(setup: Setup) -> bool:
    """For `where`: the setups in which the tested page can be protected."""
    return setup.protectable


def least(setup: Setup) -> bool:
    """For `where`: the setups with just the feature that protecting the page takes, if any."""
    needs_markers = setup.kind.anonymous and setup.state in NONE
    return setup.features is (wpu if needs_markers else plain)


def once(setup: Setup) -> bool:
    """For `where`: each state once, with the least features and with THP only for what takes it."""
    return least(setup) and setup.thp == (setup.state in (huge_zero_page, *THP_STATES))


def setups(
    kinds: tuple[Kind, ...],
    states: tuple[State, ...],
    features: tuple[Features, ...],
    thp: tuple[bool, ...] = (False, True),
    also: Feature = Feature(0),
    mode: RegisterMode = RegisterMode.WP,
    access: Access | None = None,
    advices: tuple[Advice | None, ...] = (None,),
) -> list[Setup]:
    """Every combination that makes sense; for kinds that go another's way, with the first of the
    features alone."""
    return [
        Setup(kind, state, huge, chosen, also, mode, access, advice)
        for kind, state, huge, chosen, advice in product(kinds, states, thp, features, advices)
        if state.fits(kind, huge) and (kind not in ALIKE or chosen is features[0])
    ]
