# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter FILL: COPY, ZEROPAGE, CONTINUE, POISON and MOVE meet protection and markers."""

from errno import EAGAIN, EBUSY, EEXIST, EFAULT, EINVAL, ENOENT
from signal import SIGBUS, SIGSEGV

import pytest

from helpers.arrange import content
from helpers.axes import (
    ANON,
    DISTINCT,
    KINDS,
    NONE,
    POPULATED,
    SHARED_SHMEM,
    SYNC,
    THP_STATES,
    ZERO,
    anon,
    cached,
    huge_zero_page,
    hugetlb_shared,
    memfd_private,
    memfd_shared,
    none_pmd,
    none_pte,
    pmd_mapped,
    populated,
    wpu,
    zero_page,
)
from helpers.cases import case, refuses
from helpers.machine import KERNEL_FAULTS, WP_SHMEM, advice, feature
from helpers.memory_errors import PAGE_OFFLINE
from helpers.pagemap import Page
from helpers.subject import SLOT_BYTES
from helpers.uapi import (
    BUS_MCEERR_AR,
    EHWPOISON,
    MOVE_ALLOW_SRC_HOLES,
    Advice,
    CopyMode,
    FaultFlag,
    Feature,
    Ioctl,
    Prot,
    RegisterMode,
)
from helpers.uffd import Userfaultfd

VALUE = 0x5EED
WP = CopyMode.WP
NOTHING = CopyMode(0)
UNKNOWN = 1 << 2
MISSING_AND_WP = RegisterMode.MISSING | RegisterMode.WP
MINOR_AND_WP = RegisterMode.MINOR | RegisterMode.WP
ALL_MODES = MISSING_AND_WP | RegisterMode.MINOR
MINOR = Feature.MINOR_SHMEM | Feature.MINOR_HUGETLBFS
MOVE = feature(Feature.MOVE)
PRESENT_MAPPED = (*ZERO, *POPULATED)
PRESENT = (*PRESENT_MAPPED, cached)
FILE = DISTINCT[1:]
IN_FILE = (memfd_shared, memfd_private, hugetlb_shared)  # whose file has what populates them
MOVABLE = (*ZERO, populated, *THP_STATES)
FILLS = pytest.mark.parametrize(
    "fill",
    [Ioctl.UFFDIO_COPY, Ioctl.UFFDIO_ZEROPAGE, Ioctl.UFFDIO_POISON, Ioctl.UFFDIO_MOVE],
    ids=lambda fill: fill.name.lower(),
)
PROTECTING = (Ioctl.UFFDIO_COPY, Ioctl.UFFDIO_ZEROPAGE, Ioctl.UFFDIO_CONTINUE, Ioctl.UFFDIO_POISON)


def never_copied(setup):
    """For `where`: a private mapping's pages in the page cache are no obstacle."""
    return setup.kind.shared or setup.state is not cached


MODES = pytest.mark.parametrize("mode", [NOTHING, WP], ids=["plain_copy", "wp_copy"])


@MODES
@case("FILL-1", kinds=KINDS, states=NONE, features=(wpu,), thp=(False,))
def test_copy_fills_a_marker(mem, mode):
    mem.protect()
    mem.copy_in(VALUE, mode)
    assert mem.protected() == ({mem.page} if mode else set())
    assert mem.load().value == VALUE


@MODES
@case("FILL-2", kinds=KINDS, states=NONE, features=SYNC, thp=(False,))
def test_copied_page_raises_a_message_as_its_mode_says(mem, mode):
    mem.copy_in(VALUE, mode)
    assert mem.store().message == (mem.wp_fault() if mode else None)


@case("FILL-3", kinds=ANON, states=NONE, features=(wpu,), thp=(False,))
def test_zeropage_onto_an_anon_marker_is_refused(mem):
    assert refused_onto_a_marker(mem, Ioctl.UFFDIO_ZEROPAGE)


@case("FILL-3", kinds=KINDS, states=NONE, features=(wpu,), thp=(False,), also=Feature.POISON)
def test_poison_onto_a_marker_is_refused(mem):
    assert refused_onto_a_marker(mem, Ioctl.UFFDIO_POISON)


