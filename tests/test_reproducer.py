# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers, built and run: each kind of operation, as it was seen and as it was not.

The kernel here is held to be good. What a bad one would show is a tape with one thing altered.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from errno import ENOSYS
from fcntl import LOCK_EX
from itertools import count
from mmap import PAGESIZE
from pathlib import Path
from signal import SIGUSR1
from time import CLOCK_MONOTONIC

import pytest

from helpers import arrange, batch, build, kernel_access, machine, pagemap, reproducer, swap
from helpers.arrange import huge_bytes
from helpers.axes import (
    Setup,
    anon,
    asynchronous,
    memfd_shared,
    none_pmd,
    none_pte,
    pmd_mapped,
    populated,
    swapped,
    tmpfs,
    wpu,
)
from helpers.batch import Batch
from helpers.io_uring import Ring
from helpers.kernel_access import Act, Call, file_with
from helpers.machine import Machine
from helpers.region import Region, Unproven
from helpers.subject import Answer, Event, Step, Subject, SubjectStuck, lib
from helpers.uapi import (
    AT_FDCWD,
    FUTEX_WAKE,
    MFD_CLOEXEC,
    MLOCK_ONFAULT,
    NEW_SYSCALLS,
    SCHED_FIFO,
    Advice,
    Category,
    Feature,
    Ioctl,
    Map,
    Prot,
    ScanFlag,
)

SECONDS = 300  # for what takes a moment on an idle machine


@dataclass(frozen=True)
class Kind:
    """A kind of operation: how to have one on tape, and which event of the tape is it."""

    act: Callable[[Region], object]
    what: str
    setup: Setup
    name: str = ""

    def event(self, tape: list[Event]) -> int:
        """Where the last such event is."""
        return max(
            number
            for number, event in enumerate(tape)
            if event.what == self.what and self.name in ("", getattr(event.about, "name", ""))
        )


SMALL = Setup(anon, populated, False, wpu)
NONE = replace(SMALL, state=none_pte)
HOLES = replace(SMALL, state=none_pmd)
HUGE = replace(SMALL, state=pmd_mapped, thp=True)
FORKED = replace(SMALL, also=Feature.EVENT_FORK)
ASYNC = replace(SMALL, features=asynchronous)


def resolved(mem: Region) -> None:
    mem.protect()
    write = mem.store()
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()


def looked_at_while_blocked(mem: Region) -> None:
    mem.protect()
    write = mem.store()
    mem.word()
    mem.unprotect()
    assert write.completes()


def looked_at_before(mem: Region) -> None:
    mem.word()
    assert mem.load().completed


def scanned(mem: Region) -> None:
    mem.rearm()
    assert mem.load().completed


def scanned_by_another(mem: Region) -> None:
    child = mem.subject.fork()
    file = child.open(f"/proc/{mem.subject.pid}/pagemap", os.O_RDONLY)
    pagemap.scan(
        child, mem.start, mem.start + mem.size,
        returned=Category.PRESENT, flags=ScanFlag(0), pagemap=file,
    )  # fmt: skip


def refused(mem: Region) -> None:
    with pytest.raises(OSError, match="WRITEPROTECT"):
        mem.uffd.writeprotect(mem.start + 1, mem.page_bytes)


def trapped(mem: Region) -> None:
    mem.subject.mprotect(mem.start, mem.size, Prot.NONE)
    assert mem.store().signal


def left_asleep(mem: Region) -> None:
    mem.protect()
    assert mem.store().blocked


def stuck(mem: Region) -> None:
    mem.protect()
    write = mem.store()
    mem.subject.hurry(2)
    with pytest.raises(SubjectStuck):
        write.completes()


def interrupted(mem: Region) -> None:
    mem.protect()
    write = mem.store()
    mem.subject.syscall("tgkill", mem.subject.pid, write.tid, SIGUSR1)
    assert write.settle().message == mem.wp_fault()


def grown(mem: Region) -> None:
    before = mem.page_tables()
    mem.protect(0)
    assert mem.page_tables() >= before


def forked(mem: Region) -> None:
    mem.protect()
    child = mem.fork()
    write = child.store()
    assert write.message == child.wp_fault()
    child.unprotect()
    assert write.completes()
    assert child.protected() == set()


