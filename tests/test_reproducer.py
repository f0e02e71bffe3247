# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers, built and run: each kind of operation, as it was seen and as it was not.

The kernel here is held to be good. What a bad one would show is a tape with one thing altered.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from signal import SIGUSR1

import pytest

from helpers import arrange, batch, machine, reproducer
from helpers.arrange import huge_bytes
from helpers.axes import Setup, anon, memfd_shared, none_pte, pmd_mapped, populated, wpu
from helpers.batch import Batch
from helpers.machine import Machine
from helpers.region import Region, Unproven
from helpers.subject import Answer, Event, Step, Subject, SubjectStuck
from helpers.uapi import Advice, Category, Feature, Prot


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
HUGE = replace(SMALL, state=pmd_mapped, thp=True)
FORKED = replace(SMALL, also=Feature.EVENT_FORK)


def resolved(mem: Region) -> None:
    mem.protect()
    write = mem.store()
    assert write.message == mem.wp_fault()
    mem.unprotect()
    assert write.completes()


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


def batched(mem: Region) -> None:
    Batch(mem.subject.main, [batch.load(mem.start)]).start().result()


KINDS = {
    "load": Kind(lambda mem: mem.load().value, "end", SMALL, "load"),
    "add": Kind(lambda mem: mem.add().value, "end", SMALL, "add"),
    "store": Kind(resolved, "end", SMALL, "store"),
    "message": Kind(resolved, "message", SMALL),
    "second_message": Kind(interrupted, "message", SMALL),
    "silence": Kind(lambda mem: mem.store().silent, "message", SMALL),
    "copy": Kind(lambda mem: mem.zero_fill(range(2)), "end", SMALL, "copy"),
    "kernel_write": Kind(lambda mem: mem.kernel_write().silent, "end", SMALL, "pread64"),
    "system_call": Kind(lambda mem: mem.advise(Advice.COLD), "end", SMALL, "madvise"),
    "fill": Kind(lambda mem: mem.copy_in(9), "end", NONE, "UFFDIO_COPY"),
    "refusal": Kind(refused, "end", SMALL, "UFFDIO_WRITEPROTECT"),
    "signal": Kind(trapped, "end", SMALL, "store"),
    "answer_of_an_ioctl": Kind(Region.register, "end", SMALL, "UFFDIO_REGISTER"),
    "asleep": Kind(left_asleep, "asleep", SMALL),
    "pagemap": Kind(lambda mem: mem.word(), "end", SMALL, "pread64"),
    "scan": Kind(lambda mem: mem.categories() & Category.PRESENT, "end", SMALL, "PAGEMAP_SCAN"),
    "mincore": Kind(lambda mem: mem.resident(), "end", SMALL, "mincore"),
    "smaps": Kind(huge_bytes, "text", HUGE),
    "page_tables": Kind(grown, "text", NONE),
    "fork_with_the_event": Kind(forked, "message", FORKED),
    "fork": Kind(lambda mem: mem.fork().store().silent, "end", SMALL, "store"),
    "kill": Kind(killed, "end", SMALL, "load"),
    "file": Kind(lambda mem: mem.load().value, "end", replace(SMALL, kind=memfd_shared), "load"),
    "never_ends": Kind(stuck, "begin", SMALL, "store"),
}


@pytest.fixture(scope="module", name="root")
def _root() -> Iterator[Subject]:
    made = Subject.spawn(60)
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
    subject = root.fork(2.0)
    try:
        region = arrange.prepare(Region(subject, kernel, kind.setup))
        kind.act(region)
        yield region
    except Unproven as unproven:
        pytest.skip(str(unproven))
    finally:
        subject.close()


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], int]:
    numbers = count()

    def built_and_run(source: str) -> int:
        path = tmp_path / f"{next(numbers)}.c"
        path.write_text(source)
        program = path.with_suffix("")
        build = ["cc", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(path), "-pthread"]
        subprocess.run(build, check=True)
        return subprocess.run([program], check=False, timeout=60).returncode

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
    else:
        answer(event.about)
        return tape
    return [*tape[:where], replace(event, seen=seen), *tape[where + 1 :]]


def answer(step: Step) -> None:
    """Has the step's answer be another one."""
    assert step.answer is not None
    if step.output:
        step.output = bytes(byte ^ 0xFF for byte in step.output)
    else:
        step.answer = Answer(0 if step.answer.error else step.answer.value + 1)


def source(mem: Region, tape: list[Event], *, failed: bool) -> str:
    return reproducer.source(tape, mem.subject.mappings, "about */ this", failed=failed)


def test_it_tells_whether_the_kernel_does_it_again(
    mem: Region, kind: Kind, run: Callable[[str], int]
) -> None:
    tape = list(mem.subject.tape or ())
    assert run(source(mem, tape, failed=True)) == 1
    assert run(source(mem, otherwise(tape, kind.event(tape)), failed=True)) == 0


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


@pytest.mark.parametrize("kind", [Kind(batched, "end", SMALL)], ids=["batch"])
def test_what_no_c_is_written_for_is_told(mem: Region, kind: Kind) -> None:
    with pytest.raises(reproducer.Unwritable, match="batch"):
        source(mem, list(mem.subject.tape or ()), failed=True)
