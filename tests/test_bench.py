# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark: its statistics, what it refuses, what it proves, and a run from end to end."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from statistics import median

import pytest

from bench import cases, evidence, native, page, stats, summary, tables
from bench.__main__ import main
from bench.cases import MIB, Case
from bench.errors import BenchError
from bench.measure import Measured
from bench.native import Look
from bench.run import Run
from helpers.uapi import Feature

ROOT = Path(__file__).parent.parent

SLOW_MADVISE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* what the program named "measure" asks of MADV_POPULATE_READ takes 200 ms longer */
int madvise(void *start, size_t bytes, int advice)
{
	struct timespec delay = { .tv_nsec = 200000000 };

	if (advice == 22 && !__builtin_strcmp(program_invocation_short_name, "measure"))
		nanosleep(&delay, 0);
	return syscall(SYS_madvise, start, bytes, advice);
}
"""


# -- statistics


def test_an_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    random = Random(1)
    held = 0
    for _ in range(100):
        drift = [random.uniform(1, 3) for _ in range(15)]  # of the machine, round by round
        series = [20 * slow * random.gauss(1, 0.02) for slow in drift]
        base = [10 * slow * random.gauss(1, 0.02) for slow in drift]
        held += not stats.ratio(series, base).excludes(2)
    assert held >= 85


def test_a_delay_of_five_percent_is_told_from_noise() -> None:
    random = Random(2)
    base = [random.gauss(100, 1) for _ in range(9)]
    slower = [random.gauss(105, 1) for _ in range(9)]
    found = stats.ratio(slower, base)
    assert found.excludes(1)
    assert found.value == pytest.approx(1.05, abs=0.02)


def test_the_same_figures_give_the_same_interval() -> None:
    series = [Random(3).gauss(10, 1) for _ in range(7)]
    assert stats.ratio(series, series[::-1]) == stats.ratio(series, series[::-1])


def test_a_slope_is_what_one_more_page_costs() -> None:
    pages = [100, 200, 800]
    assert stats.slope(pages, [[1000 + 4 * count] * 3 for count in pages]).value == (
        pytest.approx(4)
    )


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0.00 ns"), (4.257, "4.26 ns"), (999.6, "1.00 µs"), (10276_000, "10.3 ms"),
        (486e6, "486 ms"), (3.277e9, "3.28 s"), (-1500, "-1.50 µs"),
    ],
)  # fmt: skip
def test_a_duration_has_three_digits_and_a_unit(ns: float, text: str) -> None:
    assert tables.duration(ns) == text


# -- what is refused


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--size", "much"], "'much' is no size such as 512M or 10G"),
        (["--size", "63M"], "63M is no multiple of 64M"),
        (["--size", "0G"], "0G is no multiple of 64M"),
        (["--size", "4096T"], "doesn't fit: "),
        (["--runs", "2"], "'2' is no number from 3 on"),
        (["--cases", "order,nonsense"], "no case fits 'nonsense'; there are order, later, "),
        (["--from", "/nowhere.json"], "/nowhere.json: No such file or directory"),
        (["--from", "/dev/null"], "/dev/null: no uffd-wp benchmark"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_a_small_machine_scales_the_range_down_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.environment.free_bytes", lambda: 300 * MIB)
    figures = tmp_path / "bench.json"
    assert main(["--runs", "3", "--cases", "DEFAULT", "--json", str(figures)]) == 0
    assert "scaled down from 10240 to 128 MiB, because only 300 MiB" in capsys.readouterr().err
    assert json.loads(figures.read_text())["size"] == 128 * MIB


# -- what is proven


def test_cases_have_names_of_their_own() -> None:
    names = [case.name for case in cases.all_cases(cases.THREAD_SIZE)]
    assert len(names) == len(set(names))
    assert {name.partition(".")[0] for name in names} == set(cases.SECTIONS)


def test_a_case_is_chosen_by_section_part_or_pattern() -> None:
    every = cases.all_cases(cases.LEAST_SIZE)
    assert len(cases.choose(every, ["order"])) == 8
    assert len(cases.choose(every, ["MADVISE"])) == 2
    assert [c.name for c in cases.choose(every, ["order.W*off"])] == ["order.WP-UNPOPULATE.thp_off"]


def test_a_state_that_is_not_as_it_should_be_is_a_fault() -> None:
    case = Case("order.x", 4 * MIB, "")
    seen = Look(0, 0, present=4 * MIB, huge=0, zero=4 * MIB, marked=0)
    assert evidence.fault(case, ["zero"], [seen], []) is None
    assert "was not huge_zero" in (evidence.fault(case, ["huge_zero"], [seen], []) or "")
    assert "was not markers" in (evidence.fault(case, ["markers"], [seen], []) or "")


def test_a_round_that_missed_a_page_is_a_fault() -> None:
    case = Case("tracking.x", 4 * MIB, "", counts=10)
    assert evidence.fault(case, [], [], [0, 10]) is None
    assert "0 and 9 pages where it should 10" in (evidence.fault(case, [], [], [0, 9]) or "")


# -- from end to end


def test_a_run_measures_all_sections_and_its_figures_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "bench.json"
    assert main(["--size", "64M", "--runs", "3", "--json", str(figures)]) == 0
    told = capsys.readouterr().out
    run = Run.load(figures)
    assert {name.partition(".")[0] for name in run.measured} == set(cases.SECTIONS)
    for measured in run.measured.values():
        assert all(len(ns) == 3 and min(ns) > 0 for ns in measured.ns.values()), measured.case.name
    names = set(run.measured) | set(run.missing)
    assert names == {case.name for case in cases.all_cases(64 * MIB)}
    totals = {name: run.measured[f"order.{name}.thp_off"].total for name in cases.THREAD}
    order = sorted(totals, key=lambda name: median(totals[name]))
    assert f"THP off: {' < '.join(order)}" in told
    assert "Anjum, 3 Mar" in told
    assert "# Write-protecting 64 MiB of empty memory" in figures.with_suffix(".md").read_text()
    assert page.terminal(run) == told.rstrip("\n")
    summed = json.loads(figures.read_text())["summary"]
    assert summed["thp_off"]["order"] == order
    assert order[0] == "DEFAULT"  # which does nothing: no machine is too busy to show that
    assert set(summed["deferred"]["async"]["repaid"]) == {"value", "low", "high"}


def test_each_finding_is_a_sentence_with_finite_figures(tmp_path: Path) -> None:
    run = _made_up()
    found = list(page.findings(run))
    assert len(found) >= 4
    assert not [each for each in found if re.search("nan|inf%", each) or not each.endswith(".")]
    deferred = summary.deferred(run, "async")
    assert deferred is not None
    assert math.isclose(deferred.repaid.value, 2.0)


def test_the_page_in_the_tree_is_made_from_the_figures_in_the_tree() -> None:
    results = ROOT / "bench" / "results.json"
    made = page.markdown(Run.load(results), "results.svg")
    assert results.with_suffix(".md").read_text() == made


def _made_up() -> Run:
    """A run in which half of the blocks, written to, eat up the lead of MADVISE."""
    blocks = 64
    figures = {
        "order.DEFAULT.thp_on": 1e3,
        "order.MADVISE.thp_on": 100e3,
        "order.WP-UNPOPULATE.thp_on": 100e3 + blocks / 2 * 1000,
        "order.PRE-READ.thp_on": 900e3,
        f"later.none.anon.thp_on.async.{summary.SPARSE}": 1000.0 * blocks / 2,
        f"later.huge_zero_page.anon.thp_on.async.{summary.SPARSE}": 2000.0 * blocks / 2,
        "order.DEFAULT.thp_off": 1e3,
        "order.MADVISE.thp_off": 900e3,
        "order.WP-UNPOPULATE.thp_off": 132e3,
        "order.PRE-READ.thp_off": 999e3,
    }
    by_name = {case.name: case for case in cases.all_cases(blocks * cases.BLOCK_BYTES)}
    look = Look(1 << 18, 0, 0, 0, 0, 0)
    measured = {
        name: Measured(by_name[name], look, look, look, {"protect": [int(ns)] * 3})
        for name, ns in figures.items()
    }
    return Run(blocks * cases.BLOCK_BYTES, 3, False, {"kernel": "x"}, measured, {})


def test_a_planted_delay_is_found_by_the_bare_program(tmp_path: Path) -> None:
    source, library = tmp_path / "slow.c", tmp_path / "slow.so"
    source.write_text(SLOW_MADVISE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    native.built()
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--prove", "--size", "64M", "--runs", "3"],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 1, done.stderr
    assert "DIFFERS" in verdicts["order.MADVISE.thp_on"]
    assert "DIFFERS" in verdicts["order.MADVISE.thp_off"]


def test_what_the_kernel_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(native.NotRun, match="UFFDIO_API: Invalid argument"):
        native.measure(Case("x", 4 * MIB, "", features=Feature(1 << 60)), [])
    with pytest.raises(BenchError):
        native.measure(Case("x", 4 * MIB, ""), ["no-such-step"])
