# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SCAN: what the ioctl PAGEMAP_SCAN reports and protects."""

import os
from copy import copy
from errno import EFAULT, EINVAL, EPERM
from itertools import cycle, groupby, product
from mmap import PAGESIZE
from operator import itemgetter
from pathlib import Path
from signal import SIGBUS, SIGSEGV

import pytest

from helpers import batch, pagemap
from helpers.axes import (
    ANON,
    DISTINCT,
    DISTINCT_SMALL,
    FEATURES,
    HUGETLB,
    KINDS,
    NONE,
    POPULATED,
    SHARED_SHMEM,
    STATES,
    SYNC,
    ZERO,
    anon,
    asynchronous,
    huge_zero_page,
    memfd_shared,
    none_pmd,
    none_pte,
    pmd_mapped,
    populated,
    protectable,
    swapped,
    wpu,
    zero_page,
)
from helpers.batch import Batch
from helpers.cases import case, refuses
from helpers.machine import GUARD_CATEGORY, PAGEMAP_SCAN, SOFT_DIRTY, advice
from helpers.pagemap import Page
from helpers.uapi import Advice, Category, Feature, Ioctl, Map, Prot, RegisterMode, ScanFlag
from helpers.uffd import Userfaultfd

NEEDS = (PAGEMAP_SCAN,)
GUARD = advice(Advice.GUARD_INSTALL)
TOP = 1 << 62
WRITTEN = Category.WRITTEN
REARM = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
ASYNC = (asynchronous,)
WHOLE = (none_pmd, populated, huge_zero_page, pmd_mapped)
SMALL_TRACKED = (zero_page, populated)  # the split of a THP makes all of it soft-dirty
TRACKED = (*SMALL_TRACKED, pmd_mapped)
BOUNDARIES = {"pte_table": 2 << 20, "pmd_table": 1 << 30, "pud_table": 512 << 30}
TIB = 1 << 40
PMD_BYTES = 2 << 20
GENERIC = {"required": Category(0), "anyof": WRITTEN}
# what all kernels with PAGEMAP_SCAN know, and masks of it
KNOWN = Category((1 << 8) - 1)
WAYS = {
    "fast": {},
    "anyof": GENERIC,
    "more_returned": {"returned": KNOWN},
    "more_required": {"required": WRITTEN | Category.WPALLOWED},
    "inverted": {"inverted": Category.SOFT_DIRTY},
}
MASKS = (Category(0), WRITTEN, Category.PRESENT | WRITTEN, Category.SWAPPED | Category.PFNZERO)
# the ways to ask for written pages: the kernel has a short cut for the first
PATHS = pytest.mark.parametrize(
    "asked",
    [{}, GENERIC],
    ids=["fast_path", "generic_path"],
)


@case("SCAN-1", kinds=KINDS, states=NONE, features=(wpu, asynchronous), needs=NEEDS)
def test_marker_is_swapped_and_not_written(mem):
    mem.protect()
    seen = mem.categories()
    assert Category.SWAPPED in seen
    assert WRITTEN not in seen


@PATHS
@case("SCAN-2", kinds=ANON, states=STATES, features=ASYNC, needs=NEEDS)
def test_unprotected_page_is_written(mem, asked):
    mem.protect(mem.near)
    mem.unprotect()
    assert mem.written(**asked) == set(mem.pages) - set(mem.near) | {mem.page}


@case("SCAN-3", kinds=ANON, states=ZERO, features=FEATURES, needs=NEEDS)
def test_zero_page_is_pfnzero(mem):
    mem.protect()
    assert Category.PFNZERO | Category.PRESENT in mem.categories()


@PATHS
@case("SCAN-4", kinds=DISTINCT, states=(*STATES, swapped), features=ASYNC, needs=NEEDS)
def test_write_is_reported_and_nothing_else(mem, asked):
    mem.protect(mem.pages)
    assert mem.written(**asked) == set()
    mem.load(mem.page + 1)
    mem.store()
    assert mem.written(**asked) == {mem.page}


