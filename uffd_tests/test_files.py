# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter FILE: files on disks, which async alone can protect."""

from signal import SIGBUS

from helpers.arrange import content
from helpers.axes import (
    DISK,
    DISK_SHARED,
    NONE,
    asynchronous,
    cached,
    ext4_private,
    ext4_shared,
    file_mapped,
    none_pte,
    populated,
)
from helpers.cases import case
from helpers.machine import PAGEMAP_SCAN
from helpers.pagemap import Page
from helpers.region import MARKER
from helpers.uapi import Advice

NEEDS = (PAGEMAP_SCAN,)
ASYNC = (asynchronous,)
EXT4 = (ext4_shared, ext4_private)
STATES = (*NONE, cached, file_mapped, populated)
VALUE = 7


@case("FILE-1", kinds=EXT4, states=(*NONE, cached), features=ASYNC, needs=NEEDS)
def test_what_is_not_mapped_takes_a_marker(mem):
    mem.protect()
    assert mem.look() == MARKER
    assert mem.load().value == content(mem)
    assert mem.look() & ~Page.EXCLUSIVE == Page.PRESENT | Page.FILE | Page.WP
    assert mem.changed() == {mem.page}


@case("FILE-2", kinds=DISK, states=STATES, features=ASYNC, needs=NEEDS)
def test_store_is_reported_and_nothing_else(mem):
    mem.protect(mem.pages)
    assert mem.written() == set()
    mem.load(mem.page + 1)
    assert mem.store().silent
    assert mem.rearm() == {mem.page}
    assert mem.written() == set()
    assert mem.load().value == VALUE


@case("FILE-2", kinds=EXT4, states=STATES, features=ASYNC, needs=NEEDS)
def test_writes_of_the_kernel_into_the_mapping_are_reported(mem):
    mem.protect(mem.pages)
    assert mem.kernel_write().completed
    assert mem.written() == {mem.page}
    assert mem.load().value == VALUE


@case("FILE-3", kinds=EXT4, states=(none_pte, cached, file_mapped), features=ASYNC, needs=NEEDS)
def test_write_to_the_file_passes_by(mem):
    mem.protect(mem.pages)
    mem.write_file(mem.page, VALUE)
    assert mem.load().value == VALUE
    assert mem.written() == set()


@case("FILE-4", kinds=DISK_SHARED, states=(cached, populated), features=ASYNC, needs=NEEDS)
def test_writeback_keeps_what_is_written_and_what_is_protected(mem):
    mem.protect(mem.pages)
    mem.store()
    mem.subject.syscall("fsync", mem.file)
    assert mem.written() == {mem.page}
    assert mem.protected() == set(mem.pages) - {mem.page}


@case("FILE-4", kinds=DISK_SHARED, states=(cached, populated), features=ASYNC, needs=NEEDS)
def test_store_after_writeback_is_reported(mem):
    mem.rearm()
    mem.store(value=1)
    mem.rearm()
    mem.subject.syscall("fsync", mem.file)
    assert mem.written() == set()
    mem.store()
    assert mem.written() == {mem.page}


@case("FILE-5", kinds=EXT4, states=(cached, file_mapped, populated), features=ASYNC, needs=NEEDS)
def test_dontneed_keeps_the_protection(mem):
    mem.protect(mem.pages)
    mem.load()
    mem.advise(Advice.DONTNEED)
    assert mem.look() == MARKER
    assert mem.written() == set()


@case("FILE-5", kinds=EXT4, states=(populated,), features=ASYNC, needs=NEEDS)
def test_dontneed_of_a_written_page_counts_as_written(mem):
    mem.rearm()
    mem.store()
    mem.advise(Advice.DONTNEED)
    assert mem.look() == Page.NONE
    assert mem.rearm() == {mem.page}
    assert mem.look() == MARKER


@case("FILE-8", kinds=EXT4, states=(cached, populated), features=ASYNC, needs=NEEDS)
def test_unregister_clears_the_protection(mem):
    mem.rearm()
    mem.unregister(mem.pages)
    assert mem.protected() == set()


@case("FILE-6", kinds=EXT4, states=(populated, cached), features=ASYNC, needs=NEEDS)
def test_truncation_keeps_the_protection(mem):
    mem.protect(mem.pages)
    mem.load()
    mem.subject.syscall("ftruncate", mem.file, mem.page * mem.page_bytes)
    assert mem.load().signal == SIGBUS
    mem.subject.syscall("ftruncate", mem.file, mem.size)
    assert mem.look() == MARKER
    assert mem.written() == set()
    assert mem.load().value == 0


@case("FILE-7", kinds=(ext4_private,), states=(cached, file_mapped), features=ASYNC, needs=NEEDS)
def test_store_into_a_private_mapping_leaves_the_file_alone(mem):
    mem.protect(mem.pages)
    mem.store()
    assert mem.written() == {mem.page}
    assert mem.read_file(mem.page) == mem.value()