@case("FILL-4", kinds=SHARED_SHMEM, states=NONE, features=SYNC, thp=(False,))
def test_zeropage_onto_a_shmem_marker_fills_it(mem):
    mem.protect()
    mem.uffd.fill(Ioctl.UFFDIO_ZEROPAGE, *mem.span(mem.page))
    assert Page.PRESENT in mem.look()
    assert mem.load().value == 0


@case("FILL-5", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,), needs=(MOVE,))
def test_move_onto_a_marker_is_refused(mem):
    mem.protect()
    with refuses(EEXIST):
        mem.uffd.move(mem.address(), mem.address(0), mem.page_bytes)
    assert mem.changed() == mem.protected() == {mem.page}


@case("FILL-5", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,), needs=(MOVE,))
def test_move_from_a_marker_is_refused(mem):
    mem.protect()
    with refuses(EFAULT):
        mem.uffd.move(mem.address(mem.page + 1), mem.address(), mem.page_bytes)
    assert mem.changed() == mem.protected() == {mem.page}


@case("FILL-6", kinds=ANON, states=MOVABLE, features=(wpu,), needs=(MOVE,))
def test_move_drops_the_protection(mem):
    mem.protect(mem.unit)
    mem.advise(Advice.DONTNEED, mem.page + 1)
    mem.uffd.move(mem.address(mem.page + 1), mem.address(), mem.page_bytes)
    assert mem.protected() == set(mem.unit) - {mem.page, mem.page + 1}
    assert mem.load(mem.page + 1).value == content(mem)
    assert mem.store(mem.page + 1).silent


@case("FILL-6", kinds=ANON, states=(huge_zero_page, pmd_mapped), features=SYNC, needs=(MOVE,))
def test_move_of_a_thp_drops_the_protection(mem):
    mem.protect(mem.pmd)
    mem.uffd.move(mem.start, mem.address(mem.pmd[0]), mem.machine.pmd_bytes)
    assert mem.protected() == set()
    assert Page.HUGE in mem.look(0)
    assert mem.load(0).value == content(mem, mem.pmd[0])
    assert mem.store(0).silent


@case("FILL-7", kinds=DISTINCT, states=NONE, features=(wpu,), mode=MISSING_AND_WP)
def test_marker_raises_missing_without_the_wp_flag(mem):
    mem.protect()
    assert mem.load().message == mem.fault(FaultFlag(0))
    assert mem.store(by=1).message == mem.fault(FaultFlag.WRITE)


@case("FILL-8", kinds=KINDS, states=NONE, features=SYNC, mode=MISSING_AND_WP)
def test_wp_copy_resolves_missing_and_a_second_message_follows(mem):
    write = mem.store()
    assert write.message == mem.fault(FaultFlag.WRITE)
    mem.copy_in(VALUE, WP)
    assert write.settle().message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()


@case("FILL-8", kinds=KINDS, states=NONE, features=SYNC, mode=MISSING_AND_WP)
def test_plain_copy_lets_the_write_complete(mem):
    write = mem.store(offset=8)
    mem.copy_in(VALUE, NOTHING)
    assert write.completes()
    assert mem.load().value == VALUE
    assert mem.protected() == set()


@case("FILL-9", kinds=ANON, states=NONE, features=(wpu,), mode=MISSING_AND_WP)
def test_unprotecting_alone_raises_missing_again(mem):
    mem.protect()
    write = mem.store()
    mem.unprotect()
    assert write.settle().message == mem.fault(FaultFlag.WRITE)


@MODES
@case(
    "FILL-10",
    kinds=(*SHARED_SHMEM, hugetlb_shared),
    states=(cached,),
    features=(wpu,),
    also=MINOR,
    mode=MINOR_AND_WP,
)
def test_continue_keeps_the_protection_as_its_mode_says(mem, mode):
    mem.protect()
    write = mem.store()
    assert write.message == mem.fault(FaultFlag.WRITE | FaultFlag.MINOR)
    mem.uffd.fill(Ioctl.UFFDIO_CONTINUE, *mem.span(mem.page), mode)
    assert write.settle().message == (mem.wp_fault() if mode else None)
    assert mem.protected() == ({mem.page} if mode else set())


