# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter ADV: madvise(2), mlock(2) and removal from a file, on protected pages."""

from collections.abc import Callable
from enum import Enum
from errno import EACCES, EAGAIN, EINVAL
from signal import SIGSEGV

import pytest

from helpers.arrange import content
from helpers.axes import (
    ANON,
    DISTINCT,
    SYNC,
    Setup,
    anon,
    asynchronous,
    cached,
    file_mapped,
    huge_zero_page,
    hugetlb_private,
    hugetlb_shared,
    least,
    memfd_private,
    memfd_shared,
    none_pte,
    once,
    pmd_mapped,
    populated,
    pte_mapped,
    swapped,
    zero_page,
)
from helpers.cases import case, refuses
from helpers.machine import KERNEL_FAULTS, ROOT, advice
from helpers.pagemap import Page
from helpers.uapi import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    MLOCK_ONFAULT,
    Advice,
    Event,
    Feature,
    Ioctl,
    RegisterMode,
)
from helpers.uffd import Message


class Effect(Enum):
    """What an advice does to a protected page."""

    KEEPS = "neither the protection nor the contents change"
    DROPS = "the page is none, and unprotected"
    UNMAPS = "a marker is left, and the contents of the file, if there is one"
    EMPTIES = "a marker is left, and zeros"
    MAPS = "the page is mapped as by a read, and protected"
    WRITES = "the page is mapped as by a write, with its message"
    GUARDS = "a guard page is left"


KEEPS, DROPS, UNMAPS, EMPTIES, MAPS, WRITES, GUARDS = Effect

# By kind, as in DISTINCT: the effect, the errno of a refusal, or None for what makes no sense or,
# as GUARD_INSTALL on a protected page of a file, never ends on some kernels.
EFFECTS: dict[Advice, tuple[Effect | int | None, ...]] = {
    Advice.WILLNEED: (KEEPS, KEEPS, KEEPS, KEEPS, KEEPS),
    Advice.COLD: (KEEPS, KEEPS, KEEPS, EINVAL, EINVAL),
    Advice.PAGEOUT: (KEEPS, KEEPS, KEEPS, EINVAL, EINVAL),
    Advice.FREE: (KEEPS, EINVAL, EINVAL, EINVAL, EINVAL),
    Advice.HUGEPAGE: (KEEPS, KEEPS, KEEPS, None, None),
    Advice.NOHUGEPAGE: (KEEPS, KEEPS, KEEPS, None, None),
    Advice.MERGEABLE: (KEEPS, KEEPS, KEEPS, None, None),
    Advice.UNMERGEABLE: (KEEPS, KEEPS, KEEPS, None, None),
    Advice.DONTFORK: (KEEPS, KEEPS, KEEPS, KEEPS, KEEPS),
    Advice.DOFORK: (KEEPS, KEEPS, KEEPS, None, None),
    Advice.WIPEONFORK: (KEEPS, EINVAL, EINVAL, EINVAL, EINVAL),
    Advice.KEEPONFORK: (KEEPS, KEEPS, KEEPS, None, None),
    Advice.DONTNEED: (DROPS, UNMAPS, UNMAPS, UNMAPS, UNMAPS),
    Advice.DONTNEED_LOCKED: (DROPS, UNMAPS, UNMAPS, UNMAPS, UNMAPS),
    Advice.REMOVE: (EINVAL, EMPTIES, EACCES, EMPTIES, EACCES),
    Advice.POPULATE_READ: (MAPS, MAPS, MAPS, MAPS, MAPS),
    Advice.POPULATE_WRITE: (WRITES, WRITES, WRITES, WRITES, WRITES),
    Advice.GUARD_INSTALL: (GUARDS, None, None, EINVAL, EINVAL),
    Advice.GUARD_REMOVE: (KEEPS, KEEPS, KEEPS, EINVAL, EINVAL),
}
ADVICES = tuple(EFFECTS)
MISSING_AND_WP = RegisterMode.MISSING | RegisterMode.WP
FROM_OUTSIDE = (Advice.WILLNEED, Advice.COLD, Advice.PAGEOUT)
OF_A_PMD = (Advice.WILLNEED, Advice.COLD, Advice.PAGEOUT, Advice.FREE, Advice.UNMERGEABLE)
PMDS = (huge_zero_page, pmd_mapped)
STATES = (none_pte, zero_page, populated, file_mapped, *PMDS)
IN_FILE = (none_pte, cached, populated, file_mapped)


def effect(setup: Setup) -> Effect | int | None:
    """What the setup's advice does to its page."""
    return EFFECTS[setup.advice][DISTINCT.index(setup.kind)]


