# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter POP: populated pages."""

from signal import SIGSEGV

import pytest

from helpers.axes import ANON, FEATURES, KINDS, POPULATED, SYNC, file_mapped, populated, pte_mapped
from helpers.cases import case
from helpers.pagemap import Page
from helpers.uapi import Advice, Prot

SMALL = (populated, file_mapped, pte_mapped)
KEEPING = (
    Advice.COLD,
    Advice.PAGEOUT,
    Advice.WILLNEED,
    Advice.FREE,
    Advice.HUGEPAGE,
    Advice.NOHUGEPAGE,
)


@case("POP-1", kinds=KINDS, states=SMALL, features=FEATURES)
def test_protecting_sets_the_bit_and_nothing_else(mem):
    before = mem.look()
    mem.protect()
    assert mem.look() == before | Page.WP
    assert mem.changed() == {mem.page}


@case("POP-2", kinds=KINDS, states=SMALL, features=FEATURES)
def test_unprotecting_clears_the_bit_and_nothing_else(mem):
    before = mem.look()
    mem.protect()
    mem.unprotect()
    assert mem.look() == before
    assert mem.changed() == set()


@pytest.mark.parametrize("prot", [Prot.READ, Prot.NONE], ids=["read", "none"])
@case("POP-3", kinds=KINDS, states=POPULATED, features=SYNC)
def test_mprotect_to_and_fro_keeps_the_protection(mem, prot):
    mem.protect()
    mem.subject.mprotect(mem.start, mem.size, prot)
    assert mem.store().signal == SIGSEGV
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)
    assert mem.protected() == {mem.page}
    assert mem.store().message == mem.wp_fault()


@case("POP-4", kinds=ANON, states=POPULATED, features=SYNC)
def test_dontneed_of_anon_drops_the_protection(mem):
    mem.protect(mem.near)
    mem.advise(Advice.DONTNEED)
    assert mem.word() == 0
    assert mem.store().silent


@pytest.mark.parametrize("advised", KEEPING, ids=lambda value: value.name.lower())
@case("POP-5", kinds=ANON, states=POPULATED, features=SYNC)
def test_advice_keeps_the_protection(mem, advised, offered):
    mem.protect(mem.pmd)
    mem.advise(offered(advised))
    assert mem.protected() == set(mem.pmd)
    assert mem.store().message == mem.wp_fault()
