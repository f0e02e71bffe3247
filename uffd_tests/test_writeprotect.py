# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter WP: the ioctl UFFDIO_WRITEPROTECT itself, its range and its errors."""

from errno import EAGAIN, EINVAL, ENOENT, ESRCH
from mmap import PAGESIZE

import pytest

from helpers import batch
from helpers.axes import (
    ANON,
    HUGETLB,
    KINDS,
    POPULATED,
    SHMEM,
    SMALL_STATES,
    STATES,
    SYNC,
    least,
    none_pmd,
    none_pte,
    populated,
    protectable,
    wpu,
)
from helpers.batch import Batch, Room
from helpers.cases import case, refuses
from helpers.machine import UFFD
from helpers.races import protecting
from helpers.region import Touch
from helpers.subject import ARENA_ADDRESS
from helpers.uapi import Advice, Event, Feature, ProtectMode, RegisterMode
from helpers.uffd import Message, Userfaultfd

WP, DONTWAKE = ProtectMode.WP, ProtectMode.DONTWAKE
TOP = 1 << 64
SMALL = (*ANON, *SHMEM)
BOUNDARIES = {"pte_table": 2 << 20, "pmd_table": 1 << 30, "pud_table": 512 << 30}


@pytest.mark.parametrize(
    ("start", "size", "mode"),
    [
        pytest.param(1, PAGESIZE, WP, id="misaligned_start"),
        pytest.param(0, PAGESIZE + 1, WP, id="misaligned_length"),
        pytest.param(0, 0, WP, id="no_length"),
        pytest.param(0, TOP - PAGESIZE, WP, id="wraps"),
        pytest.param(0, 1 << 62, WP, id="beyond_the_address_space"),
        pytest.param(0, PAGESIZE, 1 << 5, id="unknown_mode"),
        pytest.param(0, PAGESIZE, WP | DONTWAKE, id="wp_dontwake"),
    ],
)
@case("WP-1", kinds=SMALL, states=(populated,))
def test_bad_range_or_mode_is_refused(mem, start, size, mode):
    with refuses(EINVAL):
        mem.uffd.writeprotect(mem.address() + start, size, mode)
    assert mem.protected() == set()


@case("WP-2", kinds=KINDS, states=(none_pte, populated), features=SYNC, thp=(False,), where=least)
def test_unregistered_range_is_refused(bare):
    with refuses(ENOENT):
        bare.protect()
    assert bare.changed() == set()


@case(
    "WP-2",
    kinds=KINDS,
    states=(none_pte, populated),
    features=(wpu,),
    thp=(False,),
    mode=RegisterMode.MISSING,
)
def test_range_registered_for_missing_is_refused(mem):
    with refuses(ENOENT):
        mem.protect()
    assert mem.changed() == set()


@case("WP-2", kinds=ANON, states=(none_pmd,), features=(wpu,), thp=(False,))
def test_unmapped_range_is_refused(mem):
    with refuses(ENOENT):
        mem.uffd.writeprotect(mem.start + mem.size, PAGESIZE)


@case("WP-3", kinds=SMALL, states=(none_pte, populated), features=(wpu,), thp=(False,))
def test_half_registered_range_is_refused_and_half_protected(bare):
    registered = range(bare.page)
    bare.uffd.register(*bare.span(registered))
    with refuses(ENOENT):
        bare.protect(bare.pages)
    assert bare.changed() == set(registered)


@case("WP-4", kinds=SMALL, states=(none_pte, populated), features=(wpu,), thp=(False,))
def test_hole_in_the_range_is_passed_over(mem):
    mem.subject.syscall("munmap", *mem.span(mem.page))
    mem.protect(mem.pages)
    assert mem.protected() == set(mem.pages) - {mem.page}


@case("WP-5", kinds=SMALL, states=(none_pte, populated), features=(wpu,), thp=(False,))
def test_one_call_spans_vmas(mem):
    mem.advise(Advice.DONTFORK, mem.page)  # a VMA of its own
    mem.protect(mem.pages)
    assert mem.protected() == set(mem.pages)


