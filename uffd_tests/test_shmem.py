# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SHM: shmem and hugetlb alike, and private mappings of files."""

import pytest

from helpers.arrange import content
from helpers.axes import (
    FEATURES,
    FILE_BACKED,
    HUGETLB,
    NONE,
    POPULATED,
    SHARED_SHMEM,
    SHMEM,
    STATES,
    SYNC,
    cached,
    memfd_private,
    memfd_shared,
    populated,
    swapped,
    tmpfs,
)
from helpers.cases import case
from helpers.pagemap import Page
from helpers.region import MARKER
from helpers.uapi import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, Advice, Map, Prot

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


@case("SHM-3", kinds=SHARED_SHMEM, states=(*POPULATED, cached, swapped), features=FEATURES)
def test_dontneed_leaves_a_marker(mem):
    mem.protect()
    mem.load()
    mem.advise(Advice.DONTNEED)
    assert mem.look() == MARKER
    assert mem.load().value == content(mem)
    assert Page.WP in mem.look()


@case("SHM-3", kinds=FILE_BACKED, states=NOT_MAPPED, features=FEATURES)
def test_dontneed_keeps_a_marker(mem):
    mem.protect()
    mem.advise(Advice.DONTNEED)
    assert mem.look() == mem.marker


@case("SHM-3", kinds=(*SHARED_SHMEM, *HUGETLB), states=(*POPULATED, cached), features=SYNC)
def test_write_after_dontneed_still_raises_a_message(mem):
    mem.protect()
    mem.advise(Advice.DONTNEED)
    assert mem.store().message == mem.wp_fault()


@case("SHM-4", kinds=(memfd_shared, tmpfs), states=STATES, features=SYNC)
def test_writes_through_the_file_pass_by(mem):
    mem.protect()
    other = mem.subject.mmap(mem.size, Prot.RW, Map.SHARED, mem.file)
    mem.subject.main.store(other + mem.page * mem.page_bytes, VALUE).result()
    assert mem.uffd.read() is None
    assert mem.load().value == VALUE
    assert mem.page in mem.protected()


@case("SHM-5", kinds=(memfd_private,), states=(populated,), features=FEATURES)
def test_dontneed_of_a_private_copy_leaves_a_marker(mem):
    mem.protect()
    mem.advise(Advice.DONTNEED)
    assert mem.look() == MARKER
    assert mem.load().value == 0


@pytest.mark.parametrize("way", ["madv_remove", "punch_hole", "truncate"])
@case(
    "SHM-6",
    kinds=(memfd_shared, tmpfs),
    states=(populated, cached, *NONE),
    features=SYNC,
    thp=(False,),
)
def test_removing_the_page_keeps_the_marker(mem, way):
    mem.protect()
    remove(mem, way)
    assert mem.look() == MARKER
    assert mem.store().message == mem.wp_fault()


@case("SHM-7", kinds=FILE_BACKED, states=NOT_MAPPED, features=FEATURES)
def test_unprotecting_a_marker_leaves_none(mem):
    mem.protect()
    mem.unprotect()
    assert mem.word() == 0
    assert mem.changed() == set()
    assert mem.load().value == content(mem)


def remove(mem, way):
    """Takes the tested page out of the page cache."""
    offset = mem.page * mem.page_bytes
    if way == "madv_remove":
        mem.advise(Advice.REMOVE)
    elif way == "punch_hole":
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        mem.subject.syscall("fallocate", mem.file, mode, offset, mem.page_bytes)
    else:
        mem.subject.syscall("ftruncate", mem.file, offset)
        mem.subject.syscall("ftruncate", mem.file, mem.size)
