# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SCEN: what consumers do with write protection, end to end."""

import pytest

from helpers import scenarios
from helpers.axes import (
    anon,
    asynchronous,
    hugetlb_shared,
    memfd_shared,
    none_pmd,
    populated,
    swapped,
    wpu,
)
from helpers.cases import case
from helpers.machine import KERNEL_FAULTS, advice
from helpers.scenarios import FAST, GENERIC, RESUMED, WRITES, Act, Held, Oracle
from helpers.uapi import Advice, FaultFlag, Feature, ScanFlag

SMALL_PAGES, HUGETLB_PAGES = 1024, 4
WRITES_EACH = 100  # of a writer, at most
ROUNDS, STEPS = 8, 60
SCANS, COUNTERS = 40, 128
FILE_BACKED = (memfd_shared, hugetlb_shared)


@pytest.fixture
def count(setup):
    return HUGETLB_PAGES if setup.kind.hugetlb else SMALL_PAGES


@pytest.fixture
def programs(mem, rng):
    """Random rounds of loads, stores, read(2) and removals."""
    forgets = mem.kind.hugetlb and mem.setup.features is asynchronous  # what was then removed
    acts = [act for act in Act if not (forgets and act is Act.REMOVE)]
    return [scenarios.draw(rng, acts, mem.pages, STEPS) for _ in range(ROUNDS)]