def killed(mem: Region) -> None:
    child = mem.subject.fork()
    child.kill()
    assert mem.load().value == mem.value()


def ended(mem: Region) -> None:
    assert mem.subject.fork().end("exit_group", 3) == 3


def replaced(mem: Region) -> None:
    subject, main = mem.subject, mem.subject.main
    path = subject.text("/proc/self/exe")
    main.scratch(16)[:] = path.to_bytes(16, "little")
    assert subject.fork().end("execve", path, main.scratch_address, 0) == 2


def vforked(mem: Region) -> None:
    assert mem.vfork().silent


def batched(mem: Region) -> None:
    """A thread meets a message amid its batch."""
    mem.protect()
    advice = batch.call("madvise", mem.start, mem.size, Advice.COLD)
    operations = [batch.load(mem.start), advice, batch.store(mem.address(), 9)]
    running = Batch(mem.subject.toucher(), operations).start()
    assert running.wait(mem.uffd.pollable) is None
    assert mem.uffd.read() == mem.wp_fault()
    mem.unprotect()
    assert running.result().value == len(operations)


def accessed(call: Call) -> Callable[[Region], None]:
    """By one of the kernel's ways to access a page."""

    def act(mem: Region) -> None:
        for need in call.needs:
            if not need.met(mem.machine):
                pytest.skip(need.remedy)
        actor = mem.subject.fork() if call.foreign else mem.subject
        made = Act(call, mem, actor)
        assert made.begin().silent
        assert made.read is not None

    return act


def swapped_off(mem: Region) -> None:
    device = swap.ours()
    if device is None or not swap.exclusive():
        pytest.skip("the run has no swap device of its own")
    mem.subject.lock(device, LOCK_EX)  # until the subject ends, nobody else uses it
    mem.subject.main.syscall("swapoff", mem.subject.text(str(device)))


def called(name: str, arguments: Callable[[Region], tuple[int, ...]]) -> Callable[[Region], object]:
    """By a system call, whether it succeeds or not."""
    return lambda mem: mem.subject.main.syscall(name, *arguments(mem))


def asked(request: Ioctl) -> Callable[[Region], object]:
    """By an ioctl with a structure of zeros, which is refused or does nothing."""
    return lambda mem: mem.uffd.try_ioctl(request, "uffdio_copy")


def a_file(mem: Region) -> int:
    return file_with(mem.subject, 5, 6)


def a_pipe(mem: Region) -> tuple[int, int]:
    subject = mem.subject
    subject.syscall("pipe2", subject.main.scratch_address, os.O_NONBLOCK)
    raw = bytes(subject.main.scratch(8))
    return int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")


def a_segment(mem: Region) -> int:
    return mem.subject.syscall("shmget", 0, PAGESIZE, 0o600)


def scratch(mem: Region) -> int:
    return mem.subject.main.scratch_address


