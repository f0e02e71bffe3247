# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter RWP: where read-write protection (Linux 7.3) meets write-protection."""

from errno import EBUSY, EINVAL, ENOENT, EPERM
from signal import SIGBUS, SIGSEGV

import pytest

from helpers import ksm
from helpers.arrange import collapse, content, huge_bytes, swap_off, swap_out, swapped_bytes
from helpers.axes import (
    ANON,
    DISK_SHARED,
    anon,
    asynchronous,
    cached,
    huge_zero_page,
    hugetlb_private,
    hugetlb_shared,
    memfd_shared,
    none_pte,
    once,
    plain,
    pmd_mapped,
    populated,
    pte_mapped,
    swapped,
    wpu,
    zero_page,
)
from helpers.cases import case, refuses
from helpers.device_memory import DEVICE_MEMORY, Device
from helpers.kernel_access import HASTY_READS, PATIENT_READS, VALUE, WRITES, of
from helpers.machine import (
    DISPOSABLE,
    KERNEL_FAULTS,
    NUMA,
    PAGEMAP_WP,
    ROOT,
    SWAP,
    SWAPOFF,
    UFFD,
    advice,
    feature,
)
from helpers.midway import Transit
from helpers.migration import NUMA_BALANCING, balance, migrate
from helpers.pagemap import Page
from helpers.region import MARKER
from helpers.uapi import (
    Advice,
    Category,
    CopyMode,
    FaultFlag,
    Feature,
    Ioctl,
    Map,
    Prot,
    ProtectMode,
    RegisterMode,
    ScanFlag,
)
from helpers.uffd import Userfaultfd

RWP, RWP_ASYNC, MOVE = Feature.RWP, Feature.RWP_ASYNC, feature(Feature.MOVE)
NEEDS = (feature(RWP),)
WP_MODE, RWP_MODE = RegisterMode.WP, RegisterMode.RWP
ONE_OF_EACH = (anon, memfd_shared, hugetlb_shared)
STATES = (populated, pmd_mapped)
NEITHER = Category(0)
REMOVAL = {anon: Advice.DONTNEED, memfd_shared: Advice.REMOVE, hugetlb_shared: Advice.REMOVE}
TOLD = [(WP_MODE, Category.WRITTEN), (RWP_MODE, Category.ACCESSED)]


def holds(setup):
    """For `where`: each state once, in which RWP takes hold. Of shared memory it loses the THP that
    a PMD maps (RWP-4), and knows nothing of what is in swap."""
    return once(setup) and (setup.kind.anonymous or setup.state not in (pmd_mapped, swapped))


def takes_time(setup):
    """For `where`: what is moved is huge, so that another can come in the middle of it."""
    return holds(setup) and (setup.thp or setup.kind.hugetlb)


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
        ioctl_of(bare, then)(*bare.span(None))
    assert bare.changed() == set()


@case("RWP-3", kinds=ONE_OF_EACH, states=STATES, where=holds, also=RWP, mode=RWP_MODE)
def test_read_and_write_raise_rwp_messages(mem):
    mem.protect(mem.unit)
    assert mem.protected() == set(mem.unit)
    read, write = mem.load(), mem.store(by=1)
    assert read.message == mem.fault(FaultFlag.RWP)
    assert write.message == mem.fault(FaultFlag.RWP | FaultFlag.WRITE)
    mem.unprotect(mem.unit)
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
    mem.protect(mem.unit)
    assert mem.changed() == set()
    assert mem.store().silent


@case(
    "RWP-4",
    kinds=ONE_OF_EACH,
    states=(populated,),
    features=(wpu,),
    also=RWP,
    mode=RWP_MODE,
)
def test_dontneed_leaves_no_rwp_marker(mem):
    mem.protect(mem.unit)
    mem.advise(Advice.DONTNEED)
    assert mem.look() == Page.NONE
    assert mem.load().silent