@case(
    "FILL-10",
    kinds=(memfd_shared,),
    states=(none_pte,),
    features=(wpu,),
    also=MINOR,
    mode=ALL_MODES,
)
def test_each_page_raises_the_fault_of_its_state(mem):
    mem.write_file(mem.page, VALUE)
    mem.protect(mem.pages)
    assert mem.store(0, by=0).message == mem.wp_fault(0)
    assert mem.store(by=1).message == mem.fault(FaultFlag.WRITE | FaultFlag.MINOR)
    assert mem.load(by=2).message == mem.fault(FaultFlag.MINOR)
    assert mem.load(1, by=3).message == mem.fault(FaultFlag(0), 1)


@case("FILL-18", kinds=DISTINCT, states=PRESENT_MAPPED, features=SYNC, mode=MISSING_AND_WP)
def test_page_that_is_there_raises_wp_alone(mem):
    mem.protect(mem.unit)
    write = mem.store()
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()


@case("FILL-11", kinds=DISTINCT, states=NONE, features=(wpu,), also=Feature.POISON)
def test_poisoned_page_is_left_as_it_is(mem):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    before = mem.word()  # of hugetlb, pagemap shows nothing
    mem.protect()
    assert mem.word() == before
    mem.unprotect()
    assert mem.word() == before
    assert mem.load().signal == SIGBUS


@case("FILL-2", kinds=DISTINCT, states=(none_pte,), features=SYNC, mode=RegisterMode.MISSING)
def test_copy_into_a_range_for_missing_pages_alone(mem):
    mem.copy_in(VALUE)
    assert mem.load().value == VALUE
    assert mem.store().silent


@case("FILL-20", kinds=DISTINCT, states=(none_pte,), features=(wpu,), also=Feature.POISON)
def test_poison_that_is_dropped_leaves_none(mem):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    mem.advise(Advice.DONTNEED)
    assert mem.look() == Page.NONE
    assert mem.store().silent


@case("FILL-20", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,), also=Feature.POISON)
def test_poison_that_is_freed_leaves_none(mem):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    mem.advise(Advice.FREE)
    assert mem.look() == Page.NONE
    assert mem.store().silent


@case(
    "FILL-21",
    kinds=DISTINCT,
    states=(none_pte,),
    features=(wpu,),
    also=Feature.POISON,
    needs=(PAGE_OFFLINE,),
)
def test_poisoned_page_raises_what_failed_memory_raises(mem):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    assert mem.load().answer.code == BUS_MCEERR_AR


@case("FILL-21", kinds=DISTINCT, states=(none_pte,), features=(wpu,), also=Feature.POISON)
def test_poisoned_page_is_deadly(mem):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    assert mem.load().signal == mem.store().signal == SIGBUS
    assert mem.kernel_read().error == mem.kernel_write().error == EFAULT
    for advised in (Advice.POPULATE_READ, Advice.POPULATE_WRITE):
        with refuses(EHWPOISON):
            mem.advise(advised)


@MODES
@case("FILL-21", kinds=DISTINCT, states=(none_pte,), features=(wpu,), also=Feature.POISON)
def test_copy_replaces_poison(mem, mode):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    mem.copy_in(VALUE, mode)
    assert mem.protected() == ({mem.page} if mode else set())
    assert mem.load().value == VALUE


@MODES
@case(
    "FILL-21",
    kinds=(memfd_shared, hugetlb_shared),
    states=(cached,),
    features=(wpu,),
    thp=(False,),
    also=MINOR | Feature.POISON,
)
def test_continue_replaces_poison(mem, mode):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    mem.uffd.fill(Ioctl.UFFDIO_CONTINUE, *mem.span(mem.page), mode)
    assert mem.protected() == ({mem.page} if mode else set())
    assert mem.load().value == mem.value()


@case("FILL-22", kinds=DISTINCT, states=(none_pte,), features=(wpu,), thp=(False,), also=MINOR)
def test_continue_of_what_is_not_in_the_file_is_refused(mem):
    mem.protect()
    with refuses(EINVAL if mem.kind.anonymous else EFAULT):
        mem.uffd.fill(Ioctl.UFFDIO_CONTINUE, *mem.span(mem.page))
    assert mem.changed() == mem.protected() == {mem.page}


