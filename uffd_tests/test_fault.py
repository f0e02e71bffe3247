# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter FAULT: what a touch of a protected page does, whatever the page is."""

from signal import SIGBUS, SIGKILL, SIGUSR1

import pytest

from helpers.arrange import content
from helpers.axes import (
    KINDS,
    STATES,
    SYNC,
    anon,
    asynchronous,
    least,
    populated,
    protectable,
)
from helpers.cases import case
from helpers.machine import KERNEL_FAULTS
from helpers.uapi import Feature

VALUE = 7
ROUNDS = 5


@case("FAULT-1", kinds=KINDS, states=STATES, features=SYNC, where=protectable)
def test_write_raises_one_message(mem):
    mem.protect()
    assert mem.store().message == mem.wp_fault()
    assert mem.uffd.read() is None
    assert mem.store(mem.page + 1, by=1).silent


@case("FAULT-2", kinds=KINDS, states=STATES, features=SYNC, where=protectable)
def test_read_is_silent_and_leaves_it_protected(mem):
    mem.protect(mem.near)
    read = mem.load()
    assert read.silent
    assert read.value == content(mem)
    assert mem.protected() == set(mem.near)


@case("FAULT-2", kinds=KINDS, states=STATES, features=SYNC, where=protectable)
def test_write_after_a_read_still_raises_a_message(mem):
    mem.protect()
    mem.load()
    assert mem.store().message == mem.wp_fault()


@case("FAULT-3", kinds=KINDS, states=STATES, features=SYNC, where=protectable)
def test_unprotected_page_takes_the_write_and_later_ones(mem):
    mem.protect()
    write = mem.store(value=VALUE, offset=8)
    mem.unprotect()
    assert write.completes()
    assert (mem.load().value, mem.load(offset=8).value) == (content(mem), VALUE)
    assert mem.store().silent


@case("FAULT-4", kinds=KINDS, states=STATES, features=SYNC, where=protectable)
def test_writer_sleeps_and_the_contents_stay(mem):
    mem.protect()
    write = mem.store()
    assert mem.load(by=1).value == content(mem)
    assert write.blocked
    assert mem.page in mem.protected()


@case("FAULT-5", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_read_modify_write_raises_one_message(mem):
    mem.protect()
    addition = mem.add(delta=VALUE)
    assert addition.message == mem.wp_fault()
    mem.unprotect()
    assert addition.completes()
    assert addition.value == content(mem) + VALUE
    assert mem.uffd.read() is None


@case("FAULT-6", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_two_writers_one_message_each_one_unprotect(mem):
    mem.protect()
    writes = [mem.store(by=thread, offset=8 * thread) for thread in range(2)]
    assert [write.message for write in writes] == [mem.wp_fault()] * 2
    mem.unprotect()
    assert all(write.completes() for write in writes)


@case("FAULT-7", kinds=KINDS, states=STATES, features=SYNC, also=Feature.SIGBUS, where=least)
def test_sigbus_feature_signals_the_writer(mem):
    mem.protect()
    assert mem.load().silent
    write = mem.store()
    assert (write.signal, write.message) == (SIGBUS, None)
    assert mem.uffd.read() is None


@case(
    "FAULT-8",
    kinds=KINDS,
    states=STATES,
    features=SYNC,
    also=Feature.EXACT_ADDRESS,
    where=least,
)
def test_exact_address_is_the_writes_own(mem):
    mem.protect()
    assert mem.store(offset=0x128).message == mem.wp_fault(offset=0x128)


@case("FAULT-8", kinds=KINDS, states=(populated,))
def test_address_is_rounded_down_without_it(mem):
    mem.protect()
    assert mem.store(offset=0x128).message == mem.wp_fault()


@case("FAULT-9", kinds=KINDS, states=STATES, features=SYNC, also=Feature.THREAD_ID, where=least)
def test_thread_id_is_the_writers(mem):
    mem.protect()
    write = mem.store()
    assert write.message == mem.wp_fault(tid=write.tid)


@case("FAULT-10", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_signal_runs_its_handler_and_the_write_faults_again(mem):
    mem.protect()
    write = mem.store()
    before = mem.subject.interruptions
    mem.subject.syscall("tgkill", mem.subject.pid, write.tid, SIGUSR1)
    assert write.settle().message == mem.wp_fault()
    assert mem.subject.interruptions == before + 1
    mem.unprotect()
    assert write.completes()


@case("FAULT-11", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_blocked_writer_can_be_killed(mem):
    mem.protect()
    assert mem.store().blocked
    assert mem.subject.kill() == SIGKILL


@case("FAULT-12", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_protected_again_it_raises_again(mem):
    for value in range(ROUNDS):
        mem.protect()
        write = mem.store(value=value)
        assert write.message == mem.wp_fault()
        mem.unprotect()
        assert write.completes()
    assert mem.load().value == ROUNDS - 1


@case(
    "FAULT-13", kinds=KINDS, states=STATES, features=SYNC, where=protectable, needs=(KERNEL_FAULTS,)
)
def test_kernels_write_raises_a_message_and_completes(mem):
    mem.protect()
    write = mem.kernel_write(value=VALUE)
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert mem.load().value == VALUE


@case("FAULT-13", kinds=KINDS, states=STATES, features=SYNC, where=protectable)
def test_kernels_read_is_silent(mem):
    mem.protect()
    assert mem.kernel_read().silent
    assert mem.protected() == {mem.page}


@case("FAULT-14", kinds=KINDS, states=STATES, features=(asynchronous,))
def test_async_write_takes_its_own_protection_away(mem):
    mem.protect(mem.pages)
    assert mem.store(value=VALUE).silent
    assert mem.protected() == set(mem.pages) - {mem.page}
    assert mem.load().value == VALUE


@case("FAULT-15", kinds=KINDS, states=STATES, features=(asynchronous,))
def test_async_read_leaves_the_protection(mem):
    mem.protect(mem.pages)
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.pages)
    mem.unprotect()
    assert mem.protected() == set(mem.pages) - {mem.page}


@case("FAULT-16", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_page_unprotected_in_time_is_written_silently(mem):
    mem.protect(mem.pages)
    mem.unprotect()
    assert mem.store(value=VALUE).silent
    assert mem.load().value == VALUE


@pytest.mark.parametrize("threads", [4])
@case("FAULT-6", kinds=(anon,), states=STATES, features=SYNC, where=least)
def test_writers_to_neighbours_wait_for_their_own_page(mem, threads):
    mem.protect(mem.pages)
    writes = [mem.store(mem.page - number, by=number) for number in range(threads)]
    assert [write.message for write in writes] == [
        mem.wp_fault(mem.page - n) for n in range(threads)
    ]
    mem.unprotect()
    assert writes[0].completes()
    assert all(write.blocked for write in writes[1:])
