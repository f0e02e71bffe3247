# SPDX-License-Identifier: GPL-2.0-only
"""The merged report of golden runs: one state a case, the same in every format, never too green."""

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase

from helpers import stream
from report import flat, html, junit, kcidb, ktap
from report.__main__ import main
from report.merge import Kernel, Outcome, Run, Source, State, load, merge
from report.text import clean, clip

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "streams"
SECONDS = 300  # for a program that takes a few on an idle machine

READ = "none_pte.read_maps_the_zero_page.anon-none_pte-thp_off-wpu"
WRITE = "none_pte.write_delivers_a_message.anon-none_pte-thp_off-wpu"
FORK = "fork.child_keeps_the_marker.anon-none_pte-thp_off-wpu"
PUNCH = "shmem.hole_punch_keeps_nothing.tmpfs-cached-thp_off-plain"
REFUSED = "api.unknown_feature_is_refused"
BOOTED = {"vm.boot.1": "passed", "vm.features": "passed"}

# what the report of each run must say: the exit status, and each kernel's states
EXPECTED: dict[str, tuple[int, dict[str, dict[str, str]]]] = {
    "normal": (
        0,
        {
            "6.1": {**BOOTED, READ: "skipped", PUNCH: "passed", REFUSED: "passed"},
            "6.12": {
                **BOOTED,
                READ: "passed",
                WRITE: "passed",
                FORK: "passed",
                PUNCH: "xfailed",
                REFUSED: "passed",
            },
        },
    ),
    "splat": (
        1,
        {"6.12": {**BOOTED, "run.splat": "failed", READ: "passed"}},
    ),
    "native": (0, {"6.18.44": {READ: "passed", WRITE: "passed", PUNCH: "skipped"}}),
    "failures": (
        1,
        {
            "7.2": {
                **BOOTED,
                READ: "passed",
                WRITE: "failed",
                FORK: "timeout",
                PUNCH: "crashed",
                REFUSED: "skipped",
            }
        },
    ),
    "cut_short": (
        1,
        {"6.18.44": {"run.ended": "crashed", READ: "passed", WRITE: "crashed", FORK: "crashed"}},
    ),
    "garbled": (
        1,
        {"6.12": {"stream.readable": "failed", READ: "failed", WRITE: "crashed", FORK: "passed"}},
    ),
    "panic": (
        1,
        {
            "6.12": {
                **BOOTED,
                "vm.lost.1": "crashed",
                READ: "passed",
                WRITE: "crashed",
                FORK: "crashed",
            }
        },
    ),
    "panic_unattended": (
        1,
        {
            "6.12": {
                "vm.boot.1": "passed",
                "vm.lost.1": "crashed",
                "vm.verdict": "crashed",
                READ: "passed",
                WRITE: "crashed",
            }
        },
    ),
    "no_boot": (
        1,
        {
            "6.12": {**BOOTED, READ: "passed"},
            "broken": {
                "vm.boot.1": "crashed",
                "vm.boot.2": "crashed",
                "vm.features": "skipped",
            },
        },
    ),
    "hang": (
        1,
        {
            "7.3": {
                **BOOTED,
                "vm.lost.1": "timeout",
                READ: "passed",
                WRITE: "crashed",
            }
        },
    ),
    "all_skipped": (4, {"6.12": {**BOOTED, READ: "skipped", WRITE: "skipped"}}),
    "missing_feature": (
        1,
        {
            "6.1": {
                "vm.boot.1": "passed",
                "vm.features": "failed",
                READ: "skipped",
                REFUSED: "passed",
            }
        },
    ),
    "resume": (
        1,
        {
            "6.12": {
                **BOOTED,
                "vm.boot.2": "passed",
                "vm.lost.1": "crashed",
                "vm.lost.2": "timeout",
                READ: "passed",
                WRITE: "crashed",
                FORK: "passed",
                PUNCH: "passed",
                REFUSED: "crashed",
            }
        },
    ),
    "duplicates": (
        1,
        {"6.12": {**BOOTED, READ: "passed", WRITE: "crashed", FORK: "passed", PUNCH: "crashed"}},
    ),
    "side_by_side": (
        1,
        {
            "6.12": {
                **BOOTED,
                "vm.boot.2": "passed",
                "vm.lost.2": "crashed",
                "vm.boot.3": "passed",
                "vm.boot.4": "passed",
                "run.complete": "failed",
                READ: "passed",
                WRITE: "crashed",
                FORK: "passed",
                PUNCH: "failed",
                REFUSED: "skipped",
            }
        },
    ),
    "all_well_side_by_side": (
        0,
        {"6.12": {**BOOTED, "vm.boot.2": "passed", READ: "passed", WRITE: "passed"}},
    ),
    "no_image": (1, {"broken": {"vm.boot.0": "crashed", "vm.features": "skipped"}}),
    "lost_results": (1, {"6.12": {**BOOTED, "run.counts": "failed", READ: "passed"}}),
    "lost_errors": (1, {"6.12": {**BOOTED, "run.counts": "failed", READ: "passed"}}),
    "nothing_ran": (1, {"6.12": {**BOOTED, "run.not_empty": "failed"}}),
    "never_began": (1, {"6.12": {"run.not_empty": "failed"}}),
    "other_schema": (1, {"6.12": {"stream.readable": "failed", READ: "passed"}}),
}

