# SPDX-License-Identifier: GPL-2.0-only
"""Random programs: that a disagreement is found, shrunk and reproduced, and what they cover.

A disagreement with a good kernel needs a bad model.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import khugepaged, machine, model, programs, reproducer
from helpers.fuzz import Hunt
from helpers.machine import Machine
from helpers.model import RARELY, TRANSITIONS, Entry, Op, Outcome, State, World, sensible
from helpers.programs import FEW, SEED, WORLDS, Disagreement
from helpers.subject import Subject, SubjectDied, SubjectStuck
from helpers.uapi import ProtectMode
from helpers.uffd import Userfaultfd

TRUE_STORE = model.STEPS["store"]
SECONDS = 300  # for a program that takes a moment on an idle machine
SLOWLY = ["wpu_events", "mixed_wpu", "mixed_async", "thp_async", "hugetlb_private_events"]


@pytest.fixture(scope="module", name="root")
def _root() -> Iterator[Subject]:
    made = Subject.spawn(3600)
    made.stay()
    khugepaged.keep_busy(made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def kernel(root: Subject) -> Machine:
    return machine.probe(root)


def hunt(world: World, kernel: Machine, root: Subject) -> Hunt:
    for need in programs.needs(world):
        if not need.met(kernel):
            pytest.skip(need.remedy)
    return Hunt(world, kernel, lambda: root.fork(60))


def named(name: str) -> World:
    (found,) = [world for world in WORLDS if world.name == name]
    return found


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, model.Step], None]:
    """Has the model be wrong about an operation."""

    def patched(name: str, function: model.Step) -> None:
        monkeypatch.setitem(model.STEPS, name, function)

    return patched


def silent(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """A store as it would be without messages."""
    for outcome in TRUE_STORE(world, state, op):
        yield outcome._replace(reply=outcome.reply._replace(messages=()))


def test_a_disagreement_is_shrunk_and_reproduced(
    root: Subject, kernel: Machine, wrong: Callable[[str, model.Step], None], tmp_path: Path
) -> None:
    wrong("dontneed", lambda world, state, op: iter([Outcome(state, model.OK, "ADV-1")]))
    made = hunt(named("wpu"), kernel, root)
    with pytest.raises(Disagreement) as found:
        made.run(200, seed=1)
    assert str(found.value).count("\n  ") == 2  # one that makes a page something, and this
    subject = root.fork(60)
    with pytest.raises(Disagreement):
        made.slowly(subject)
    path = tmp_path / "reproducer.c"
    reproducer.write(path, subject, str(found.value))
    subject.close()
    subprocess.run(["cc", "-o", tmp_path / "reproducer", path, "-pthread"], check=True)
    assert subprocess.run([tmp_path / "reproducer"], check=False).returncode == 1


def test_what_went_wrong_is_told(
    root: Subject, kernel: Machine, wrong: Callable[[str, model.Step], None]
) -> None:
    wrong("store", silent)
    with pytest.raises(Disagreement, match="protect") as found:
        hunt(named("wpu"), kernel, root).run(200, seed=1)
    assert "messages: PAGEFAULT WRITE|WP" in str(found.value)
    assert "[P---W---], and not none" in str(found.value)


@pytest.mark.parametrize("name", SLOWLY)
def test_a_program_does_the_same_slowly(name: str, root: Subject, kernel: Machine) -> None:
    made = hunt(named(name), kernel, root)
    made.run(5, seed=2)  # the last one is then done again
    subject = root.fork(60)
    made.slowly(subject)
    subject.close()


ALREADY = [Op("store", 1, 1, 3), Op("protect", 0, 4), Op("load", 2)]


@pytest.mark.parametrize("name", model.STEPS)
def test_each_operation_is_written_in_c(
    name: str, root: Subject, kernel: Machine, tmp_path: Path
) -> None:
    """As the last of a program, which does again what it did, and not what it did not."""
    world = next(w for w in WORLDS if sensible(w, [*ALREADY, Op(name)])[len(ALREADY) :])
    made = hunt(world, kernel, root)
    program = [*ALREADY, Op(name, 1, 2, 2)]
    assert written_and_run(made, root.fork(60), program, tmp_path) == [1, 0]


@pytest.mark.parametrize("name", ["hugetlb_async", "hugetlb_private_events"])
def test_a_program_on_hugetlb_is_written_in_c(
    name: str, root: Subject, kernel: Machine, tmp_path: Path
) -> None:
    """With all of the operations that there are for it."""
    made = hunt(named(name), kernel, root)
    every = [*ALREADY, *(Op(name, 1, 2, 2) for name in model.STEPS)]
    program = sensible(made.world, every)
    assert written_and_run(made, root.fork(60), program, tmp_path) == [1, 0]


def written_and_run(made: Hunt, subject: Subject, program: list[Op], folder: Path) -> list[int]:
    """The exit statuses of a program in C, and of one with another last look."""
    list(programs.run_slowly(subject, made.machine, made.world, program))
    tape, status = list(subject.tape or ()), []
    for again in (True, False):
        if not again:
            look = next(e.about for e in reversed(tape) if e.what == "end" and e.about.output)
            look.output = bytes(byte ^ 0xFF for byte in look.output)
        path = folder / f"{again}.c"
        path.write_text(reproducer.source(tape, subject.mappings, "a program", failed=True))
        binary = path.with_suffix("")
        subprocess.run(["cc", "-o", binary, path, "-pthread"], check=True)
        status.append(subprocess.run([binary], check=False, timeout=SECONDS).returncode)
    subject.close()
    return status


def test_however_slow_the_machine_a_program_is_run(root: Subject, kernel: Machine) -> None:
    made = hunt(named("wpu"), kernel, root)
    made.run(FEW, seed=SEED, seconds=0)
    assert made.programs == 1


FAULTING = [Op("store", 0, 1, 1), *(2 * [Op("protect", 0), Op("store", 0, 1, 2)])]


def test_a_page_that_is_never_unprotected_hangs_nothing(
    root: Subject, kernel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a kernel that leaves the page protected, or by a server that has no room left."""

    def only_wake(uffd: Userfaultfd, start: int, size: int, mode: ProtectMode) -> None:
        uffd.wake(start, size)

    monkeypatch.setattr(Userfaultfd, "writeprotect", only_wake)
    monkeypatch.setattr(programs, "LOG_ENTRIES", 1)
    slow, fast = root.fork(60), root.fork(60)
    with pytest.raises(SubjectStuck, match="again and again"):
        list(programs.run_slowly(slow, kernel, named("wpu"), FAULTING))
    with pytest.raises(SubjectDied, match="status 3"):
        programs.run(fast, kernel, named("wpu"), FAULTING)
    slow.close()
    fast.close()


