# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter FAIL: write-protect when memory for page tables runs out."""

from errno import EAGAIN, ENOMEM
from mmap import PAGESIZE

import pytest

from helpers import fault_injection
from helpers.axes import (
    anon,
    asynchronous,
    hugetlb_private,
    memfd_shared,
    none_pmd,
    populated,
    wpu,
)
from helpers.cases import case, refuses
from helpers.fault_injection import FAULT_INJECTION
from helpers.machine import DISPOSABLE, PAGEMAP_SCAN, ROOT
from helpers.memcg import MEMCG
from helpers.pagemap import Page, scan, words
from helpers.subject import SLOT_BYTES
from helpers.uapi import (
    MLOCK_ONFAULT,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Category,
    Feature,
    Ioctl,
    ScanFlag,
)

WIDE = 256 << 20  # bytes: the page tables of its markers exceed what is charged in advance
WIDE_PAGES = WIDE // PAGESIZE
NARROW = 6 << 20  # bytes, in three page tables
SCAN_FLAGS = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
COPIED = 500  # pages, more than the memory that is left
AXES = {"states": (none_pmd,), "thp": (False,), "features": (wpu,), "needs": (ROOT, MEMCG)}


@pytest.fixture
def wide(bare, group):
    """The start of WIDE registered bytes, never touched, in page tables of their own."""
    start = bare.kind.map(bare.subject, WIDE).start
    bare.uffd.register(start, WIDE)
    return start