def having(*effects: Effect) -> Callable[[Setup], bool]:
    """For `where`: the setups whose advice has one of the effects; shmem's THPs are left out,
    whose PMD is gone once they are protected (THP-10)."""
    return lambda s: once(s) and effect(s) in effects and (s.kind.anonymous or not s.thp)


def is_refused(setup: Setup) -> bool:
    """For `where`: the setups whose advice fails."""
    return least(setup) and isinstance(effect(setup), int)


@case("ADV-1", kinds=DISTINCT, states=STATES, features=SYNC, advices=ADVICES, where=having(KEEPS))
def test_advice_keeps_the_protection(mem):
    mem.protect(mem.unit)
    mem.advise(mem.setup.advice)
    assert mem.protected() == set(mem.unit)
    assert mem.load().value == content(mem)
    assert mem.store().message == mem.wp_fault()


@pytest.mark.parametrize("advised", FROM_OUTSIDE, ids=lambda advice: advice.name.lower())
@case("ADV-1", kinds=(anon, memfd_shared), states=(populated, pmd_mapped), needs=(ROOT,))
def test_advice_from_another_process_keeps_the_protection(mem, other, advised, require):
    require(advice(advised))
    mem.protect(mem.unit)
    protected = mem.protected()
    advise_from(other, mem, advised)
    assert mem.protected() == protected
    assert mem.store().message == mem.wp_fault()


@case("ADV-1", kinds=ANON, states=PMDS, advices=OF_A_PMD)
def test_advice_for_a_whole_pmd_keeps_its_protection(mem):
    mem.protect(mem.pmd)
    mem.advise(mem.setup.advice, mem.pmd)
    assert mem.protected() == set(mem.pmd)
    assert mem.store().message == mem.wp_fault()


@case(
    "ADV-1",
    kinds=(anon, memfd_shared),
    states=(pte_mapped,),
    advices=(Advice.COLD, Advice.PAGEOUT, Advice.FREE, Advice.DONTNEED),
    where=lambda setup: effect(setup) in (KEEPS, UNMAPS),
)
def test_advice_for_a_batch_keeps_its_pattern_of_protection(mem):
    protected = mem.protect_some()
    mem.advise(mem.setup.advice, mem.pmd)
    assert mem.protected() == protected


@case(
    "ADV-2",
    kinds=DISTINCT,
    states=(*STATES, swapped),
    features=SYNC,
    advices=ADVICES,
    where=having(DROPS),
)
def test_advice_drops_the_page_and_its_protection(mem):
    mem.protect(mem.unit)
    mem.advise(mem.setup.advice)
    assert mem.word() == 0
    assert mem.protected() == set(mem.unit) - {mem.page}
    assert mem.store().silent


@case("ADV-2", kinds=ANON, states=PMDS, advices=(Advice.DONTNEED,))
def test_dontneed_drops_a_whole_pmd(mem):
    mem.protect(mem.pmd)
    mem.advise(mem.setup.advice, mem.pmd)
    assert set(mem.looks(mem.pmd)) == {Page.NONE}
    assert mem.store().silent


@case(
    "ADV-3",
    kinds=DISTINCT,
    states=(*STATES, cached, swapped),
    features=SYNC,
    advices=ADVICES,
    where=having(UNMAPS),
)
def test_advice_leaves_a_marker_and_the_file(mem):
    mem.protect(mem.unit)
    mem.advise(mem.setup.advice)
    assert mem.look() == mem.marker
    copied = mem.setup.state in (populated, swapped) and not mem.kind.shared
    assert mem.load().value == (0 if copied else content(mem))
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("ADV-3", kinds=(memfd_shared,), states=(pmd_mapped,), advices=(Advice.DONTNEED,))
def test_dontneed_of_a_shmem_thp_leaves_markers(mem):
    mem.protect(mem.pmd)
    mem.load_all(mem.pmd)
    mem.advise(mem.setup.advice, mem.pmd)
    assert set(mem.looks(mem.pmd)) == {mem.marker}
    assert mem.load().value == content(mem)


@case("ADV-3", kinds=(memfd_private,), states=(none_pte,), mode=MISSING_AND_WP)
def test_dontneed_of_a_private_zero_page_leaves_a_marker(mem):
    mem.uffd.fill(Ioctl.UFFDIO_ZEROPAGE, *mem.span(mem.page))
    mem.protect()
    mem.advise(Advice.DONTNEED)
    assert mem.look() == mem.marker


@case(
    "ADV-4", kinds=DISTINCT, states=IN_FILE, features=SYNC, advices=ADVICES, where=having(EMPTIES)
)
def test_removing_the_page_leaves_a_marker(mem):
    mem.protect(mem.near)
    mem.advise(mem.setup.advice)
    expect_emptied_and_protected(mem)


