# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter ERR: protected pages whose memory fails."""

from signal import SIGBUS

from helpers.arrange import content
from helpers.axes import (
    SYNC,
    anon,
    asynchronous,
    hugetlb_private,
    memfd_shared,
    pmd_mapped,
    populated,
    pte_mapped,
)
from helpers.cases import case
from helpers.machine import DISPOSABLE, PAGEMAP_SCAN
from helpers.memory_errors import PAGE_OFFLINE, fail, frame, retire

KINDS = (anon, memfd_shared)
STATES = (populated, pmd_mapped, pte_mapped)
NEEDS = (DISPOSABLE, PAGE_OFFLINE)


@case("ERR-1", kinds=KINDS, states=STATES, needs=NEEDS)
def test_neighbours_of_a_failed_page_stay_protected(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)  # protecting a shmem THP has unmapped it
    fail(mem)
    assert mem.load().signal == mem.store().signal == SIGBUS
    assert set(mem.unit) - {mem.page} <= mem.protected()
    assert mem.load(mem.page + 1).value == content(mem, mem.page + 1)
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@case("ERR-2", kinds=KINDS, states=STATES, needs=NEEDS)
def test_failed_page_stays_deadly_whatever_is_protected(mem):
    fail(mem)
    mem.protect(mem.unit)
    assert mem.load().signal == mem.store().signal == SIGBUS
    mem.unprotect(mem.unit)
    assert mem.load().signal == mem.store().signal == SIGBUS
    assert mem.protected() == set()


@case(
    "ERR-2",
    kinds=(*KINDS, hugetlb_private),  # of which each case costs the pool a page
    states=STATES,
    features=(asynchronous,),
    needs=(*NEEDS, PAGEMAP_SCAN),
)
def test_failed_page_stays_deadly_after_wp_matching(mem):
    fail(mem)
    mem.rearm()
    assert mem.load().signal == mem.store().signal == SIGBUS


@case("ERR-2", kinds=KINDS, states=STATES, needs=NEEDS)
def test_failed_page_is_deadly_for_a_child_too(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)
    fail(mem)
    child = mem.fork()
    assert child.load().signal == child.store().signal == SIGBUS
    assert child.protected() == set()


@case("ERR-3", kinds=KINDS, states=STATES, features=SYNC, needs=NEEDS)
def test_writer_whose_page_fails_gets_sigbus(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)
    write = mem.store()
    fail(mem)
    assert write.blocked
    mem.unprotect(mem.unit)
    assert write.settle().signal == SIGBUS


@case("ERR-4", kinds=KINDS, states=STATES, features=SYNC, needs=NEEDS)
def test_page_that_is_retired_keeps_its_protection(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)
    before = frame(mem)
    retire(mem)
    assert frame(mem) != before
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("ERR-4", kinds=KINDS, states=STATES, features=(asynchronous,), needs=NEEDS)
def test_retiring_a_page_is_no_write(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)
    retire(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().silent
    assert mem.page not in mem.protected()
