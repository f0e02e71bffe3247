# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter MIDWAY: what comes in the middle of a long call."""

from errno import EAGAIN, EEXIST, EFAULT

import pytest

from helpers.arrange import content
from helpers.axes import (
    ANON,
    anon,
    asynchronous,
    cached,
    file_pmd_mapped,
    hugetlb_private,
    hugetlb_shared,
    memfd_private,
    memfd_shared,
    pmd_mapped,
    populated,
    wpu,
)
from helpers.cases import case
from helpers.device_memory import DEVICE_MEMORY, Device
from helpers.machine import DISPOSABLE, NUMA, PAGEMAP_SCAN, PAGEMAP_WP, SWAP, advice
from helpers.midway import Collapsing, Forking, Remapping, Retracting, Scanning, Transit
from helpers.uapi import Advice, Feature, Prot, RegisterMode

KINDS = (anon, memfd_shared, hugetlb_private)  # of shared hugetlb pages a lock keeps most calls off
STATES = (populated, pmd_mapped)
ROUNDS = 60
VALUE = 0x5EED
TOO_LATE = (EEXIST, EAGAIN, EFAULT)  # to fill a page: a THP is mapped there, or about to be
SMALL_PAGES = 64  # that are moved as one batch
WATCHERS = 20
NEEDS = (NUMA, PAGEMAP_WP)
COLLAPSE = (SWAP, advice(Advice.COLLAPSE))
RETRACT = {  # wpu, for a call that spans several mappings came with it (WP-5)
    "kinds": (memfd_shared,),
    "states": (pmd_mapped,),
    "features": (wpu,),
    "needs": (advice(Advice.COLLAPSE), PAGEMAP_WP),
}
SCAN = (*NEEDS, PAGEMAP_SCAN)
ASYNC = {"features": (asynchronous,)}
EVENT = {"also": Feature.EVENT_FORK}

both = pytest.mark.parametrize("protected", [True, False], ids=("protected", "unprotected"))


def small_or_anon(setup):
    """Protecting a THP of shmem has unmapped it."""
    return setup.kind is anon or not setup.thp


@pytest.fixture
def count(setup):
    return 0 if setup.thp or setup.kind.hugetlb else SMALL_PAGES


@pytest.fixture
def transit(mem, rng):
    return Transit(mem, rng)


@both
@case(
    "MIDWAY-1",
    kinds=(*KINDS, hugetlb_shared),
    states=STATES,
    needs=NEEDS,
    where=small_or_anon,
)
def test_moved_page_is_told_as_it_is(transit, protected):
    marked = transit.mark(protected)
    for meeting in transit.rounds():
        meeting.happens()
        assert meeting.before.protected == meeting.after.protected == marked


@case("MIDWAY-1", kinds=(memfd_shared,), states=(pmd_mapped,), needs=NEEDS)
def test_moved_thp_of_a_file_is_told_as_it_is(transit):
    for meeting in transit.rounds():
        meeting.happens()
        assert meeting.before.protected == meeting.after.protected == set()


@both
@case("MIDWAY-2", kinds=KINDS, states=STATES, needs=NEEDS, where=small_or_anon)
def test_moved_page_is_protected_and_unprotected(mem, transit, protected):
    for meeting in transit.rounds():
        before = transit.mark(not protected)
        meeting.happens(meeting.mark(protected))
        assert meeting.before.protected == before
        assert meeting.after.protected == transit.pages_if(protected)
        assert mem.protected(transit.pages) == transit.pages_if(protected)


@both
@case("MIDWAY-3", kinds=KINDS, states=STATES, needs=NEEDS, where=small_or_anon)
def test_mprotect_leaves_a_moved_page_its_protection(mem, transit, protected):
    marked = transit.mark(protected)
    for meeting in transit.rounds():
        meeting.happens(meeting.mprotect(Prot.READ), meeting.mprotect(Prot.RW))
        assert meeting.after.protected == marked
        assert mem.protected(transit.pages) == marked


@case("MIDWAY-4", kinds=KINDS, states=STATES, needs=SCAN, where=small_or_anon, **ASYNC)
def test_moved_page_is_protected_by_a_scan(mem, transit):
    for meeting in transit.rounds():
        transit.mark(False)
        meeting.happens(meeting.scan_to_protect())
        assert meeting.before.protected == set()
        assert meeting.after.protected == set(transit.pages)


@case("MIDWAY-4", kinds=KINDS, states=STATES, needs=SCAN, where=small_or_anon, **ASYNC)
def test_moved_page_that_a_scan_protects_arrives_protected(mem, transit):
    for meeting in transit.rounds():
        transit.mark(False)
        mem.populate(transit.pages)  # makes them writable
        meeting.happens(meeting.scan_to_protect())
        assert mem.protected(transit.pages) == set(transit.pages)


@both
@case("MIDWAY-5", kinds=(anon, hugetlb_private), states=STATES, needs=NEEDS)
def test_child_has_no_protection_of_a_moved_page_without_the_event(mem, transit, protected):
    for meeting in transit.rounds():
        transit.renew()
        marked = transit.mark(protected)
        child = meeting.glance(registered=False)
        meeting.happens(*meeting.fork(child))
        assert child.protected == set()
        assert meeting.after.protected == marked
        assert mem.protected(transit.pages) == marked