@case("ADV-4", kinds=(memfd_shared, hugetlb_shared), states=IN_FILE)
def test_punching_a_hole_leaves_a_marker(mem):
    mem.protect(mem.near)
    punch_hole(mem)
    expect_emptied_and_protected(mem)


@case("ADV-4", kinds=(memfd_shared, memfd_private), states=IN_FILE, thp=(False,))
def test_truncating_and_extending_shmem_leaves_a_marker(mem):
    mem.protect(mem.near)
    truncate_and_extend(mem)
    expect_emptied_and_protected(mem)


@case("ADV-5", kinds=(memfd_private,), states=(populated,))
def test_punching_a_hole_leaves_a_private_copy(mem):
    mem.protect(mem.near)
    punch_hole(mem)
    assert mem.protected() == set(mem.near)
    assert mem.load().value == content(mem)


@case("ADV-6", kinds=(hugetlb_shared, hugetlb_private), states=IN_FILE)
def test_truncating_and_extending_hugetlb_drops_the_marker(mem):
    mem.protect(mem.near)
    truncate_and_extend(mem)
    assert mem.word() == 0
    assert mem.store().silent


@case("ADV-7", kinds=DISTINCT, states=STATES, features=SYNC, advices=ADVICES, where=having(MAPS))
def test_populating_for_reading_keeps_the_protection(mem):
    mem.protect(mem.unit)
    mem.advise(mem.setup.advice, mem.near)
    assert all(Page.PRESENT in page for page in mem.looks(mem.near))
    assert mem.protected() == set(mem.unit)
    assert (Page.ZERO in mem.look()) == (mem.kind.anonymous and not mem.setup.state.populated)


@case(
    "ADV-8",
    kinds=DISTINCT,
    states=STATES,
    features=SYNC,
    advices=ADVICES,
    where=having(WRITES),
    needs=(KERNEL_FAULTS,),
)
def test_populating_for_writing_raises_a_message_a_page(mem):
    mem.protect(mem.unit)
    populate = mem.call("madvise", *mem.span(mem.near), mem.setup.advice)
    expect_a_message_a_page(mem, populate)


@case(
    "ADV-8",
    kinds=(anon, memfd_private),
    states=STATES,
    features=SYNC,
    where=once,
    needs=(KERNEL_FAULTS,),
)
def test_locking_private_memory_raises_a_message_a_page(mem):
    mem.protect(mem.unit)
    expect_a_message_a_page(mem, mem.call("mlock", *mem.span(mem.near)))


@case(
    "ADV-9",
    kinds=DISTINCT,
    states=STATES,
    features=(asynchronous,),
    advices=(Advice.POPULATE_WRITE,),
)
def test_async_populating_for_writing_takes_the_protection_away(mem):
    mem.protect(mem.unit)
    assert mem.call("madvise", *mem.span(mem.near), mem.setup.advice).silent
    assert mem.protected() == set(mem.unit) - set(mem.near)


@case("ADV-10", kinds=(memfd_shared,), states=IN_FILE, thp=(False,))
def test_locking_shared_memory_maps_it_protected(mem):
    mem.protect(mem.near)
    assert mem.call("mlock", *mem.span(mem.near)).silent
    assert all(Page.PRESENT | Page.WP in page for page in mem.looks(mem.near))


@case("ADV-10", kinds=(anon, memfd_shared), states=STATES, features=SYNC, where=once)
def test_locking_on_fault_and_unlocking_keep_the_protection(mem):
    mem.protect(mem.unit)
    before = mem.look()
    mem.subject.syscall("mlock2", *mem.span(mem.near), MLOCK_ONFAULT)
    mem.subject.syscall("munlock", *mem.span(mem.near))
    assert mem.look() & ~Page.HUGE == before & ~Page.HUGE
    assert mem.protected() == set(mem.unit)


@case(
    "ADV-11",
    kinds=(anon, memfd_shared),
    states=(none_pte, populated),
    features=SYNC,
    advices=(Advice.DONTNEED_LOCKED,),
    where=once,
)
def test_locked_memory_is_dropped_by_dontneed_locked_alone(mem):
    mem.protect(mem.near)
    mem.subject.syscall("mlock2", *mem.span(mem.near), MLOCK_ONFAULT)
    with refuses(EINVAL):
        mem.advise(Advice.DONTNEED)
    assert mem.protected() == set(mem.near)
    mem.advise(mem.setup.advice)
    assert mem.look() == (Page.NONE if mem.kind.anonymous else mem.marker)