@case("RWP-4", kinds=(memfd_shared,), states=(pmd_mapped,), also=RWP, mode=RWP_MODE)
def test_rwp_of_a_shmem_thp_is_lost_with_its_pmd(mem):
    mem.protect(mem.unit)
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


@pytest.mark.parametrize(("mode", "told"), TOLD, ids=["wp", "rwp"])
@case("RWP-6", kinds=ONE_OF_EACH, states=(populated, pmd_mapped, swapped), where=holds, also=RWP)
def test_unprotected_page_is_written_or_accessed(bare, mode, told):
    bare.uffd.register(bare.start, bare.size, mode)
    assert set(seen(bare, bare.unit)) == {told}
    ioctl_of(bare, mode)(*bare.span(bare.unit))
    assert set(seen(bare, bare.unit)) == {NEITHER}


@pytest.mark.parametrize(("mode", "told"), TOLD, ids=["wp", "rwp"])
@case(
    "RWP-6",
    kinds=(anon, hugetlb_shared),
    states=(none_pte,),
    thp=(False,),
    also=RWP | Feature.POISON,
)
def test_poisoned_page_is_written_or_accessed(bare, mode, told):
    bare.uffd.register(bare.start, bare.size, mode)
    bare.uffd.fill(Ioctl.UFFDIO_POISON, *bare.span(None))
    assert seen(bare, bare.pages)[bare.page] == told


@case("RWP-6", kinds=ONE_OF_EACH, states=(none_pte,), thp=(False,), also=RWP, mode=RWP_MODE)
def test_none_pte_of_an_rwp_range_is_neither(mem):
    assert seen(mem, mem.pages)[mem.page] == NEITHER


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
    before = [NEITHER, *[Category.WRITTEN] * (beside[0] - 1)]
    assert seen(mem, mem.pages) == [*before, *[Category.ACCESSED] * len(beside)]
    arm(mem, beside)
    assert seen(mem, mem.pages) == [*before, *[NEITHER] * len(beside)]


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


@case("RWP-8", kinds=ONE_OF_EACH, states=STATES, where=holds, also=RWP, mode=RWP_MODE)
def test_set_mode_wakes_and_lets_accesses_through(mem):
    mem.protect(mem.unit)
    read = mem.load()
    mem.uffd.set_mode(enable=RWP_ASYNC)
    assert read.completes()
    assert mem.page not in mem.protected()
    mem.uffd.set_mode(disable=RWP_ASYNC)
    mem.protect(mem.unit)
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
    mem.uffd.set_mode(disable=RWP_ASYNC)
    with refuses(EINVAL):
        mem.uffd.set_mode(enable=RWP_ASYNC)


@case("RWP-10", kinds=ONE_OF_EACH, states=STATES, also=RWP, mode=RWP_MODE)
def test_unregister_leaves_nothing_for_wp_to_meet(mem):
    mem.protect(mem.unit)
    mem.uffd.unregister(mem.start, mem.size)
    mem.uffd.register(mem.start, mem.size, WP_MODE)
    assert mem.protected() == set()
    assert mem.load().value == content(mem)
    assert mem.store().silent


@case("RWP-10", kinds=ONE_OF_EACH, states=STATES, where=holds, also=RWP, mode=RWP_MODE)
def test_closing_makes_pages_accessible(mem):
    mem.protect(mem.unit)
    mem.uffd.close()
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


@case(
    "RWP-11",
    kinds=ANON,
    states=(zero_page, huge_zero_page, populated, pmd_mapped, swapped),
    where=holds,
    also=RWP,
    needs=(MOVE,),
)
def test_what_is_moved_into_an_rwp_range_is_protected(bare):
    size = len(bare.unit)
    target = range(size) if bare.setup.thp else range(bare.unit.stop, bare.unit.stop + size)
    bare.advise(Advice.DONTNEED, target)
    bare.uffd.register(*bare.span(target), RWP_MODE)
    bare.uffd.move(bare.address(target[0]), *bare.span(bare.unit))
    assert bare.protected() == set(target)
    assert bare.load(target[-1]).message == bare.fault(FaultFlag.RWP, target[-1])