@both
@case(
    "MIDWAY-5",
    kinds=(*KINDS, hugetlb_shared),
    states=STATES,
    needs=NEEDS,
    where=small_or_anon,
    **EVENT,
)
def test_child_has_the_protection_of_a_moved_page_with_the_event(mem, transit, protected):
    for meeting in transit.rounds():
        transit.renew()
        marked = transit.mark(protected)
        child = meeting.glance()
        meeting.happens(*meeting.fork(child))
        assert child.protected == meeting.after.protected == marked
        assert mem.protected(transit.pages) == marked


@case("MIDWAY-6", kinds=KINDS, states=STATES, needs=NEEDS, where=small_or_anon)
def test_moved_page_that_mremap_takes_elsewhere_is_not_protected(mem, transit):
    away = mem.view(mem.subject.place(mem.size), len(mem.pages), name="away")
    away.registered = False
    for meeting in transit.rounds():
        mem.register()
        transit.mark(True)
        look = meeting.glance(at=away, registered=False)
        meeting.happens(meeting.mremap(away.start), after=look)
        assert meeting.before.protected == set(transit.pages)
        assert look.protected == set()
        assert away.protected(transit.pages) == set()
        away.move(to=mem.start)


@both
@pytest.mark.parametrize("way", ["dropping_one", "marking_one"])
@case("MIDWAY-7", kinds=ANON, states=(pmd_mapped,), needs=NEEDS)
def test_moved_thp_is_split(mem, transit, protected, way):
    others, one = transit.pages[:-1], transit.pages[-1]
    for meeting in transit.rounds():
        transit.renew()
        marked = transit.mark(protected) - {one}
        act = meeting.drop(one) if way == "dropping_one" else meeting.mark(not protected, one)
        meeting.happens(act, after=meeting.glance(others))
        assert meeting.after.protected == marked
        assert mem.protected(others) == marked


@case("MIDWAY-8", kinds=ANON, states=(pmd_mapped,), needs=(*COLLAPSE, PAGEMAP_WP))
def test_page_that_is_protected_while_a_thp_is_made_stays_protected(mem, rng):
    collapsing = Collapsing(mem, rng)
    for meeting in collapsing.rounds():
        mem.unprotect(mem.pmd)
        collapsing.swap_out()
        meeting.happens(meeting.mark(True, mem.page))
        assert mem.protected(mem.pmd) == {mem.page}


@case("MIDWAY-8", kinds=ANON, states=(pmd_mapped,), needs=COLLAPSE)
def test_hole_that_is_registered_while_a_thp_is_made_is_not_filled(bare, rng):
    collapsing = Collapsing(bare, rng)
    for meeting in collapsing.rounds():
        collapsing.swap_out()
        bare.advise(Advice.DONTNEED, bare.page)
        look = meeting.glance(bare.page)
        meeting.happens(meeting.register(), after=look)
        assert not look.absent or bare.word() == 0
        bare.uffd.unregister(bare.start, bare.size)


@case("MIDWAY-9", kinds=(anon, memfd_shared), states=(populated,), needs=(PAGEMAP_WP,), **EVENT)
def test_call_that_succeeds_beside_a_fork_came_before_it(mem, rng):
    forking = Forking(mem, rng)
    for meeting in forking.rounds():
        mem.unprotect(mem.pages)
        error = meeting.tries(meeting.mark(True))
        assert error in (0, EAGAIN)
        assert forking.child.protected == forking.pages_if(not error)
        forking.met += error == EAGAIN


@case(
    "MIDWAY-10",
    kinds=(hugetlb_shared,),
    states=(cached,),
    needs=(DISPOSABLE, PAGEMAP_SCAN),
    **ASYNC,
)
def test_page_that_comes_into_a_hole_is_protected(mem, rng):
    scanning = Scanning(mem, rng)
    for _ in range(ROUNDS):
        assert scanning.written_again() == scanning.places


@case("MIDWAY-11", **RETRACT)
def test_mapping_that_is_protected_while_a_file_gets_a_thp_stays_protected(bare, rng):
    check_others_stay_protected(bare, rng)


# which are told of each page table before it is taken: in that time the other thread may come
@case("MIDWAY-11", **RETRACT | {"needs": (*RETRACT["needs"], DEVICE_MEMORY)})
def test_mapping_that_devices_watch_stays_protected(bare, rng):
    for _ in range(WATCHERS):
        Device(bare)
    check_others_stay_protected(bare, rng)


def check_others_stay_protected(mem, rng):
    retracting = Retracting(mem, rng)
    for meeting in retracting.rounds():
        retracting.renew()
        meeting.happens(*retracting.protects(meeting))
        assert retracting.unprotected() == set()


@case(
    "MIDWAY-12",
    kinds=(memfd_private,),
    states=(file_pmd_mapped,),
    mode=RegisterMode.MISSING,
    needs=(advice(Advice.COLLAPSE),),
)
def test_page_that_is_copied_in_stays_while_a_thp_is_mapped(mem, rng):
    remapping = Remapping(mem, rng)
    for _ in range(ROUNDS):
        error, held = remapping.fill(VALUE)
        assert held == (content(mem) if error in TOO_LATE else VALUE)