def protected(mem, start, size=WIDE):
    """Which pages from `start` on carry the uffd-wp bit."""
    return [bool(word & Page.WP) for word in words(mem.subject, start, size // PAGESIZE)]


@case("FAIL-1", kinds=(anon, memfd_shared), **AXES)
def test_protecting_without_memory_protects_a_prefix(bare, wide, group):
    with group.exhausted(), refuses(ENOMEM):
        bare.uffd.writeprotect(wide, WIDE)
    found = protected(bare, wide)
    assert 0 < sum(found) == found.index(False)


@case("FAIL-2", kinds=(anon, memfd_shared), **AXES)
def test_unprotecting_and_protecting_work_after_it(bare, wide, group):
    with group.exhausted(), refuses(ENOMEM):
        bare.uffd.writeprotect(wide, WIDE)
    bare.uffd.writeprotect(wide, WIDE, 0)
    assert not any(protected(bare, wide))
    bare.uffd.writeprotect(wide, WIDE)
    assert all(protected(bare, wide))


@case("FAIL-3", kinds=(anon, memfd_shared), **AXES)
def test_page_tables_of_it_are_not_lost(bare, wide, group):
    before = bare.page_tables()
    with group.exhausted(), refuses(ENOMEM):
        bare.uffd.writeprotect(wide, WIDE)
    bare.subject.syscall("munmap", wide, WIDE)
    assert bare.page_tables() == before


@case("FAIL-4", kinds=(anon, memfd_shared), **AXES)
def test_mremap_without_memory_keeps_the_protection(bare, wide, group):
    bare.uffd.writeprotect(wide, WIDE)
    with group.exhausted(), refuses(ENOMEM):
        move_off_the_boundary(bare, wide)
    assert all(protected(bare, wide))


@case("FAIL-4", kinds=(anon, memfd_shared), also=Feature.EVENT_REMAP, **AXES)
def test_mremap_with_the_event_and_without_memory_keeps_the_protection(bare, wide, group):
    bare.uffd.writeprotect(wide, WIDE)
    with group.exhausted(), refuses(ENOMEM):
        move_off_the_boundary(bare, wide)
    assert bare.uffd.read() is None
    assert all(protected(bare, wide))
    bare.uffd.writeprotect(wide, WIDE, 0)


@case("FAIL-5", kinds=(anon, memfd_shared), also=Feature.EVENT_FORK, **AXES)
def test_fork_without_memory_keeps_the_protection(bare, wide, group):
    bare.uffd.writeprotect(wide, WIDE)
    with group.exhausted(), refuses(ENOMEM):
        bare.fork()
    assert bare.uffd.read() is None
    assert all(protected(bare, wide))
    bare.uffd.writeprotect(wide, WIDE, 0)


@case("FAIL-6", kinds=(anon, memfd_shared), **AXES)
def test_copy_without_memory_stops_where_it_is(bare, wide, group):
    bare.subject.syscall("mlock2", wide, WIDE, MLOCK_ONFAULT)  # so that nothing goes to swap
    bare.uffd.writeprotect(wide, WIDE)
    main = bare.subject.main
    source, size = main.scratch_address + SLOT_BYTES // 2, COPIED * PAGESIZE
    main.scratch(size, SLOT_BYTES // 2)[:] = bytes(size)  # which is not the group's memory
    with group.exhausted():
        answer, struct = bare.uffd.try_ioctl(
            Ioctl.UFFDIO_COPY, "uffdio_copy", dst=wide, src=source, len=size
        )
    done = struct.done // PAGESIZE
    assert (answer.error, 0 < done < COPIED) == (EAGAIN, True)
    assert protected(bare, wide) == [False] * done + [True] * (WIDE_PAGES - done)


INJECTED = {"thp": (False,), "needs": (FAULT_INJECTION, DISPOSABLE)}
EMPTY = INJECTED | {"kinds": (anon, memfd_shared, hugetlb_private), "states": (none_pmd,)}
FILLED = INJECTED | {"kinds": (anon, memfd_shared), "states": (populated,)}


@case("FAIL-7", features=(wpu,), **EMPTY)
def test_whichever_allocation_fails_a_prefix_is_protected(bare):
    assert errors_with_a_prefix_protected(bare, bare.uffd.writeprotect) == {0, ENOMEM}


@case("FAIL-7", features=(asynchronous,), **EMPTY | {"needs": (*EMPTY["needs"], PAGEMAP_SCAN)})
def test_whichever_allocation_fails_wp_matching_protects_a_prefix(bare):
    def protect(start, size):
        scan(bare.subject, start, start + size, returned=Category.WRITTEN, flags=SCAN_FLAGS)

    # of a hugetlb range without a page table it protects but the first page (SCAN-12)
    size = bare.page_bytes if bare.kind.hugetlb else NARROW
    assert errors_with_a_prefix_protected(bare, protect, size) == {0, ENOMEM}


@case("FAIL-8", features=(wpu,), also=Feature.EVENT_FORK, **FILLED)
def test_whichever_allocation_of_a_fork_fails_the_protection_stays(mem):
    errors = set()
    mem.protect()
    with fault_injection.enabled():
        for attempt in fault_injection.attempts(mem.subject.main):
            with attempt:
                child = mem.fork()
                assert child.protected() == {mem.page}
                child.subject.close()
            assert mem.protected() == {mem.page}
            assert mem.uffd.read() is None
            errors.add(attempt.error)
    assert errors == {0, ENOMEM}
    assert mem.store().message == mem.wp_fault()


@case("FAIL-8", features=(wpu,), also=Feature.EVENT_REMAP, **FILLED)
def test_whichever_allocation_of_mremap_fails_the_protection_stays(mem):
    errors = set()
    mem.protect()
    with fault_injection.enabled():
        for attempt in fault_injection.attempts(mem.subject.toucher()):
            moved = mem
            with attempt:
                moved, _ = mem.move()
            assert moved.protected() == {moved.page}
            mem = moved
            assert mem.uffd.read() is None
            errors.add(attempt.error)
    assert errors == {0, ENOMEM}
    assert mem.store().message == mem.wp_fault()


def errors_with_a_prefix_protected(mem, protect, size=NARROW):
    """The errors of `protect`, which is called on `size` bytes never touched, time and again, with
    another of its allocations failing each time; whatever it is, a prefix is protected."""
    errors = set()
    with fault_injection.enabled():
        for attempt in fault_injection.attempts(mem.subject.main):
            start = mem.kind.map(mem.subject, size).start
            mem.uffd.register(start, size)
            with attempt:
                protect(start, size)
            found = protected(mem, start, size)
            assert sum(found) == (*found, False).index(False)
            assert all(found) == (attempt.error == 0)
            errors.add(attempt.error)
    return errors


def move_off_the_boundary(mem, start):
    """Moves WIDE bytes to where they need as many page tables anew. Raises OSError."""
    target = mem.subject.place(WIDE + mem.page_bytes) + mem.page_bytes
    mem.subject.syscall("mremap", start, WIDE, WIDE, MREMAP_MAYMOVE | MREMAP_FIXED, target)