@case("RWP-11", kinds=ANON, states=(swapped,), where=holds, also=RWP, needs=(MOVE,))
def test_what_is_moved_out_of_swap_to_other_ranges_is_not_protected(bare):
    bare.advise(Advice.DONTNEED, bare.page)
    bare.uffd.register(*bare.span(None), RegisterMode.MISSING)
    bare.uffd.move(bare.address(), *bare.span(bare.page + 1))
    assert bare.protected() == set()
    assert bare.load().value == content(bare, bare.page + 1)


# -- what the protection goes through


def protected_again(mem):
    mem.protect(mem.unit)


def made_read_only_and_writable(mem):
    mem.subject.mprotect(mem.start, mem.size, Prot.READ)
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)


def made_inaccessible_and_accessible(mem):
    mem.subject.mprotect(mem.start, mem.size, Prot.NONE)
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)


def split(mem):
    """The mapping, and the PMD of a THP."""
    mem.advise(Advice.SEQUENTIAL)


def copied(mem):
    mem.fork()


EVENTS = (made_read_only_and_writable, made_inaccessible_and_accessible, split, copied, migrate)
NEEDED = {migrate: NUMA}


@pytest.fixture
def happens(request, require):
    """The parameter's event."""
    if request.param in NEEDED:
        require(NEEDED[request.param])
    return request.param


def each(*events):
    return pytest.mark.parametrize(
        "happens", events, ids=lambda event: event.__name__, indirect=True
    )


@each(protected_again, *EVENTS)
@case("RWP-12", kinds=ONE_OF_EACH, states=STATES, where=holds, also=RWP, mode=RWP_MODE)
def test_page_stays_protected(mem, happens):
    mem.protect(mem.unit)
    happens(mem)
    assert mem.protected() == set(mem.unit)
    read = mem.load()
    assert read.message == mem.fault(FaultFlag.RWP)
    mem.unprotect(mem.unit)
    assert read.completes()
    assert read.value == content(mem)


@each(*EVENTS)
@case("RWP-12", kinds=(hugetlb_shared,), states=(populated,), also=RWP, mode=RWP_MODE)
def test_page_stays_unprotected(mem, happens):
    mem.protect(mem.unit)
    mem.unprotect(mem.unit)
    happens(mem)
    assert mem.protected() == set()
    assert mem.load().value == content(mem)
    assert mem.store().silent


@case("RWP-12", kinds=ANON, states=(pmd_mapped,), also=RWP, mode=RWP_MODE)
def test_splitting_a_zero_filled_thp_keeps_the_protection(mem):
    mem.zero_fill(mem.pmd)
    mem.protect(mem.pmd)
    mem.advise(Advice.COLD)
    assert huge_bytes(mem) == 0
    assert mem.protected() == set(mem.pmd)
    assert mem.load().message == mem.fault(FaultFlag.RWP)


@case(
    "RWP-12",
    kinds=ANON,
    states=(populated, pte_mapped),
    also=RWP,
    mode=RWP_MODE,
    needs=(NUMA, NUMA_BALANCING),
)
def test_numa_balancing_leaves_the_neighbours_protected(mem):
    others = range(mem.page + 1, mem.unit.stop)
    mem.protect(others)
    balance(mem)
    assert mem.load().value == content(mem)
    assert mem.protected() == set(others)
    assert mem.load(others[0]).message == mem.fault(FaultFlag.RWP, others[0])


@each(made_read_only_and_writable, copied, migrate)
@case("RWP-12", kinds=(anon, memfd_shared), states=(pte_mapped,), also=RWP, mode=RWP_MODE)
def test_each_page_of_a_thp_keeps_its_own_protection(mem, happens):
    protected = mem.protect_some()
    happens(mem)
    assert mem.protected() == protected
    assert mem.load(mem.pmd[0]).message == mem.fault(FaultFlag.RWP, mem.pmd[0])
    assert mem.load(mem.pmd[3], by=1).silent


