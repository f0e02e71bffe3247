# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter FORK: what fork(2) and vfork(2) do with the protection."""

from signal import SIGBUS, SIGSEGV

from helpers.arrange import content
from helpers.axes import (
    ANON,
    DISTINCT,
    KINDS,
    STATES,
    SYNC,
    anon,
    asynchronous,
    huge_zero_page,
    hugetlb_private,
    memfd_shared,
    none_pte,
    once,
    pmd_mapped,
    populated,
    protectable,
    pte_mapped,
    swapped,
    zero_page,
)
from helpers.cases import case
from helpers.machine import ROOT
from helpers.pagemap import Page
from helpers.uapi import Advice, Feature, Ioctl

FEW = (none_pte, zero_page, huge_zero_page, populated, pmd_mapped)
EVENT = {"also": Feature.EVENT_FORK, "needs": (ROOT,)}  # which takes CAP_SYS_PTRACE


@case("FORK-1", kinds=KINDS, states=(*STATES, swapped), features=SYNC, where=protectable)
def test_child_without_the_event_has_no_protection(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    child = mem.fork()
    assert child.protected() == set()
    assert child.store().silent
    assert mem.page in protected == mem.protected()
    assert mem.store().message == mem.wp_fault()


@case(
    "FORK-2",
    kinds=KINDS,
    states=(*STATES, swapped),
    features=SYNC,
    where=protectable,
    **EVENT,
)
def test_child_with_the_event_keeps_the_protection(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    child = mem.fork()
    assert mem.page in protected == child.protected()
    write = child.store()
    assert write.message == child.wp_fault()
    child.unprotect()
    assert write.completes()
    assert mem.protected() == protected


@case("FORK-1", kinds=(anon, memfd_shared), states=(pte_mapped,))
def test_child_of_a_batch_without_the_event_has_no_protection(mem):
    protected = mem.protect_some()
    child = mem.fork()
    assert child.protected() == set()
    assert mem.protected() == protected


@case("FORK-2", kinds=(anon, memfd_shared), states=(pte_mapped,), **EVENT)
def test_child_of_a_batch_with_the_event_keeps_its_pattern_of_protection(mem):
    protected = mem.protect_some()
    child = mem.fork()
    assert child.protected() == mem.protected() == protected


@case("FORK-3", kinds=DISTINCT, states=FEW, features=(asynchronous,))
def test_async_child_without_the_event_has_no_protection(mem):
    mem.protect(mem.unit)
    child = mem.fork()
    assert child.protected() == set()
    assert child.store().silent
    assert mem.protected() == set(mem.unit)
    assert mem.store().silent
    assert mem.protected() == set(mem.unit) - {mem.page}


@case("FORK-3", kinds=DISTINCT, states=FEW, features=(asynchronous,), **EVENT)
def test_async_child_with_the_event_takes_its_own_protection_away(mem):
    mem.protect(mem.unit)
    child = mem.fork()
    assert child.store().silent
    assert child.protected() == set(mem.unit) - {mem.page}
    assert mem.protected() == set(mem.unit)


PINNED = {
    "kinds": (anon, hugetlb_private),
    "states": (populated, pmd_mapped),
    "features": SYNC,
    "where": once,
}


@case("FORK-11", **PINNED)
def test_copy_of_a_pinned_page_is_not_protected_without_the_event(mem, ring):
    ring.pin(mem)
    mem.protect(mem.unit)
    child = mem.fork()
    assert child.protected() == set()
    assert child.store().silent
    assert mem.protected() == set(mem.unit)
    assert mem.load().value == content(mem)


@case("FORK-11", **PINNED, **EVENT)
def test_copy_of_a_pinned_page_is_protected_with_the_event(mem, ring):
    ring.pin(mem)
    mem.protect(mem.unit)
    child = mem.fork()
    assert mem.frames(one := range(mem.page, mem.page + 1)) != child.frames(one)
    assert child.protected() == set(mem.unit)
    assert child.store().message == child.wp_fault()
    assert mem.store().message == mem.wp_fault()


@case("FORK-11", **PINNED, **EVENT)
def test_fork_protects_nothing_that_is_pinned_and_was_not_protected(mem, ring):
    ring.pin(mem)
    child = mem.fork()
    assert child.protected() == mem.protected() == set()
    assert child.store().silent


@case("FORK-4", kinds=DISTINCT, states=FEW, features=SYNC, where=once, **EVENT)
def test_grandchild_keeps_the_protection(mem):
    mem.protect(mem.unit)
    child = mem.fork()
    grandchild = child.fork()
    assert grandchild.protected() == mem.protected()
    write = grandchild.store()
    assert write.message == grandchild.wp_fault()
    assert (mem.uffd.read(), child.uffd.read()) == (None, None)
    grandchild.unprotect()
    assert write.completes()


@case("FORK-5", kinds=DISTINCT, states=FEW, features=SYNC, where=once, **EVENT)
def test_each_userfaultfd_serves_its_own_process(mem):
    mem.protect(mem.unit)
    child = mem.fork()
    theirs, ours = child.store(), mem.store()
    assert (theirs.message, ours.message) == (child.wp_fault(), mem.wp_fault())
    child.unprotect()
    assert theirs.completes()
    assert ours.blocked
    mem.unprotect()
    assert ours.completes()


@case("FORK-6", kinds=DISTINCT, states=FEW, features=SYNC, where=once, **EVENT)
def test_closing_the_childs_userfaultfd_leaves_the_parents_protection(mem):
    mem.protect(mem.unit)
    child = mem.fork()
    child.uffd.close()
    child.registered = False
    assert child.protected() == set()
    assert child.store().silent
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("FORK-7", kinds=ANON, states=FEW, features=SYNC, where=once, **EVENT)
def test_wiped_on_fork_it_is_none_and_registered(mem):
    mem.protect(mem.unit)
    mem.advise(Advice.WIPEONFORK, mem.pages)
    child = mem.fork()
    assert set(child.looks()) == {Page.NONE}
    assert child.load().value == 0
    child.protect()
    assert child.store().message == child.wp_fault()
    assert mem.protected() == set(mem.unit)


@case(
    "FORK-8",
    kinds=DISTINCT,
    states=(none_pte, populated),
    features=SYNC,
    thp=(False,),
    where=once,
    **EVENT,
)
def test_not_forked_it_is_not_there_and_sends_no_event(mem):
    mem.protect()
    mem.advise(Advice.DONTFORK, mem.pages)
    child = mem.fork()
    assert not child.registered
    assert child.load().signal == SIGSEGV
    assert mem.store().message == mem.wp_fault()


@case(
    "FORK-12",
    kinds=DISTINCT,
    states=(none_pte,),
    thp=(False,),
    also=Feature.EVENT_FORK | Feature.POISON,
    needs=(ROOT,),
)
def test_childs_poisoned_page_is_not_protected(mem):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    child = mem.fork()
    assert child.word() == mem.word()
    assert child.load().signal == SIGBUS


@case("FORK-9", kinds=DISTINCT, states=FEW, features=SYNC, where=once, **EVENT)
def test_vforked_childs_write_raises_the_parents_message(mem):
    mem.protect()
    write = mem.vfork()
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert (write.value, mem.load().value) == (0, 7)


@case("FORK-10", kinds=DISTINCT, states=FEW, features=SYNC, where=once, **EVENT)
def test_fork_leaves_a_writer_waiting(mem):
    mem.protect()
    write = mem.store()
    child = mem.fork()
    assert child.protected() == {mem.page}
    assert write.blocked
    mem.unprotect()
    assert write.completes()
    assert child.protected() == {mem.page}
