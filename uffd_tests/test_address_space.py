# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter SPACE: calls that change the address space around protected pages."""

from errno import EAGAIN, EFAULT, ENOENT, ESRCH
from mmap import PAGESIZE
from signal import SIGSEGV

import pytest

from helpers import batch
from helpers.arrange import content, huge_bytes
from helpers.axes import (
    ANON,
    DISTINCT,
    DISTINCT_SMALL,
    STATES,
    SYNC,
    anon,
    asynchronous,
    file_mapped,
    hugetlb_shared,
    least,
    memfd_private,
    memfd_shared,
    none_pmd,
    none_pte,
    once,
    pmd_mapped,
    populated,
    pte_mapped,
    swapped,
    wpu,
    zero_page,
)
from helpers.batch import Batch
from helpers.cases import case, refuses
from helpers.pagemap import Page
from helpers.uapi import (
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Advice,
    Event,
    Feature,
    Map,
    Prot,
)
from helpers.uffd import Message

SMALL = (none_pte, zero_page, populated, file_mapped)
FEW = (none_pte, populated, pmd_mapped)
EXITED, USAGE = 3, 2  # exit statuses: the one asked for, and the subject's without arguments
MORE = 2  # pages by which a range grows
GIB_PAGES = (1 << 30) // PAGESIZE
# both ends of 1 GiB, and both sides of a page table's boundary in it
EDGES = tuple(range(page, page + 2) for page in (0, 510, 512, GIB_PAGES - 2))
PROTS = pytest.mark.parametrize("prot", [Prot.READ, Prot.NONE], ids=["read", "none"])


# -- mprotect(2)


@PROTS
@case("SPACE-1", kinds=DISTINCT, states=STATES, features=SYNC, where=least)
def test_mprotect_to_and_fro_keeps_the_protection(mem, prot):
    mem.protect()
    mem.subject.mprotect(mem.start, mem.size, prot)
    assert mem.store().signal == SIGSEGV
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)
    assert mem.protected() == {mem.page}
    assert mem.store().message == mem.wp_fault()


@PROTS
@case("SPACE-1", kinds=(anon, memfd_shared), states=(pte_mapped,))
def test_mprotect_of_a_batch_keeps_its_pattern_of_protection(mem, prot):
    protected = mem.protect_some()
    mem.subject.mprotect(mem.start, mem.size, prot)
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)
    assert mem.protected() == protected
    assert mem.store(mem.pmd[3]).silent


@case(
    "SPACE-1", kinds=DISTINCT, states=(none_pte, populated), features=(asynchronous,), thp=(False,)
)
def test_async_store_to_a_read_only_page_leaves_it_protected(mem):
    mem.protect()
    mem.subject.mprotect(mem.start, mem.size, Prot.READ)
    assert mem.store().signal == SIGSEGV
    assert mem.protected() == {mem.page}


@PROTS
@case("SPACE-2", kinds=DISTINCT, states=SMALL, features=SYNC, thp=(False,), where=least)
def test_what_is_protected_while_inaccessible_is_so_later(mem, prot):
    mem.subject.mprotect(mem.start, mem.size, prot)
    mem.protect(mem.near)
    mem.unprotect()
    mem.subject.mprotect(mem.start, mem.size, Prot.RW)
    assert mem.store().silent
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@case("SPACE-3", kinds=DISTINCT, states=FEW, features=SYNC, where=least)
def test_writer_whose_page_becomes_read_only_gets_sigsegv(mem):
    mem.protect()
    write = mem.store()
    mem.subject.mprotect(mem.start, mem.size, Prot.READ)
    assert write.blocked
    mem.unprotect()
    assert write.settle().signal == SIGSEGV


# -- mremap(2)


@case("SPACE-4", kinds=DISTINCT, states=(*STATES, swapped), features=SYNC, where=least)
def test_moving_without_the_event_clears_the_protection(mem):
    mem.protect(mem.unit)
    moved, message = mem.move()
    assert message is None
    assert moved.protected() == set()
    assert moved.store().silent
    with refuses(ENOENT):
        moved.protect()