@case("RWP-12", kinds=ONE_OF_EACH, states=STATES, where=holds, also=RWP, mode=RWP_MODE)
def test_page_that_is_protected_while_inaccessible_is_so_later(mem):
    mem.subject.mprotect(mem.start, mem.size, Prot.NONE)
    mem.protect(mem.unit)
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)
    assert mem.protected() == set(mem.unit)
    assert mem.load().message == mem.fault(FaultFlag.RWP)


@case("RWP-12", kinds=ONE_OF_EACH, states=STATES, where=holds, also=RWP, mode=RWP_MODE)
def test_page_of_a_read_only_mapping_is_protected_and_unprotected(mem):
    mem.subject.mprotect(mem.start, mem.size, Prot.READ)
    mem.protect(mem.unit)
    read = mem.load()
    assert read.message == mem.fault(FaultFlag.RWP)
    mem.unprotect(mem.unit)
    assert read.completes()
    assert mem.store().signal == SIGSEGV


@case("RWP-12", kinds=(anon, memfd_shared), states=(pmd_mapped,), also=RWP, mode=RWP_MODE)
def test_thp_that_is_not_protected_stays_huge(mem):
    made_read_only_and_writable(mem)
    mem.unprotect(mem.pmd)
    assert huge_bytes(mem) == mem.machine.pmd_bytes
    assert mem.load().value == content(mem)


@case("RWP-13", kinds=ANON, states=STATES, also=RWP, mode=RWP_MODE, needs=(SWAP,))
def test_page_comes_back_from_swap_protected(mem):
    mem.protect(mem.unit)
    swap_out(mem)
    assert set(mem.looks(mem.unit)) == {MARKER}
    write = mem.store(offset=8)
    assert write.message == mem.fault(FaultFlag.RWP | FaultFlag.WRITE, offset=0)
    assert mem.protected() == set(mem.unit)
    mem.unprotect(mem.unit)
    assert write.completes()
    assert mem.load().value == content(mem)


@case("RWP-13", kinds=ANON, states=STATES, also=RWP, mode=RWP_MODE, needs=(SWAPOFF,))
def test_swapoff_brings_pages_back_protected(alone, mem):
    mem.protect(mem.unit)
    swap_out(mem)
    swap_off(mem, alone)
    assert mem.protected() == set(mem.unit)
    assert mem.load().message == mem.fault(FaultFlag.RWP)


@case("RWP-13", kinds=ANON, states=(swapped,), also=RWP, mode=RWP_MODE)
def test_page_in_swap_is_protected_and_unprotected(mem):
    before = swapped_bytes(mem)
    mem.protect(mem.unit)
    mem.unprotect(mem.page + 1)
    assert swapped_bytes(mem) == before
    assert mem.protected() == set(mem.unit) - {mem.page + 1}
    assert mem.load().message == mem.fault(FaultFlag.RWP)
    assert mem.load(mem.page + 1, by=1).value == content(mem, mem.page + 1)


@pytest.mark.parametrize("boundary", [2 << 20], ids=["2MiB"])
@pytest.mark.parametrize("count", [1024])
@pytest.mark.parametrize("unmaps", ["reclaim", "collapse"])
@case(
    "RWP-14",
    kinds=(memfd_shared,),
    states=(populated,),
    thp=(False,),
    also=RWP,
    mode=RWP_MODE,
    needs=(SWAP, advice(Advice.COLLAPSE)),
)
def test_page_of_shmem_that_the_kernel_unmaps_stays_protected(mem, unmaps):
    mem.protect(mem.pages)
    if unmaps == "reclaim":
        swap_out(mem, mem.pages)
    else:
        collapse(elsewhere(mem))
    assert mem.load().message == mem.fault(FaultFlag.RWP)


