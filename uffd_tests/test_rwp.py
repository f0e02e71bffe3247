# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter RWP: where read-write protection (Linux 7.3) meets write-protection."""

from errno import EBUSY, EINVAL, ENOENT, EPERM

import pytest

from helpers.arrange import content
from helpers.axes import (
    ANON,
    anon,
    asynchronous,
    hugetlb_shared,
    memfd_shared,
    none_pte,
    plain,
    pmd_mapped,
    populated,
    wpu,
)
from helpers.cases import case, refuses
from helpers.machine import UFFD, feature
from helpers.pagemap import Page
from helpers.uapi import Advice, Category, FaultFlag, Feature, ProtectMode, RegisterMode, ScanFlag
from helpers.uffd import Userfaultfd

RWP, RWP_ASYNC, MOVE = Feature.RWP, Feature.RWP_ASYNC, feature(Feature.MOVE)
NEEDS = (feature(RWP),)
WP_MODE, RWP_MODE = RegisterMode.WP, RegisterMode.RWP
ONE_OF_EACH = (anon, memfd_shared, hugetlb_shared)
STATES = (populated, pmd_mapped)


def stays_mapped(setup):
    """For `where`: RWP drops the PMD of a shmem THP, and leaves nothing in its place (RWP-4)."""
    return setup.kind.anonymous or setup.state is not pmd_mapped


@case("RWP-1", needs=(UFFD, *NEEDS))
def test_rwp_async_without_rwp_is_refused(subject, machine):
    with refuses(EINVAL):
        Userfaultfd.open(subject, machine.access).api(RWP_ASYNC)


@pytest.mark.parametrize("mode", [WP_MODE | RWP_MODE, RWP_MODE], ids=["both", "not_asked_for"])
@case("RWP-1", kinds=ANON, states=(populated,), thp=(False,), needs=NEEDS)
def test_wp_with_rwp_and_rwp_that_was_not_asked_for_are_refused(bare, mode):
    if mode & WP_MODE:
        bare.uffd = Userfaultfd.open(bare.subject, bare.machine.access)
        bare.uffd.api(RWP)
    with refuses(EINVAL):
        bare.uffd.register(bare.start, bare.size, mode)


@pytest.mark.parametrize(
    ("first", "then"), [(WP_MODE, RWP_MODE), (RWP_MODE, WP_MODE)], ids=["wp_first", "rwp_first"]
)
@case("RWP-2", kinds=ONE_OF_EACH, states=(populated,), thp=(False,), also=RWP)
def test_changing_between_wp_and_rwp_is_refused(bare, first, then):
    bare.uffd.register(bare.start, bare.size, first)
    with refuses(EBUSY):
        bare.uffd.register(bare.start, bare.size, then)
    with refuses(ENOENT):
        (bare.uffd.rwprotect if then is RWP_MODE else bare.uffd.writeprotect)(*bare.span(None))
    assert bare.changed() == set()


@case("RWP-3", kinds=ONE_OF_EACH, states=STATES, where=stays_mapped, also=RWP, mode=RWP_MODE)
def test_read_and_write_raise_rwp_messages(mem):
    arm(mem)
    assert mem.protected() == set(mem.unit)
    read, write = mem.load(), mem.store(by=1)
    assert read.message == mem.fault(FaultFlag.RWP)
    assert write.message == mem.fault(FaultFlag.RWP | FaultFlag.WRITE)
    disarm(mem)
    assert read.completes()
    assert write.completes()
    assert mem.protected() == set()


@case(
    "RWP-4",
    kinds=(anon, memfd_shared),
    states=(none_pte,),
    features=(wpu,),
    thp=(False,),
    also=RWP,
    mode=RWP_MODE,
)
def test_rwp_leaves_no_marker(mem):
    arm(mem)
    assert mem.changed() == set()
    assert mem.store().silent


@case(
    "RWP-4",
    kinds=(anon, memfd_shared),
    states=(populated,),
    features=(wpu,),
    also=RWP,
    mode=RWP_MODE,
)
def test_dontneed_leaves_no_rwp_marker(mem):
    arm(mem)
    mem.advise(Advice.DONTNEED)
    assert mem.look() == Page.NONE
    assert mem.load().silent


@case("RWP-4", kinds=(memfd_shared,), states=(pmd_mapped,), also=RWP, mode=RWP_MODE)
def test_rwp_of_a_shmem_thp_is_lost_with_its_pmd(mem):
    arm(mem)
    assert set(mem.looks(mem.pmd)) == {Page.NONE}
    assert mem.load().silent


@case("RWP-5", kinds=ONE_OF_EACH, states=(populated,), thp=(False,), also=RWP)
def test_wp_and_rwp_side_by_side_keep_apart(mem, beside):
    mem.protect()
    arm(mem, beside)
    assert mem.protected() == {mem.page, *beside}
    assert mem.load().value == content(mem)
    write, read = mem.store(), mem.load(beside[0], by=1)
    assert write.message == mem.wp_fault()
    assert read.message == mem.fault(FaultFlag.RWP, beside[0])
    mem.unprotect()
    assert write.completes()
    assert read.blocked
    disarm(mem, beside)
    assert read.completes()


