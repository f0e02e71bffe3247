# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SHM: shmem and hugetlb alike, and private mappings of files."""

from helpers.arrange import content, huge_bytes
from helpers.axes import (
    FEATURES,
    FILE_BACKED,
    NONE,
    SHMEM,
    STATES,
    SYNC,
    cached,
    memfd_private,
    memfd_shared,
    pte_mapped,
    tmpfs,
)
from helpers.cases import case
from helpers.machine import advice
from helpers.pagemap import Page
from helpers.uapi import Advice, Map, Prot

NOT_MAPPED = (*NONE, cached)
VALUE = 7


@case("SHM-1", kinds=FILE_BACKED, states=NOT_MAPPED, features=FEATURES)
def test_what_is_not_mapped_takes_a_marker(mem):
    mem.protect()
    assert mem.look() == mem.marker
    assert mem.changed() == {mem.page}


@case("SHM-2", kinds=SHMEM, states=NOT_MAPPED, features=FEATURES)
def test_reading_a_marker_maps_the_protected_page(mem):
    mem.protect()
    assert mem.load().value == content(mem)
    assert mem.look() & ~Page.EXCLUSIVE == Page.PRESENT | Page.FILE | Page.WP
    assert mem.changed() == {mem.page}


@case("SHM-3", kinds=(memfd_shared, tmpfs), states=STATES, features=SYNC)
def test_writes_through_the_file_pass_by(mem):
    mem.protect()
    other = mem.subject.mmap(mem.size, Prot.RW, Map.SHARED, mem.file)
    mem.subject.main.store(other + mem.page * mem.page_bytes, VALUE).result()
    assert mem.uffd.read() is None
    assert mem.load().value == VALUE
    assert mem.page in mem.protected()


@case("SHM-4", kinds=FILE_BACKED, states=NOT_MAPPED, features=FEATURES)
def test_unprotecting_a_marker_leaves_none(mem):
    mem.protect()
    mem.unprotect()
    assert mem.word() == 0
    assert mem.changed() == set()
    assert mem.load().value == content(mem)


@case("SHM-5", kinds=(memfd_shared, memfd_private), states=(cached,), features=SYNC, thp=(False,))
def test_read_of_a_registered_mapping_maps_its_own_page_alone(mem):
    mem.load()
    assert mem.changed() == {mem.page}


@case("SHM-5", kinds=(memfd_shared, memfd_private), states=(cached,), thp=(False,))
def test_read_of_what_is_not_registered_maps_the_pages_around(bare):
    bare.load()
    assert bare.changed() > set(bare.near)


@case("SHM-5", kinds=(memfd_shared,), states=(pte_mapped,), needs=(advice(Advice.COLLAPSE),))
def test_thp_is_made_of_what_is_not_registered(bare):
    bare.advise(Advice.HUGEPAGE, bare.pmd)
    bare.advise(Advice.COLLAPSE, bare.pmd)
    assert huge_bytes(bare) == bare.machine.pmd_bytes
