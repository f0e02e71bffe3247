# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter KHP: khugepaged, and THPs that are smaller than a PMD."""

import pytest

from helpers import khugepaged, knobs
from helpers.arrange import content, huge_bytes, swap_out, swapped_bytes
from helpers.axes import ANON, SYNC, memfd_shared, none_pmd, none_pte, pte_mapped, wpu, zero_page
from helpers.cases import case
from helpers.machine import DISPOSABLE, FILE_MTHP, MTHP, NUMA, SWAP
from helpers.migration import migrate
from helpers.pagemap import Page
from helpers.procfs import MTHP_KNOBS
from helpers.region import MARKER, Unproven
from helpers.uapi import Advice

SMALL_THP = (DISPOSABLE, MTHP)
SMALL_FILE_THP = (*SMALL_THP, FILE_MTHP)


@case(
    "KHP-1",
    kinds=ANON,
    states=(none_pte, zero_page, pte_mapped),
    features=(wpu,),
    thp=(True,),
    needs=(DISPOSABLE,),
)
def test_protected_page_is_not_collapsed(mem):
    mem.protect()
    have_khugepaged_scan(mem)
    assert huge_bytes(mem) == mem.machine.pmd_bytes
    assert mem.protected() == {mem.page}
    assert mem.store().message == mem.wp_fault()


@case("KHP-2", kinds=ANON, states=(none_pte,), features=SYNC, thp=(True,), needs=(DISPOSABLE,))
def test_hole_is_not_filled(mem):
    have_khugepaged_scan(mem)
    assert huge_bytes(mem) == mem.machine.pmd_bytes
    assert mem.word() == 0


@case("KHP-3", kinds=ANON, states=(pte_mapped,), needs=(DISPOSABLE, SWAP))
def test_protected_page_in_swap_is_not_collapsed(mem):
    swap_out(mem, range(mem.page, mem.page + 1))
    mem.protect()
    have_khugepaged_scan(mem)
    assert swapped_bytes(mem) == mem.page_bytes
    assert mem.look() == MARKER


@case("KHP-4", kinds=ANON, states=(pte_mapped,), features=SYNC, needs=(DISPOSABLE,))
def test_page_that_is_not_protected_is_collapsed(mem):
    mem.protect()
    mem.unprotect()
    have_khugepaged_scan(mem)
    assert huge_bytes(mem) == 2 * mem.machine.pmd_bytes
    assert mem.protected() == set()
    assert mem.load().value == content(mem)


@case("KHP-4", kinds=ANON, states=(pte_mapped,), features=SYNC, needs=(DISPOSABLE, SWAP))
def test_page_in_swap_that_is_not_protected_is_collapsed(mem):
    swap_out(mem, range(mem.page, mem.page + 1))
    mem.load_all(
        range(mem.page + 1, mem.pmd.stop)
    )  # it passes over a PMD that few pages are used of
    have_khugepaged_scan(mem)
    assert huge_bytes(mem) == 2 * mem.machine.pmd_bytes
    assert mem.load().value == content(mem)


@case("KHP-5", kinds=ANON, states=(none_pmd,), features=SYNC, thp=(False,), needs=SMALL_THP)
def test_fault_beside_a_marker_maps_one_page(bare):
    with knobs.set_to({MTHP_KNOBS / "enabled": "always"}):
        bare.advise(Advice.HUGEPAGE, bare.pages)
        map_small_thp(bare)
        bare.register()
        bare.remember()
        bare.protect(5)
        assert bare.store(6).silent
        assert bare.changed() - {5} == {6}
        assert bare.protected() == ({5} if bare.setup.features.markers else set())


@case("KHP-6", kinds=ANON, states=(none_pmd,), features=SYNC, thp=(False,), needs=SMALL_THP)
def test_one_page_of_a_smaller_thp_is_protected_alone(bare):
    with knobs.set_to({MTHP_KNOBS / "enabled": "always"}):
        bare.advise(Advice.HUGEPAGE, bare.pages)
        map_small_thp(bare)
    bare.register()
    bare.protect(1)
    assert bare.protected() == {1}
    assert bare.store(2).silent
    assert bare.store(1).message == bare.wp_fault(1)


@pytest.mark.parametrize("need", [SWAP, NUMA], ids=["to_swap", "to_another_node"])
@case("KHP-7", kinds=ANON, states=(none_pmd,), features=SYNC, thp=(False,), needs=SMALL_THP)
def test_pages_of_a_smaller_thp_move_with_their_own_protection(bare, need, require):
    require(need)
    with knobs.set_to({MTHP_KNOBS / "enabled": "always"}):
        bare.advise(Advice.HUGEPAGE, bare.pages)
        map_small_thp(bare)
    bare.populate(range(4))  # a page of zeros would not go to swap
    bare.register()
    bare.protect(range(1, 3))
    if need is SWAP:
        swap_out(bare, range(4))
    else:
        migrate(bare, page=1)
    bare.load_all(range(4))
    assert bare.protected() == {1, 2}
    assert bare.store(3).silent
    assert bare.store(2).message == bare.wp_fault(2)


@case("KHP-8", kinds=ANON, states=(none_pmd,), thp=(False,), needs=(*SMALL_THP, SWAP))
def test_page_of_a_smaller_thp_comes_back_from_swap_alone(bare):
    with knobs.set_to({MTHP_KNOBS / "enabled": "always"}):
        bare.advise(Advice.HUGEPAGE, bare.pages)
        map_small_thp(bare)
        bare.register()
        swap_out(bare, range(4))
        bare.load(0)
        assert [Page.PRESENT in look for look in bare.looks(range(4))] == [True, *[False] * 3]


@case("KHP-9", kinds=ANON, states=(none_pmd,), thp=(False,), needs=SMALL_THP)
def test_fault_in_memory_that_is_not_registered_maps_all_of_a_smaller_thp(bare):
    assert pages_of_a_fault(bare, "enabled") == [0, 1, 2, 3]


@case("KHP-9", kinds=(memfd_shared,), states=(none_pmd,), thp=(False,), needs=SMALL_FILE_THP)
def test_fault_in_a_file_that_is_not_registered_maps_all_of_a_smaller_thp(bare):
    assert pages_of_a_fault(bare, "shmem_enabled") == [0, 1, 2, 3]


def pages_of_a_fault(mem, knob):
    """The pages that a store to the first of them maps."""
    with knobs.set_to({MTHP_KNOBS / knob: "always"}):
        mem.advise(Advice.HUGEPAGE, mem.pages)
        mem.store(0)
    return [page for page, look in enumerate(mem.looks()) if Page.PRESENT in look]


def have_khugepaged_scan(mem):
    """khugepaged collapses the first PMD, and then goes over the second, which is tested."""
    first = range(mem.pmd.start)
    mem.advise(Advice.NOHUGEPAGE, first)
    mem.populate(first)
    mem.advise(Advice.HUGEPAGE, first)
    with khugepaged.set_free(mem.subject.parent):
        knobs.await_that(lambda: huge_bytes(mem) > 0, "khugepaged has not collapsed the first PMD")
        khugepaged.await_full_scans(2)


def map_small_thp(mem):
    """Maps pages 0 to 3 at once, by one store."""
    mem.store(0)
    if mem.frames(range(4)) != list(range(mem.frames()[0], mem.frames()[0] + 4)):
        raise Unproven("the kernel has mapped no THP of 16 KiB")