def writers(mem, rng, act):
    """Two programs that write to random pages, up to half of all."""
    count = min(WRITES_EACH, len(mem.pages) // 2)
    return [[(act, page) for page in rng.sample(mem.pages, count)] for _ in range(2)]


def foreseen(mem, programs, *, events=False):
    """What each round makes dirty, and what of it messages tell."""
    oracle = Oracle(mem, events=events)
    return [oracle.round(steps) for steps in programs]


def missed(rounds):
    """(round, page) of what became dirty and no message told."""
    return {(n, page) for n, round in enumerate(rounds) for page in round.dirty - round.told}


def removed(programs):
    """(round, page) of each removal."""
    return {(n, page) for n, p in enumerate(programs) for act, page in p if act is Act.REMOVE}


@pytest.mark.parametrize("act", WRITES, ids=lambda act: act.name.lower())
@case("SCEN-1", kinds=(anon,), states=(none_pmd,), features=(wpu,), needs=(KERNEL_FAULTS,))
def test_snapshot_is_the_memory_as_it_was(mem, rng, act):
    check_snapshot(mem, rng, scenarios.furnish(mem, rng), act)


@case("SCEN-1", kinds=FILE_BACKED, states=(none_pmd,), thp=(False,))
def test_snapshot_of_shared_memory_needs_no_feature(mem, rng):
    check_snapshot(mem, rng, scenarios.furnish(mem, rng), Act.STORE)


@case("SCEN-1", kinds=(anon,), states=(swapped,), thp=(False,))
def test_snapshot_of_swapped_memory(mem, rng):
    check_snapshot(mem, rng, dict.fromkeys(mem.pages, Held.DATA), Act.STORE)


@case("SCEN-2", kinds=(anon,), states=(none_pmd,))
def test_snapshot_without_markers_is_wrong_in_holes_alone(mem, rng):
    held = scenarios.furnish(mem, rng)
    snapshot = scenarios.snapshot(mem, held, writers(mem, rng, Act.STORE))
    assert snapshot.wrong
    assert snapshot.wrong <= {page for page, what in held.items() if what is Held.NOTHING}


@case("SCEN-2", kinds=(anon,), states=(none_pmd,), needs=(advice(Advice.POPULATE_READ),))
def test_pages_read_before_make_the_snapshot_right(mem, rng):
    held = scenarios.furnish(mem, rng)
    mem.advise(Advice.POPULATE_READ, mem.pages)
    assert scenarios.snapshot(mem, held, writers(mem, rng, Act.STORE)).wrong == set()


@case(
    "SCEN-3",
    kinds=(anon,),
    states=(none_pmd,),
    features=(wpu,),
    also=Feature.EVENT_REMOVE,
    needs=(KERNEL_FAULTS,),
)
def test_messages_tell_of_all_dirt(mem, programs):
    rounds = foreseen(mem, programs, events=True)
    assert scenarios.track(mem, programs) == [round.dirty for round in rounds]


@case("SCEN-3", kinds=FILE_BACKED, states=(none_pmd,), thp=(False,), needs=(KERNEL_FAULTS,))
def test_messages_tell_of_all_dirt_of_shared_memory(mem, programs):
    rounds = foreseen(mem, programs)
    assert scenarios.track(mem, programs) == [round.dirty for round in rounds]


@case("SCEN-4", kinds=(anon,), states=(none_pmd,), features=(wpu,), needs=(KERNEL_FAULTS,))
def test_without_the_event_removals_are_missed(mem, programs):
    told = scenarios.track(mem, programs)
    rounds = foreseen(mem, programs)
    assert told == [round.told for round in rounds]
    assert missed(rounds)
    assert missed(rounds) <= removed(programs)


@case("SCEN-4", kinds=(anon,), states=(none_pmd,), thp=(False,), needs=(KERNEL_FAULTS,))
def test_without_markers_writes_to_holes_are_missed(mem, programs):
    told = scenarios.track(mem, programs)
    rounds = foreseen(mem, programs)
    assert told == [round.told for round in rounds]
    assert missed(rounds) - removed(programs)


@pytest.mark.parametrize("harvest", [FAST, GENERIC, RESUMED], ids=lambda harvest: harvest.name)
@case("SCEN-5", kinds=(anon,), states=(none_pmd,), features=(asynchronous,))
def test_harvest_is_what_became_dirty(mem, programs, harvest):
    check_harvests(mem, programs, harvest)


@case("SCEN-5", kinds=FILE_BACKED, states=(populated,), features=(asynchronous,), thp=(False,))
def test_harvest_of_shared_memory_is_what_became_dirty(mem, programs):
    check_harvests(mem, programs, FAST)


@case("SCEN-6", kinds=(anon,), states=(none_pmd,), features=(asynchronous,))
def test_two_steps_lose_what_is_written_between(mem, programs):
    before, between = foreseen(mem, programs[:2])
    FAST.take(mem)
    scenarios.play(mem, programs[0])
    assert FAST.take(mem, ScanFlag.CHECK_WPASYNC) == before.dirty
    scenarios.play(mem, programs[1])
    mem.protect(mem.pages)
    assert between.dirty - before.dirty
    assert FAST.take(mem) == set()


@case("SCEN-7", kinds=(anon, memfd_shared), states=(none_pmd,), features=(asynchronous,))
def test_copy_made_while_counting_is_exact(mem, rng):
    check_copy(scenarios.copy_counters(mem, mem.pages[-COUNTERS:], rng, SCANS), mem)


@case("SCEN-7", kinds=(hugetlb_shared,), states=(populated,), features=(asynchronous,))
def test_copy_of_hugetlb_made_while_counting_is_exact(mem, rng):
    check_copy(scenarios.copy_counters(mem, mem.pages, rng, SCANS), mem)


def check_snapshot(mem, rng, held, act):
    programs = writers(mem, rng, act)
    snapshot = scenarios.snapshot(mem, held, programs)
    assert snapshot.wrong == set()
    assert {message.flags for message in snapshot.messages} == {FaultFlag.WRITE | FaultFlag.WP}
    assert snapshot.faulted == {page for steps in programs for _, page in steps}


def check_harvests(mem, programs, harvest):
    harvest.take(mem)
    for steps, round in zip(programs, foreseen(mem, programs), strict=True):
        scenarios.play(mem, steps)
        assert harvest.take(mem) == round.dirty


def check_copy(copy, mem):
    assert copy.copied == copy.counters
    assert copy.counted == {copy.rounds}
    assert FAST.take(mem) == set()
