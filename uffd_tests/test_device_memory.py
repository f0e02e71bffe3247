# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter DEV: protected pages that a device takes, or maps for itself alone."""

from errno import EBUSY, EFAULT

import pytest

from helpers.arrange import content, swap_out
from helpers.axes import (
    ANON,
    FEATURES,
    SYNC,
    asynchronous,
    huge_zero_page,
    none_pmd,
    none_pte,
    pmd_mapped,
    populated,
    protectable,
    zero_page,
)
from helpers.cases import case, refuses
from helpers.device_memory import DEVICE_MEMORY, Device
from helpers.machine import PAGEMAP_SCAN, SWAP
from helpers.memcg import RECLAIM
from helpers.region import MARKER
from helpers.uapi import Feature, Prot

AXES = {"kinds": ANON, "states": (populated, pmd_mapped), "needs": (DEVICE_MEMORY,)}
SMALL = AXES | {"states": (populated,)}  # of what it has for itself
HUGE = AXES | {"states": (pmd_mapped,)}
RECLAIMED = SMALL | {"needs": (DEVICE_MEMORY, RECLAIM, SWAP)}
EMPTY = AXES | {"states": (none_pte, none_pmd, zero_page, huge_zero_page), "where": protectable}


def read_only_and_back(mem):
    for prot in (Prot.READ, Prot.RW):
        mem.subject.mprotect(*mem.span(mem.unit), prot)


@case("DEV-1", features=FEATURES, **AXES)
def test_protected_page_is_protected_in_the_memory_of_a_device(mem, device):
    mem.protect(mem.unit)
    device.take()
    assert set(mem.looks(mem.unit)) == {MARKER}
    assert mem.changed() == set(mem.unit)


@case("DEV-1", features=SYNC, **AXES)
def test_protected_page_comes_back_protected(mem, device):
    mem.protect(mem.unit)
    device.take()
    device.give_back()
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("DEV-1", features=SYNC, **AXES)
def test_load_brings_a_page_back_protected(mem, device):
    mem.protect(mem.unit)
    device.take()
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("DEV-1", features=SYNC, **AXES)
def test_store_to_a_protected_page_of_a_device_raises_a_message(mem, device):
    mem.protect(mem.unit)
    device.take()
    write = mem.store()
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert mem.protected() == set(mem.unit) - {mem.page}


@case("DEV-2", **AXES)
def test_device_protects_nothing(mem, device):
    mem.protect(mem.unit)
    mem.unprotect(mem.unit)
    device.take()
    assert mem.protected() == set()
    assert mem.store().silent


@case("DEV-2", **SMALL)
def test_page_that_a_device_has_for_itself_is_not_protected(mem, device):
    device.hold()
    assert mem.protected() == set()
    assert mem.store().silent


@pytest.mark.parametrize("get", [Device.take, Device.hold], ids=["taken", "held"])
@case("DEV-2", **SMALL)
def test_mprotect_of_what_a_device_has_protects_nothing(mem, device, get):
    get(device)
    read_only_and_back(mem)
    assert mem.protected() == set()
    assert mem.store().silent


@case("DEV-2", **HUGE)
def test_mprotect_of_a_huge_page_of_a_device_protects_nothing(mem, device):
    device.take()
    read_only_and_back(mem)
    assert mem.protected() == set()
    assert mem.store().silent


@case("DEV-3", features=SYNC, **AXES)
def test_page_of_a_device_is_protected(mem, device):
    device.take()
    mem.protect(mem.unit)
    assert mem.protected() == set(mem.unit)
    assert mem.load().value == content(mem)
    assert mem.store().message == mem.wp_fault()


@case("DEV-3", features=SYNC, **AXES)
def test_page_of_a_device_is_unprotected(mem, device):
    mem.protect(mem.unit)
    device.take()
    mem.unprotect(mem.unit)
    assert mem.protected() == set()
    assert mem.store().silent


@case("DEV-3", features=SYNC, **HUGE)
def test_one_page_of_a_huge_page_of_a_device_is_protected(mem, device):
    device.take()
    mem.protect()
    assert mem.protected() == {mem.page}
    assert mem.store(mem.page + 1).silent
    assert mem.store().message == mem.wp_fault()


@case("DEV-3", features=SYNC, **HUGE)
def test_one_page_of_a_huge_page_of_a_device_is_unprotected(mem, device):
    mem.protect(mem.unit)
    device.take()
    mem.unprotect()
    assert mem.protected() == set(mem.unit) - {mem.page}
    assert mem.store().silent
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@case("DEV-3", features=SYNC, **AXES)
def test_unregister_drops_the_protection_of_a_page_of_a_device(mem, device):
    mem.protect(mem.unit)
    device.take()
    mem.unregister(mem.unit)
    assert mem.protected() == set()
    assert mem.store().silent