@case("FILL-11", kinds=ANON, states=NONE, features=(wpu,), needs=(advice(Advice.GUARD_INSTALL),))
def test_guard_page_is_left_as_it_is(mem):
    mem.advise(Advice.GUARD_INSTALL)
    before = mem.look()
    mem.protect()
    assert mem.look() == before
    assert mem.load().signal == SIGSEGV


@case("FILL-12", kinds=DISTINCT, states=PRESENT, features=(wpu,), where=never_copied)
def test_copy_onto_a_page_that_is_there_is_refused(mem):
    mem.protect(mem.unit)
    for mode in (NOTHING, WP):
        with refuses(EEXIST):
            mem.copy_in(VALUE, mode)
    assert mem.protected() == set(mem.unit)
    assert mem.load().value == content(mem)


@MODES
@case("FILL-12", kinds=IN_FILE, states=(populated,), features=(wpu,), thp=(False,), also=MINOR)
def test_continue_of_a_page_that_is_mapped_is_refused(mem, mode):
    mem.protect(mem.near)
    with refuses(EEXIST):
        mem.uffd.fill(Ioctl.UFFDIO_CONTINUE, *mem.span(mem.page), mode)
    assert mem.protected() == set(mem.near)
    assert mem.load().value == mem.value()


@FILLS
@case("FILL-13", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,), needs=(MOVE,))
def test_fill_stops_at_a_page_that_is_there(mem, fill):
    mem.populate(range(2))
    mem.populate(range(5, 6))
    mem.protect(5)
    mem.remember()
    assert attempt(mem, fill, range(3, 6)) == (EAGAIN, 2 * mem.page_bytes)
    assert mem.changed() & set(mem.pages[3:]) == {3, 4}
    assert attempt(mem, fill, range(5, 6)) == (EEXIST, -EEXIST)
    assert mem.protected() == {5}


@case("FILL-13", kinds=(memfd_shared,), states=(cached,), features=(wpu,), thp=(False,), also=MINOR)
def test_continue_stops_at_a_page_that_is_there(mem):
    mem.protect(range(3, 6))
    mem.load(5)
    assert attempt(mem, Ioctl.UFFDIO_CONTINUE, range(3, 6)) == (EAGAIN, 2 * mem.page_bytes)
    assert mem.protected() == {5}


A_HOLE = {
    "kinds": ANON,
    "states": (none_pte,),
    "features": (wpu,),
    "thp": (False,),
    "needs": (MOVE,),
    "mode": MISSING_AND_WP,
}


@FILLS
@case("FILL-14", **A_HOLE)
def test_fill_wakes_who_waits(mem, fill):
    read = mem.load()
    assert attempt(mem, fill, range(mem.page, mem.page + 1)) == (0, mem.page_bytes)
    assert read.settle().answer


@FILLS
@case("FILL-14", **A_HOLE)
def test_dontwake_leaves_the_waiters_asleep(mem, fill):
    read, page = mem.load(), range(mem.page, mem.page + 1)
    assert attempt(mem, fill, page, CopyMode.DONTWAKE) == (0, mem.page_bytes)
    assert read.blocked
    mem.uffd.wake(*mem.span(page))
    assert read.settle().answer


@case(
    "FILL-14",
    kinds=DISTINCT,
    states=(none_pte,),
    features=(wpu,),
    thp=(False,),
    mode=MISSING_AND_WP,
)
def test_woken_writer_meets_the_protection_of_the_copy(mem):
    write = mem.store()
    mem.copy_in(VALUE, WP | CopyMode.DONTWAKE)
    assert write.blocked
    mem.uffd.wake(*mem.span(mem.page))
    assert write.settle().message == mem.wp_fault()


PROTECTING_FILLS = pytest.mark.parametrize("fill", PROTECTING, ids=lambda fill: fill.name.lower())
MISSING_ALONE = {
    "kinds": (memfd_shared,),
    "states": (cached,),
    "features": (wpu,),
    "thp": (False,),
    "also": MINOR | Feature.POISON,
    "mode": RegisterMode.MISSING,
}


