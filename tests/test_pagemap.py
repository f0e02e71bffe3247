# SPDX-License-Identifier: GPL-2.0-only
"""Decoding of pagemap words, and the comparison of the two witnesses."""

import pytest

from helpers.pagemap import Page, Scan, WitnessError, compare, decode
from helpers.uapi import Category

MARKER_WORD = 0x4200_0000_0000_003F
PRESENT, SWAP, WP, FILE = Page.PRESENT, Page.SWAP, Page.WP, Page.FILE


def test_marker_letters() -> None:
    assert decode(MARKER_WORD) == SWAP | WP
    assert repr(decode(MARKER_WORD)) == "[-S--W---]"
    assert repr(Page.NONE) == "[--------]"


@pytest.mark.parametrize(
    ("page", "seen", "hugetlb", "result"),
    [
        (PRESENT | WP, Category.PRESENT, False, PRESENT | WP),
        (PRESENT, Category.PRESENT | Category.WRITTEN, False, PRESENT),
        (SWAP | WP, Category.SWAPPED, False, SWAP | WP),
        (WP, Category.SWAPPED, True, WP),
        (PRESENT | FILE | WP, Category.PRESENT | Category.PFNZERO, False, PRESENT | WP | Page.ZERO),
        (PRESENT | WP, Category.PRESENT | Category.HUGE, False, PRESENT | WP | Page.HUGE),
        (Page.NONE, Category.HUGE, True, Page.NONE),
    ],
)
def test_agreement(page: Page, seen: Category, hugetlb: bool, result: Page) -> None:
    assert compare(page, seen, hugetlb=hugetlb, registered=True) == result


@pytest.mark.parametrize(
    ("page", "seen"),
    [
        (PRESENT | WP, Category.PRESENT | Category.WRITTEN),
        (PRESENT, Category.PRESENT),
        (PRESENT | WP, Category.SWAPPED),
        (SWAP | WP, Category(0)),
        (WP, Category.SWAPPED),
        (PRESENT | FILE | WP, Category.PRESENT),
    ],
)
def test_disagreement(page: Page, seen: Category) -> None:
    with pytest.raises(WitnessError, match="PAGEMAP_SCAN says"):
        compare(page, seen, hugetlb=False, registered=True)


def test_unregistered_pages_need_not_be_written() -> None:
    assert compare(PRESENT, Category.PRESENT, hugetlb=False, registered=False) == PRESENT


def test_categories_of_regions() -> None:
    scan = Scan(((0x1000, 0x3000, Category.PRESENT), (0x4000, 0x5000, Category.SWAPPED)), 0x6000, 2)
    none, present, swapped = Category(0), Category.PRESENT, Category.SWAPPED
    assert scan.categories(0, 6) == [none, present, present, none, swapped, none]
    assert scan.categories(0x2000, 2) == [present, none]
    assert scan.addresses() == [0x1000, 0x2000, 0x4000]