@case(
    "RWP-14",
    kinds=(anon, memfd_shared),
    states=(populated,),
    thp=(False,),
    also=RWP,
    mode=RWP_MODE,
    needs=(SWAP,),
)
def test_accessed_page_counts_in_swap(mem):
    mem.protect(mem.near)
    mem.unprotect()
    swap_out(mem)
    assert accessed(mem) == {mem.page}


@case("RWP-14", kinds=(anon, memfd_shared), states=(pte_mapped,), also=RWP, mode=RWP_MODE)
def test_hole_leaves_the_rest_of_a_thp_protected(mem):
    mem.protect(mem.pmd)
    mem.advise(REMOVAL[mem.kind])
    assert mem.protected(mem.pmd) == set(mem.pmd) - {mem.page}
    assert mem.load(mem.page + 1).message == mem.fault(FaultFlag.RWP, mem.page + 1)


# -- a part of it


@case(
    "RWP-15",
    kinds=ONE_OF_EACH,
    states=(zero_page, huge_zero_page, populated, pmd_mapped, pte_mapped),
    where=holds,
    also=RWP,
    mode=RWP_MODE,
)
def test_one_page_is_unprotected_alone(mem):
    mem.protect(mem.unit)
    read = mem.load()
    mem.unprotect()
    assert read.completes()
    assert read.value == content(mem)
    assert mem.protected() == set(mem.unit) - {mem.page}
    assert mem.load(mem.page + 1).message == mem.fault(FaultFlag.RWP, mem.page + 1)


@case(
    "RWP-15",
    kinds=ANON,
    states=(huge_zero_page, pmd_mapped, pte_mapped),
    where=holds,
    also=RWP,
    mode=RWP_MODE,
)
def test_one_page_is_protected_alone(mem):
    mem.protect()
    assert mem.protected() == {mem.page}
    assert mem.load(mem.page + 1).silent
    assert mem.load().message == mem.fault(FaultFlag.RWP)


# -- async


@case(
    "RWP-16",
    kinds=(*ONE_OF_EACH, hugetlb_private),
    states=(zero_page, huge_zero_page, populated, pmd_mapped, pte_mapped, swapped),
    where=holds,
    also=RWP | RWP_ASYNC,
    mode=RWP_MODE,
)
def test_async_access_takes_the_protection_away(mem):
    by_pmd = mem.setup.state in (huge_zero_page, pmd_mapped)
    touched = set(mem.unit) if by_pmd else {mem.page}
    for access in (mem.load, mem.store):
        mem.protect(mem.unit)
        assert access().silent
        assert mem.protected() == set(mem.unit) - touched
        assert accessed(mem) == touched
    assert mem.load(mem.unit[-1]).value == content(mem, mem.unit[-1])


# -- fork(2) and mremap(2)

MANY = {
    "kinds": (*ONE_OF_EACH, hugetlb_private),
    "states": (populated, pmd_mapped, swapped),
    "where": holds,
    "mode": RWP_MODE,
}


@case("RWP-17", also=RWP, **MANY)
def test_child_without_the_event_has_no_protection(mem):
    mem.protect(mem.unit)
    child = mem.fork()
    assert child.protected() == set()
    assert child.load().value == content(mem)
    assert child.store().silent
    assert mem.load().message == mem.fault(FaultFlag.RWP)


@case("RWP-17", also=RWP | Feature.EVENT_FORK, needs=(ROOT,), **MANY)
def test_child_with_the_event_keeps_the_protection(mem):
    mem.protect(mem.unit)
    child = mem.fork()
    assert child.protected() == mem.protected() == set(mem.unit)
    read = child.load()
    assert read.message == child.fault(FaultFlag.RWP)
    child.unprotect(mem.unit)
    assert read.completes()
    assert mem.protected() == set(mem.unit)


@case(
    "RWP-17",
    kinds=(anon, hugetlb_private),
    states=STATES,
    where=holds,
    also=RWP | Feature.EVENT_FORK,
    mode=RWP_MODE,
    needs=(ROOT,),
)
def test_copy_of_a_pinned_page_is_protected_with_the_event(mem, ring):
    ring.pin(mem)
    mem.protect(mem.unit)
    child = mem.fork()
    assert mem.frames(one := range(mem.page, mem.page + 1)) != child.frames(one)
    assert child.protected() == set(mem.unit)
    assert child.load().message == child.fault(FaultFlag.RWP)