CALLS: dict[str, Callable[[Region], tuple[int, ...]]] = {
    "brk": lambda mem: (0,),
    "clock_gettime": lambda mem: (CLOCK_MONOTONIC, scratch(mem)),
    "close": lambda mem: (a_file(mem),),
    "fallocate": lambda mem: (a_file(mem), 0, 0, PAGESIZE),
    "flock": lambda mem: (a_file(mem), 1),
    "fstat": lambda mem: (a_file(mem), scratch(mem)),
    "fsync": lambda mem: (a_file(mem),),
    "ftruncate": lambda mem: (a_file(mem), 0),
    "futex": lambda mem: (mem.address(), FUTEX_WAKE, 1),
    "io_uring_enter": lambda mem: (Ring(mem.subject).descriptor, 0, 0, 0, 0, 0),
    "io_uring_register": lambda mem: (Ring(mem.subject).descriptor, 1, 0, 0),
    "kill": lambda mem: (mem.subject.pid, 0),
    "madvise": lambda mem: (mem.address(), PAGESIZE, Advice.COLD),
    "mbind": lambda mem: (mem.start, mem.size, 0, 0, 0, 0),
    "memfd_create": lambda mem: (mem.subject.text("a file"), MFD_CLOEXEC),
    "memfd_secret": lambda mem: (0,),
    "migrate_pages": lambda mem: (mem.subject.pid, 0, 0, 0),
    "mlock": lambda mem: (mem.address(), PAGESIZE),
    "mlock2": lambda mem: (mem.address(), PAGESIZE, MLOCK_ONFAULT),
    "mmap": lambda mem: (0, PAGESIZE, Prot.RW, Map.SHARED, a_file(mem), 0),
    "move_pages": lambda mem: (mem.subject.pid, 0, 0, 0, 0, 0),
    "mprotect": lambda mem: (mem.address(), PAGESIZE, Prot.READ),
    "mremap": lambda mem: (mem.start, mem.size, mem.page_bytes, 0, 0),
    "munlock": lambda mem: (mem.address(), PAGESIZE),
    "munmap": lambda mem: (mem.address(), PAGESIZE),
    "nanosleep": lambda _: (0, 0),
    "openat": lambda mem: (AT_FDCWD, mem.subject.text("/proc/self/maps"), os.O_RDONLY),
    "pidfd_open": lambda mem: (mem.subject.pid, 0),
    "pipe2": lambda mem: (scratch(mem), os.O_CLOEXEC),
    "pread64": lambda mem: (a_file(mem), scratch(mem), 8, 8),
    "process_madvise": lambda mem: (-1, scratch(mem), 1, Advice.COLD, 0),
    "ptrace": lambda mem: (0, mem.subject.fork().pid, 0, 0),
    "pwrite64": lambda mem: (a_file(mem), mem.address(), 8, 0),
    "read": lambda mem: (a_file(mem), scratch(mem), 16),
    "rt_sigaction": lambda mem: (SIGUSR1, 0, scratch(mem), 8),
    "sched_setaffinity": lambda mem: (0, 0, scratch(mem)),
    "sched_setscheduler": lambda _: (0, SCHED_FIFO, 0),
    "set_tid_address": lambda mem: (scratch(mem),),
    "setresuid": lambda mem: (0, 0, 0),
    "shmat": lambda mem: (a_segment(mem), mem.subject.place(PAGESIZE), 0),
    "shmctl": lambda mem: (a_segment(mem), 0, 0),
    "shmget": lambda mem: (0, PAGESIZE, 0o600),
    "sigaltstack": lambda mem: (0, scratch(mem)),
    "tee": lambda mem: (a_pipe(mem)[0], a_pipe(mem)[1], PAGESIZE, 0),
    "tgkill": lambda mem: (mem.subject.pid, mem.subject.main.tid, 0),
    "userfaultfd": lambda mem: (1,),
    "vmsplice": lambda mem: (a_pipe(mem)[1], scratch(mem), 0, 0),
    "wait4": lambda mem: (mem.subject.fork().pid, 0, 1, 0),
    "write": lambda mem: (a_pipe(mem)[1], mem.address(), 8),
}

