# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of a run in which cases hang, crash and spin, or which is killed itself."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from helpers import lease
from helpers.stream import in_flight, read

ROOT = Path(__file__).parent.parent
SECONDS = 300  # far more than any drill takes: the bound itself is part of what is tested
# nobody, who may still read the tree and the interpreter wherever these lie
UNPRIVILEGED = (
    "setpriv",
    "--reuid=65534",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run as root")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]


def run(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    whole = [*prefix, *command(*arguments)]
    return subprocess.run(
        whole, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


class Drill:
    """The finished run of the misfortunes on one worker, and what it left behind."""

    def __init__(self, folder: Path) -> None:
        stream, junit = folder / "stream.jsonl", folder / "junit.xml"
        self.run = run(
            "-n1",
            "--case-timeout=5",  # which what spins takes, and no other case, however busy we are
            f"--stream={stream}",
            f"--junitxml={junit}",
            "tests/drills/test_misfortunes.py",
        )
        self.events = read(stream)
        self.results = {e["id"]: e for e in self.events if e["event"] == "result"}
        self.junit = ElementTree.parse(junit)

    def result(self, name: str) -> dict[str, Any]:
        (found,) = [r for i, r in self.results.items() if i.split(".")[1] == name]
        return found


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    return Drill(tmp_path_factory.mktemp("drill"))


@pytest.mark.parametrize(
    ("name", "state", "evidence"),
    [
        ("store_blocked_for_ever", "timeout", "userfault"),
        ("after_the_blocked_store", "passed", ""),
        ("subject_killed_by_a_signal", "crashed", "was killed by SIGKILL"),
        ("subject_aborts", "crashed", "was killed by SIGABRT"),
        ("root_subject_dies", "crashed", "the subject"),
        ("after_the_death_of_the_root", "passed", ""),
        ("livelock", "timeout", "toucher 0: state R"),
        ("wrong_expectation", "failed", "assert"),
        ("known_issue", "xfailed", "protection leaves a trace (the mail that tells of it)"),
        ("bad_luck", "failed", "assert"),
        ("worker_aborts", "crashed", "crashed while running"),
        ("after_the_abort", "passed", ""),
    ],
)
def test_each_misfortune_is_a_labelled_result(
    drill: Drill, name: str, state: str, evidence: str
) -> None:
    result = drill.result(name)
    assert result["state"] == state
    assert evidence in result["reason"]


def test_the_run_ends_in_bounded_time_and_says_that_it_failed(drill: Drill) -> None:
    assert drill.run.returncode == 1  # and in SECONDS, or there were no drill
    assert in_flight(drill.events) == []


def test_junit_has_the_canonical_ids(drill: Drill) -> None:
    names = {case.get("name") for case in drill.junit.iter("testcase")}
    assert names == set(drill.results)


@pytest.mark.parametrize("name", ["wrong_expectation", "known_issue"])
def test_a_failure_can_be_mailed(drill: Drill, name: str) -> None:
    evidence = drill.result(name)["evidence"]
    for part in (
        "clause:  NONE-1 Without WPU",
        "axes:    kind anon, state populated",
        "3* [P---WX--]",
        "main: UFFDIO_WRITEPROTECT(mem[3], 0x1000, WP) = 0",
        f"kernel:  {os.uname().release}",
        "pytest --case",
    ):
        assert part in evidence


@pytest.mark.parametrize("name", ["wrong_expectation", "known_issue"])
def test_a_failure_comes_with_a_reproducer(drill: Drill, name: str) -> None:
    result = drill.result(name)
    assert f"in C:    cc -o reproducer {result['reproducer']} -pthread" in result["evidence"]
    assert "assert 0x83" in Path(result["reproducer"]).read_text()
    assert drill.result("worker_aborts").get("reproducer", "") == ""


def test_the_stream_has_a_head_and_an_end(drill: Drill) -> None:
    head, end = drill.events[0], drill.events[-1]
    assert head["event"] == "run"
    assert head["kernel"]["release"] == os.uname().release
    assert {"features", "thp", "config", "taint"} <= head["kernel"].keys()
    assert end["event"] == "end"
    assert [event["event"] for event in drill.events].count("end") == 1  # and not one a worker


def test_one_case_by_its_canonical_id(drill: Drill) -> None:
    (name,) = [i for i in drill.results if "after_the_abort" in i]
    alone = run("--case", name, "tests/drills/test_misfortunes.py")
    assert alone.returncode == 0
    assert "cases: 1: 1 passed" in alone.stdout


def test_what_was_random_comes_again_with_its_seed(drill: Drill) -> None:
    result = drill.result("bad_luck")
    again = run(*shlex.split(result["evidence"].partition("again:   pytest ")[2]), "tests/drills")
    assert again.returncode == 1
    assert result["reason"].splitlines()[0] in again.stdout


def test_an_unknown_case_id_fails() -> None:
    assert (
        run("--case", "no.such.case", "uffd_tests").returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    )


# -- the run itself is killed


def subjects_of(session: int) -> list[str]:
    """The subjects left of a run that was a session leader's."""
    out = subprocess.run(
        ["pgrep", "-af", f"subject .* {session}$"], capture_output=True, text=True, check=False
    )
    return out.stdout.splitlines()


def child_pids(parent: int, pattern: str) -> list[int]:
    """The children of a process whose command line matches a pattern."""
    out = subprocess.run(
        ["pgrep", "-P", str(parent), "-f", pattern], capture_output=True, text=True, check=False
    )
    return list(map(int, out.stdout.split()))


@as_root
def test_a_killed_run_leaves_nothing_behind(tmp_path: Path) -> None:
    stream = tmp_path / "stream.jsonl"
    whole = command("--stream", str(stream), "uffd_tests")
    process = subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + SECONDS
    while not (stream.exists() and len(read(stream)) > 100) and time.monotonic() < deadline:
        time.sleep(0.01)  # until the run is in full swing
    (keeper,) = child_pids(process.pid, "helpers.lease")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    events = read(stream)
    assert len(events) > 100
    assert len(in_flight(events)) <= 1
    while subjects_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert subjects_of(process.pid) == []
    while keeper in lease.leases() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert keeper not in lease.leases()


# -- less than root


@as_root
def test_without_privilege_the_run_says_what_is_missing() -> None:
    done = run("-n2", "uffd_tests/test_api.py", "uffd_tests/test_none_pte.py", prefix=UNPRIVILEGED)
    assert done.returncode == 0, done.stdout
    assert "missing: only user-mode faults can be handled: run as root, or set" in done.stdout
    assert "skipped: needs root: run as root" in done.stdout


@as_root
def test_strict_skips_makes_them_failures() -> None:
    done = run(
        "--strict-skips", "-k", "unprivileged", "uffd_tests/test_api.py", prefix=UNPRIVILEGED
    )
    assert done.returncode == 1
    assert "which --strict-skips forbids: needs root" in done.stdout