golden = pytest.mark.parametrize("name", EXPECTED)


def states(run: Run) -> dict[str, dict[str, str]]:
    return {
        k.name: {outcome.id: outcome.state.value for outcome in k.outcomes} for k in run.kernels
    }


def only(run: Run) -> Kernel:
    (kernel,) = run.kernels
    return kernel


def outcome(run: Run, name: str) -> Outcome:
    (found,) = [found for found in only(run).outcomes if found.id == name]
    return found


# -- the model


@golden
def test_every_case_ends_in_one_state(name: str) -> None:
    run = load(GOLDEN / name)
    assert states(run) == EXPECTED[name][1]
    for kernel in run.kernels:
        assert len({outcome.id for outcome in kernel.outcomes}) == len(kernel.outcomes)


def test_every_golden_run_is_tested() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == EXPECTED.keys()


def test_the_model_knows_the_states_of_the_stream() -> None:
    assert set(stream.STATES) == {state.value for state in State}


def test_a_kernel_that_could_not_even_be_read_says_why() -> None:
    boot = outcome(load(GOLDEN / "no_image"), "vm.boot.0")
    assert boot.reason == "the kernel did not boot: vmlinuz: not a kernel image"


def test_a_panic_keeps_its_console_and_names_the_cases_in_flight() -> None:
    loss = outcome(load(GOLDEN / "panic"), "vm.lost.1")
    assert WRITE in loss.reason
    assert FORK in loss.reason
    assert "RIP: 0010:mwriteprotect_range" in loss.evidence
    assert "\r" not in loss.evidence
    assert "\x1b" not in loss.evidence


def test_a_case_in_flight_that_nobody_wrote_down_has_the_panics_console() -> None:
    case = outcome(load(GOLDEN / "panic_unattended"), WRITE)
    assert case.reason == "in flight when the kernel panicked"
    assert "mwriteprotect_range" in case.evidence


def test_a_case_that_crashed_has_the_clause_and_axes_of_its_results_elsewhere() -> None:
    crashed = {"event": "result", "id": READ, "state": "crashed"}
    well = {**crashed, "state": "passed", "clause": "NONE-3", "axes": {"kind": "anon"}}
    run = merge([Source("a", [crashed]), Source("b", [well])])
    assert run.kernels[0].cases[0].clause == "NONE-3"
    assert run.kernels[0].cases[0].axes == {"kind": "anon"}