@PROTECTING_FILLS
@case("FILL-15", **MISSING_ALONE)
def test_protecting_fill_of_a_range_without_wp_is_refused(mem, fill):
    assert attempt(mem, fill, range(3, 4), WP)[0] == EINVAL
    assert mem.changed() == set()


@PROTECTING_FILLS
@case("FILL-15", **MISSING_ALONE)
def test_unknown_mode_is_refused(mem, fill):
    assert attempt(mem, fill, range(3, 4), UNKNOWN)[0] == EINVAL
    assert mem.changed() == set()


@case("FILL-16", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,), needs=(MOVE,))
def test_move_passes_holes_over_when_allowed(mem):
    assert attempt(mem, Ioctl.UFFDIO_MOVE, range(3, 5)) == (EAGAIN, mem.page_bytes)
    mem.uffd.move(mem.start, mem.address(3), 2 * mem.page_bytes, MOVE_ALLOW_SRC_HOLES)
    assert mem.changed() == set()


@case("FILL-16", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,), needs=(MOVE,))
def test_move_stops_at_a_marker_all_the_same(mem):
    mem.protect(1)
    moved = attempt(mem, Ioctl.UFFDIO_MOVE, range(3, 5), MOVE_ALLOW_SRC_HOLES)
    assert moved == (EAGAIN, mem.page_bytes)
    assert mem.protected() == {1}


@case("FILL-16", kinds=ANON, states=(pmd_mapped,), features=(wpu,), needs=(MOVE,))
def test_move_of_a_thp_onto_a_marker_is_refused(mem):
    mem.protect(mem.pages)
    with refuses(EEXIST):
        mem.uffd.move(mem.start, mem.address(mem.pmd[0]), mem.machine.pmd_bytes)
    assert mem.protected() == set(mem.pages)
    assert mem.load().value == content(mem)


@case("FILL-23", kinds=FILE, states=(populated,), features=(wpu,), thp=(False,), needs=(MOVE,))
def test_move_of_what_is_not_anon_is_refused(mem):
    mem.advise(Advice.DONTNEED, 0)
    mem.protect()
    mem.remember()
    with refuses(EINVAL):
        mem.uffd.move(mem.address(0), *mem.span(mem.page))
    assert mem.changed() == set()
    assert mem.protected() == {mem.page}


UNFIT = {
    "read_only": lambda mem: mem.subject.mprotect(mem.start, mem.size, Prot.READ),
    "target_not_registered": lambda mem: mem.unregister(0),
    "source_of_two_mappings": lambda mem: mem.unregister(mem.page + 1),
}


@pytest.mark.parametrize("unfit", UNFIT)
@case("FILL-23", kinds=ANON, states=(populated,), features=(wpu,), thp=(False,), needs=(MOVE,))
def test_move_between_unfit_ranges_is_refused(mem, unfit):
    mem.advise(Advice.DONTNEED, range(2))
    mem.protect()
    UNFIT[unfit](mem)
    mem.remember()
    with refuses(EINVAL):
        mem.uffd.move(mem.start, *mem.span(range(mem.page, mem.page + 2)))
    assert mem.changed() == set()
    assert mem.protected() == {mem.page}


@case("FILL-24", kinds=ANON, states=(populated,), features=(wpu,), thp=(False,), needs=(MOVE,))
def test_move_of_a_page_that_a_child_shares_is_refused(mem):
    mem.advise(Advice.DONTNEED, 0)
    mem.protect()
    mem.fork()
    mem.remember()
    with refuses(EBUSY):
        mem.uffd.move(mem.start, *mem.span(mem.page))
    assert mem.changed() == set()
    assert mem.protected() == {mem.page}
    mem.unprotect()
    assert mem.store().silent
    mem.uffd.move(mem.start, *mem.span(mem.page))
    assert mem.load(0).value == 7


