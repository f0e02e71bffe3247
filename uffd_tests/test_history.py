# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter HIST: bugs that kernels had or have, each with its fix as the clause's source.

The bugs that a case of another chapter shows anyway have none here; the chapter's table says
which. Most of these cases judge by faults alone, for the sake of kernels before 5.14, whose
pagemap doesn't show uffd-wp.
"""

from contextlib import suppress
from mmap import PAGESIZE
from signal import SIGSEGV

from helpers import pagemap
from helpers.arrange import swap_off, swap_out
from helpers.axes import (
    ANON,
    HUGETLB,
    SYNC,
    anon,
    asynchronous,
    hugetlb_private,
    hugetlb_shared,
    least,
    memfd_shared,
    none_pmd,
    none_pte,
    pmd_mapped,
    populated,
    swapped,
    tmpfs,
)
from helpers.cases import case
from helpers.kernel_access import PROCESS_VM_READV, Act
from helpers.machine import DISPOSABLE, LOW_ADDRESSES, NUMA, PAGEMAP_SCAN, SWAPOFF, advice
from helpers.migration import migrate
from helpers.uapi import (
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Advice,
    Category,
    CopyMode,
    Feature,
    Map,
    Prot,
    RegisterMode,
    ScanFlag,
)

MISSING, WP = RegisterMode.MISSING, RegisterMode.WP
SPIN_SECONDS = 2.0  # after which a call or a fault that never ends is given up


@case(
    "HIST-1",
    kinds=(memfd_shared, tmpfs),
    states=(populated,),
    thp=(False,),
    needs=(DISPOSABLE, advice(Advice.GUARD_INSTALL)),
)
def test_guards_replace_protected_shmem_pages(mem):
    mem.protect()
    mem.subject.hurry(SPIN_SECONDS)
    mem.advise(Advice.GUARD_INSTALL)
    assert mem.load().signal == SIGSEGV


@case("HIST-2", kinds=ANON, states=(none_pmd,), thp=(False,))
def test_mapping_moved_beside_a_protected_one_leaves_that_protected(bare):
    bare.subject.syscall("munmap", *bare.span(bare.page + 1))
    bare.populate(range(bare.page, bare.page + 1))
    bare.register()
    bare.protect()
    place = bare.address(bare.page + 1)
    moved = (bare.address(bare.page + 2), PAGESIZE, PAGESIZE, MREMAP_MAYMOVE | MREMAP_FIXED, place)
    bare.subject.syscall("mremap", *moved)
    assert bare.store().message == bare.wp_fault()


@case("HIST-3", kinds=HUGETLB, states=(populated,), needs=(DISPOSABLE,))
def test_write_ends_after_wp_was_dropped(mem):
    mem.protect()
    with suppress(OSError):  # refused since 7.3: REG-11
        mem.uffd.register(mem.start, mem.size, MISSING)
    mem.subject.hurry(SPIN_SECONDS)
    write = mem.store()
    assert write.silent or write.message == mem.wp_fault()


@case(
    "HIST-4",
    kinds=HUGETLB,
    states=(none_pmd,),
    features=(asynchronous,),
    needs=(DISPOSABLE, PAGEMAP_SCAN),
)
def test_scan_ends_that_protects_a_hugetlb_hole(mem):
    mem.subject.hurry(SPIN_SECONDS)
    end = mem.start + mem.size
    asked = {"required": Category.WPALLOWED, "returned": Category.WPALLOWED}
    pagemap.scan(mem.subject, mem.start, end, **asked, flags=ScanFlag.WP_MATCHING)
    assert 0 in mem.protected()


@case("HIST-5", kinds=ANON, states=(none_pmd,), thp=(False,), needs=(LOW_ADDRESSES,))
def test_lowest_pages_can_be_protected(bare):
    start = bare.subject.mmap(PAGESIZE, Prot.RW, Map.PRIVATE | Map.ANONYMOUS, at=PAGESIZE)
    bare.uffd.register(start, PAGESIZE)
    bare.start, bare.page = start, 0
    assert bare.load().value == 0
    bare.protect()
    assert bare.store().message == bare.wp_fault()


@case("HIST-6", kinds=(anon,), states=(populated, pmd_mapped))
def test_mremap_leaves_nothing_behind(mem):
    mem.protect(mem.unit)
    moved, _ = mem.move()
    moved.register()
    assert moved.store().silent


@case("HIST-7", kinds=(anon,), states=(populated, pmd_mapped))
def test_close_leaves_nothing_behind(mem):
    mem.protect(mem.unit)
    mem.uffd.close()
    mem.open_uffd()
    mem.register()
    assert mem.store().silent


@case("HIST-8", kinds=(anon,), states=(populated, pmd_mapped))
def test_unregister_leaves_nothing_behind(mem):
    mem.protect(mem.unit)
    mem.unregister(mem.pages)
    mem.register()
    assert mem.store().silent


@case("HIST-9", kinds=(hugetlb_private,), states=(populated,), features=SYNC)
def test_unsharing_a_hugetlb_page_keeps_its_protection(mem):
    pin = Act(PROCESS_VM_READV, mem, mem.subject)
    mem.fork()
    mem.protect()
    assert pin.begin().silent
    assert mem.protected() == {mem.page}
    assert mem.store().message == mem.wp_fault()


@case("HIST-11", kinds=(anon,), states=(populated, pmd_mapped), needs=(SWAPOFF,))
def test_swapoff_leaves_pages_protected(alone, mem):
    mem.protect(mem.unit)
    swap_out(mem)
    swap_off(mem, alone)
    assert mem.store().message == mem.wp_fault()


@case("HIST-11", kinds=(anon,), states=(swapped,), thp=(False,), needs=(SWAPOFF,))
def test_swapoff_finds_pages_that_were_protected_in_swap(alone, mem):
    mem.protect()
    swap_off(mem, alone)
    assert mem.store().message == mem.wp_fault()


@case("HIST-12", kinds=(anon,), states=(populated, pmd_mapped), needs=(NUMA,))
def test_migration_leaves_pages_protected(mem):
    mem.protect(mem.unit)
    migrate(mem)
    assert mem.store().message == mem.wp_fault()


@case("HIST-13", kinds=(anon,), states=(swapped, none_pte), features=SYNC, where=least)
def test_child_without_the_event_writes_silently(mem):
    mem.protect()
    child = mem.fork()
    assert child.store().silent
    assert mem.store().message == mem.wp_fault()


@case(
    "HIST-13",
    kinds=(anon,),
    states=(swapped, none_pte),
    features=SYNC,
    where=least,
    also=Feature.EVENT_FORK,
)
def test_child_with_the_event_is_protected(mem):
    mem.protect()
    child = mem.fork()
    assert child.store().message == child.wp_fault()
    assert mem.store().message == mem.wp_fault()


@case(
    "HIST-10",
    kinds=(anon, memfd_shared, hugetlb_shared),
    states=(none_pte,),
    thp=(False,),
    mode=MISSING | WP,
)
def test_page_filled_while_read_only_is_protected(mem):
    mem.subject.mprotect(mem.start, mem.size, Prot.READ)
    mem.copy_in(0, CopyMode.WP)
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)
    assert mem.store().message == mem.wp_fault()