@case("RWP-18", also=RWP, **MANY)
def test_moved_without_the_event_it_is_accessible(mem):
    mem.protect(mem.unit)
    moved, _ = mem.move()
    assert moved.protected() == set()
    assert moved.load().value == content(mem)
    assert moved.store().silent


@case("RWP-18", also=RWP | Feature.EVENT_REMAP, **MANY)
def test_moved_with_the_event_it_is_protected(mem):
    mem.protect(mem.unit)
    moved, _ = mem.move()
    assert moved.protected() == set(mem.unit)
    assert moved.load().message == moved.fault(FaultFlag.RWP)


# -- who touches it, and who waits


SMALL = {"kinds": ANON, "states": (populated,), "thp": (False,), "mode": RWP_MODE}


@of(PATIENT_READS)
@case("RWP-19", also=RWP, needs=(KERNEL_FAULTS,), **SMALL)
def test_kernels_read_raises_one_message(mem, act):
    mem.protect(mem.near)
    read = act.begin()
    assert read.message == mem.fault(FaultFlag.RWP)
    mem.unprotect()
    assert read.completes()
    assert act.error(read) == 0
    assert act.read == content(mem)
    assert mem.protected() == set(mem.near) - {mem.page}


@of(WRITES[:1])
@case(
    "RWP-19",
    kinds=ONE_OF_EACH,
    states=STATES,
    where=holds,
    also=RWP,
    mode=RWP_MODE,
    needs=(KERNEL_FAULTS,),
)
def test_kernels_write_raises_one_message(mem, act):
    mem.protect(mem.unit)
    write = act.begin()
    assert write.message == mem.fault(FaultFlag.RWP | FaultFlag.WRITE)
    mem.unprotect(mem.unit)
    assert write.completes()
    assert mem.load().value == act.written


@of(HASTY_READS)
@case("RWP-19", also=RWP, **SMALL)
def test_read_that_cannot_wait_fails(mem, act):
    mem.protect()
    assert act.begin().error == act.refusal
    assert mem.uffd.read() is None
    assert mem.protected() == {mem.page}


@of(HASTY_READS[:1])
@case("RWP-19", also=RWP | RWP_ASYNC, **SMALL)
def test_async_read_need_not_wait(mem, act):
    mem.protect()
    assert act.begin().silent
    assert act.read == content(mem)
    assert mem.protected() == set()


@case("RWP-20", kinds=ONE_OF_EACH, states=STATES, where=holds, also=RWP, mode=RWP_MODE)
def test_waiter_sends_one_message_and_sleeps_on(mem):
    mem.protect(mem.unit)
    read = mem.load()
    mem.uffd.set_mode(disable=RWP_ASYNC)  # which it is already
    mem.unprotect(mem.unit, ProtectMode.DONTWAKE)
    assert read.blocked
    assert mem.uffd.read() is None
    mem.uffd.wake(*mem.span(mem.page))
    assert read.completes()


@case("RWP-20", also=RWP | Feature.SIGBUS, **SMALL)
def test_access_gets_sigbus_where_that_is_asked_for(mem):
    mem.protect()
    assert mem.load().signal == SIGBUS
    assert mem.protected() == {mem.page}


@case(
    "RWP-21",
    kinds=ONE_OF_EACH,
    states=(populated,),
    thp=(False,),
    also=RWP,
    mode=RWP_MODE | RegisterMode.MISSING,
)
def test_waiter_whose_page_is_evicted_gets_it_filled(mem):
    mem.protect(mem.near)
    read = mem.load()
    mem.advise(REMOVAL[mem.kind])
    assert read.blocked
    mem.uffd.wake(*mem.span(mem.page))
    assert read.settle().message == mem.fault(FaultFlag(0))
    with refuses(EINVAL):
        mem.copy_in(VALUE, CopyMode.WP)
    mem.copy_in(VALUE)
    assert read.completes()
    assert read.value == VALUE
    assert mem.protected() == set(mem.near) - {mem.page}