@case("FILL-17", kinds=(anon, memfd_shared), states=(none_pmd,), features=(wpu,))
def test_one_copy_fills_markers_and_none_ptes_alike(mem):
    mem.protect(mem.pmd[: len(mem.pmd) // 2])
    mem.copy_in(VALUE, WP, mem.pmd)
    assert mem.protected() == set(mem.pmd)
    assert mem.load(mem.pmd[0]).value == mem.load(mem.pmd[-1]).value == VALUE
    assert mem.store(mem.pmd[-1]).message == mem.wp_fault(mem.pmd[-1])


@case("FILL-19", kinds=ANON, states=(*NONE, zero_page, populated), features=(wpu,))
def test_copy_from_a_protected_page_is_silent(mem):
    mem.protect()
    mem.advise(Advice.DONTNEED, mem.page + 1)
    mem.uffd.copy(mem.address(mem.page + 1), *mem.span(mem.page))
    assert mem.load(mem.page + 1).value == content(mem)
    assert mem.uffd.read() is None
    assert mem.protected() == {mem.page}


@pytest.fixture
def source(mem):
    """A page that is missing, and watched by another userfaultfd."""
    page = mem.page + 1
    mem.unregister(page)
    watched = mem.view(mem.address(page), 1, name="source")
    watched.uffd = Userfaultfd.open(mem.subject, mem.machine.access)
    watched.uffd.api()
    watched.uffd.register(*watched.span(0), RegisterMode.MISSING)
    return watched


def copy_from(source, mem):
    """A thread's UFFDIO_COPY to the tested page, with MODE_WP."""
    thread = mem.subject.toucher()
    fields = {"dst": mem.address(), "src": source.start, "len": mem.page_bytes, "mode": WP}
    thread.struct("uffdio_copy", **fields)
    return source.call("ioctl", mem.uffd.descriptor, Ioctl.UFFDIO_COPY, thread.scratch_address)


def unmapped(mem):
    mem.subject.syscall("munmap", *mem.span(mem.page))


def unregistered(mem):
    mem.unregister(mem.page)


def registered_for_missing_alone(mem):
    mem.unregister(mem.page)
    mem.uffd.register(*mem.span(mem.page), RegisterMode.MISSING)


def replaced(mem):
    unmapped(mem)
    memfd_private.map(mem.subject, mem.page_bytes, mem.address())
    mem.uffd.register(*mem.span(mem.page), MISSING_AND_WP)


CHANGES = {
    unmapped: {ENOENT},
    unregistered: {ENOENT},
    registered_for_missing_alone: {EINVAL},
    replaced: {EAGAIN, ENOENT, 0},
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda way: way.__name__)
@case(
    "FILL-25",
    kinds=DISTINCT,
    states=(none_pte,),
    thp=(False,),
    mode=MISSING_AND_WP,
    needs=(KERNEL_FAULTS, WP_SHMEM),
)
def test_copy_meets_a_target_that_changed_while_it_waited(mem, source, change):
    copy = copy_from(source, mem)
    assert copy.message == source.fault(FaultFlag(0))
    change(mem)
    source.copy_in(VALUE)
    assert copy.settle().error in CHANGES[change]
    assert mem.protected() == (set() if copy.error else {mem.page})


def refused_onto_a_marker(mem, request):
    """Whether filling the tested page's marker is refused with EEXIST, and the marker stays."""
    mem.protect()
    with refuses(EEXIST):
        mem.uffd.fill(request, *mem.span(mem.page))
    return mem.look() == mem.marker


def attempt(mem, fill, pages, mode=0):
    """A filling ioctl's errno, and the bytes done or -errno that it leaves in its structure. COPY
    takes zeros, MOVE the region's first pages."""
    start, size = mem.span(pages)
    if fill in (Ioctl.UFFDIO_COPY, Ioctl.UFFDIO_MOVE):
        source = (
            mem.start
            if fill is Ioctl.UFFDIO_MOVE
            else mem.subject.main.scratch_address + SLOT_BYTES // 2
        )
        answer, struct = mem.uffd.try_ioctl(
            fill, "uffdio_copy", dst=start, src=source, len=size, mode=mode
        )
    else:
        answer, struct = mem.uffd.try_ioctl(fill, "uffdio_fill", start=start, len=size, mode=mode)
    return answer.error, struct.done