@case("DEV-4", **AXES)
def test_child_has_no_protection_for_a_page_of_a_device(mem, device):
    mem.protect(mem.unit)
    device.take()
    child = mem.fork()
    assert child.protected() == set()
    assert mem.protected() == set(mem.unit)
    assert child.store().silent
    assert mem.store().message == mem.wp_fault()


@case("DEV-4", also=Feature.EVENT_FORK, **AXES)
def test_child_with_the_event_keeps_the_protection_of_a_page_of_a_device(mem, device):
    mem.protect(mem.unit)
    device.take()
    child = mem.fork()
    assert child.protected() == mem.protected() == set(mem.unit)
    assert child.load().value == content(mem)
    assert child.store().message == child.wp_fault()


@case("DEV-4", **AXES)
def test_child_of_what_is_not_protected_has_no_protection(mem, device):
    device.take()
    child = mem.fork()
    assert child.protected() == mem.protected() == set()
    assert child.load().value == content(mem)
    assert mem.store().silent


@case("DEV-5", **EMPTY)
def test_empty_page_that_a_device_asks_for_stays_protected(mem, device):
    mem.protect(mem.unit)
    device.ask()
    assert mem.page in mem.protected()
    assert mem.store().message == mem.wp_fault()


@case("DEV-6", features=(asynchronous,), **AXES)
def test_async_move_to_a_device_and_back_is_no_write(mem, device):
    mem.protect(mem.unit)
    device.take()
    device.give_back()
    assert mem.protected() == set(mem.unit)
    assert mem.store().silent
    assert mem.page not in mem.protected()


@case(
    "DEV-6",
    features=(asynchronous,),
    kinds=ANON,
    states=(populated, pmd_mapped),
    needs=(DEVICE_MEMORY, PAGEMAP_SCAN),
)
def test_async_round_finds_and_protects_a_page_of_a_device(mem, device):
    device.take()
    assert mem.page in mem.rearm(mem.unit)
    assert mem.written(mem.unit) == set()
    assert mem.store().silent
    assert mem.page in mem.written(mem.unit)


@case("DEV-7", features=SYNC, **SMALL)
def test_device_gets_no_protected_page_for_itself(mem, device):
    mem.protect(mem.unit)
    with refuses(EBUSY, EFAULT):
        device.hold()
    assert mem.uffd.read() is None
    assert mem.protected() == set(mem.unit)


@case("DEV-8", features=SYNC, **SMALL)
def test_page_that_a_device_has_for_itself_is_protected(mem, device):
    device.hold()
    mem.protect(mem.unit)
    assert mem.look() == MARKER  # not present
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("DEV-8", features=SYNC, **SMALL)
def test_page_that_a_device_has_for_itself_is_unprotected(mem, device):
    device.hold()
    mem.protect(mem.unit)
    mem.unprotect(mem.unit)
    assert mem.protected() == set()
    assert mem.store().silent


@case("DEV-8", **SMALL)
def test_child_has_no_protection_for_what_a_device_has_for_itself(mem, device):
    device.hold()
    mem.protect(mem.unit)
    child = mem.fork()
    assert child.protected() == set()
    assert mem.protected() == set(mem.unit)


@case("DEV-8", also=Feature.EVENT_FORK, **SMALL)
def test_child_with_the_event_keeps_the_protection_of_what_a_device_has(mem, device):
    device.hold()
    mem.protect(mem.unit)
    child = mem.fork()
    assert child.protected() == mem.protected() == set(mem.unit)


@case("DEV-9", features=SYNC, **RECLAIMED)
def test_protected_page_that_a_device_has_for_itself_is_reclaimed(group, mem, device):
    device.hold()
    mem.protect(mem.unit)
    swap_out(mem, mem.pages, by=group.reclaim)
    assert mem.protected() == set(mem.unit)
    assert mem.load().value == content(mem)
    assert mem.store().message == mem.wp_fault()


@case("DEV-9", features=SYNC, **RECLAIMED)
def test_unprotected_page_that_a_device_has_for_itself_is_reclaimed(group, mem, device):
    device.hold()
    swap_out(mem, mem.pages, by=group.reclaim)
    assert mem.protected() == set()
    assert mem.load().value == content(mem)
    assert mem.store().silent
