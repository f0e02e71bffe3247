# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter RACE: what holds while protection races with faults and other calls."""

from copy import copy

import pytest

from helpers import batch, races
from helpers.axes import (
    SYNC,
    anon,
    huge_zero_page,
    hugetlb_shared,
    least,
    memfd_shared,
    none_pmd,
    none_pte,
    pmd_mapped,
    populated,
    wpu,
)
from helpers.batch import Batch, Room
from helpers.cases import case
from helpers.races import (
    COLLAPSE,
    MIGRATE,
    MPROTECT,
    PAGE_OUT,
    REMOVE,
    REMOVE_NEIGHBOURS,
    Race,
    Turns,
)
from helpers.uapi import CopyMode, FaultFlag, Feature, Ioctl, ProtectMode, RegisterMode

KINDS = (anon, memfd_shared, hugetlb_shared)
SHARED = (memfd_shared, hugetlb_shared)
STATES = (populated, pmd_mapped)
ROUNDS = 10
TOGGLES = 200
IN_A_FILE = {
    "states": (populated,),
    "also": Feature.MINOR_SHMEM | Feature.MINOR_HUGETLBFS,
}
BESIDE = races.WRITERS  # the toucher that is no writer
MISSING, MINOR = RegisterMode.MISSING, RegisterMode.MINOR
WP, RWP = RegisterMode.WP, RegisterMode.RWP
PROTECT, UNPROTECT = ProtectMode.WP, ProtectMode(0)


@pytest.fixture
def count(setup):
    return 4 if setup.kind.hugetlb else 0


@pytest.fixture
def race(mem, rng):
    """Writers to some pages; the first page of the mapping, or of its PMD, is nobody's."""
    return Race(mem, (mem.pmd if mem.setup.thp else mem.pages)[1:8], rng)


@pytest.fixture
def turns(mem, rng):
    return Turns(mem, rng)


def beside(*partners):
    return pytest.mark.parametrize("partner", partners, ids=lambda partner: partner.name)


@case(
    "RACE-1",
    kinds=KINDS,
    states=(*STATES, none_pmd),
    features=SYNC,
    where=least,
    also=Feature.THREAD_ID,
)
def test_no_wake_up_and_no_write_is_lost(mem, race):
    room = Room(batch.anywhere(mem.subject.toucher(BESIDE)))
    toggle = races.protecting(mem, room, PROTECT, UNPROTECT) * TOGGLES
    assert Batch(room.thread, toggle).start().result().value == len(toggle)
    assert race.lost() == 0
    assert mem.uffd.read() is None


@case(
    "RACE-2",
    kinds=KINDS,
    states=(*STATES, none_pmd),
    features=SYNC,
    where=least,
    also=Feature.THREAD_ID,
)
def test_nothing_is_written_until_it_is_unprotected(mem, race):
    check_freezes(race)
    assert race.lost() == 0


@beside(REMOVE_NEIGHBOURS, MPROTECT, PAGE_OUT, MIGRATE)
@case(
    "RACE-3",
    kinds=(anon, memfd_shared),
    states=STATES,
    features=SYNC,
    where=least,
    also=Feature.THREAD_ID,
)
def test_nothing_is_written_whatever_goes_on(race, partner, require):
    check_beside(race, partner, require)


@beside(REMOVE)
@case(
    "RACE-3", kinds=SHARED, states=(populated,), features=SYNC, where=least, also=Feature.THREAD_ID
)
def test_nothing_is_written_while_pages_are_removed(race, partner, require):
    check_beside(race, partner, require)


# wpu, for the mapping is split, and a call that spans several came with it (WP-5)
@beside(COLLAPSE)
@case("RACE-3", kinds=(anon,), states=(pmd_mapped,), features=(wpu,), also=Feature.THREAD_ID)
def test_nothing_is_written_while_thps_are_made(race, partner, require):
    check_beside(race, partner, require)


@case(
    "RACE-4",
    kinds=(anon, memfd_shared),
    states=STATES,
    features=SYNC,
    where=least,
    also=Feature.THREAD_ID,
)
def test_child_has_what_was_frozen(mem, race):
    for _ in range(ROUNDS):
        frozen = race.freeze()
        fork = mem.subject.begin_fork()
        race.meanwhile(fork)
        child = copy(mem)
        child.subject = mem.subject.forked(fork)
        assert race.words(child) == frozen
        child.subject.close()
        assert race.all_wait()
        assert race.words() == frozen
        assert race.protected()
        mem.unprotect(mem.pages)
    assert race.lost() == 0


