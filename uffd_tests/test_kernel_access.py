# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter KERN: how the kernel's own access meets protected pages."""

from signal import SIGUSR1

import pytest

from helpers.arrange import content
from helpers.axes import (
    NONE,
    STATES,
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
from helpers.cases import case
from helpers.io_uring import Opcode
from helpers.kernel_access import (
    HASTY_WRITES,
    READS,
    SHARED_FUTEX_READS,
    VALUE,
    WRITES,
    file_with,
    of,
    stack_for_signals,
)
from helpers.machine import KERNEL_FAULTS, USER_MODE
from helpers.region import Touch
from helpers.uapi import Prot
from helpers.uffd import Access

KINDS = (anon, memfd_shared, hugetlb_shared)
SOME = (none_pte, populated)
USER_MODE_ONLY = Access.USER_MODE_ONLY
ACROSS = 16  # bytes, half of them on either side of a page's end


def lean(setup):
    """Each state with the features that it takes, and no others."""
    return setup.features is (wpu if setup.kind.anonymous and setup.state in NONE else plain)


LEAN = {"states": SOME, "features": (plain, wpu), "thp": (False,), "where": lean}


@of(WRITES)
@case("KERN-1", kinds=(anon,), **LEAN, needs=(KERNEL_FAULTS,))
def test_write_raises_one_message_and_completes(mem, act):
    mem.protect(mem.near)
    assert (write := act.begin()).message == mem.wp_fault()
    assert mem.load(by=1).value == content(mem)
    mem.unprotect()
    assert write.completes()
    assert act.error(write) == 0
    assert mem.load().value == act.written
    assert mem.protected() == set(mem.near) - {mem.page}


@of(WRITES[:1])
@case(
    "KERN-1", kinds=KINDS, states=STATES, features=(plain, wpu), where=lean, needs=(KERNEL_FAULTS,)
)
def test_write_to_a_page_it_looks_up_raises_one_message(mem, act):
    mem.protect(mem.unit)
    protected = mem.protected()
    assert (write := act.begin()).message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()
    assert mem.load().value == act.written
    assert mem.protected() == protected - {mem.page}


@of(READS)
@case("KERN-2", kinds=(anon,), **LEAN)
def test_read_is_silent_and_leaves_it_protected(mem, act):
    mem.protect(mem.near)
    assert (read := act.begin()).silent
    assert act.error(read) == 0
    assert act.read == content(mem)
    assert mem.protected() == set(mem.near)


@of(READS[:1])
@case("KERN-2", kinds=KINDS, states=STATES, features=(plain, wpu), where=lean)
def test_read_of_a_page_it_looks_up_is_silent(mem, act):
    mem.protect(mem.unit)
    protected = mem.protected()
    assert act.begin().silent
    assert act.read == content(mem)
    assert mem.page in protected == mem.protected()


@of(HASTY_WRITES)
@case("KERN-3", kinds=(anon,), **LEAN)
def test_write_that_cannot_wait_fails(mem, act):
    mem.protect()
    assert act.begin().error == act.refusal
    assert mem.uffd.read() is None
    assert mem.load().value == content(mem)
    assert mem.protected() == {mem.page}


@of(SHARED_FUTEX_READS)
@case(
    "KERN-4",
    kinds=(anon, memfd_shared),
    states=(populated,),
    features=(wpu,),
    thp=(False,),
    needs=(KERNEL_FAULTS,),
)
def test_shared_futex_is_looked_up_for_writing(mem, act):
    mem.protect()
    assert (read := act.begin()).message == mem.wp_fault()
    mem.unprotect()
    assert read.completes()
    assert mem.load().value == content(mem)


@of(SHARED_FUTEX_READS)
@case(
    "KERN-4",
    kinds=(anon, memfd_shared),
    states=(populated,),
    features=(asynchronous,),
    thp=(False,),
)
def test_shared_futex_counts_as_written(mem, act):
    mem.protect(mem.near)
    assert act.begin().silent
    assert mem.protected() == set(mem.near) - {mem.page}


@of((*WRITES, *HASTY_WRITES))
@case("KERN-5", kinds=(anon,), states=(populated,), features=(asynchronous,), thp=(False,))
def test_async_write_is_silent_and_takes_the_protection(mem, act):
    mem.protect(mem.near)
    assert (write := act.begin()).silent
    assert act.error(write) == 0
    assert mem.protected() == set(mem.near) - {mem.page}
    assert mem.load().value == act.written


@of((*WRITES, *HASTY_WRITES, *SHARED_FUTEX_READS))
@case(
    "KERN-6",
    kinds=(anon,),
    states=(populated,),
    thp=(False,),
    access=USER_MODE_ONLY,
    needs=(USER_MODE,),
)
def test_user_mode_only_fails_what_would_wait(mem, act):
    mem.protect()
    write = act.begin()
    assert act.error(write) == act.refusal
    assert mem.uffd.read() is None
    assert mem.load().value == content(mem)
    assert mem.protected() == {mem.page}


@pytest.mark.parametrize("name", ["fstat", "pread64"])
@case("KERN-7", kinds=(anon, memfd_shared), **LEAN, needs=(KERNEL_FAULTS,))
def test_write_across_two_pages_raises_a_message_for_each(mem, name):
    first, second = mem.page, mem.page + 1
    file, scratch = file_with(mem.subject, VALUE, VALUE), mem.subject.main.scratch_address
    mem.protect(mem.near)
    write = mem.call(name, file, mem.address(second) - ACROSS // 2, ACROSS, 0)
    assert write.message == mem.wp_fault(first)
    mem.unprotect(first)
    assert write.settle().message == mem.wp_fault(second)
    mem.unprotect(second)
    assert write.completes()
    mem.subject.syscall(name, file, scratch, ACROSS, 0)
    assert mem.peek(mem.address(second) - ACROSS // 2, ACROSS) == mem.subject.main.scratch(ACROSS)


@case("KERN-8", kinds=(anon,), **LEAN, access=USER_MODE_ONLY, needs=(USER_MODE,))
def test_user_mode_only_cuts_a_read_short(mem):
    file = file_with(mem.subject, VALUE, VALUE)
    mem.protect()
    read = mem.call("pread64", file, mem.address() - ACROSS // 2, ACROSS, 0)
    assert read.silent
    assert read.value == ACROSS // 2
    assert mem.load().value == content(mem)


@case("KERN-9", kinds=KINDS, **LEAN, needs=(KERNEL_FAULTS,))
def test_registering_a_buffer_raises_a_message(mem, ring):
    mem.protect(mem.near)
    pin = Touch(ring.register(mem.subject.toucher(), mem.address(), mem.page_bytes), mem.uffd)
    assert pin.message == mem.wp_fault()
    mem.unprotect()
    assert pin.completes()
    assert mem.load().value == content(mem)


@case("KERN-11", kinds=(anon, memfd_shared), **LEAN, needs=(KERNEL_FAULTS,))
def test_signal_frame_on_a_protected_stack_raises_messages(mem):
    thread, before = mem.subject.toucher(), mem.subject.interruptions
    stack_for_signals(thread, mem.start, mem.size)
    mem.protect(mem.pages)
    signalled = mem.call("tgkill", mem.subject.pid, thread.tid, SIGUSR1)
    assert signalled.message in map(mem.wp_fault, mem.pages)
    assert mem.subject.interruptions == before
    mem.unprotect(mem.pages)
    assert signalled.completes()
    assert mem.subject.interruptions == before + 1


@case("KERN-10", kinds=KINDS, states=(populated,), features=(wpu, asynchronous), thp=(False,))
def test_pinned_page_is_written_past_its_protection(mem, ring):
    ring.pin(mem)
    mem.protect()
    ring.prepare(Opcode.READ_FIXED, file_with(mem.subject, VALUE), mem.address(), 8)
    assert Touch(ring.submit(mem.subject.toucher()), mem.uffd).silent
    assert ring.result() == 8
    assert mem.load().value == VALUE
    assert mem.protected() == {mem.page}


# kernels may be told to let a tracer alone force its writes through /proc/PID/mem, as Debian's 7.3
@of([call for call in HASTY_WRITES if call.name.startswith("ptrace")])
@case("KERN-12", kinds=(anon,), states=(populated, pmd_mapped), features=(plain,))
def test_forced_write_to_read_only_memory_heeds_the_protection(mem, act):
    mem.protect(mem.unit)
    mem.subject.mprotect(mem.start, mem.size, Prot.READ)
    assert act.begin().error == act.refusal
    assert mem.load().value == content(mem)
    mem.unprotect(mem.unit)
    assert act.begin().silent
    assert mem.load().value == VALUE
