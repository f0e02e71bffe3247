# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SHM: shmem and hugetlb alike, and private mappings of files."""

from helpers.arrange import content
from helpers.axes import (
    FEATURES,
    FILE_BACKED,
    NONE,
    SHMEM,
    STATES,
    SYNC,
    cached,
    memfd_shared,
    tmpfs,
)
from helpers.cases import case
from helpers.pagemap import Page
from helpers.uapi import Map, Prot

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
