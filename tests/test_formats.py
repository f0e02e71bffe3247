# SPDX-License-Identifier: GPL-2.0-only
"""KCIDB, the flat table, LAVA's signals: what machines make of golden runs."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import kcidb_io
import pytest

from report import flat, kcidb, lava
from report.__main__ import main
from report.merge import NEVER_REACHED, Kernel, Outcome, Run, State, load
from report.text import clean

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "streams"
RUNS = sorted(path.name for path in GOLDEN.iterdir())


@pytest.mark.parametrize("name", RUNS)
def test_kcidb_takes_the_document(name: str) -> None:
    run = load(GOLDEN / name)
    document = json.loads(kcidb.document(run))
    kcidb_io.schema.V5_3.validate(document)
    ids = [entry["id"] for part in ("builds", "tests", "incidents") for entry in document[part]]
    assert len(set(ids)) == len(ids)
    assert len(document["tests"]) == sum(len(kernel.outcomes) for kernel in run.kernels)


def test_kcidb_ties_a_known_failure_to_its_issue() -> None:
    document = json.loads(kcidb.document(load(GOLDEN / "normal")))
    (issue,), (incident,) = document["issues"], document["incidents"]
    assert incident["issue_id"] == issue["id"]
    (test,) = [test for test in document["tests"] if test["id"] == incident["test_id"]]
    assert test["status"] == "FAIL"
    assert issue["comment"] in test["log_excerpt"]


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        ("cut_short", "run.ended", "MISS"),
        ("lost_results", "run.counts", "MISS"),
        ("garbled", "stream.readable", "MISS"),
        ("never_began", "run.not_empty", "MISS"),
        ("splat", "run.splat", "FAIL"),
        ("panic", "vm.lost.1", "FAIL"),
        ("missing_feature", "vm.features", "FAIL"),
    ],
)
def test_kcidb_tells_a_broken_harness_from_a_broken_kernel(
    name: str, path: str, status: str
) -> None:
    document = json.loads(kcidb.document(load(GOLDEN / name)))
    assert {test["path"]: test["status"] for test in document["tests"]}[f"uffd_wp.{path}"] == status


@pytest.mark.parametrize("reason", [NEVER_REACHED, "never ran: panic, 12 guests lost in all"])
def test_kcidb_misses_a_case_that_did_not_run(reason: str) -> None:
    case = Outcome("thp.case", State.CRASHED, reason=reason)
    document = json.loads(kcidb.document(Run((Kernel("6.12", {}, None, (), (case,)),))))
    assert [test["status"] for test in document["tests"]] == ["MISS"]


def test_kcidb_has_one_issue_for_all_its_cases() -> None:
    cases = [Outcome(f"thp.{name}", State.XFAILED, reason="known (link)") for name in "ab"]
    run = Run(tuple(Kernel(name, {}, None, (), tuple(cases)) for name in ("6.1", "6.12")))
    document = json.loads(kcidb.document(run))
    kcidb_io.schema.V5_3.validate(document)
    assert (len(document["issues"]), len(document["incidents"])) == (1, 4)


@pytest.mark.parametrize("name", RUNS)
def test_the_table_has_a_line_for_each_outcome(name: str) -> None:
    run = load(GOLDEN / name)
    outcomes = [(k.name, o.id, o.state.value) for k in run.kernels for o in k.outcomes]
    lines = list(csv.DictReader(flat.as_csv(run).splitlines()))
    assert [(line["kernel"], line["id"], line["result"]) for line in lines] == outcomes
    assert json.loads(flat.as_json(run)) == lines


@pytest.mark.parametrize("name", RUNS)
def test_lava_gets_a_signal_for_each_outcome(name: str) -> None:
    run = load(GOLDEN / name)
    signals = Counter(line.rpartition("=")[2].rstrip(">") for line in lava.lines(run))
    states = [outcome.state for kernel in run.kernels for outcome in kernel.outcomes]
    assert signals["fail"] == sum(state.red for state in states)
    assert signals["skip"] == states.count(State.SKIPPED)
    assert signals["pass"] == states.count(State.PASSED) + states.count(State.XFAILED)


# -- the command


def test_the_files_asked_for_are_written(tmp_path: Path) -> None:
    names = ("junit", "html", "kcidb", "csv", "json")
    options = [word for name in names for word in (f"--{name}", str(tmp_path / name))]
    assert main([str(GOLDEN / "normal"), *options, "--since", str(GOLDEN / "failures")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("text", ["", "[]", '{"release": "6.12", "score": 1, "faults": [{}]}'])
def test_what_is_no_table_of_mutants_is_refused(
    text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "table.json"
    table.write_text(text)
    assert main([str(GOLDEN / "normal"), "--mutants", str(table)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_quiet_tells_of_failures_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = ["--csv", str(tmp_path / "table.csv"), "--quiet"]
    assert main([str(GOLDEN / "normal"), *file]) == 0
    assert capsys.readouterr() == ("", "")
    assert main([str(GOLDEN / "failures"), *file]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("7.2 (tcg): failed: ")


def test_a_terminal_gets_a_table_and_no_ktap(tmp_path: Path) -> None:
    command = f"{sys.executable} -m report {GOLDEN / 'failures'} --csv {tmp_path / 'table.csv'}"
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "KTAP" not in done.stdout
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", done.stdout)  # a colour
    head, line, *_ = clean(done.stdout).splitlines()
    assert head.split() == [
        "kernel",
        "verdict",
        "passed",
        "failed",
        "timeout",
        "crashed",
        "skipped",
    ]
    assert line.split() == ["7.2", "(tcg)", "failed", "1", "1", "1", "1", "1"]


def test_lava_takes_the_place_of_ktap(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main([str(GOLDEN / "normal"), "--csv", str(tmp_path / "table.csv"), "--lava"])
    assert capsys.readouterr().out.startswith("<LAVA_SIGNAL_TESTSET START 6.1>\n")


@pytest.mark.parametrize(
    ("earlier", "later", "status", "told"),
    [
        ("normal", "normal", 0, "nothing changed"),
        ("all_skipped", "panic", 1, "regressed"),
        ("normal", "no_such_run", 2, ""),
    ],
)
def test_two_runs_are_compared(
    earlier: str, later: str, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(GOLDEN / earlier), str(GOLDEN / later)]) == status
    assert told in capsys.readouterr().out


def test_new_failures_can_be_mailed(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(GOLDEN / name) for name in ("all_skipped", "panic")]
    assert main(["diff", *runs, "--failures"]) == 1
    assert capsys.readouterr().out.startswith("new failures: ")