@case("ADV-12", kinds=DISTINCT, states=(populated,), advices=ADVICES, where=is_refused)
def test_advice_is_refused_and_changes_nothing(mem):
    mem.protect(mem.near)
    mem.remember()
    with refuses(effect(mem.setup)):
        mem.advise(mem.setup.advice)
    assert mem.changed() == set()


@case("ADV-13", kinds=DISTINCT, states=STATES, features=SYNC, advices=ADVICES, where=having(GUARDS))
def test_guard_takes_the_place_of_the_page(mem):
    mem.protect(mem.unit)
    mem.advise(mem.setup.advice)
    assert mem.load().signal == SIGSEGV
    mem.advise(Advice.GUARD_REMOVE)
    assert mem.word() == 0
    assert mem.protected() == set(mem.unit) - {mem.page}


@case(
    "ADV-14",
    kinds=DISTINCT,
    states=STATES,
    features=SYNC,
    advices=(Advice.DONTNEED,),
    where=having(DROPS, UNMAPS),
)
def test_dontneed_leaves_the_writer_asleep(mem):
    mem.protect(mem.unit)
    write = mem.store()
    mem.advise(mem.setup.advice)
    assert write.blocked
    mem.unprotect()
    assert write.completes()
    assert mem.load().value == 7


@case(
    "ADV-15",
    kinds=DISTINCT,
    states=(none_pte, populated, pmd_mapped),
    features=SYNC,
    also=Feature.EVENT_REMOVE,
    advices=(Advice.DONTNEED, Advice.DONTNEED_LOCKED, Advice.FREE, Advice.REMOVE),
    where=having(KEEPS, DROPS, UNMAPS, EMPTIES),
)
def test_event_comes_before_the_page_goes(mem):
    mem.protect(mem.unit)
    before = mem.looks(mem.unit)
    removal = mem.subject.toucher().begin("madvise", *mem.span(mem.page), mem.setup.advice)
    assert removal.wait(mem.uffd.pollable) is None
    assert mem.looks(mem.unit) == before
    with refuses(EAGAIN):
        mem.unprotect()
    assert mem.uffd.read() == Message(
        Event.REMOVE, range=(mem.address(), mem.address() + mem.page_bytes)
    )
    assert removal.result().error == 0


@case("ADV-17", kinds=ANON, states=(populated, pte_mapped), features=SYNC)
def test_reclaim_of_a_freed_page_drops_its_protection(mem):
    mem.protect(mem.unit)
    mem.advise(Advice.FREE)
    mem.advise(Advice.PAGEOUT)
    assert mem.look() == Page.NONE
    assert mem.protected() == set(mem.unit) - {mem.page}
    assert mem.store().silent


@pytest.mark.parametrize("way", ["punch_hole", "truncate"])
@case("ADV-16", kinds=(memfd_shared,), states=(populated,), also=Feature.EVENT_REMOVE)
def test_removal_through_the_file_sends_no_event(mem, way):
    mem.protect()
    {"punch_hole": punch_hole, "truncate": truncate_and_extend}[way](mem)
    assert mem.uffd.read() is None


def expect_a_message_a_page(mem, touch):
    """A call that writes to the near pages waits for them to be unprotected, one by one."""
    for page in mem.near:
        assert touch.message == mem.wp_fault(page)
        mem.unprotect(page)
        touch.settle()
    assert touch.completed
    assert mem.protected() == set(mem.unit) - set(mem.near)


def expect_emptied_and_protected(mem):
    """The tested page has become a marker that reads as zeros, and is protected as before."""
    assert mem.look() == mem.marker
    assert mem.load().value == 0
    assert mem.protected() == set(mem.near)
    assert mem.store().message == mem.wp_fault()


def advise_from(other, mem, advised):
    """process_madvise(2) of the tested page by another process."""
    process, main = other.syscall("pidfd_open", mem.subject.pid, 0), other.main
    vector = b"".join(word.to_bytes(8, "little") for word in mem.span(mem.page))
    main.scratch(len(vector))[:] = vector
    other.syscall("process_madvise", process, main.scratch_address, 1, advised, 0)


def punch_hole(mem):
    """Takes the tested page out of its file."""
    mode, offset = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, mem.page * mem.page_bytes
    mem.subject.syscall("fallocate", mem.file, mode, offset, mem.page_bytes)


def truncate_and_extend(mem):
    """Cuts the file off at the tested page, and makes it as long as it was."""
    mem.subject.syscall("ftruncate", mem.file, mem.page * mem.page_bytes)
    mem.subject.syscall("ftruncate", mem.file, mem.size)
