# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter HTLB: what hugetlb memory has of its own beside chapter SHM."""

import pytest

from helpers import procfs
from helpers.arrange import content
from helpers.axes import FEATURES, HUGETLB, NONE, SYNC, cached, hugetlb_shared, none_pmd
from helpers.cases import case
from helpers.pagemap import Page
from helpers.uapi import Map, Prot

PUD_BYTES = 1 << 30
NOT_MAPPED = (*NONE, cached)


@case("HTLB-1", kinds=HUGETLB, states=NOT_MAPPED, features=FEATURES)
def test_reading_a_marker_maps_the_protected_page(mem):
    mem.protect()
    assert mem.load().value == content(mem)
    assert Page.PRESENT | Page.WP in mem.look()
    assert mem.changed() == {mem.page}


@case("HTLB-2", kinds=HUGETLB, states=NOT_MAPPED, features=SYNC)
def test_a_marker_is_no_memory(mem):
    before = resident_hugetlb(mem)
    mem.protect()
    assert resident_hugetlb(mem) == before
    assert not mem.resident()


@pytest.mark.parametrize("shared", [True, False], ids=["shared_before", "registered_before"])
@case("HTLB-3", kinds=(hugetlb_shared,), states=(none_pmd,), features=SYNC)
def test_table_that_another_process_could_share_is_left_to_it(bare, shared):
    wide = a_pud_of_it(bare)
    wide.populate(wide.near[1:2])
    child = wide.fork()
    if shared:
        child.load()
    wide.register()
    wide.protect()
    assert child.load().value == wide.value()
    assert child.protected(wide.near) == set()
    assert child.store().silent
    assert wide.protected(wide.near) == {wide.page}
    assert wide.store().message == wide.wp_fault()


def a_pud_of_it(mem):
    """1 GiB of hugetlb memory, all that a table of PMDs maps: such a table can be shared by
    processes that map the same file."""
    subject, size = mem.subject, PUD_BYTES
    file = mem.kind.open_file(subject)
    subject.syscall("ftruncate", file, size)
    start = subject.mmap(size, Prot.RW, Map.SHARED | Map.NORESERVE, file)
    return mem.view(start, size // mem.page_bytes, mem.page, "wide")


def resident_hugetlb(mem):
    """The subject's HugetlbPages, in bytes."""
    return procfs.status_bytes(mem.subject.read_file("/proc/self/status"), "HugetlbPages")
