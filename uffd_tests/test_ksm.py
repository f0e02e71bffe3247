# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter KSM: pages that ksmd merges, and pages that it has merged."""

from helpers import ksm
from helpers.axes import ANON, SYNC, asynchronous, populated
from helpers.cases import case
from helpers.machine import DISPOSABLE, advice
from helpers.uapi import Advice

NEEDS = (DISPOSABLE, advice(Advice.MERGEABLE))


@case("KSM-1", kinds=ANON, states=(populated,), needs=NEEDS)
def test_merging_keeps_the_protection(mem):
    mem.zero_fill(mem.pages)
    mem.protect(mem.near)
    ksm.merge(mem)
    writes = [mem.store(page, by=number) for number, page in enumerate(mem.near)]
    assert [write.message for write in writes] == list(map(mem.wp_fault, mem.near))
    assert mem.protected() == set(mem.near)


@case("KSM-2", kinds=ANON, states=(populated,), features=SYNC, needs=NEEDS)
def test_merged_page_can_be_protected(mem):
    merge(mem)
    mem.protect(mem.near)
    write = mem.store()
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert mem.protected() == set(mem.near) - {mem.page}
    assert mem.load(mem.page + 1).value == 0


@case("KSM-3", kinds=ANON, states=(populated,), features=(asynchronous,), needs=NEEDS)
def test_async_write_takes_the_protection_of_its_page_alone(mem):
    merge(mem)
    mem.protect(mem.near)
    assert mem.store().silent
    assert mem.protected() == set(mem.near) - {mem.page}
    assert mem.load(mem.page + 1).value == 0


@case("KSM-4", kinds=ANON, states=(populated,), features=SYNC, needs=NEEDS)
def test_unmerging_keeps_the_protection(mem):
    merge(mem)
    mem.protect(mem.near)
    mem.advise(Advice.UNMERGEABLE, mem.pages)
    assert len(set(mem.frames())) == len(mem.pages)
    assert mem.protected() == set(mem.near)
    assert mem.store().message == mem.wp_fault()


def merge(mem):
    """Has all pages of the region merged, pages of zeros."""
    mem.zero_fill(mem.pages)
    ksm.merge(mem)