@case("SPACE-4", kinds=DISTINCT, states=(*STATES, swapped), where=least)
def test_moving_without_the_event_keeps_the_contents(mem):
    mem.protect(mem.unit)
    moved, _ = mem.move()
    assert moved.load().value == content(mem)


@case(
    "SPACE-5",
    kinds=DISTINCT,
    states=(*STATES, swapped),
    features=SYNC,
    also=Feature.EVENT_REMAP,
    where=least,
)
def test_moving_with_the_event_keeps_the_protection(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    moved, message = mem.move()
    assert message == Message(Event.REMAP, range=(mem.start, moved.start, mem.size))
    assert mem.page in protected == moved.protected()
    assert moved.store().message == moved.wp_fault()


@case("SPACE-4", kinds=(anon, memfd_shared), states=(pte_mapped,))
def test_moving_a_batch_without_the_event_clears_all(mem):
    mem.protect_some()
    moved, _ = mem.move()
    assert moved.protected() == set()


@case("SPACE-5", kinds=(anon, memfd_shared), states=(pte_mapped,), also=Feature.EVENT_REMAP)
def test_moving_a_batch_with_the_event_keeps_its_pattern_of_protection(mem):
    protected = mem.protect_some()
    moved, _ = mem.move()
    assert moved.protected() == protected


@case("SPACE-5", kinds=ANON, states=(pmd_mapped,), also=Feature.EVENT_REMAP)
def test_thp_is_moved_whole_and_protected(mem):
    mem.protect(mem.unit)
    moved, _ = mem.move()
    assert huge_bytes(moved) == mem.machine.pmd_bytes
    assert moved.protected() == set(mem.unit)


@case(
    "SPACE-6", kinds=ANON, states=(none_pte, pmd_mapped, pte_mapped), features=(wpu,), thp=(True,)
)
def test_moving_out_of_line_without_the_event_clears_the_protection(mem):
    mem.protect(mem.pmd)
    moved, _ = mem.move(to=out_of_line(mem))
    assert moved.protected() == set()
    assert moved.store().silent


@case(
    "SPACE-6",
    kinds=ANON,
    states=(none_pte, pmd_mapped, pte_mapped),
    features=(wpu,),
    thp=(True,),
    also=Feature.EVENT_REMAP,
)
def test_moving_out_of_line_with_the_event_keeps_the_protection(mem):
    mem.protect(mem.pmd)
    moved, _ = mem.move(to=out_of_line(mem))
    assert moved.protected() == set(mem.pmd)
    assert moved.store().message == moved.wp_fault()


@case("SPACE-7", kinds=DISTINCT, states=FEW, features=SYNC, where=least)
def test_what_stays_when_a_part_moves_keeps_its_protection(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    moved, _ = mem.move(range(mem.page, mem.page + 1))
    assert moved.protected() == set()
    assert mem.protected() == protected - {mem.page}
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@case("SPACE-7", kinds=DISTINCT, states=FEW, features=SYNC, also=Feature.EVENT_REMAP, where=least)
def test_part_that_moves_with_the_event_keeps_its_protection(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    moved, message = mem.move(range(mem.page, mem.page + 1))
    assert message == Message(Event.REMAP, range=(mem.address(), moved.start, mem.page_bytes))
    assert mem.protected() == protected - {mem.page}
    assert moved.store().message == moved.wp_fault()


@case("SPACE-21", kinds=DISTINCT, states=FEW, features=SYNC, where=least)
def test_moving_several_mappings_is_refused(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    mem.advise(Advice.SEQUENTIAL)
    assert mappings(mem) == 3
    with refuses(EFAULT):
        mem.move()
    assert mem.protected() == protected
    assert mem.store().message == mem.wp_fault()


@pytest.mark.parametrize("count", [GIB_PAGES], ids=["1GiB"])
@case("SPACE-6", kinds=(anon, memfd_shared), states=(none_pmd,), features=(wpu,), thp=(False,))
def test_moving_a_whole_pmd_table_clears_the_protection(mem):
    protected = protect_edges(mem)
    moved, _ = mem.move()
    assert protected
    assert not any(moved.protected(pages) for pages in EDGES)


@pytest.mark.parametrize("count", [GIB_PAGES], ids=["1GiB"])
@case(
    "SPACE-6",
    kinds=(anon, memfd_shared),
    states=(none_pmd,),
    features=(wpu,),
    thp=(False,),
    also=Feature.EVENT_REMAP,
)
def test_moving_a_whole_pmd_table_with_the_event_keeps_the_protection(mem):
    protected = protect_edges(mem)
    moved, _ = mem.move()
    assert [moved.protected(pages) for pages in EDGES] == protected
    assert moved.store(0).message == moved.wp_fault(0)


@case("SPACE-8", kinds=ANON, states=FEW, features=(wpu,))
def test_grown_in_place_it_is_registered_and_keeps_its_protection(mem):
    mem.protect(mem.unit)
    grown = mem.view(mem.start, len(mem.pages) + MORE, mem.page, "grown")
    assert mem.call("mremap", mem.start, mem.size, grown.size, 0).silent
    assert grown.protected() == set(mem.unit)
    new = range(len(mem.pages), len(grown.pages))
    assert grown.store(new[0]).silent
    grown.protect(new)
    assert grown.store(new[1]).message == grown.wp_fault(new[1])


@case("SPACE-8", kinds=ANON, states=FEW, features=(wpu,), also=Feature.EVENT_REMAP)
def test_grown_by_moving_it_is_registered_and_keeps_its_protection(mem):
    mem.protect(mem.unit)
    grown, message = mem.move(count=len(mem.pages) + MORE)
    assert message == Message(Event.REMAP, range=(mem.start, grown.start, mem.size))
    assert grown.protected() == set(mem.unit)
    new = range(len(mem.pages), len(grown.pages))
    assert grown.store(new[0]).silent
    grown.protect(new)
    assert grown.store(new[1]).message == grown.wp_fault(new[1])


@case("SPACE-9", kinds=(anon, memfd_shared), states=FEW, features=SYNC, where=least)
def test_shrunk_it_keeps_the_protection_of_the_rest(mem):
    mem.protect(mem.near)
    rest = mem.address(mem.page + 1) - mem.start
    mem.subject.syscall("mremap", mem.start, mem.size, rest, 0)
    assert mem.protected() == {mem.page - 1, mem.page}
    mem.subject.syscall("mremap", mem.start, rest, mem.size, 0)
    assert mem.protected() == {mem.page - 1, mem.page}
    assert mem.store(mem.page + 1).silent
    assert mem.store().message == mem.wp_fault()


@case("SPACE-10", kinds=DISTINCT_SMALL, states=FEW, features=(wpu,))
def test_dontunmap_leaves_none_ptes_registered(mem):
    mem.protect(mem.unit)
    moved, _ = mem.move(flags=MREMAP_DONTUNMAP)
    assert moved.protected() == set()
    assert set(mem.looks()) == {Page.NONE}
    mem.protect()
    assert mem.store().message == mem.wp_fault()


@case(
    "SPACE-10",
    kinds=DISTINCT_SMALL,
    states=FEW,
    features=(wpu,),
    also=Feature.EVENT_REMAP,
)
def test_dontunmap_with_the_event_takes_the_protection_along(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    moved, _ = mem.move(flags=MREMAP_DONTUNMAP)
    assert moved.protected() == protected
    assert set(mem.looks()) == {Page.NONE}
    assert moved.store().message == moved.wp_fault()


# -- what takes the place of protected pages


@case("SPACE-11", kinds=DISTINCT, states=FEW, features=SYNC, where=least)
def test_hole_leaves_its_neighbours_protected(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    mem.subject.syscall("munmap", *mem.span(mem.page))
    assert mem.store().signal == SIGSEGV
    assert mem.protected() == protected - {mem.page}
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@pytest.mark.parametrize("way", ["mmap", "mremap"])
@case("SPACE-11", kinds=(anon, memfd_shared, memfd_private), states=FEW, features=SYNC, where=least)
def test_page_in_the_place_of_a_protected_one_is_fresh(mem, way):
    mem.protect(mem.unit)
    protected = mem.protected()
    assert replace(mem, way).silent
    mem.registered = False
    assert mem.protected() == protected - {mem.page}
    with refuses(ENOENT):
        mem.protect()
    assert mem.store().silent
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@case("SPACE-11", kinds=DISTINCT, states=STATES, features=SYNC, where=least)
def test_mapped_anew_as_a_whole_it_is_fresh(mem):
    mem.protect(mem.unit)
    mem.subject.syscall("munmap", mem.start, mem.size)
    flags = Map.SHARED if mem.kind.shared else Map.PRIVATE
    flags |= Map.ANONYMOUS if mem.kind.anonymous else 0
    mem.subject.mmap(mem.size, Prot.RW, flags, mem.file, at=mem.start)
    assert set(mem.looks()) == {Page.NONE}
    assert mem.store().silent


@pytest.mark.parametrize("way", ["munmap", "mmap", "mremap"])
@case("SPACE-12", kinds=(anon, memfd_shared), states=(populated,), also=Feature.EVENT_UNMAP)
def test_unmap_event_tells_the_range_and_holds_up_protecting(mem, way):
    mem.protect(mem.near)
    unmapping = replace(mem, way, wait=False)
    assert unmapping.wait(mem.uffd.pollable) is None
    with refuses(EAGAIN):
        mem.unprotect(mem.page + 1)
    assert mem.uffd.read() == Message(Event.UNMAP, range=(mem.address(), mem.address(mem.page + 1)))
    assert unmapping.result().error == 0
    mem.registered = False
    assert mem.protected() == set(mem.near) - {mem.page}


@case(
    "SPACE-13",
    kinds=(anon, memfd_shared),
    states=(populated,),
    also=Feature.EVENT_REMAP | Feature.EVENT_UNMAP,
)
def test_moving_sends_remap_and_unmap(mem):
    mem.protect(mem.near)
    target = mem.subject.place(mem.size)
    remap = mem.call("mremap", mem.start, mem.size, mem.size, MREMAP_MAYMOVE | MREMAP_FIXED, target)
    assert remap.message == Message(Event.REMAP, range=(mem.start, target, mem.size))
    assert remap.settle().message == Message(Event.UNMAP, range=(mem.start, mem.start + mem.size))
    assert remap.completes()


@pytest.mark.parametrize("way", ["munmap", "mremap"])
@case("SPACE-14", kinds=DISTINCT, states=FEW, features=SYNC, where=least)
def test_writer_whose_page_goes_sleeps_on_until_woken(mem, way):
    mem.protect()
    write = mem.store()
    if way == "munmap":
        mem.subject.syscall("munmap", *mem.span(mem.page))
    else:
        target = mem.subject.place(mem.size)
        flags = MREMAP_MAYMOVE | MREMAP_FIXED
        mem.subject.syscall("mremap", mem.start, mem.size, mem.size, flags, target)
    assert write.blocked
    mem.uffd.wake(*mem.span(mem.page))
    assert write.settle().signal == SIGSEGV


# -- VMAs that split, merge and grow


@case("SPACE-15", kinds=DISTINCT, states=STATES, features=SYNC, where=least)
def test_splitting_and_merging_keeps_protection_and_writers(mem):
    mem.protect(mem.unit)
    protected = mem.protected()
    write = mem.store()
    mem.advise(Advice.SEQUENTIAL)
    assert mappings(mem) == 3
    mem.advise(Advice.NORMAL)
    assert mappings(mem) == 1 or mem.kind.hugetlb  # whose VMAs don't merge
    assert mem.protected() == protected
    mem.unprotect()
    assert write.completes()


@case("SPACE-16", kinds=ANON, states=(none_pte, none_pmd, populated), features=(wpu,), thp=(False,))
def test_merging_with_a_new_neighbour_keeps_the_protection(mem):
    mem.protect(mem.pages)
    like_it(mem, at=mem.start + mem.size)
    both = mem.view(mem.start, 2 * len(mem.pages), len(mem.pages), "both")
    assert mappings(both) == 2
    with refuses(ENOENT):
        both.protect(both.page)
    both.register()
    assert mappings(both) == 1
    assert both.protected() == set(mem.pages)
    both.protect()
    assert both.store().message == both.wp_fault()


@case(
    "SPACE-17",
    kinds=ANON,
    states=(none_pmd, populated),
    features=(wpu,),
    thp=(False,),
    also=Feature.EVENT_REMAP,
)
def test_moving_beside_another_registered_range_keeps_both_protections(mem):
    other = like_it(mem, at=mem.subject.place(mem.size))
    other.register()
    other.protect(other.pages)
    mem.protect(mem.pages)
    moved, _ = other.move(to=mem.start + mem.size)
    assert mem.protected() == set(mem.pages)
    assert moved.protected() == set(moved.pages)
    assert mem.store().message == mem.wp_fault()
    assert moved.store(by=1).message == moved.wp_fault()


@case("SPACE-18", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,))
def test_what_brk_adds_is_not_registered_and_the_rest_stays_protected(mem):
    subject = mem.subject
    subject.toucher()  # whose start may ask for heap itself
    start = -(-subject.syscall("brk", 0) // PAGESIZE) * PAGESIZE
    heap = mem.view(start, 8, 3, "heap")
    old, new = range(4), range(4, 8)
    subject.syscall("brk", heap.address(4))
    mem.uffd.register(*heap.span(old))
    heap.protect(old)
    subject.syscall("brk", heap.address(8))
    with refuses(ENOENT):
        heap.protect(new)
    assert heap.protected() == set(old)
    assert heap.store().message == heap.wp_fault()


@case("SPACE-18", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,))
def test_heap_given_back_comes_again_unprotected(mem):
    subject = mem.subject
    subject.toucher()
    start = -(-subject.syscall("brk", 0) // PAGESIZE) * PAGESIZE
    heap = mem.view(start, 8, 3, "heap")
    subject.syscall("brk", heap.address(8))
    mem.uffd.register(heap.start, heap.size)
    heap.protect(heap.pages)
    subject.syscall("brk", heap.address(3))
    subject.syscall("brk", heap.address(8))
    assert heap.protected() == set(range(3))
    assert heap.store().silent


@case("SPACE-19", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,))
def test_stack_that_grows_is_registered_and_keeps_its_protection(mem):
    end = mem.subject.place(mem.size) + mem.size
    stack = mem.view(end - mem.size, len(mem.pages), 3, "stack")
    old = range(4, 8)
    flags = Map.PRIVATE | Map.ANONYMOUS | Map.GROWSDOWN
    mem.subject.mmap(4 * PAGESIZE, Prot.RW, flags, at=stack.address(4))
    mem.uffd.register(*stack.span(old))
    stack.protect(old)
    assert stack.store().silent
    assert stack.protected() == set(old)
    stack.protect()
    assert stack.store().message == stack.wp_fault()


# -- the end of the address space


@pytest.mark.parametrize("way", ["exit", "exec"])
@case(
    "SPACE-20", kinds=(anon, memfd_shared, hugetlb_shared), states=FEW, features=SYNC, where=least
)
def test_process_with_waiting_writers_ends(mem, way):
    owner, lent = owned_by_a_child(mem)
    owner.protect()
    assert owner.store().blocked
    assert end(owner.subject, way)
    assert lent.read() is None
    with refuses(ESRCH):
        lent.writeprotect(*owner.span(owner.page))


@case(
    "SPACE-20", kinds=(anon, memfd_shared), states=(none_pte, populated), features=SYNC, where=once
)
def test_word_to_be_cleared_at_exit_is_not_waited_for(mem):
    owner, lent = owned_by_a_child(mem)
    owner.protect()
    owner.call("set_tid_address", owner.address())
    assert end(owner.subject, "exit")
    assert lent.read() is None


@pytest.mark.parametrize("way", ["exit", "exec"])
@case("SPACE-20", kinds=ANON, states=(populated,), thp=(False,))
def test_message_of_a_writer_that_is_gone_is_gone_too(mem, way):
    owner, lent = owned_by_a_child(mem)
    owner.protect()
    write = owner.subject.toucher().store(owner.address(), 7)
    assert write.wait(lent.pollable) is None
    assert end(owner.subject, way)
    assert lent.read() is None


def protect_edges(mem):
    """Protects one page of each of EDGES; what is protected of each."""
    for pages in EDGES:
        mem.protect(pages[0])
    return [mem.protected(pages) for pages in EDGES]


def out_of_line(mem):
    """A free address that is not aligned to a PMD."""
    return mem.subject.place(mem.size + PAGESIZE) + PAGESIZE


def replace(mem, way, wait=True):
    """Has a toucher unmap the tested page, or put another page in its place."""
    where, flags = mem.span(mem.page), Map.PRIVATE | Map.ANONYMOUS | Map.FIXED
    call = mem.call if wait else mem.subject.toucher().begin
    if way == "munmap":
        return call("munmap", *where)
    if way == "mmap":
        return call("mmap", *where, Prot.RW, flags, -1, 0)
    other = mem.subject.mmap(PAGESIZE, Prot.RW, Map.PRIVATE | Map.ANONYMOUS)
    return call("mremap", other, PAGESIZE, PAGESIZE, MREMAP_MAYMOVE | MREMAP_FIXED, mem.address())


@case("SPACE-22", kinds=DISTINCT, states=(populated, pmd_mapped))
def test_old_place_is_gone_for_the_thread_that_has_just_written_there(mem):
    how, away = MREMAP_MAYMOVE | MREMAP_FIXED, mem.subject.place(mem.size)
    move = batch.call("mremap", mem.start, mem.size, mem.size, how, away)
    stores = [batch.store(mem.address(), value) for value in (1, 2)]
    table = Batch(mem.subject.toucher(), [stores[0], move, stores[1]])
    table.start().result()
    assert table.answers()[2].signal == SIGSEGV


def mappings(mem):
    """How many VMAs the region has."""
    lines = mem.subject.read_file("/proc/self/maps").splitlines()
    starts = (int(line.partition("-")[0], 16) for line in lines)
    return sum(mem.start <= start < mem.start + mem.size for start in starts)


def like_it(mem, at):
    """Another mapping like the region, at an address and not registered."""
    mem.subject.mmap(mem.size, Prot.RW, Map.PRIVATE | Map.ANONYMOUS, at=at)
    if mem.machine.thp:
        mem.subject.madvise(at, mem.size, Advice.NOHUGEPAGE)
    return mem.view(at, len(mem.pages), mem.page, "other")


def owned_by_a_child(mem):
    """The region in a child with a userfaultfd of its own, which the parent holds as well."""
    child = mem.fork()
    child.open_uffd()
    child.register()
    return child, child.uffd.lend(mem.subject)


def end(subject, way):
    """Whether a process ends by itself, or executes another program, which ends."""
    if way == "exit":
        return subject.end("exit_group", EXITED) == EXITED
    path = subject.text("/proc/self/exe")
    arguments = subject.main.scratch_address
    subject.main.scratch(16)[:] = path.to_bytes(16, "little")
    return subject.end("execve", path, arguments, 0) == USAGE