@case("WP-6", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_another_userfaultfd_may_protect_and_unprotect(mem):
    other = Userfaultfd.open(mem.subject, mem.machine.access)
    other.api()
    other.writeprotect(*mem.span(mem.page))
    assert mem.protected() == {mem.page}
    other.writeprotect(*mem.span(mem.page), ProtectMode(0))
    assert mem.protected() == set()


@pytest.mark.parametrize(
    ("start", "size"),
    [(PAGESIZE, 2 << 20), (0, PAGESIZE), (0, (2 << 20) + PAGESIZE)],
    ids=["start", "part", "length"],
)
@case("WP-7", kinds=HUGETLB, states=(none_pte, populated), features=SYNC)
def test_part_of_a_hugetlb_page_is_refused(mem, start, size):
    with refuses(EINVAL):
        mem.uffd.writeprotect(mem.address() + start, size)
    assert mem.changed() == set()


@case(
    "WP-8",
    kinds=ANON,
    states=(populated,),
    features=(wpu,),
    thp=(False,),
    also=Feature.EVENT_REMOVE,
)
def test_waiting_event_refuses_with_eagain(mem):
    removal = mem.call("madvise", *mem.span(0), Advice.DONTNEED)
    assert removal.message == Message(Event.REMOVE, range=(mem.address(0), mem.address(1)))
    assert removal.completes()
    waiting = mem.subject.toucher().begin("madvise", *mem.span(1), Advice.DONTNEED)
    assert waiting.wait(mem.uffd.pollable) is None
    with refuses(EAGAIN):
        mem.protect()
    assert mem.protected() == set()


@case("WP-9", needs=(UFFD,))
def test_gone_address_space_refuses_with_esrch(subject, machine):
    owner = subject.fork()
    uffd = Userfaultfd.open(owner, machine.access)
    uffd.api()
    lent = uffd.lend(subject)
    owner.kill()
    with refuses(ESRCH):
        lent.writeprotect(ARENA_ADDRESS, PAGESIZE)


@case("WP-10", kinds=KINDS, states=STATES, features=SYNC, where=protectable)
def test_exactly_the_range_is_protected_and_unprotected(mem):
    mem.protect()
    assert mem.protected() == {mem.page}
    mem.protect(mem.near)
    mem.unprotect()
    assert mem.protected() == set(mem.near) - {mem.page}


@case("WP-10", kinds=KINDS, states=SMALL_STATES, features=SYNC, where=protectable)
def test_nothing_else_of_the_mapping_changes(mem):
    mem.protect()
    assert mem.changed() == {mem.page}
    mem.unprotect()
    assert mem.changed() <= {mem.page}


@case("WP-11", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_repeating_it_changes_nothing(mem):
    mem.unprotect()
    assert mem.protected() == set()
    mem.protect()
    once = mem.looks()
    mem.protect()
    assert mem.looks() == once


@case("WP-12", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_dontwake_leaves_the_writer_asleep(mem):
    mem.protect()
    write = mem.store()
    mem.unprotect(mode=DONTWAKE)
    assert write.blocked
    mem.uffd.wake(*mem.span(mem.page))
    assert write.completes()


@case("WP-12", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_protecting_leaves_the_writer_asleep(mem):
    mem.protect()
    write = mem.store()
    mem.protect()
    assert write.blocked
    assert mem.uffd.read() is None


@case("WP-12", kinds=HUGETLB, states=(none_pte, populated), features=SYNC)
def test_call_that_is_refused_leaves_the_writer_asleep(mem):
    mem.protect()
    write = mem.store()
    with refuses(EINVAL):
        mem.uffd.writeprotect(mem.address(), PAGESIZE, 0)
    assert write.blocked
    assert mem.uffd.read() is None


@case("WP-13", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_wake_without_unprotect_raises_a_new_message(mem):
    mem.protect()
    write = mem.store()
    mem.uffd.wake(*mem.span(mem.page))
    assert write.settle().message == mem.wp_fault()


@pytest.mark.parametrize("boundary", BOUNDARIES.values(), ids=BOUNDARIES)
@case("WP-14", kinds=SMALL, states=(none_pmd, populated), features=(wpu,), thp=(False,))
def test_table_boundary_is_crossed_page_by_page(mem):
    middle = len(mem.pages) // 2
    mem.protect(range(middle - 2, middle + 2))
    assert mem.changed() == mem.protected() == set(range(middle - 2, middle + 2))
    mem.unprotect(range(middle - 1, middle + 1))
    assert mem.protected() == {middle - 2, middle + 1}


@case("WP-14", kinds=ANON, states=(none_pmd,), features=(wpu,), thp=(True,))
def test_range_from_table_to_table_spares_the_ends(mem):
    inner = range(mem.pmd[0] - 3, mem.pmd[0] + 3)
    mem.protect(inner)
    assert mem.protected() == set(inner)


@case("WP-15", kinds=KINDS, states=POPULATED, features=SYNC)
def test_protection_reaches_the_thread_that_has_just_written(mem):
    room = Room(mem.subject.toucher())
    again = [*protecting(mem, room, WP), batch.store(mem.address(), 2)]
    table = Batch(room.thread, [batch.store(mem.address(), 1), *again])
    write = Touch(table.start(), mem.uffd)
    assert write.message == mem.wp_fault()
    assert mem.load(by=1).value == 1
    mem.unprotect(mem.pages)
    assert write.completes()
    assert mem.load().value == 2