@case("RWP-22", kinds=(memfd_shared,), states=(cached,), thp=(False,), also=RWP, mode=RWP_MODE)
def test_load_maps_its_page_alone(mem):
    assert mem.load().value == content(mem)
    assert accessed(mem) == mem.changed() == {mem.page}


# -- what is refused


@pytest.mark.parametrize("mode", [WP_MODE, RWP_MODE], ids=["wp", "rwp"])
@case("RWP-23", kinds=ANON, states=(populated,), thp=(False,), also=RWP)
def test_answer_names_the_ioctl(bare, mode):
    ioctls = bare.uffd.register(bare.start, bare.size, mode)
    assert bool(ioctls & 1 << (Ioctl.UFFDIO_RWPROTECT & 0xFF)) == (mode is RWP_MODE)


@case("RWP-23", kinds=ANON, states=(populated,), thp=(False,), also=RWP)
def test_inaccessible_mapping_is_not_registered(bare):
    bare.subject.mprotect(bare.start, bare.size, Prot.NONE)
    with refuses(EINVAL):
        bare.uffd.register(bare.start, bare.size, RWP_MODE)
    bare.uffd.register(bare.start, bare.size, WP_MODE)


@case("RWP-23", kinds=DISK_SHARED, states=(populated,), features=(asynchronous,), also=RWP)
def test_files_on_a_disk_are_not_registered(bare):
    with refuses(EINVAL):
        bare.uffd.register(bare.start, bare.size, RWP_MODE)


@pytest.mark.parametrize(
    "mode", [ProtectMode.WP | ProtectMode.DONTWAKE, 1 << 2], ids=["dontwake", "unknown"]
)
@case("RWP-23", also=RWP, **SMALL)
def test_other_modes_are_refused(mem, mode):
    with refuses(EINVAL):
        mem.uffd.rwprotect(*mem.span(None), mode)
    assert mem.protected() == set()


@case("RWP-23", kinds=ONE_OF_EACH, states=(populated,), thp=(False,), also=RWP)
def test_range_that_is_partly_registered_is_refused_as_a_whole(bare):
    bare.uffd.register(*bare.span(range(bare.page + 1)), RWP_MODE)
    with refuses(ENOENT):
        arm(bare, bare.pages)
    assert bare.protected() == set()
    assert bare.load().silent


# -- devices, and what comes in the middle


DEVICE = {
    "kinds": ANON,
    "states": STATES,
    "also": RWP,
    "mode": RWP_MODE,
    "needs": (DEVICE_MEMORY,),
}


@pytest.mark.parametrize("back", [True, False], ids=["given_back", "taken_back"])
@case("RWP-24", **DEVICE)
def test_page_comes_back_from_a_device_protected(mem, device, back):
    mem.protect(mem.unit)
    device.take()
    assert set(mem.looks(mem.unit)) == {MARKER}
    if back:
        device.give_back()
    assert mem.load().message == mem.fault(FaultFlag.RWP)
    assert mem.protected() == set(mem.unit)


@case("RWP-24", **DEVICE | {"states": (populated,)})
def test_page_that_a_device_has_for_itself_is_protected(mem, device):
    device.hold()
    mem.protect(mem.unit)
    assert mem.look() == MARKER
    assert mem.load().message == mem.fault(FaultFlag.RWP)
    assert mem.protected() == set(mem.unit)


@pytest.mark.parametrize(("mode", "told"), TOLD, ids=["wp", "rwp"])
@case("RWP-24", kinds=ANON, states=STATES, also=RWP, needs=(DEVICE_MEMORY,))
def test_page_of_a_device_is_written_or_accessed(bare, mode, told):
    bare.uffd.register(bare.start, bare.size, mode)
    Device(bare).take()
    assert set(seen(bare, bare.unit)) == {told}
    ioctl_of(bare, mode)(*bare.span(bare.unit))
    assert set(seen(bare, bare.unit)) == {NEITHER}


