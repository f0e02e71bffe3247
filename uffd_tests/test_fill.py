# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter FILL: COPY, ZEROPAGE, CONTINUE, POISON and MOVE meet protection and markers."""

from errno import EEXIST, EFAULT
from signal import SIGBUS, SIGSEGV

import pytest

from helpers.arrange import content
from helpers.axes import ANON, KINDS, NONE, SHARED_SHMEM, SYNC, cached, none_pte, populated, wpu
from helpers.cases import case, refuses
from helpers.machine import advice, feature
from helpers.pagemap import Page
from helpers.uapi import Advice, CopyMode, FaultFlag, Feature, Ioctl, RegisterMode

VALUE = 0x5EED
WP = CopyMode.WP
NOTHING = CopyMode(0)
MISSING_AND_WP = RegisterMode.MISSING | RegisterMode.WP
MINOR_AND_WP = RegisterMode.MINOR | RegisterMode.WP
MOVE = feature(Feature.MOVE)
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


@case("FILL-6", kinds=ANON, states=(populated,), features=SYNC, needs=(MOVE,))
def test_move_drops_the_protection(mem):
    mem.protect()
    mem.advise(Advice.DONTNEED, mem.page + 1)
    mem.uffd.move(mem.address(mem.page + 1), mem.address(), mem.page_bytes)
    assert mem.protected() == set()
    assert mem.load(mem.page + 1).value == content(mem)
    assert mem.store(mem.page + 1).silent


@case("FILL-7", kinds=ANON, states=NONE, features=(wpu,), mode=MISSING_AND_WP)
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
    kinds=SHARED_SHMEM,
    states=(cached,),
    features=(wpu,),
    also=Feature.MINOR_SHMEM,
    mode=MINOR_AND_WP,
)
def test_continue_keeps_the_protection_as_its_mode_says(mem, mode):
    mem.protect()
    write = mem.store()
    assert write.message == mem.fault(FaultFlag.WRITE | FaultFlag.MINOR)
    mem.uffd.fill(Ioctl.UFFDIO_CONTINUE, *mem.span(mem.page), mode)
    assert write.settle().message == (mem.wp_fault() if mode else None)
    assert mem.protected() == ({mem.page} if mode else set())


@case("FILL-11", kinds=ANON, states=NONE, features=(wpu,), also=Feature.POISON)
def test_poisoned_page_is_left_as_it_is(mem):
    mem.uffd.fill(Ioctl.UFFDIO_POISON, *mem.span(mem.page))
    before = mem.look()
    mem.protect()
    assert mem.look() == before
    assert mem.load().signal == SIGBUS


@case("FILL-11", kinds=ANON, states=NONE, features=(wpu,), needs=(advice(Advice.GUARD_INSTALL),))
def test_guard_page_is_left_as_it_is(mem):
    mem.advise(Advice.GUARD_INSTALL)
    before = mem.look()
    mem.protect()
    assert mem.look() == before
    assert mem.load().signal == SIGSEGV


def refused_onto_a_marker(mem, request):
    """Whether filling the tested page's marker is refused with EEXIST, and the marker stays."""
    mem.protect()
    with refuses(EEXIST):
        mem.uffd.fill(request, *mem.span(mem.page))
    return mem.look() == mem.marker
