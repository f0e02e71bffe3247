# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SWAP: protected pages in swap, on their way there and back."""

from errno import EEXIST, EINVAL

import pytest

from helpers.arrange import content, swap_off, swap_out, swapped_bytes
from helpers.axes import (
    ANON,
    FEATURES,
    KINDS,
    SYNC,
    anon,
    asynchronous,
    memfd_private,
    memfd_shared,
    none_pte,
    pmd_mapped,
    populated,
    swapped,
    wpu,
)
from helpers.cases import case, refuses
from helpers.machine import SWAP, SWAPOFF, advice, feature
from helpers.pagemap import Page
from helpers.region import MARKER, Unproven
from helpers.uapi import Advice, Feature, Ioctl, Prot, RegisterMode

SWAPPABLE = (anon, memfd_private, memfd_shared)
PRIVATE = (anon, memfd_private)
IN_MEMORY = (populated, pmd_mapped)
VALUE = 7


@case("SWAP-1", kinds=KINDS, states=(swapped,), features=FEATURES)
def test_protecting_a_swapped_page_leaves_it_in_swap(mem):
    before = swapped_bytes(mem)
    mem.protect()
    assert mem.look() == MARKER
    assert mem.changed() == {mem.page}
    assert swapped_bytes(mem) == before


@case("SWAP-1", kinds=KINDS, states=(swapped,), features=SYNC)
def test_unprotecting_a_swapped_page_leaves_it_in_swap(mem):
    before = swapped_bytes(mem)
    mem.protect()
    mem.unprotect()
    assert mem.changed() == set()
    assert swapped_bytes(mem) == before
    assert mem.store().silent


@case("SWAP-2", kinds=SWAPPABLE, states=IN_MEMORY, features=SYNC, needs=(SWAP,))
def test_swapping_out_keeps_the_protection(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)  # protecting a shmem THP has unmapped it
    swap_out(mem)
    assert mem.protected() == set(mem.unit)
    assert set(mem.looks(mem.unit)) == {MARKER}


@case("SWAP-2", kinds=SWAPPABLE, states=(populated,), needs=(SWAP,))
def test_swapping_out_protects_no_other_page(mem):
    mem.protect()
    swap_out(mem)
    assert mem.protected() == {mem.page}


@case("SWAP-3", kinds=KINDS, states=(swapped,), features=FEATURES)
def test_reading_a_swapped_page_keeps_the_protection(mem):
    mem.protect(mem.unit)
    assert mem.load().value == content(mem)
    assert Page.PRESENT | Page.WP in mem.look()
    assert mem.protected() == set(mem.unit)


@case("SWAP-3", kinds=ANON, states=IN_MEMORY, needs=(SWAP,))
def test_page_of_zeros_comes_back_protected(mem):
    mem.zero_fill(mem.unit)
    mem.protect(mem.unit)
    swap_out(mem)
    assert mem.load().value == 0
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("SWAP-4", kinds=KINDS, states=(swapped,), features=SYNC)
def test_writing_to_a_swapped_page_raises_one_message(mem):
    mem.protect(mem.unit)
    write = mem.store(offset=8)
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit) - {mem.page}


@case("SWAP-5", kinds=(anon, memfd_shared), states=(swapped,))
def test_willneed_keeps_the_protection(mem):
    mem.protect(mem.unit)
    mem.advise(Advice.WILLNEED, mem.unit)
    expect_in_swap_cache(mem)
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("SWAP-5", kinds=PRIVATE, states=(swapped,))
def test_readahead_keeps_the_protection_of_neighbours(mem):
    mem.protect(mem.near)
    mem.fork()  # swap entries with one owner are read one by one from some devices
    mem.load(mem.page - 1)
    expect_in_swap_cache(mem)
    assert mem.protected() == set(mem.near)
    assert mem.store().message == mem.wp_fault()


@case("SWAP-6", kinds=PRIVATE, states=(swapped,))
def test_what_a_child_writes_leaves_the_parents_page_in_swap_protected(mem):
    mem.protect(mem.unit)
    child = mem.fork()
    assert child.store(value=VALUE).silent
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("SWAP-7", kinds=KINDS, states=(swapped,), features=(asynchronous,))
def test_async_write_takes_the_protection_of_its_page_alone(mem):
    mem.protect(mem.unit)
    assert mem.store(offset=8).silent
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit) - {mem.page}