ON_ITS_WAY = {
    "kinds": (anon, hugetlb_private), "states": STATES, "where": takes_time, "also": RWP,
    "mode": RWP_MODE, "needs": (NUMA, PAGEMAP_WP),
}  # fmt: skip


@pytest.mark.parametrize("first", [True, False], ids=["protected_first", "unprotected_first"])
@case("RWP-25", **ON_ITS_WAY)
def test_page_on_its_way_is_protected_and_unprotected(mem, rng, first):
    transit = Transit(mem, rng)
    for meeting in transit.rounds():
        before, between = transit.mark(not first), meeting.glance()
        meeting.happens(
            meeting.mark(first),
            meeting.mprotect(Prot.READ),
            meeting.mprotect(Prot.RW),
            *between.operations,
            meeting.mark(not first),
        )
        assert between.protected == transit.pages_if(first)
        assert meeting.before.protected == meeting.after.protected == before
        assert mem.protected(transit.pages) == before


@case("RWP-25", **ON_ITS_WAY)
def test_page_that_is_dropped_on_its_way_leaves_no_marker(mem, rng):
    transit = Transit(mem, rng)
    for meeting in transit.rounds():
        transit.renew()
        marked = transit.mark(True)
        meeting.happens(meeting.drop(transit.pages))
        assert meeting.before.protected == marked
        assert set(mem.looks(transit.pages)) == {Page.NONE}
        assert mem.load().silent


@case("RWP-26", also=RWP, needs=(DISPOSABLE, advice(Advice.MERGEABLE)), **SMALL)
def test_merging_keeps_the_protection(mem):
    mem.zero_fill(mem.pages)
    mem.protect(mem.near)
    ksm.merge(mem)
    assert mem.protected() == set(mem.near)
    reads = [mem.load(page, by=number) for number, page in enumerate(mem.near)]
    assert [read.message for read in reads] == [mem.fault(FaultFlag.RWP, page) for page in mem.near]


@pytest.fixture
def beside(mem):
    """The pages after the tested one, registered for RWP instead."""
    pages = mem.pages[mem.page + 1 :]
    mem.unregister(pages)  # so that it isn't registered as a whole
    mem.uffd.register(*mem.span(pages), RWP_MODE)
    return pages


def arm(mem, pages):
    """Read-write-protects pages of a region that isn't RWP's as a whole."""
    mem.uffd.rwprotect(*mem.span(pages))


def disarm(mem, pages):
    """Takes that away again, and wakes."""
    mem.uffd.rwprotect(*mem.span(pages), ProtectMode(0))


def ioctl_of(mem, mode):
    """The ioctl that protects a range which is registered for the mode."""
    return mem.uffd.rwprotect if mode is RWP_MODE else mem.uffd.writeprotect


def seen(mem, pages):
    """What PAGEMAP_SCAN says of each page."""
    asked = Category.WRITTEN | Category.ACCESSED
    scan = mem.scan(pages, required=Category(0), returned=asked)
    return list(map(Category, scan.categories(mem.address(pages[0]), len(pages), mem.page_bytes)))


def accessed(mem):
    """The pages of the unit that PAGEMAP_SCAN calls accessed."""
    said = zip(mem.unit, seen(mem, mem.unit), strict=True)
    return {page for page, categories in said if Category.ACCESSED in categories}


def elsewhere(mem):
    """Another mapping of the region's file, which is registered nowhere."""
    at = mem.subject.place(mem.size, mem.machine.pmd_bytes, lead=0)
    start = mem.subject.mmap(mem.size, Prot.RW, Map.SHARED, mem.file, at=at)
    return mem.view(start, len(mem.pages), mem.page, "elsewhere")
