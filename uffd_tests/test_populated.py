# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter POP: populated pages."""

from helpers.axes import FEATURES, KINDS, file_mapped, populated, pte_mapped
from helpers.cases import case
from helpers.pagemap import Page

SMALL = (populated, file_mapped, pte_mapped)


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


@case("POP-3", kinds=KINDS, states=(populated, file_mapped), features=FEATURES)
def test_protected_page_is_resident(mem):
    mem.protect()
    assert mem.resident()
