# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SCAN: what the ioctl PAGEMAP_SCAN reports and protects."""

from errno import EPERM

import pytest

from helpers import pagemap
from helpers.axes import (
    ANON,
    FEATURES,
    HUGETLB,
    KINDS,
    NONE,
    SHARED_SHMEM,
    SHMEM,
    STATES,
    SYNC,
    ZERO,
    asynchronous,
    pmd_mapped,
    populated,
    protectable,
    swapped,
    wpu,
)
from helpers.cases import case, refuses
from helpers.machine import PAGEMAP_SCAN
from helpers.uapi import Category, ScanFlag

NEEDS = (PAGEMAP_SCAN,)
WRITTEN = Category.WRITTEN
REARM = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
SMALL_KINDS = (*ANON, *SHMEM)
# the ways to ask for written pages: the kernel has a short cut for the first
PATHS = pytest.mark.parametrize(
    "asked",
    [
        {"required": WRITTEN, "returned": WRITTEN},
        {"anyof": WRITTEN, "returned": pagemap.ALL_CATEGORIES & ~Category.GUARD},
    ],
    ids=["fast_path", "generic_path"],
)


def written(mem, **asked):
    """The pages that PAGEMAP_SCAN reports as written."""
    asked = asked or {"required": WRITTEN, "returned": WRITTEN}
    scan = pagemap.scan(mem.subject, mem.start, mem.start + mem.size, **asked)
    return {(address - mem.start) // mem.page_bytes for address in scan.addresses()}


@case("SCAN-1", kinds=KINDS, states=NONE, features=(wpu, asynchronous), needs=NEEDS)
def test_marker_is_swapped_and_not_written(mem):
    mem.protect()
    seen = mem.categories()
    assert Category.SWAPPED in seen
    assert WRITTEN not in seen


@PATHS
@case("SCAN-2", kinds=ANON, states=STATES, features=(asynchronous,), needs=NEEDS)
def test_unprotected_page_is_written(mem, asked):
    mem.protect(mem.near)
    mem.unprotect()
    assert written(mem, **asked) == set(mem.pages) - set(mem.near) | {mem.page}


@case("SCAN-3", kinds=ANON, states=ZERO, features=FEATURES, needs=NEEDS)
def test_zero_page_is_pfnzero(mem):
    mem.protect()
    assert Category.PFNZERO | Category.PRESENT in mem.categories()


@PATHS
@case("SCAN-4", kinds=KINDS, states=(*STATES, swapped), features=(asynchronous,), needs=NEEDS)
def test_write_is_reported_and_nothing_else(mem, asked):
    mem.protect(mem.pages)
    assert written(mem, **asked) == set()
    mem.load(mem.page + 1)
    mem.store()
    assert written(mem, **asked) == {mem.page}


@PATHS
@case("SCAN-5", kinds=KINDS, states=(*STATES, swapped), features=(asynchronous,), needs=NEEDS)
def test_wp_matching_protects_what_it_reports(mem, asked):
    mem.protect(mem.pages)
    mem.store()
    assert written(mem, **asked, flags=REARM) == {mem.page}
    assert written(mem, **asked, flags=REARM) == set()
    assert mem.protected() == set(mem.pages)
    mem.store()
    assert written(mem, **asked) == {mem.page}


@case("SCAN-6", kinds=KINDS, states=(populated,), features=SYNC, needs=NEEDS)
def test_check_wpasync_refuses_what_is_not_async(mem):
    with refuses(EPERM):
        written(mem, required=WRITTEN, returned=WRITTEN, flags=REARM)
    assert mem.protected() == set()


@pytest.mark.parametrize("limit", ["vec_len", "max_pages"])
@case("SCAN-7", kinds=(*ANON,), states=(populated,), features=(asynchronous,), needs=NEEDS)
def test_full_scan_stops_and_resumes(mem, limit):
    mem.protect(mem.pages)
    for page in (1, 3, 5, 7):
        mem.store(page)
    end = mem.start + mem.size
    asked = {"required": WRITTEN, "returned": WRITTEN, "flags": REARM}
    first = pagemap.scan(mem.subject, mem.start, end, **asked, **{limit: 2})
    assert first.addresses() == [mem.address(1), mem.address(3)]
    assert first.walk_end == mem.address(4) or first.walk_end == mem.address(5)
    rest = pagemap.scan(mem.subject, first.walk_end, end, **asked)
    assert rest.addresses() == [mem.address(5), mem.address(7)]
    assert rest.walk_end == end


@case("SCAN-8", kinds=ANON, states=(pmd_mapped,), features=FEATURES, needs=NEEDS)
def test_pmd_mapped_page_is_huge_until_it_is_split(mem):
    mem.protect(mem.pmd)
    assert Category.HUGE in mem.categories()
    mem.unprotect()
    assert Category.HUGE not in mem.categories()


@case("SCAN-8", kinds=HUGETLB, states=(populated,), features=FEATURES, needs=NEEDS)
def test_hugetlb_page_is_huge(mem):
    mem.protect()
    assert Category.HUGE in mem.categories()


@case("SCAN-9", kinds=KINDS, states=STATES, features=SYNC, where=protectable, needs=NEEDS)
def test_sync_protection_is_reported_too(mem):
    mem.protect(mem.near)
    assert written(mem) & set(mem.near) == set()
    write = mem.store()
    mem.unprotect()
    assert write.completes()
    assert written(mem) & set(mem.near) == {mem.page}


@PATHS
@case("SCAN-10", kinds=SMALL_KINDS, states=STATES, features=(asynchronous,), needs=NEEDS)
def test_wp_matching_protects_what_was_never_protected(mem, asked):
    assert written(mem, **asked, flags=REARM) == set(mem.pages)
    assert mem.protected() == set(mem.pages)
    assert mem.store().silent
    assert mem.page in written(mem, **asked)


@PATHS
@case("SCAN-10", kinds=ANON, states=STATES, features=(asynchronous,), needs=NEEDS)
def test_write_after_it_is_reported_alone(mem, asked):
    written(mem, **asked, flags=REARM)
    mem.store()
    assert written(mem, **asked) == {mem.page}


@case("SCAN-11", kinds=SHARED_SHMEM, states=(pmd_mapped,), features=(asynchronous,), needs=NEEDS)
def test_write_to_a_shmem_thp_reports_all_of_it(mem):
    written(mem, required=WRITTEN, returned=WRITTEN, flags=REARM)
    mem.store()
    assert written(mem) == set(mem.pmd)


@PATHS
@case("SCAN-12", kinds=HUGETLB, states=NONE, features=(asynchronous,), needs=NEEDS)
def test_hugetlb_hole_is_neither_written_nor_protected(mem, asked):
    assert mem.page not in written(mem, **asked, flags=REARM)
    assert mem.word() == 0


@case("SCAN-13", kinds=KINDS, states=(populated,), features=FEATURES, needs=NEEDS)
def test_wpallowed_tells_an_async_range(mem):
    allowed = Category.WPALLOWED in mem.categories()
    assert allowed == (mem.setup.features is asynchronous)


@case("SCAN-14", kinds=SMALL_KINDS, states=STATES, features=(asynchronous,), needs=NEEDS)
def test_wp_matching_protects_just_the_range(mem):
    start, size = mem.span(mem.near)
    asked = {"required": WRITTEN, "returned": WRITTEN, "flags": REARM}
    scan = pagemap.scan(mem.subject, start, start + size, **asked)
    assert scan.addresses() == [mem.address(page) for page in mem.near]
    assert mem.protected() == set(mem.near)


@case("SCAN-15", kinds=SMALL_KINDS, states=STATES, features=(asynchronous,), needs=NEEDS)
def test_wp_matching_without_a_vector_protects_silently(mem):
    written(mem, required=WRITTEN, returned=Category(0), flags=REARM, vec_len=0)
    assert mem.protected() == set(mem.pages)
