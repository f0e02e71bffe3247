# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter ZERO: the zero page, small and huge."""

from helpers.axes import ANON, FEATURES, SYNC, ZERO, asynchronous, huge_zero_page, zero_page
from helpers.cases import case
from helpers.pagemap import Page

ZERO_PAGE = Page.PRESENT | Page.ZERO
HUGE_ZERO_PAGE = ZERO_PAGE | Page.HUGE


@case("ZERO-1", kinds=ANON, states=(zero_page,), features=FEATURES)
def test_protected_zero_page_stays_the_zero_page(mem):
    mem.protect()
    assert mem.look() == ZERO_PAGE | Page.WP
    assert mem.changed() == {mem.page}


@case("ZERO-2", kinds=ANON, states=ZERO, features=SYNC)
def test_zero_page_stays_while_the_writer_is_blocked(mem):
    mem.protect()
    assert mem.store().message == mem.wp_fault()
    assert mem.look() & ~Page.HUGE == ZERO_PAGE | Page.WP


@case("ZERO-3", kinds=ANON, states=(zero_page,), features=FEATURES)
def test_unprotected_it_is_the_zero_page_again(mem):
    mem.protect()
    mem.unprotect()
    assert mem.look() == ZERO_PAGE
    assert mem.changed() == set()


@case("ZERO-4", kinds=ANON, states=(huge_zero_page,), features=FEATURES)
def test_protecting_the_huge_zero_page_does_not_split_it(mem):
    tables = mem.page_tables()
    mem.protect(mem.pmd)
    assert set(mem.looks(mem.pmd)) == {HUGE_ZERO_PAGE | Page.WP}
    assert mem.page_tables() == tables


@case("ZERO-5", kinds=ANON, states=(huge_zero_page,), features=FEATURES)
def test_protecting_one_page_splits_it(mem):
    mem.protect()
    assert mem.look() == ZERO_PAGE | Page.WP
    assert {mem.look(page) for page in mem.pmd if page != mem.page} == {ZERO_PAGE}


@case("ZERO-6", kinds=ANON, states=(huge_zero_page,), features=FEATURES)
def test_unprotecting_one_page_keeps_the_others_protected(mem):
    mem.protect(mem.pmd)
    mem.unprotect()
    assert mem.look() == ZERO_PAGE
    assert {mem.look(page) for page in mem.pmd if page != mem.page} == {ZERO_PAGE | Page.WP}


@case("ZERO-7", kinds=ANON, states=(huge_zero_page,), features=(asynchronous,))
def test_async_write_keeps_the_others_protected(mem):
    mem.protect(mem.pmd)
    assert mem.store().silent
    assert {mem.look(page) for page in mem.pmd if page != mem.page} == {ZERO_PAGE | Page.WP}
    assert Page.ZERO not in mem.look()


@case("ZERO-8", kinds=ANON, states=(huge_zero_page,), features=SYNC)
def test_write_to_the_huge_zero_page_is_resolved_page_by_page(mem):
    mem.protect(mem.pmd)
    write = mem.store()
    assert write.message == mem.wp_fault()
    assert mem.protected() == set(mem.pmd)
    mem.unprotect()
    assert write.completes()
    assert mem.protected() == set(mem.pmd) - {mem.page}