def test_a_case_that_never_ended_has_the_clause_of_its_start() -> None:
    start = {"event": "start", "id": READ, "clause": "NONE-3", "axes": {"kind": "anon"}}
    (case,) = only(merge([Source("a", [start])])).cases
    assert (case.state, case.clause, case.axes) == (State.CRASHED, "NONE-3", {"kind": "anon"})


def test_an_interrupted_run_is_not_green_for_what_it_did_not_reach() -> None:
    events: list[dict[str, Any]] = [
        {"event": "plan", "ids": [READ, WRITE]},
        {"event": "result", "id": READ, "state": "passed"},
        {"event": "end", "totals": {"passed": 1}},
    ]
    run = merge([Source("6.12", events)])
    assert states(run)["6.12"] == {"run.complete": "failed", READ: "passed", WRITE: "skipped"}


def test_contradicting_results_are_told() -> None:
    run = load(GOLDEN / "duplicates")
    assert "passed, crashed" in outcome(run, WRITE).evidence
    assert "crashed, passed" in outcome(run, PUNCH).evidence
    assert outcome(run, READ).evidence == ""


def test_facts_are_flat_and_know_the_accelerator() -> None:
    facts = only(load(GOLDEN / "failures")).facts
    assert facts["release"] == "7.2.1"
    assert facts["features"] == "PAGEFAULT_FLAG_WP WP_HUGETLBFS_SHMEM WP_UNPOPULATED"
    assert facts["accelerator"] == "tcg"
    assert facts["config.KSM"] == "y"


def test_a_kernel_with_more_than_its_line_names_is_reported_and_passes() -> None:
    kernel = load(GOLDEN / "normal").kernels[0]
    (features,) = [check for check in kernel.checks if check.id == "vm.features"]
    assert features.reason == "more than expected: WP_HUGETLBFS_SHMEM"


@pytest.mark.parametrize(
    "event",
    [
        {"event": "verdict", "kernel": "6.12"},
        {"event": "boot", "attempt": "first"},
        {"event": "lost", "attempt": 1, "reason": "panic", "in_flight": None},
        {"event": "lost", "attempt": 1, "reason": "panic", "in_flight": [{"id": 1}]},
        {"event": "lost", "attempt": None, "reason": "panic", "in_flight": []},
        {"event": "plan", "ids": [1]},
        {"event": "end"},
        {"event": "result", "id": READ, "state": ["passed"]},
        {"event": "start", "id": "a b"},
    ],
)
def test_an_event_that_lacks_what_it_should_say_is_never_green(event: dict[str, object]) -> None:
    result = {"event": "result", "id": READ, "state": "passed"}
    assert merge([Source("6.12", [result, event])]).state is State.FAILED


# -- shards

CASES = "uffd_tests/test_api.py"  # quick ones, on the running kernel