@case("SCAN-17", kinds=ANON, states=(none_pte,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_written_pages_are_selected_by_what_else_they_are(mem):
    mem.populate(range(2))
    mem.protect(range(1))
    assert mem.written(anyof=Category.PRESENT) == {1}


@PATHS
@case("SCAN-5", kinds=DISTINCT, states=(*STATES, swapped), features=ASYNC, needs=NEEDS)
def test_wp_matching_protects_what_it_reports(mem, asked):
    mem.protect(mem.pages)
    mem.store()
    assert mem.rearm(**asked) == {mem.page}
    assert mem.rearm(**asked) == set()
    assert mem.protected() == set(mem.pages)
    mem.store()
    assert mem.written(**asked) == {mem.page}


@case("SCAN-6", kinds=KINDS, states=(populated,), features=SYNC, needs=NEEDS)
def test_check_wpasync_refuses_what_is_not_async(mem):
    with refuses(EPERM):
        mem.rearm()
    assert mem.protected() == set()


@PATHS
@pytest.mark.parametrize("limit", ["vec_len", "max_pages"])
@case("SCAN-7", kinds=DISTINCT_SMALL, states=(none_pmd, populated), features=ASYNC, needs=NEEDS)
def test_full_scan_stops_and_resumes(mem, limit, asked):
    first, *_, last = mem.pages
    mem.protect(mem.pages)
    for page in (first, mem.page, mem.page + 2, last):
        mem.store(page)
    full = mem.scan(flags=REARM, **asked, **{limit: 2})
    assert mem.reported(full) == {first, mem.page}
    assert full.walk_end == mem.address(mem.page + 2)
    assert mem.written() == {mem.page + 2, last}


@PATHS
@case("SCAN-7", kinds=DISTINCT, states=(populated, pmd_mapped), features=ASYNC, needs=NEEDS)
def test_scan_that_is_not_full_goes_to_the_end(mem, asked):
    mem.protect(mem.pages)
    mem.store()
    scan = mem.scan(**asked)
    assert mem.page in mem.reported(scan)
    assert mem.pages[-1] not in mem.reported(scan)
    assert scan.walk_end == mem.start + mem.size


@PATHS
@case("SCAN-7", kinds=DISTINCT, states=(none_pmd, populated), features=ASYNC, needs=NEEDS)
def test_scan_of_pages_apart_goes_to_the_end(mem, asked):
    mem.protect(mem.pages)
    apart = set(mem.pages[:-1:2])
    for page in apart:
        mem.store(page)
    scan = mem.scan(**asked)
    assert mem.reported(scan) == apart
    assert scan.walk_end == mem.start + mem.size


@pytest.mark.parametrize("count", [1200], ids=["1200_pages"])
@case("SCAN-7", kinds=ANON, states=(none_pte,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_scan_of_very_many_pages_apart_goes_to_the_end(mem, count):
    mem.protect(mem.pages)
    mem.subject.main.store(mem.start, 1, 2 * mem.page_bytes, count // 2).result()
    scan = mem.scan()
    assert mem.reported(scan) == set(mem.pages[::2])
    assert scan.walk_end == mem.start + mem.size


@case("SCAN-7", kinds=DISTINCT_SMALL, states=WHOLE, features=ASYNC, needs=NEEDS)
def test_max_pages_ends_within_what_one_entry_maps(mem):
    scan = mem.scan(mem.pmd, flags=REARM, max_pages=3)
    assert mem.reported(scan) == mem.protected() == set(mem.pmd[:3])
    assert scan.walk_end == mem.address(mem.pmd[3])
    assert mem.written(mem.pmd, max_pages=3) == set(mem.pmd[3:6])


@pytest.mark.parametrize("limit", ["vec_len", "max_pages"])
@case("SCAN-7", kinds=ANON, states=(none_pmd,), features=ASYNC, thp=(True,), needs=NEEDS)
def test_resumed_scans_add_up(mem, limit):
    mem.protect(mem.pages)
    mem.subject.main.store(mem.start, 1, 2 * mem.page_bytes, len(mem.pages) // 2).result()
    begin, found = 0, set()
    while begin < len(mem.pages):
        scan = mem.scan(mem.pages[begin:], **{limit: 100})
        found |= mem.reported(scan)
        begin = (scan.walk_end - mem.start) // mem.page_bytes
    assert found == set(mem.pages[::2])


@case("SCAN-7", kinds=HUGETLB, states=(populated,), features=ASYNC, needs=NEEDS)
def test_hugetlb_page_that_exceeds_max_pages_is_where_the_scan_stops(mem):
    scan = mem.scan(flags=REARM, max_pages=mem.page_bytes // PAGESIZE + 1)
    assert mem.reported(scan) == mem.protected() == {0}
    assert scan.walk_end == mem.address(1)


@case(
    "SCAN-7",
    kinds=(anon, memfd_shared, *HUGETLB),
    states=WHOLE,
    features=ASYNC,
    needs=NEEDS,
    where=lambda setup: setup.thp or (setup.kind.hugetlb and setup.state is populated),
)
def test_scan_that_one_entry_fills_leaves_the_next_alone(mem):
    first = mem.pages[: PMD_BYTES // mem.page_bytes]
    rest = mem.pages[len(first) :]
    before = mem.looks(rest)
    scan = mem.scan(flags=REARM, max_pages=PMD_BYTES // PAGESIZE)
    assert mem.reported(scan) == mem.protected() == set(first)
    assert mem.looks(rest) == before


@case("SCAN-7", kinds=ANON, states=(pmd_mapped,), features=ASYNC, needs=NEEDS)
def test_full_vector_leaves_the_huge_page_behind_it_huge(mem):
    before, *_ = pages = range(mem.pmd[0] - 1, mem.pmd[-1] + 1)
    scan = mem.scan(pages, flags=REARM, returned=KNOWN, vec_len=1)
    assert mem.reported(scan) == mem.protected() == {before}
    assert Page.HUGE in mem.look()


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


@case("SCAN-9", kinds=DISTINCT, states=STATES, features=SYNC, where=protectable, needs=NEEDS)
def test_sync_protection_is_reported_too(mem):
    mem.protect(mem.near)
    assert mem.written() & set(mem.near) == set()
    write = mem.store()
    mem.unprotect()
    assert write.completes()
    assert mem.written() & set(mem.near) == {mem.page}


@PATHS
@case("SCAN-10", kinds=DISTINCT_SMALL, states=STATES, features=ASYNC, needs=NEEDS)
def test_wp_matching_protects_what_was_never_protected(mem, asked):
    assert mem.rearm(**asked) == set(mem.pages)
    assert mem.protected() == set(mem.pages)
    assert mem.store().silent
    assert mem.page in mem.written(**asked)


@PATHS
@case("SCAN-10", kinds=ANON, states=STATES, features=ASYNC, needs=NEEDS)
def test_write_after_it_is_reported_alone(mem, asked):
    mem.rearm(**asked)
    mem.store()
    assert mem.written(**asked) == {mem.page}


@case("SCAN-11", kinds=SHARED_SHMEM, states=(pmd_mapped,), features=ASYNC, needs=NEEDS)
def test_write_to_a_shmem_thp_reports_all_of_it(mem):
    mem.rearm()
    mem.store()
    assert mem.written() == set(mem.pmd)


@PATHS
@case("SCAN-12", kinds=HUGETLB, states=NONE, features=ASYNC, needs=NEEDS)
def test_hugetlb_hole_is_neither_written_nor_protected(mem, asked):
    assert mem.page not in mem.rearm(**asked)
    assert mem.word() == 0


@case("SCAN-13", kinds=KINDS, states=(populated,), features=FEATURES, needs=NEEDS)
def test_wpallowed_tells_an_async_range(mem):
    allowed = Category.WPALLOWED in mem.categories()
    assert allowed == (mem.setup.features is asynchronous)
    assert (mem.page in mem.written(required=Category.WPALLOWED)) == allowed


@case(
    "SCAN-13",
    kinds=DISTINCT,
    states=(populated,),
    features=ASYNC,
    thp=(False,),
    mode=RegisterMode.MISSING,
    needs=NEEDS,
)
def test_range_registered_for_missing_pages_alone_is_not_allowed(mem):
    assert Category.WPALLOWED not in mem.categories()
    with refuses(EPERM):
        mem.rearm()
    assert mem.protected() == set()


@case("SCAN-14", kinds=DISTINCT_SMALL, states=STATES, features=ASYNC, needs=NEEDS)
def test_wp_matching_protects_just_the_range(mem):
    assert mem.rearm(mem.near) == set(mem.near)
    assert mem.protected() == set(mem.near)


@case(
    "SCAN-14",
    kinds=(anon, memfd_shared),
    states=(huge_zero_page, pmd_mapped),
    features=ASYNC,
    needs=NEEDS,
)
def test_range_that_ends_within_a_huge_page_is_reported_whole(mem):
    across = mem.pages[mem.pmd[0] - 1 : mem.pmd[0] + 2]
    assert mem.rearm(across) == mem.protected() == set(across)


@case("SCAN-28", kinds=HUGETLB, states=(populated,), features=ASYNC, needs=NEEDS)
def test_part_of_a_hugetlb_page_is_neither_reported_nor_protected(mem):
    asked = {"required": WRITTEN, "returned": WRITTEN, "flags": REARM}
    end = mem.address() + mem.page_bytes // 2
    scan = pagemap.scan(mem.subject, mem.start, end, **asked)
    assert mem.reported(scan) == mem.protected() == {0}
    assert scan.walk_end == mem.address()


@pytest.mark.parametrize(
    ("vec_len", "mask"),
    [(0, "category_mask"), (1, "category_mask"), (1, "category_anyof_mask")],
    ids=["no_vector", "vector", "generic_path"],
)
@case("SCAN-29", kinds=(anon, *HUGETLB), states=POPULATED, features=ASYNC, needs=NEEDS)
def test_wp_matching_reaches_the_thread_that_has_just_written(mem, vec_len, mask):
    thread, pagemap_file = mem.subject.main, mem.subject.pagemap
    begin, size = mem.span(mem.pages)
    vector = thread.scratch_address + 256
    fields = {"size": 96, "flags": REARM, "start": begin, "end": begin + size}
    masks = {mask: WRITTEN, "return_mask": WRITTEN}
    thread.struct("pm_scan_arg", **fields, **masks, vec=vector * vec_len, vec_len=vec_len)
    scan = batch.call("ioctl", pagemap_file, Ioctl.PAGEMAP_SCAN, thread.scratch_address)
    stores = [batch.store(mem.address(), value) for value in (1, 2)]
    Batch(thread, [stores[0], scan, stores[1]]).start().result()
    assert mem.written() == {mem.page}


@case("SCAN-15", kinds=DISTINCT_SMALL, states=(*STATES, swapped), features=ASYNC, needs=NEEDS)
def test_wp_matching_without_a_vector_protects_silently(mem):
    mem.rearm(vec_len=0)
    assert mem.protected() == set(mem.pages)


@case(
    "SCAN-15", kinds=DISTINCT_SMALL, states=(populated,), features=ASYNC, thp=(False,), needs=NEEDS
)
def test_wp_matching_without_a_vector_leaves_the_protected_so(mem):
    mem.protect(mem.near)
    mem.rearm(vec_len=0)
    assert mem.protected() == set(mem.pages)


@case("SCAN-16", kinds=DISTINCT, states=(*STATES, swapped), features=ASYNC, needs=NEEDS)
def test_every_way_to_ask_agrees_with_pagemap(mem):
    mem.protect(mem.near)
    mem.store()
    looks = dict(zip(mem.pages, mem.looks(), strict=True))
    dirty = {
        n for n, look in looks.items() if Page.WP not in look and (look or not mem.kind.hugetlb)
    }
    answers = {name: mem.written(**asked) for name, asked in WAYS.items()}
    assert answers == dict.fromkeys(WAYS, dirty)
    assert mem.written(inverted=WRITTEN) == set(mem.pages) - dirty


@case(
    "SCAN-17",
    kinds=(anon, memfd_shared),
    states=(none_pte,),
    features=ASYNC,
    thp=(False,),
    needs=NEEDS,
)
def test_masks_select_and_trim_what_is_reported(mem):
    mem.populate(range(2))
    mem.load_all(range(2, 4))
    mem.protect(range(1, 3))
    mem.protect(mem.pages[-2])
    every = mem.scan(required=Category(0), returned=KNOWN).categories(mem.start, len(mem.pages))
    for (required, inverted, anyof), returned in zip(product(MASKS, repeat=3), cycle(MASKS[1:])):
        masks = {"required": required, "inverted": inverted, "anyof": anyof, "returned": returned}
        assert mem.scan(**masks).regions == selected(mem, every, **masks)


@case("SCAN-18", kinds=ANON, states=(none_pmd,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_large_empty_span_is_one_region(mem):
    start = mem.subject.mmap(TIB, Prot.RW, Map.PRIVATE | Map.ANONYMOUS | Map.NORESERVE)
    mem.uffd.register(start, TIB)
    asked = {"required": WRITTEN, "returned": WRITTEN}
    scan = pagemap.scan(mem.subject, start, start + TIB, **asked)
    assert scan.regions == ((start, start + TIB, WRITTEN),)


@pytest.mark.parametrize("boundary", BOUNDARIES.values(), ids=BOUNDARIES)
@case(
    "SCAN-18",
    kinds=(anon, memfd_shared),
    states=(none_pmd, populated),
    features=ASYNC,
    thp=(False,),
    needs=NEEDS,
)
def test_table_boundary_is_crossed_page_by_page(mem):
    middle = len(mem.pages) // 2
    assert mem.rearm(mem.pages[middle - 2 : middle + 2]) == set(mem.pages[middle - 2 : middle + 2])
    assert mem.protected() == set(mem.pages[middle - 2 : middle + 2])
    mem.store(middle)
    assert mem.rearm(mem.pages[middle - 1 : middle + 1]) == {middle}


@case("SCAN-30", kinds=DISTINCT, states=(none_pmd,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_none_pmd_that_is_not_registered_is_not_written(bare):
    assert bare.written() == set()


@case(
    "SCAN-19", kinds=DISTINCT, states=(none_pte, populated, pmd_mapped), features=ASYNC, needs=NEEDS
)
def test_another_process_scans_and_protects(mem):
    mem.rearm()
    child = mem.fork()
    mem.store()
    theirs = child.subject.open(f"/proc/{mem.subject.pid}/pagemap", os.O_RDONLY)
    assert child.written(pagemap=theirs) == mem.written()
    assert mem.page in child.rearm(pagemap=theirs)
    assert mem.page in mem.protected()


@pytest.mark.parametrize(
    ("start", "end", "wrong", "error"),
    [
        pytest.param(1, PAGESIZE, {}, EINVAL, id="misaligned_start"),
        pytest.param(0, TOP, {}, EFAULT, id="beyond_the_address_space"),
        pytest.param(PAGESIZE, 0, {}, EFAULT, id="end_before_start"),
        pytest.param(0, PAGESIZE, {"size": 95}, EINVAL, id="short_structure"),
        pytest.param(0, PAGESIZE, {"size": 104}, EINVAL, id="long_structure"),
        pytest.param(0, PAGESIZE, {"flags": 1 << 2}, EINVAL, id="unknown_flag"),
        pytest.param(0, PAGESIZE, {"category_mask": TOP}, EINVAL, id="unknown_category"),
        pytest.param(0, PAGESIZE, {"category_inverted": TOP}, EINVAL, id="unknown_inverted"),
        pytest.param(0, PAGESIZE, {"category_anyof_mask": TOP}, EINVAL, id="unknown_anyof"),
        pytest.param(0, PAGESIZE, {"return_mask": TOP}, EINVAL, id="unknown_returned"),
        pytest.param(0, PAGESIZE, {"vec": 0}, EINVAL, id="length_without_vector"),
        pytest.param(0, PAGESIZE, {"vec": 1 << 62}, EFAULT, id="vector_beyond_user_space"),
    ],
)
@case("SCAN-20", kinds=ANON, states=(populated,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_bad_request_is_refused(mem, start, end, wrong, error):
    asked = {"required": WRITTEN, "returned": WRITTEN, **wrong}
    with refuses(error):
        pagemap.scan(mem.subject, mem.start + start, mem.start + end, **{"flags": REARM} | asked)
    assert mem.protected() == set()


@case("SCAN-20", kinds=ANON, states=(populated,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_end_is_rounded_up_to_a_page(mem):
    end = mem.address(mem.page)
    asked = {"required": WRITTEN, "returned": WRITTEN}
    scan = pagemap.scan(mem.subject, mem.start, end + 1, **asked)
    assert scan.walk_end == end + mem.page_bytes
    assert mem.reported(scan) == set(mem.pages[: mem.page + 1])


@case("SCAN-21", kinds=DISTINCT, states=(populated,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_vector_that_can_not_be_written_is_told_too_late(mem):
    with refuses(EFAULT):
        mem.rearm(vec=PAGESIZE)
    assert mem.protected() == set(mem.pages)


@case("SCAN-21", kinds=DISTINCT, states=(populated,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_sync_neighbour_is_told_too_late(mem, beside):
    with refuses(EPERM):
        mem.rearm()
    assert mem.protected() == set(mem.pages) - set(beside.pages)


@case("SCAN-22", kinds=DISTINCT, states=(populated,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_wp_matching_passes_a_sync_neighbour_by(mem, beside):
    assert mem.written(flags=ScanFlag.WP_MATCHING) == set(mem.pages) - set(beside.pages)
    assert mem.protected() == set(mem.pages) - set(beside.pages)
    assert mem.written() == set(beside.pages)


@case(
    "SCAN-22",
    kinds=DISTINCT,
    states=(populated, none_pte),
    features=ASYNC,
    thp=(False,),
    needs=NEEDS,
)
def test_sync_and_async_side_by_side_keep_apart(mem, beside):
    mem.protect(mem.pages)
    assert mem.store().silent
    write = beside.store()
    assert write.message == beside.wp_fault()
    assert mem.written() == {mem.page}
    beside.unprotect()
    assert write.completes()
    assert mem.written() == {mem.page, beside.page}


@case("SCAN-15", kinds=DISTINCT, states=(populated,), features=ASYNC, thp=(False,), needs=NEEDS)
def test_without_a_vector_and_wp_matching_a_scan_protects_nothing(mem):
    mem.scan(vec_len=0)
    assert mem.protected() == set()


@case(
    "SCAN-23",
    kinds=(anon, memfd_shared),
    states=(none_pte, populated),
    features=ASYNC,
    thp=(False,),
    needs=NEEDS,
)
def test_without_a_vector_masks_go_unheeded(mem):
    mem.rearm(required=WRITTEN | Category.SWAPPED, vec_len=0)
    assert mem.protected() == set(mem.pages)


@case(
    "SCAN-24",
    kinds=(anon, memfd_shared, *HUGETLB),
    states=(none_pte,),
    features=ASYNC,
    also=Feature.POISON,
    thp=(False,),
    needs=NEEDS,
)
def test_wp_matching_leaves_a_poisoned_page_poisoned(mem):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    assert mem.page in mem.rearm()
    assert mem.load().signal == SIGBUS


@case(
    "SCAN-24", kinds=ANON, states=(none_pte,), features=ASYNC, thp=(False,), needs=(*NEEDS, GUARD)
)
def test_wp_matching_leaves_a_guard_page_a_guard(mem):
    mem.advise(Advice.GUARD_INSTALL)
    mem.rearm()
    assert mem.load().signal == SIGSEGV
    mem.advise(Advice.GUARD_REMOVE)
    assert mem.look() == Page.NONE


@case(
    "SCAN-24",
    kinds=ANON,
    states=(none_pte,),
    features=ASYNC,
    thp=(False,),
    needs=(GUARD, GUARD_CATEGORY),
)
def test_guard_page_is_reported_as_one(mem):
    mem.advise(Advice.GUARD_INSTALL)
    scan = mem.scan(required=Category.GUARD, returned=Category.GUARD)
    assert mem.reported(scan) == {mem.page}


@case(
    "SCAN-25", kinds=DISTINCT_SMALL, states=(populated,), features=ASYNC, thp=(False,), needs=NEEDS
)
def test_removed_page_counts_as_written(mem):
    mem.rearm()
    mem.store()
    mem.advise(Advice.DONTNEED)
    assert mem.rearm() == {mem.page}


@case("SCAN-25", kinds=HUGETLB, states=(populated,), features=ASYNC, needs=NEEDS)
def test_removed_hugetlb_page_is_lost(mem):
    mem.rearm()
    mem.store()
    mem.advise(Advice.DONTNEED)
    assert mem.rearm() == set()
    assert mem.protected() == set(mem.pages) - {mem.page}


@case(
    "SCAN-26",
    kinds=(anon, memfd_shared),
    states=(*TRACKED, none_pte, huge_zero_page, swapped),
    features=(wpu,),
    needs=(*NEEDS, SOFT_DIRTY),
)
def test_clearing_soft_dirty_keeps_the_protection(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    clear_soft_dirty(mem)
    assert mem.protected() == protected
    assert mem.store().message == mem.wp_fault()


@case(
    "SCAN-26",
    kinds=(anon, memfd_shared),
    states=TRACKED,
    features=(wpu,),
    needs=(*NEEDS, SOFT_DIRTY),
)
def test_protecting_and_unprotecting_does_not_dirty(mem):
    clear_soft_dirty(mem)
    mem.protect(mem.unit)
    assert soft_dirty(mem) == set()
    mem.unprotect(mem.unit)
    assert soft_dirty(mem) == set()


@case(
    "SCAN-27",
    kinds=(anon, memfd_shared),
    states=TRACKED,
    features=(wpu,),
    needs=(*NEEDS, SOFT_DIRTY),
)
def test_store_after_unprotecting_is_soft_dirty(mem):
    mem.protect(mem.near)
    clear_soft_dirty(mem)
    mem.unprotect(mem.near)
    mem.store()
    assert soft_dirty(mem) == {mem.page}


@case(
    "SCAN-27",
    kinds=(anon, memfd_shared),
    states=SMALL_TRACKED,
    features=ASYNC,
    needs=(*NEEDS, SOFT_DIRTY),
)
def test_async_store_is_written_and_soft_dirty(mem):
    mem.rearm()
    clear_soft_dirty(mem)
    mem.store()
    assert soft_dirty(mem) == mem.written() == {mem.page}


@pytest.fixture
def beside(mem, machine):
    """The pages after the tested one, registered sync with a userfaultfd of their own."""
    other = copy(mem)
    other.page = mem.page + 1
    other.pages = mem.pages[other.page :]
    mem.uffd.unregister(*mem.span(other.pages))
    other.uffd = Userfaultfd.open(mem.subject, machine.access)
    other.uffd.api(Feature.WP_UNPOPULATED)
    other.uffd.register(*mem.span(other.pages))
    return other


def selected(mem, every, required, inverted, anyof, returned):
    """The regions that a scan must report of pages in these categories, as pagemap.rst has it."""

    def wanted(categories):
        met = categories ^ inverted
        return met & required == required and (not anyof or bool(met & anyof))

    kept = [categories & returned if wanted(categories) else None for categories in every]
    runs = [(shown, [n for n, _ in run]) for shown, run in groupby(enumerate(kept), itemgetter(1))]
    return tuple(
        (mem.address(run[0]), mem.address(run[-1] + 1), shown)
        for shown, run in runs
        if shown is not None
    )


def clear_soft_dirty(mem):
    """Has the kernel watch for writes anew."""
    Path(f"/proc/{mem.subject.pid}/clear_refs").write_text("4")


def soft_dirty(mem):
    """The pages written since then, as pagemap and PAGEMAP_SCAN tell alike."""
    words = pagemap.words(mem.subject, mem.start, len(mem.pages))
    seen = {number for number, word in enumerate(words) if word & pagemap.SOFT_DIRTY}
    assert seen == mem.written(required=Category.SOFT_DIRTY, returned=Category.SOFT_DIRTY)
    return seen