@case(
    "RACE-5",
    kinds=(anon, memfd_shared),
    states=STATES,
    features=SYNC,
    where=least,
    also=Feature.THREAD_ID | Feature.EVENT_REMAP,
)
def test_moving_there_and_back_keeps_all(mem, race):
    thread, moves = mem.subject.toucher(BESIDE), races.there_and_back(mem)
    for _ in range(ROUNDS):
        frozen = race.freeze()
        moving = Batch(thread, moves).start()
        race.meanwhile(moving)
        assert moving.result().value == len(moves)
        assert race.all_wait()
        assert race.words() == frozen
        assert race.protected()
        mem.unprotect(mem.pages)
    assert race.lost() == 0


@case("RACE-6", kinds=(anon,), states=(*STATES, none_pmd), features=(wpu,))
def test_unprotected_page_leaves_no_writer_asleep(mem, turns):
    away, back = races.protecting(mem, turns.room, PROTECT, UNPROTECT)
    assert turns.go_on(batch.add(mem.address()), [away], [back])


@case("RACE-6", kinds=(anon,), states=(none_pte,), thp=(False,), mode=MISSING | WP)
def test_zero_page_leaves_no_reader_asleep(mem, turns):
    fill = races.refilling(mem, turns.room, Ioctl.UFFDIO_ZEROPAGE)
    assert turns.go_on(batch.load(mem.address()), [races.unmapping(mem)], [fill])


@case("RACE-6", kinds=SHARED, thp=(False,), features=(wpu,), mode=MINOR | WP, **IN_A_FILE)
def test_page_continued_as_protected_leaves_no_reader_asleep(mem, turns):
    fill = races.refilling(mem, turns.room, Ioctl.UFFDIO_CONTINUE, CopyMode.WP)
    assert turns.go_on(batch.load(mem.address()), [races.unmapping(mem)], [fill])


@case("RACE-6", kinds=(anon,), states=(huge_zero_page,), mode=MISSING | WP, also=Feature.MOVE)
def test_moved_huge_zero_page_leaves_no_reader_asleep(mem, turns):
    away, back = races.to_and_fro(mem, turns.room)
    assert turns.go_on(batch.load(mem.address()), [away], [back])


@case(
    "RACE-7", kinds=(anon,), states=(none_pte,), thp=(False,), mode=MISSING | RWP, also=Feature.RWP
)
def test_who_meets_a_protected_zero_page_says_so(mem, turns):
    fill = races.refilling(mem, turns.room, Ioctl.UFFDIO_ZEROPAGE)
    check_says_so(turns, races.unmapping(mem), fill)


@case("RACE-7", kinds=SHARED, states=(populated,), thp=(False,), mode=MINOR | RWP, also=Feature.RWP)
def test_who_meets_a_protected_page_of_a_file_says_so(mem, turns):
    fill = races.refilling(mem, turns.room, Ioctl.UFFDIO_CONTINUE)
    check_says_so(turns, races.unmapping(mem), fill)


@case(
    "RACE-7",
    kinds=(anon,),
    states=(huge_zero_page,),
    mode=MISSING | RWP,
    also=Feature.RWP | Feature.MOVE,
)
def test_who_meets_a_protected_huge_zero_page_says_so(mem, turns):
    check_says_so(turns, *races.to_and_fro(mem, turns.room))


def check_says_so(turns, away, back):
    protects = races.protecting(turns.mem, turns.room, PROTECT)
    touch = batch.load(turns.mem.address())
    assert turns.come_to_raise(FaultFlag.RWP, touch, [away], [back, *protects])


def check_freezes(race):
    for _ in range(ROUNDS):
        frozen = race.freeze()
        assert race.all_wait()
        assert race.words() == frozen
        assert race.protected()
        race.mem.unprotect(race.mem.pages)


def check_beside(race, partner, require):
    for need in partner.needs:
        require(need)
    busy = races.start(partner, race, BESIDE)
    check_freezes(race)
    busy.stop()
    assert race.lost() == 0