@case(
    "RWP-6",
    kinds=ONE_OF_EACH,
    states=(populated,),
    features=(plain, asynchronous),
    thp=(False,),
    also=RWP,
)
def test_written_is_for_wp_ranges_and_accessed_for_rwp_ranges(mem, beside):
    mem.protect(0)
    arm(mem, beside[-1:])
    shown = dict(zip(mem.pages, pages_seen(mem), strict=True))
    assert {page for page in mem.pages if Category.WRITTEN in shown[page]} == set(
        range(1, beside[0])
    )
    assert {page for page in mem.pages if Category.ACCESSED in shown[page]} == set(beside[:-1])


@case("RWP-6", kinds=ONE_OF_EACH, states=(populated,), thp=(False,), needs=NEEDS)
def test_unregistered_page_is_not_written(bare):
    assert bare.written() == set()


@case(
    "RWP-6",
    kinds=ONE_OF_EACH,
    states=(populated,),
    thp=(False,),
    mode=RegisterMode.MISSING,
    needs=NEEDS,
)
def test_page_registered_for_missing_alone_is_not_written(mem):
    assert mem.written() == set()


@case(
    "RWP-7",
    kinds=ONE_OF_EACH,
    states=(populated,),
    features=(asynchronous,),
    thp=(False,),
    also=RWP,
)
def test_wp_matching_passes_an_rwp_range_by(mem, beside):
    assert mem.written(flags=ScanFlag.WP_MATCHING) == set(mem.pages) - set(beside)
    assert mem.protected() == set(mem.pages) - set(beside)
    with refuses(EPERM):
        mem.rearm()


@case("RWP-8", kinds=ONE_OF_EACH, states=STATES, where=stays_mapped, also=RWP, mode=RWP_MODE)
def test_set_mode_wakes_and_lets_accesses_through(mem):
    arm(mem)
    read = mem.load()
    mem.uffd.set_mode(enable=RWP_ASYNC)
    assert read.completes()
    assert mem.page not in mem.protected()
    mem.uffd.set_mode(disable=RWP_ASYNC)
    arm(mem)
    assert mem.load().message == mem.fault(FaultFlag.RWP)


@case("RWP-8", kinds=ONE_OF_EACH, states=(populated,), thp=(False,), also=RWP)
def test_set_mode_leaves_wp_as_it_is(mem, beside):
    mem.protect()
    mem.uffd.set_mode(enable=RWP_ASYNC)
    assert mem.store().message == mem.wp_fault()


@pytest.mark.parametrize(
    ("enable", "disable"),
    [(Feature.WP_ASYNC, Feature(0)), (Feature(0), Feature.WP_ASYNC), (RWP_ASYNC, RWP_ASYNC)],
    ids=["wp_async_on", "wp_async_off", "on_and_off"],
)
@case("RWP-9", kinds=ANON, states=(populated,), thp=(False,), also=RWP)
def test_set_mode_toggles_rwp_async_alone(mem, enable, disable):
    with refuses(EINVAL):
        mem.uffd.set_mode(enable, disable)


@case("RWP-9", kinds=ANON, states=(populated,), thp=(False,), needs=NEEDS)
def test_set_mode_without_rwp_is_refused(mem):
    with refuses(EINVAL):
        mem.uffd.set_mode(enable=RWP_ASYNC)


@case("RWP-10", kinds=ONE_OF_EACH, states=STATES, also=RWP, mode=RWP_MODE)
def test_unregister_leaves_nothing_for_wp_to_meet(mem):
    arm(mem)
    mem.uffd.unregister(mem.start, mem.size)
    mem.uffd.register(mem.start, mem.size, WP_MODE)
    assert mem.protected() == set()
    assert mem.load().value == content(mem)
    assert mem.store().silent


@case(
    "RWP-10",
    kinds=ONE_OF_EACH,
    states=(none_pte, populated),
    features=(wpu,),
    thp=(False,),
    also=RWP,
)
def test_unregister_leaves_nothing_for_rwp_to_meet(mem):
    mem.protect(mem.pages)
    mem.unregister(mem.pages)
    mem.uffd.register(mem.start, mem.size, RWP_MODE)
    assert mem.protected() == set()
    assert mem.store().silent


@case(
    "RWP-11",
    kinds=ANON,
    states=(populated,),
    features=(wpu,),
    thp=(False,),
    also=RWP,
    needs=(MOVE,),
)
def test_move_from_wp_to_rwp_changes_the_protection(mem, beside):
    mem.protect()
    mem.advise(Advice.DONTNEED, beside[0])
    mem.uffd.move(mem.address(beside[0]), mem.address(), mem.page_bytes)
    assert mem.protected() == {beside[0]}
    assert mem.load(beside[0]).message == mem.fault(FaultFlag.RWP, beside[0])


@pytest.fixture
def beside(mem):
    """The pages after the tested one, registered for RWP instead."""
    pages = mem.pages[mem.page + 1 :]
    mem.unregister(pages)  # so that it isn't registered as a whole
    mem.uffd.register(*mem.span(pages), RWP_MODE)
    return pages


def arm(mem, pages=None):
    """Read-write-protects pages, or the unit."""
    mem.uffd.rwprotect(*mem.span(mem.unit if pages is None else pages))


def disarm(mem, pages=None):
    """Takes that away again, and wakes."""
    mem.uffd.rwprotect(*mem.span(mem.unit if pages is None else pages), ProtectMode(0))


def pages_seen(mem):
    """What PAGEMAP_SCAN says of each page."""
    asked = Category.WRITTEN | Category.ACCESSED
    scan = mem.scan(required=Category(0), returned=asked)
    return map(Category, scan.categories(mem.start, len(mem.pages), mem.page_bytes))