KINDS = {
    "load": Kind(lambda mem: mem.load().value, "end", SMALL, "load"),
    "add": Kind(lambda mem: mem.add().value, "end", SMALL, "add"),
    "store": Kind(resolved, "end", SMALL, "store"),
    "vfork": Kind(vforked, "end", SMALL, "vfork"),
    "batch": Kind(batched, "end", SMALL, "batch"),
    "message": Kind(resolved, "message", SMALL),
    "second_message": Kind(interrupted, "message", SMALL),
    "silence": Kind(lambda mem: mem.store().silent, "message", SMALL),
    "copy": Kind(lambda mem: mem.zero_fill(range(2)), "end", SMALL, "copy"),
    "kernel_write": Kind(lambda mem: mem.kernel_write().silent, "end", SMALL, "pread64"),
    "fill": Kind(lambda mem: mem.copy_in(9, pages=range(3)), "end", HOLES, "UFFDIO_COPY"),
    "refusal": Kind(refused, "end", SMALL, "UFFDIO_WRITEPROTECT"),
    "signal": Kind(trapped, "end", SMALL, "store"),
    "answer_of_an_ioctl": Kind(Region.register, "end", SMALL, "UFFDIO_REGISTER"),
    "asleep": Kind(left_asleep, "asleep", SMALL),
    "pagemap": Kind(lambda mem: mem.word(), "end", SMALL, "pread64"),
    "pagemap_of_a_message": Kind(looked_at_while_blocked, "end", SMALL, "pread64"),
    "pagemap_before": Kind(looked_at_before, "end", SMALL, "pread64"),
    "scan": Kind(lambda mem: mem.categories() & Category.PRESENT, "end", SMALL, "PAGEMAP_SCAN"),
    "scan_that_protects": Kind(scanned, "end", ASYNC, "PAGEMAP_SCAN"),
    "scan_by_another": Kind(scanned_by_another, "end", SMALL, "PAGEMAP_SCAN"),
    "mincore": Kind(lambda mem: mem.resident(), "end", SMALL, "mincore"),
    "smaps": Kind(huge_bytes, "text", HUGE),
    "page_tables": Kind(grown, "text", NONE),
    "fork_with_the_event": Kind(forked, "message", FORKED),
    "fork": Kind(lambda mem: mem.fork().store().silent, "end", SMALL, "store"),
    "kill": Kind(killed, "end", SMALL, "load"),
    "exit": Kind(ended, "gone", SMALL),
    "exec": Kind(replaced, "gone", SMALL),
    "file": Kind(lambda mem: mem.load().value, "end", replace(SMALL, kind=memfd_shared), "load"),
    "file_with_a_path": Kind(
        lambda mem: mem.load().value, "end", replace(SMALL, kind=tmpfs), "load"
    ),
    "swap": Kind(lambda mem: mem.load().value, "end", replace(SMALL, state=swapped), "load"),
    "swapoff": Kind(swapped_off, "end", SMALL, "swapoff"),
    "never_ends": Kind(stuck, "begin", SMALL, "store"),
}
KINDS |= {name: Kind(called(name, how), "end", SMALL, name) for name, how in CALLS.items()}
KINDS |= {
    call.name: Kind(accessed(call), "end", SMALL)
    for call in (*kernel_access.WRITES[:4], *kernel_access.READS[:4])
}
KINDS |= {
    request.name: Kind(asked(request), "end", SMALL, request.name)
    for request in Ioctl
    if request.name.startswith("UFFDIO")
}


@pytest.fixture(scope="module", name="root")
def _root() -> Iterator[Subject]:
    made = Subject.spawn(3600)
    made.stay()
    yield made
    made.close()


@pytest.fixture(scope="module")
def kernel(root: Subject) -> Machine:
    return machine.probe(root)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def mem(root: Subject, kernel: Machine, kind: Kind) -> Iterator[Region]:
    """A region on which an operation of the kind was done."""
    if not all(need.met(kernel) for need in kind.setup.needs):
        pytest.skip("the kernel can't do it")
    subject = root.fork(SECONDS)
    try:
        region = arrange.prepare(Region(subject, kernel, kind.setup))
        kind.act(region)
        yield region
    except Unproven as unproven:
        pytest.skip(str(unproven))
    finally:
        if kind.name == "swapoff" and (device := swap.ours()):
            swap.turn_on(device)
        subject.close()


@pytest.fixture(scope="module")
def met() -> set[int]:
    """The codes of the operations that were on a tape."""
    return set()


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], int]:
    numbers = count()

    def built_and_run(source: str) -> int:
        path = tmp_path / f"{next(numbers)}.c"
        path.write_text(source)
        program = path.with_suffix("")
        build = ["cc", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(path), "-pthread"]
        subprocess.run(build, check=True)
        return subprocess.run([program], check=False, timeout=SECONDS).returncode

    return built_and_run


def otherwise(tape: list[Event], where: int) -> list[Event]:
    """The tape of a kernel that does otherwise there."""
    event = tape[where]
    if event.what == "message":
        seen = bytes([0x12, *bytes(31)]) if event.seen is None else event.seen[:16] + bytes(16)
    elif event.what == "asleep":
        seen = not event.seen
    elif event.what == "text":
        path, text = event.seen
        seen = (path, re.sub(r"(AnonHugePages|VmPTE):\s+", r"\1: 1", text))
    elif event.what == "begin":
        event.about.answer = Answer(0)
        return [*tape[: where + 1], Event("end", event.about)]
    elif event.what == "gone":
        return [*tape[: where - 1], event]  # it lives on
    else:
        answer(event.about)
        return tape
    return [*tape[:where], replace(event, seen=seen), *tape[where + 1 :]]


