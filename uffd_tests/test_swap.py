# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SWAP: protected pages in swap, on their way there and back."""

from helpers.arrange import content, swap_out, swapped_bytes
from helpers.axes import (
    FEATURES,
    SYNC,
    anon,
    memfd_private,
    memfd_shared,
    pmd_mapped,
    populated,
    swapped,
)
from helpers.cases import case
from helpers.machine import SWAP
from helpers.pagemap import Page
from helpers.region import MARKER

KINDS = (anon, memfd_private, memfd_shared)
IN_MEMORY = (populated, pmd_mapped)


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


@case("SWAP-2", kinds=KINDS, states=IN_MEMORY, features=SYNC, needs=(SWAP,))
def test_swapping_out_keeps_the_protection(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)  # protecting a shmem THP has unmapped it
    swap_out(mem)
    assert mem.protected() == set(mem.unit)
    assert set(mem.looks(mem.unit)) == {MARKER}


@case("SWAP-3", kinds=KINDS, states=(swapped,), features=FEATURES)
def test_reading_a_swapped_page_keeps_the_protection(mem):
    mem.protect(mem.unit)
    assert mem.load().value == content(mem)
    assert Page.PRESENT | Page.WP in mem.look()
    assert mem.protected() == set(mem.unit)


@case("SWAP-4", kinds=KINDS, states=(swapped,), features=SYNC)
def test_writing_to_a_swapped_page_raises_one_message(mem):
    mem.protect(mem.unit)
    write = mem.store(offset=8)
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit) - {mem.page}
