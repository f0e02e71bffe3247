# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter THP: transparent huge pages."""

from errno import EBUSY, EINVAL

import pytest

from helpers.arrange import content, huge_bytes
from helpers.axes import (
    ANON,
    FEATURES,
    SHARED_SHMEM,
    SYNC,
    asynchronous,
    file_pmd_mapped,
    memfd_private,
    memfd_shared,
    none_pmd,
    none_pte,
    pmd_mapped,
    protectable,
    pte_mapped,
    wpu,
)
from helpers.cases import case, refuses
from helpers.machine import advice
from helpers.pagemap import Page
from helpers.region import MARKER
from helpers.uapi import Advice

COLLAPSE = advice(Advice.COLLAPSE)


@case("THP-1", kinds=ANON, states=(pmd_mapped,), features=FEATURES)
def test_protecting_a_thp_does_not_split_it(mem):
    tables = mem.page_tables()
    mem.protect(mem.pmd)
    assert mem.changed() == mem.protected() == set(mem.pmd)
    assert huge_bytes(mem) == mem.machine.pmd_bytes
    assert mem.page_tables() == tables


@case("THP-2", kinds=ANON, states=(pmd_mapped,), features=FEATURES)
def test_protecting_one_page_splits_the_pmd(mem):
    mem.protect()
    assert huge_bytes(mem) == 0
    assert mem.changed() == mem.protected() == {mem.page}


@case("THP-3", kinds=ANON, states=(pmd_mapped,), features=FEATURES)
def test_unprotecting_one_page_keeps_the_others_protected(mem):
    mem.protect(mem.pmd)
    mem.unprotect()
    assert mem.protected() == set(mem.pmd) - {mem.page}
    assert mem.store().silent


@case("THP-3", kinds=ANON, states=(pmd_mapped,), features=SYNC)
def test_resolving_a_write_page_by_page_keeps_the_others_protected(mem):
    mem.protect(mem.pmd)
    write = mem.store()
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert mem.protected() == set(mem.pmd) - {mem.page}
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@case("THP-4", kinds=ANON, states=(pmd_mapped,), features=SYNC)
def test_unprotected_as_a_whole_it_stays_huge(mem):
    mem.protect(mem.pmd)
    write = mem.store()
    mem.unprotect(mem.pmd)
    assert write.completes()
    assert huge_bytes(mem) == mem.machine.pmd_bytes


@case("THP-4", kinds=ANON, states=(pmd_mapped,), features=SYNC)
def test_it_stays_huge_while_its_writer_is_blocked(mem):
    mem.protect(mem.pmd)
    assert mem.store().message == mem.wp_fault()
    assert huge_bytes(mem) == mem.machine.pmd_bytes
    assert mem.protected() == set(mem.pmd)


@case("THP-5", kinds=ANON, states=(none_pmd,), features=(wpu, asynchronous), thp=(True,))
def test_a_marker_keeps_thps_out_of_its_pmd(mem):
    before = huge_bytes(mem)
    mem.protect()
    mem.unprotect()
    assert mem.store(mem.page + 1).silent
    assert huge_bytes(mem) == before
    assert mem.changed() == {mem.page + 1}


@case("THP-6", kinds=ANON, states=(none_pmd,), features=FEATURES, thp=(True,))
def test_a_registered_none_pmd_still_gets_a_thp(mem):
    before = huge_bytes(mem)
    assert mem.store().silent
    assert huge_bytes(mem) == before + mem.machine.pmd_bytes


@case("THP-7", kinds=ANON, states=(pmd_mapped,), features=(asynchronous,))
def test_async_write_keeps_the_others_protected(mem):
    mem.protect(mem.pmd)
    assert mem.store().silent
    assert mem.protected() == set(mem.pmd) - {mem.page}
    assert mem.load(mem.page + 1).value == content(mem, mem.page + 1)


@case(
    "THP-8",
    kinds=ANON,
    states=(none_pte, none_pmd, pte_mapped),
    thp=(True,),
    features=(wpu,),
    needs=(COLLAPSE,),
)
def test_collapse_of_a_protected_page_is_refused(mem):
    mem.protect(mem.pmd)
    with refuses(EINVAL):
        mem.advise(Advice.COLLAPSE, mem.pmd)
    assert mem.protected() == set(mem.pmd)


@case(
    "THP-8",
    kinds=ANON,
    states=(none_pte, pte_mapped),
    thp=(True,),
    features=SYNC,
    needs=(COLLAPSE,),
    where=protectable,
)
def test_collapse_beside_one_protected_page_is_refused(mem):
    mem.protect()
    with refuses(EINVAL):
        mem.advise(Advice.COLLAPSE, mem.pmd)
    assert mem.protected() == {mem.page}


@case(
    "THP-8", kinds=SHARED_SHMEM, states=(pmd_mapped, pte_mapped), features=SYNC, needs=(COLLAPSE,)
)
def test_collapse_of_protected_shmem_is_refused(mem):
    mem.protect(mem.near)
    looks = mem.looks(mem.pmd)
    with refuses(EINVAL):
        mem.advise(Advice.COLLAPSE, mem.pmd)
    assert mem.protected() == set(mem.near)
    assert mem.looks(mem.pmd) == looks
    assert mem.load().value == content(mem)