def test_a_stuck_program_is_shrunk_without_much_waiting(
    root: Subject, kernel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a kernel on which no store comes to its end."""
    waits: list[float] = []

    def run(subject: Subject, _: Machine, world: World, program: list[Op]) -> list[programs.Seen]:
        if any(op.name == "store" for op in program):
            waits.append(subject.deadline - time.monotonic())
            raise SubjectStuck("the store", {})
        return []

    monkeypatch.setattr(programs, "run", run)
    monkeypatch.setattr(programs, "check", lambda *_: programs.Taken())
    with pytest.raises(SubjectStuck):
        hunt(named("wpu"), kernel, root).run(50, seed=1)
    assert waits[0] > 50
    assert len(waits) > 1
    assert max(waits[1:]) < 20


@pytest.fixture(scope="module")
def taken() -> programs.Taken:
    return programs.Taken()


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_kernel_does_as_the_model_says(
    world: World, root: Subject, kernel: Machine, taken: programs.Taken
) -> None:
    made = hunt(world, kernel, root)
    made.run(FEW, seed=SEED)
    taken.update(made.taken)


def test_all_transitions_were_taken(taken: programs.Taken) -> None:
    """By what `make check` runs of all worlds."""
    assert TRANSITIONS - taken.keys() <= RARELY.keys(), programs.coverage(taken)


def test_what_was_not_taken_is_told() -> None:
    every = programs.Taken(TRANSITIONS)
    del every["remove", Entry.ZERO, True]
    wanted = f"{len(every)} of {len(TRANSITIONS)}, but not remove (zero page, protected)"
    assert programs.coverage(every) == wanted
