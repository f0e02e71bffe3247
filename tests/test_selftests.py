# SPDX-License-Identifier: GPL-2.0-only
"""How the kernel's selftests are told apart, run and judged."""

import subprocess
import sys
from pathlib import Path

import pytest

from mutants import units
from mutants.units import Ran, Unit

ROOT = Path(__file__).parent.parent
SECONDS = 300  # more than any program here takes
OUTPUT = """\
TAP version 13
1..7
# some words
ok 1 a-fork on anon
not ok 2 a-fork on shmem
ok 3 # SKIP a-fork on hugetlb (no pages)
ok 4 twice
not ok 5 twice
ok 6 later # SKIP no reason
ok 7 # XFAIL known
Testing old-style on anon... done
"""


def test_each_result_of_an_output_has_a_name() -> None:
    assert units.outcomes(OUTPUT) == {
        "a-fork on anon": "passed",
        "a-fork on shmem": "failed",
        "a-fork on hugetlb (no pages)": "skipped",
        "twice": "passed",
        "twice #2": "failed",
        "later": "skipped",
        "known": "xfailed",
        "old-style on anon": "passed",
    }


def test_a_guest_needs_nothing_that_it_has_not() -> None:
    code = "import sys, mutants.selftests_guest, mutants.gcov; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_filters_select_each_test_once() -> None:
    assert units.filters(["zero", "fork", "fork-pin", "a-fork", "events"]) == [
        "zero",
        "fork",
        "events",
    ]


def test_what_failed_is_told_first() -> None:
    told = Ran({"a": "passed", "b": "failed", "c": "failed"}, "exit 1", "the output").told()
    assert told == "exit 1: b, c\nthe output"
    assert Ran({"a": "passed"}, "exit 1", "# ERROR: why\n").told() == (
        "exit 1: ERROR: why\n# ERROR: why\n"
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program"


def run(program: Path, script: str, seconds: float = SECONDS, until: str = "") -> Ran:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return units.run(Unit(program.name, until=until), seconds, program.parent)


@pytest.mark.parametrize(
    ("script", "end", "well"),
    [
        ("echo ok 1 a", "exit 0", True),
        ("echo not ok 1 a", "exit 0", False),
        ("echo 'ok 1 # SKIP a'; exit 4", "exit 4", True),
        ("echo ok 1 a; exit 1", "exit 1", False),
        ("echo ok 1 a; kill -SEGV $$", "exit -11", False),
    ],
)
def test_how_a_program_ends_is_told(program: Path, script: str, end: str, well: bool) -> None:
    ran = run(program, script)
    assert (ran.end, ran.well, [*ran.outcomes]) == (end, well, ["a"])


def test_what_a_program_said_before_its_time_was_over_counts(program: Path) -> None:
    for seconds in (0.5, 5, 50):  # in which a busy machine starts a shell
        ran = run(program, f"echo ok 1 a; exec sleep {SECONDS}", seconds)
        assert (ran.end, ran.well) == ("timeout", False)
        if ran.outcomes:
            break
    assert ran.outcomes == {"a": "passed"}


def test_a_program_is_ended_once_it_has_said_enough(program: Path) -> None:
    said = "echo ok 1 open a; echo ok 2 open b; echo ok 3 other"
    ran = run(program, f"{said}; exec sleep {SECONDS}", until="open")
    assert (ran.end, ran.outcomes) == ("enough", {"open a": "passed", "open b": "passed"})
