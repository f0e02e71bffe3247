# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter FORK: what fork(2) and mremap(2) do with the protection."""

from errno import ENOENT

from helpers.axes import KINDS, STATES, SYNC, protectable, swapped
from helpers.cases import case, refuses
from helpers.machine import ROOT
from helpers.uapi import Event, Feature
from helpers.uffd import Message


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
    also=Feature.EVENT_FORK,
    needs=(ROOT,),
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


@case("FORK-3", kinds=KINDS, states=(*STATES, swapped), features=SYNC, where=protectable)
def test_mremap_without_the_event_clears_the_protection(mem):
    mem.protect(mem.unit)
    moved, message = mem.move()
    assert message is None
    assert moved.protected() == set()
    assert moved.store().silent
    with refuses(ENOENT):
        moved.protect()


@case(
    "FORK-4",
    kinds=KINDS,
    states=(*STATES, swapped),
    features=SYNC,
    where=protectable,
    also=Feature.EVENT_REMAP,
)
def test_mremap_with_the_event_keeps_the_protection(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    moved, message = mem.move()
    assert message == Message(Event.REMAP, range=(mem.start, moved.start, mem.size))
    assert mem.page in protected == moved.protected()
    assert moved.store().message == moved.wp_fault()