def answer(step: Step) -> None:
    """Has the step's answer, or what it wrote, be another one."""
    assert step.answer is not None
    if step.output and step.call not in ("io_setup", "pipe2"):
        kept = len(step.output) - 8 if step.call == "ioctl" else 0  # what places are made of
        step.output = step.output[:kept] + bytes(byte ^ 0xFF for byte in step.output[kept:])
    elif step.request[0] == lib.OP_SYSCALL:
        step.answer = Answer(0 if step.answer.error else -1, 0 if step.answer.error else ENOSYS)
    else:
        step.answer = Answer(0 if step.answer.error else step.answer.value + 1)


def source(mem: Region, tape: list[Event], *, failed: bool) -> str:
    return reproducer.source(tape, mem.subject.mappings, "about */ this", failed=failed)


def test_it_tells_whether_the_kernel_does_it_again(
    mem: Region, kind: Kind, run: Callable[[str], int], met: set[int]
) -> None:
    tape = list(mem.subject.tape or ())
    met |= {event.about.request[0] for event in tape if event.what == "begin"}
    again = source(mem, tape, failed=True)
    assert (run(again), run(source(mem, otherwise(tape, kind.event(tape)), failed=True))) == (1, 0)


UNWRITTEN = {  # system calls, and why no C is written for them
    "getcwd": "what it gives is another path elsewhere",
    "io_setup": "the ring's address is the kernel's choice: tried by REG's case of an aio ring",
}
ELSEWHERE = {"execve", "exit_group", "io_uring_setup", "ioctl", "mincore", "swapoff"} | {
    "process_vm_readv", "process_vm_writev",
}  # fmt: skip


def test_every_system_call_is_tried() -> None:
    known = {*build.SYSCALLS, *NEW_SYSCALLS}
    assert CALLS.keys() | UNWRITTEN.keys() | ELSEWHERE == known
    assert CALLS.keys().isdisjoint(UNWRITTEN)


def test_every_operation_was_tried(met: set[int]) -> None:
    """After all kinds. A child and a server are parts of a random program's batch, which is done
    again request by request."""
    every = {getattr(lib, name) for name in dir(lib) if name.startswith("OP_")}
    assert every - met == {lib.OP_CHILD, lib.OP_SERVE}


@pytest.mark.parametrize("kind", [KINDS["message"]], ids=["message"])
def test_of_a_case_that_passed_it_tells_whether_it_passes(
    mem: Region, kind: Kind, run: Callable[[str], int]
) -> None:
    tape = list(mem.subject.tape or ())
    assert run(source(mem, tape, failed=False)) == 0
    assert run(source(mem, otherwise(tape, kind.event(tape)), failed=False)) == 1


@pytest.mark.parametrize("kind", [KINDS["load"]], ids=["load"])
def test_what_cant_be_arranged_shows_nothing(
    mem: Region, kind: Kind, run: Callable[[str], int]
) -> None:
    tape = list(mem.subject.tape or ())
    (register,) = [e.about for e in tape if e.what == "end" and e.about.name == "UFFDIO_REGISTER"]
    register.answer = Answer(1)
    assert run(source(mem, tape, failed=True)) == 2


@pytest.mark.parametrize("kind", [KINDS["load"]], ids=["load"])
def test_an_arrangement_that_looks_otherwise_shows_nothing(
    mem: Region, kind: Kind, run: Callable[[str], int]
) -> None:
    tape = list(mem.subject.tape or ())
    proof = max(n for n, event in enumerate(tape) if event.what == "arranged") - 1
    assert run(source(mem, otherwise(tape, proof), failed=True)) == 2


def raced(mem: Region) -> None:
    """What two threads do when nobody holds them up."""
    running = Batch(mem.subject.toucher(), [batch.load(mem.start)]).start()
    assert mem.store(by=1).completed
    running.result()


def free(mem: Region) -> None:
    made = Batch(mem.subject.toucher(), [batch.load(mem.start)])
    running = made.start(forever=True)
    made.stop()
    running.result()


def limited(mem: Region) -> None:
    mem.subject.note("beyond", "the limit of a memory cgroup")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Kind(raced, "end", SMALL), "a race"),
        (Kind(free, "end", SMALL), "runs free"),
        (Kind(limited, "end", SMALL), "cgroup"),
    ],
    ids=["race", "free", "limit"],
)
def test_what_no_c_is_written_for_is_told(mem: Region, kind: Kind, reason: str) -> None:
    with pytest.raises(reproducer.Unwritable, match=reason):
        source(mem, list(mem.subject.tape or ()), failed=True)