@case("THP-8", kinds=SHARED_SHMEM, states=(pmd_mapped,), features=SYNC, needs=(COLLAPSE,))
def test_collapse_of_protected_shmem_that_was_read_is_refused(mem):
    mem.protect(mem.near)
    mem.load_all(mem.near)
    with refuses(EINVAL):
        mem.advise(Advice.COLLAPSE, mem.pmd)
    assert mem.protected() == set(mem.near)


@case("THP-11", kinds=ANON, states=(none_pte,), thp=(True,), features=SYNC, needs=(COLLAPSE,))
def test_collapse_over_a_none_pte_is_refused(mem):
    with refuses(EBUSY):
        mem.advise(Advice.COLLAPSE, mem.pmd)
    assert mem.changed() == set()


@case("THP-11", kinds=ANON, states=(none_pte,), thp=(True,), features=SYNC, needs=(COLLAPSE,))
def test_collapse_fills_none_ptes_once_unregistered(mem):
    mem.unregister(mem.pages)
    mem.advise(Advice.COLLAPSE, mem.pmd)
    assert huge_bytes(mem) == mem.machine.pmd_bytes


@case("THP-9", kinds=ANON, states=(pte_mapped,), features=SYNC, needs=(COLLAPSE,))
def test_collapse_of_unprotected_pages_succeeds(mem):
    mem.protect()
    mem.unprotect()
    mem.advise(Advice.COLLAPSE, mem.pmd)
    assert huge_bytes(mem) == mem.machine.pmd_bytes
    assert mem.protected() == set()
    assert mem.store().silent


@case("THP-10", kinds=SHARED_SHMEM, states=(pmd_mapped,), features=FEATURES)
def test_protecting_shmem_drops_its_pmd(mem):
    mem.protect(mem.pmd)
    assert set(mem.looks(mem.pmd)) == {MARKER}
    assert mem.load().value == content(mem)
    assert mem.look() == Page.PRESENT | Page.FILE | Page.WP | Page.EXCLUSIVE


@pytest.mark.parametrize(
    "advised", [Advice.COLD, Advice.PAGEOUT, Advice.FREE], ids=["cold", "pageout", "free"]
)
@case("THP-12", kinds=ANON, states=(pmd_mapped,), features=SYNC)
def test_splitting_a_zero_filled_thp_keeps_the_protection(mem, advised):
    mem.zero_fill(mem.pmd)
    mem.protect(mem.pmd)
    mem.advise(advised)
    assert huge_bytes(mem) == 0
    assert mem.protected() == set(mem.pmd)
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@case("THP-12", kinds=ANON, states=(pmd_mapped,), features=SYNC)
def test_splitting_an_unprotected_zero_filled_thp_protects_nothing(mem):
    mem.zero_fill(mem.pmd)
    mem.advise(Advice.COLD)
    assert huge_bytes(mem) == 0
    assert mem.protected() == set()
    assert mem.store().silent


@case("THP-13", kinds=ANON, states=(pmd_mapped,), features=SYNC, needs=(COLLAPSE,))
def test_collapse_of_a_protected_thp_leaves_it_as_it_is(mem):
    mem.protect(mem.pmd)
    mem.advise(Advice.COLLAPSE, mem.pmd)
    assert mem.protected() == set(mem.pmd)
    assert huge_bytes(mem) == mem.machine.pmd_bytes


@case("THP-15", kinds=(memfd_private,), states=(file_pmd_mapped,), features=SYNC)
def test_protecting_a_private_mapping_of_a_thp_drops_its_pmd(mem):
    mem.protect(mem.pmd)
    assert set(mem.looks(mem.pmd)) == {MARKER}
    assert mem.load().value == content(mem)
    assert mem.look() & ~Page.EXCLUSIVE == Page.PRESENT | Page.FILE | Page.WP


@case("THP-15", kinds=(memfd_private,), states=(file_pmd_mapped,), features=SYNC)
def test_write_into_a_private_mapping_of_a_thp_copies_one_page(mem):
    mem.protect(mem.pmd)
    write = mem.store()
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert mem.protected() == set(mem.pmd) - {mem.page}
    assert mem.read_file(mem.page) == mem.value()


@case("THP-15", kinds=(memfd_private,), states=(file_pmd_mapped,), features=(asynchronous,))
def test_async_scan_of_a_private_mapping_of_a_thp_reports_the_write(mem):
    mem.protect(mem.pmd)
    assert mem.store().silent
    assert mem.written(mem.pmd) == {mem.page}
    assert mem.load(mem.page + 1).value == content(mem, mem.page + 1)


@case("THP-14", kinds=(memfd_shared,), states=(pmd_mapped,), needs=(COLLAPSE,))
def test_collapse_by_another_process_keeps_the_protection(mem):
    child = mem.fork()
    mem.protect(mem.pmd)
    child.advise(Advice.REMOVE)  # which splits the THP in the page cache
    child.store()
    child.advise(Advice.COLLAPSE, child.pmd)
    assert huge_bytes(child) == mem.machine.pmd_bytes
    assert mem.protected() == set(mem.pmd)
    assert mem.load().value == 7
    assert mem.store().message == mem.wp_fault()


@pytest.mark.parametrize("page", [0, -1], ids=["first", "last"])
@case("THP-2", kinds=ANON, states=(pmd_mapped,), features=SYNC)
def test_first_and_last_page_of_a_thp(mem, page):
    mem.protect(mem.pmd[page])
    assert mem.protected() == {mem.pmd[page]}
    assert mem.store(mem.pmd[page]).message == mem.wp_fault(mem.pmd[page])