@case("SWAP-8", kinds=SWAPPABLE, states=IN_MEMORY, needs=(SWAPOFF,))
def test_swapoff_brings_protected_pages_back_protected(alone, mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)
    swap_out(mem)
    swap_off(mem, alone)
    assert mem.protected() == set(mem.unit)
    assert mem.load().value == content(mem)
    assert mem.store().message == mem.wp_fault()


@case("SWAP-8", kinds=SWAPPABLE, states=(populated,), needs=(SWAPOFF,))
def test_swapoff_after_protecting_or_unprotecting_in_swap(alone, mem):
    mem.protect(mem.page + 1)
    swap_out(mem)
    mem.protect()
    mem.unprotect(mem.page + 1)
    swap_off(mem, alone)
    assert mem.protected() == {mem.page}
    assert mem.store(mem.page + 1).silent
    assert mem.store().message == mem.wp_fault()


@case("SWAP-8", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,), needs=(SWAPOFF,))
def test_swapoff_passes_over_markers(alone, mem):
    mem.protect()
    swap_out(mem, range(1))
    swap_off(mem, alone)
    assert mem.look() == MARKER
    assert mem.changed() == mem.protected() == {mem.page}


@pytest.mark.parametrize("prot", [Prot.READ, Prot.NONE], ids=["read", "none"])
@case("SWAP-9", kinds=KINDS, states=(swapped,), thp=(False,))
def test_mprotect_to_and_fro_keeps_the_protection(mem, prot):
    mem.protect(mem.unit)
    mem.subject.mprotect(mem.start, mem.size, prot)
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@pytest.mark.parametrize("advised", [Advice.DONTNEED, Advice.FREE], ids=["dontneed", "free"])
@case("SWAP-10", kinds=ANON, states=(swapped,), features=SYNC)
def test_dropping_the_page_drops_the_protection(mem, advised):
    mem.protect(mem.unit)
    mem.advise(advised)
    assert mem.word() == 0
    assert mem.protected() == set(mem.unit) - {mem.page}
    assert mem.store().silent


@case("SWAP-10", kinds=(memfd_private,), states=(swapped,))
def test_dropping_pages_that_are_not_protected_leaves_no_marker(mem):
    mem.advise(Advice.DONTNEED, mem.pages)
    assert mem.protected() == set()


@case("SWAP-11", kinds=ANON, states=(swapped,), thp=(True,), needs=(advice(Advice.COLLAPSE),))
def test_collapse_of_a_protected_page_in_swap_is_refused(mem):
    before = swapped_bytes(mem)
    mem.protect()
    with refuses(EINVAL):
        mem.advise(Advice.COLLAPSE, mem.pmd)
    assert mem.protected() == {mem.page}
    assert swapped_bytes(mem) == before


@case("SWAP-12", kinds=ANON, states=(swapped,), thp=(False,))
def test_filling_is_refused(mem):
    mem.protect()
    with refuses(EEXIST):
        mem.copy_in(VALUE)
    with refuses(EEXIST):
        mem.uffd.fill(Ioctl.UFFDIO_ZEROPAGE, *mem.span(mem.page))
    assert mem.protected() == {mem.page}


@case("SWAP-13", kinds=ANON, states=(swapped,), thp=(False,), needs=(feature(Feature.MOVE),))
def test_move_out_of_the_registration_drops_the_protection(bare):
    target = bare.span(bare.page + 1)
    bare.uffd.register(*bare.span(bare.page))
    bare.uffd.register(*target, RegisterMode.MISSING)
    bare.protect()
    bare.advise(Advice.DONTNEED, bare.page + 1)
    bare.uffd.move(target[0], *bare.span(bare.page))
    assert bare.protected() == set()


def expect_in_swap_cache(mem):
    """mincore(2) calls a page in swap resident when it has been read and not been mapped."""
    if not mem.resident() or Page.PRESENT in mem.look():
        raise Unproven("the kernel does not read ahead from this swap device")