def test_shards_of_several_processes_merge_to_the_same_report_in_any_order(tmp_path: Path) -> None:
    """Each on a host of its own, as a CI engine's jobs are: with other processes, mounts and
    name, and no network, for they have nothing to say to each other."""
    host = ("unshare", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    separate = host if os.geteuid() == 0 else ()
    folders = {name: tmp_path / name for name in ("whole", "first", "second", "third")}
    shards = {"first": "1/3", "second": "2/3", "third": "3/3"}
    jobs = [
        subprocess.Popen(
            [
                *(separate if name in shards else ()),
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", CASES),
                *(("--shard", shards[name]) if name in shards else ()),
                f"--stream={folder / 'stream.jsonl'}",
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        for name, folder in folders.items()
    ]
    assert [job.wait(timeout=SECONDS) for job in jobs] == [0, 0, 0, 0]
    runs = [load(*order) for order in permutations(folders[name] for name in shards)]
    whole = list(ktap.lines(load(folders["whole"])))
    for run in runs:
        assert list(ktap.lines(run)) == whole
        for document in (junit.document, kcidb.document, flat.as_json, html.document):
            assert document(run) == document(runs[0])


# -- JUnit


def written(name: str, folder: Path) -> JUnitXml:
    file = folder / "junit.xml"
    assert main([str(GOLDEN / name), "--junit", str(file)]) == EXPECTED[name][0]
    return JUnitXml.fromfile(str(file))


def junit_state(case: TestCase) -> str:
    """What a reader of JUnit makes of a case."""
    if not case.result:
        return "passed"
    (result,) = case.result
    assert result.message
    if isinstance(result, Skipped):
        return "xfailed" if result.message.startswith(junit.EXPECTED) else "skipped"
    assert isinstance(result, Error if result.type == "crashed" else Failure)
    return str(result.type)


@golden
def test_junit_agrees_with_the_streams(name: str, tmp_path: Path) -> None:
    document = written(name, tmp_path)
    assert {
        suite.name: {case.name: junit_state(case) for case in suite} for suite in document
    } == EXPECTED[name][1]
    for suite in document:
        counts = Counter(EXPECTED[name][1][suite.name].values())
        assert suite.tests == sum(counts.values())
        assert suite.failures == counts["failed"] + counts["timeout"]
        assert suite.errors == counts["crashed"]
        assert suite.skipped == counts["skipped"] + counts["xfailed"]
    names = [(case.classname, case.name) for suite in document for case in suite]
    assert len(set(names)) == len(names)


def test_junit_tells_kernel_and_chapter_times_and_facts(tmp_path: Path) -> None:
    _, new = written("normal", tmp_path)
    assert {case.classname for case in new} == {
        "6.12.vm",
        "6.12.api",
        "6.12.fork",
        "6.12.none_pte",
        "6.12.shmem",
    }
    times = {case.name: case.time for case in new}
    assert times[READ] == pytest.approx(0.004217)
    assert times[REFUSED] == 0
    suite = ElementTree.parse(tmp_path / "junit.xml").find("testsuite[@name='6.1']")
    assert suite is not None
    facts = {fact.get("name"): fact.get("value") for fact in suite.iter("property")}
    assert facts["release"] == "6.1.0-56"
    assert facts["accelerator.why"] == "it boots"
    assert suite.get("timestamp") == "2026-09-21T14:13:20"


def test_junit_has_the_evidence(tmp_path: Path) -> None:
    (suite,) = written("failures", tmp_path)
    (failure,) = next(case for case in suite if case.name == WRITE).result
    assert failure.message.startswith("skip? assert 0x83000000001de56f [P---WX--] == 0")
    assert "clause:  NONE-4" in failure.text
    assert "okay & <done> ]]>" in failure.text


def test_junit_clips_evidence_until_the_file_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junit, "MAX_BYTES", 300_000)
    cases = tuple(
        Outcome(f"a.b{i}", State.FAILED, reason="wrong", evidence="&" * 50_000) for i in range(100)
    )
    document = junit.document(Run((Kernel("6.12", {}, None, (), cases),)))
    assert len(document.encode()) < 300_000
    assert len(list(next(iter(JUnitXml.fromstring(document))))) == 100
    assert "characters left out" in document


# -- KTAP


@dataclass
class Result:
    """A KTAP result line, with the results nested before it."""

    description: str
    state: str
    data: str
    nested: list["Result"]


RESULT = re.compile(r"(ok|not ok) (\d+) ([^#]+?)(?: # ([A-Z]+)(?: (.*))?)?$")
STATES = {
    ("ok", None): "passed",
    ("ok", "SKIP"): "skipped",
    ("ok", "XFAIL"): "xfailed",
    ("not ok", None): "failed",
    ("not ok", "TIMEOUT"): "timeout",
    ("not ok", "ERROR"): "crashed",
}


def parse_ktap(lines: list[str]) -> list[Result]:
    """The results of a KTAP document, which must keep to version 1 to the letter."""
    assert lines[0] == "KTAP version 1"
    plan: int | None = None
    results: list[Result] = []
    nested: list[str] = []
    for line in lines[1:]:
        if line.startswith("  "):
            nested.append(line[2:])
        elif matched := re.fullmatch(r"1\.\.(\d+)", line):
            assert plan is None
            plan = int(matched[1])
        elif matched := RESULT.fullmatch(line):
            assert plan is not None
            assert int(matched[2]) == len(results) + 1
            inner = parse_ktap(nested) if nested else []
            state = STATES[matched[1], matched[4]]
            results.append(Result(matched[3], state, matched[5] or "", inner))
            nested = []
        else:
            assert line.startswith("# ")
    assert not nested
    assert len(results) == plan
    return results


@golden
def test_ktap_agrees_with_the_streams(name: str) -> None:
    run = load(GOLDEN / name)
    results = parse_ktap(list(ktap.lines(run)))
    assert {
        kernel.description: {result.description: result.state for result in kernel.nested}
        for kernel in results
    } == EXPECTED[name][1]
    assert [kernel.state for kernel in results] == [kernel.state for kernel in run.kernels]


def test_ktap_tells_why_a_case_was_skipped_or_expected_to_fail() -> None:
    (old, new) = parse_ktap(list(ktap.lines(load(GOLDEN / "normal"))))
    data = {result.state: result.data for result in (*old.nested, *new.nested)}
    assert data["skipped"] == "needs WP_UNPOPULATED: run on Linux 6.4 or later"
    assert data["xfailed"] == "REGISTER without WP succeeds (fixed in 7.3)"


def test_ktap_counts_as_kselftest_does() -> None:
    lines = list(ktap.lines(load(GOLDEN / "failures")))
    assert "  # Totals: pass:3 fail:2 xfail:0 xpass:0 skip:1 error:1" in lines


def test_ktap_keeps_a_reason_from_being_a_directive() -> None:
    lines = list(ktap.lines(load(GOLDEN / "failures")))
    assert f"  # {WRITE}: skip? assert 0x83000000001de56f [P---WX--] == 0" in lines
    assert any(line.startswith("  not ok") and line.endswith(WRITE) for line in lines)


def test_ktap_keeps_a_name_from_being_a_directive() -> None:
    passed = Outcome(READ, State.PASSED)
    run = Run((Kernel("my # SKIP kernel", {}, None, (), (passed,)),))
    assert parse_ktap(list(ktap.lines(run)))[0].description == "my _ SKIP kernel"


# -- strange bytes


STRANGE = "\x00\x07\x1b[31m\ud800\udfff\ufffe\uffff\x85\u2028\U0001fffe\U0010ffff\x7f\r\n#"


def test_clean_text_is_what_xml_can_hold() -> None:
    assert (
        clean("a\x1b[1;31mb\x1b[0m\r\nc\r\r\nd\re\x00\ud800\ufffe")
        == "ab\nc\nd\ne\ufffd\ufffd\ufffd"
    )


def test_clipped_text_keeps_both_ends() -> None:
    assert clip("a" * 10, 10) == "a" * 10
    assert clip("abcdefghij", 4) == "ab\n[… 6 characters left out …]\nij"


def test_strange_text_anywhere_breaks_no_format(tmp_path: Path) -> None:
    writer = stream.Stream(
        tmp_path / STRANGE.replace("\0", "").encode(errors="replace").decode() / "stream.jsonl"
    )
    facts = {"release": STRANGE, STRANGE: [STRANGE], "deep": {STRANGE: None}}
    writer.write("boot", kernel=STRANGE, attempt=1, accelerator=STRANGE, why=STRANGE)
    writer.write("run", schema=stream.SCHEMA, kernel=facts, started=float("nan"))
    for number, state in enumerate((*stream.STATES, STRANGE)):
        case: dict[str, Any] = {"id": f"a.{number}", "state": state, "axes": {"a": STRANGE}}
        case |= {"reason": STRANGE, "evidence": STRANGE, "clause": STRANGE, "seconds": 10**400}
        writer.write("result", **case)
    writer.write("result", id=STRANGE, state="passed")
    writer.write("lost", reason=STRANGE, attempt=1, in_flight=["a.9"], console=STRANGE)
    writer.write("verdict", missing=[STRANGE], extra=[STRANGE])
    writer.close()
    assert main([str(tmp_path)]) == 1
    (suite,) = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    (kernel,) = parse_ktap(list(ktap.lines(load(tmp_path))))
    wanted = {f"a.{number}": state for number, state in enumerate(stream.STATES)}
    for told in (
        {case.name: junit_state(case) for case in suite},
        {result.description: result.state for result in kernel.nested},
    ):
        assert told.items() >= {**wanted, "a.9": "crashed", "vm.features": "failed"}.items()


def test_a_stream_cut_anywhere_is_never_green(tmp_path: Path) -> None:
    whole = (GOLDEN / "native" / "stream.jsonl").read_bytes().rstrip()
    for size in range(0, len(whole), 7):
        (tmp_path / "stream.jsonl").write_bytes(whole[:size])
        assert load(tmp_path).state is State.FAILED, size


@pytest.mark.parametrize("name", ["normal/6.12", "resume/6.12", "failures/7.2"])
def test_a_damaged_stream_breaks_no_format(name: str, tmp_path: Path) -> None:
    chance = Random(name)
    whole = (GOLDEN / name / "stream.jsonl").read_bytes()
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / "stream.jsonl").write_bytes(damaged)
        run = load(tmp_path)
        parse_ktap(list(ktap.lines(run)))
        (suite,) = JUnitXml.fromstring(junit.document(run))
        assert {case.name: junit_state(case) for case in suite} == states(run)[only(run).name]


# -- the command


def report(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "report", *arguments],
        cwd=ROOT,
        env={"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


def test_the_command_writes_ktap_and_a_summary(tmp_path: Path) -> None:
    done = report(str(GOLDEN / "no_boot"), f"--junit={tmp_path / 'out.xml'}", encoding="ascii")
    assert done.returncode == 1
    assert [result.state for result in parse_ktap(done.stdout.decode().splitlines())] == [
        "passed",
        "failed",
    ]
    assert done.stderr.decode().splitlines() == [
        "6.12 (tcg): passed: 1 passed",
        "broken (tcg): failed: no case",
        "  crashed vm.boot.1: the kernel did not boot",
        "  crashed vm.boot.2: the kernel did not boot",
        f"junit: {tmp_path / 'out.xml'}",
    ]


def test_the_command_bears_a_terminal_without_unicode(tmp_path: Path) -> None:
    done = report(str(GOLDEN / "garbled"), f"--junit={tmp_path / 'out.xml'}", encoding="ascii")
    assert done.returncode == 1
    assert b"\\ufffd" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no such folder"),
        ("empty", "no stream.jsonl in it or in a folder in it"),
        ("both", "holds a native run and the kernel 6.12"),
        ("file", "no such folder"),
        ("folder_for_a_stream", "Is a directory"),
    ],
)
def test_what_is_no_run_gets_one_clear_line(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "both" / "6.12").mkdir(parents=True)
    (tmp_path / "both" / "stream.jsonl").touch()
    (tmp_path / "both" / "6.12" / "stream.jsonl").touch()
    (tmp_path / "file").touch()
    (tmp_path / "folder_for_a_stream" / "stream.jsonl").mkdir(parents=True)
    assert main([str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("report: ")
    assert message in line


def test_a_junit_file_that_cannot_be_written_gets_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(GOLDEN / "native"), "--junit", str(tmp_path / "no" / "junit.xml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "No such file or directory" in err


def test_wrong_usage_ends_with_2() -> None:
    assert report().returncode == 2
