# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter HTLB: what hugetlb memory has of its own beside chapter SHM."""

from helpers import procfs
from helpers.arrange import content
from helpers.axes import FEATURES, HUGETLB, NONE, SYNC, cached
from helpers.cases import case
from helpers.pagemap import Page

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


def resident_hugetlb(mem):
    """The subject's HugetlbPages, in bytes."""
    return procfs.status_bytes(mem.subject.read_file("/proc/self/status"), "HugetlbPages")
