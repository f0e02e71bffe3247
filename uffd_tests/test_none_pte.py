# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter NONE: none ptes and pte markers of private anonymous memory."""

from mmap import PAGESIZE

import pytest

from helpers.axes import ANON, NONE, asynchronous, none_pmd, none_pte, plain, wpu
from helpers.cases import case
from helpers.pagemap import Page
from helpers.region import MARKER
from helpers.uapi import Map, Prot

MARKERS = (wpu, asynchronous)
WORD_FOR_ROOT, WORD_FOR_OTHERS = 0x4200_0000_0000_003F, 0x4200_0000_0000_0000
WIDE = 64 << 20  # bytes
TABLE_SPAN = PAGESIZE // 8 * PAGESIZE  # bytes that one page table maps


@pytest.fixture
def wide(bare):
    """The start of WIDE registered bytes, never touched, in page tables of their own."""
    start = bare.subject.mmap(WIDE, Prot.RW, Map.PRIVATE | Map.ANONYMOUS | Map.NORESERVE)
    bare.uffd.register(start, WIDE)
    return start


@case("NONE-1", kinds=ANON, states=NONE, features=(plain,))
def test_without_the_feature_a_none_pte_stays_none(mem):
    tables = mem.page_tables()
    mem.protect()
    assert mem.word() == 0
    assert mem.page_tables() == tables
    assert mem.store().silent


@case("NONE-1", kinds=ANON, states=(none_pmd,), features=(plain,), thp=(False,))
def test_without_the_feature_no_page_table_is_allocated(bare, wide):
    before = bare.page_tables()
    bare.uffd.writeprotect(wide, WIDE)
    assert bare.page_tables() == before


@case("NONE-2", kinds=ANON, states=NONE, features=MARKERS)
def test_protecting_leaves_a_marker(mem):
    mem.protect()
    assert mem.look() == MARKER
    assert mem.changed() == {mem.page}


@case("NONE-3", kinds=ANON, states=NONE, features=MARKERS)
def test_the_markers_pagemap_word(mem):
    mem.protect()
    assert mem.word() == (WORD_FOR_ROOT if mem.machine.privileged else WORD_FOR_OTHERS)


@case("NONE-4", kinds=ANON, states=NONE, features=MARKERS)
def test_a_marker_is_no_memory(mem):
    before = mem.smaps()
    mem.protect()
    after = mem.smaps()
    for field in ("Rss", "Swap", "Anonymous"):
        assert after[field] == before[field], field
    assert not mem.resident(mem.page)


@case("NONE-5", kinds=ANON, states=(none_pmd,), features=MARKERS, thp=(False,))
def test_markers_cost_their_page_tables(bare, wide):
    bare.uffd.writeprotect(wide, PAGESIZE)  # brings the tables above
    before = bare.page_tables()
    bare.uffd.writeprotect(wide, WIDE)
    assert bare.page_tables() - before == (WIDE // TABLE_SPAN - 1) * PAGESIZE


@case("NONE-6", kinds=ANON, states=(none_pmd,), features=MARKERS, thp=(False,))
def test_unprotecting_the_untouched_allocates_nothing(bare, wide):
    before = bare.page_tables()
    bare.uffd.writeprotect(wide, WIDE, 0)
    assert bare.page_tables() == before


@case("NONE-7", kinds=ANON, states=NONE, features=MARKERS)
def test_unprotecting_a_marker_leaves_none(mem):
    mem.protect(mem.near)
    mem.unprotect()
    assert mem.word() == 0
    assert mem.protected() == set(mem.near) - {mem.page}


@case("NONE-8", kinds=ANON, states=NONE, features=MARKERS)
def test_reading_a_marker_maps_the_protected_zero_page(mem):
    mem.protect()
    assert mem.load().value == 0
    assert mem.look() == Page.PRESENT | Page.WP | Page.ZERO
    assert mem.changed() == {mem.page}


@case("NONE-9", kinds=ANON, states=NONE, features=(wpu,))
def test_blocked_writers_page_is_there_and_zero_filled(mem):
    mem.protect()
    assert mem.store().message == mem.wp_fault()
    assert mem.look() == Page.PRESENT | Page.WP | Page.EXCLUSIVE
    assert mem.load(by=1).value == 0


@case("NONE-2", kinds=ANON, states=(none_pte,), features=MARKERS)
def test_populated_pages_beside_a_marker_are_protected_too(mem):
    mem.protect(mem.pages if not mem.setup.thp else mem.pmd)
    assert mem.look() == MARKER
    assert mem.look(mem.pmd[0]) == Page.PRESENT | Page.WP | Page.EXCLUSIVE
