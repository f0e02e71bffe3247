# SPDX-License-Identifier: GPL-2.0-only
"""A run as one HTML page that needs nothing else: which kernel keeps which promise, and why not.

The tables are in the page as they stand; what a cell opens to is built from data in the page, in
which each text stands once.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from helpers import spec
from report import matrix, mutants
from report.diff import Change
from report.merge import AXES, Kernel, Outcome, Run, State
from report.text import clip, one_line

_PAGE = Path(__file__).parent / "page"
_EVIDENCE = 6000  # characters a case
_EVIDENCE_OF_ALL = 8_000_000  # and of a page, beyond which it stands shorter
_LETTERS = {
    State.PASSED: "p",
    State.FAILED: "f",
    State.SKIPPED: "s",
    State.XFAILED: "x",
    State.TIMEOUT: "t",
    State.CRASHED: "c",
}


def document(
    run: Run,
    changes: list[Change] | None = None,
    plot: str = "",
    score: mutants.Score | None = None,
) -> str:
    """The page. `changes` are those since an earlier run, None where there is none to compare
    with; `plot` is an SVG image of the benchmark; `score` is that of faults planted in a kernel."""
    run = Run(tuple(sorted(run.kernels, key=_age)))
    clauses, titles = spec.load(), spec.chapters()
    table = matrix.rows(run, clauses)
    loader = jinja2.FileSystemLoader(_PAGE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        kernels=run.kernels,
        short=_short([kernel.name for kernel in run.kernels]),
        answers=[
            matrix.answer(promise, table, run.kernels) for promise in matrix.promises(clauses)
        ],
        chapters=_chapters(table, titles),
        changes=changes,
        plot=base64.b64encode(plot.encode()).decode(),
        score=score,
        data=_data(run),
        checks=[[check for check in kernel.checks if check.state.red] for kernel in run.kernels],
        counts=[_counts(kernel) for kernel in run.kernels],
        failures=[[case for case in kernel.cases if case.state.red] for kernel in run.kernels],
        css=(_PAGE / "page.css").read_text(),
        script=(_PAGE / "page.js").read_text(),
        one_line=one_line,
    )


def _age(kernel: Kernel) -> list[int]:
    """For sorting: the numbers of the release."""
    return [int(n) for n in re.findall(r"\d+", kernel.facts.get("release", kernel.name))]


def _short(names: list[str]) -> list[str]:
    """The names for where there is little room: 6.12, if all are debian-…"""
    parts = [name.rpartition("-") for name in names]
    alike = len(parts) > 1 and len({family for family, _, _ in parts}) == 1
    return [release for _, _, release in parts] if alike else names


@dataclass(frozen=True)
class _Chapter:
    """A chapter of the specification, and how many of its clauses stand how on each kernel."""

    prefix: str
    title: str
    rows: list[matrix.Row]

    @property
    def counts(self) -> list[dict[matrix.Standing, int]]:
        return [
            {s: n for s in matrix.Standing if (n := sum(cell.standing is s for cell in cells))}
            for cells in zip(*(row.cells for row in self.rows), strict=True)
        ]


def _chapters(table: list[matrix.Row], titles: Mapping[str, str]) -> list[_Chapter]:
    chapters: dict[str, list[matrix.Row]] = {}
    for row in table:
        chapters.setdefault(row.clause.id.partition("-")[0], []).append(row)
    return [_Chapter(prefix, titles.get(prefix, ""), rows) for prefix, rows in chapters.items()]


def _counts(kernel: Kernel) -> dict[State, int]:
    """How many cases ended how: what was put to the test comes first."""
    counts = Counter(case.state for case in kernel.cases)
    order = sorted(counts, key=lambda state: (state is State.SKIPPED, list(State).index(state)))
    return {state: counts[state] for state in order}


# -- what a cell opens to


class _Texts:
    """Texts by number."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.all)
            self.all.append(text)
        return self._numbers[text]


def _data(run: Run) -> dict[str, Any]:
    """`cases`: clause -> [id, axes, a letter for each kernel (blank: no result), {kernel's number:
    [reason, evidence, path of the C reproducer]}]; texts by their number."""
    texts = _Texts()
    limit = _evidence_limit(run)
    found: dict[str, dict[str, list[Any]]] = {}
    for number, kernel in enumerate(run.kernels):
        for case in kernel.cases:
            of_clause = found.setdefault(case.clause or "?", {})
            entry = of_clause.get(case.id)
            if entry is None:
                axes = [texts.number(case.axes.get(name, "")) for name in AXES]
                letters = [" "] * len(run.kernels)
                entry = of_clause[case.id] = [case.id, axes, letters, {}]
            entry[2][number] = _LETTERS[case.state]
            if case.state is not State.PASSED:
                told = (case.reason, _told(case, limit), case.reproducer)
                entry[3][number] = [texts.number(text) for text in told]
    for of_clause in found.values():
        for entry in of_clause.values():
            entry[2] = "".join(entry[2])
    return {
        "kernels": [kernel.name for kernel in run.kernels],
        "texts": texts.all,
        "cases": {clause: list(of_clause.values()) for clause, of_clause in found.items()},
    }


def _told(case: Outcome, limit: int) -> str:
    return "" if case.state is State.SKIPPED else clip(case.evidence, limit)


def _evidence_limit(run: Run) -> int:
    cases = [c for kernel in run.kernels for c in kernel.cases if c.state is not State.SKIPPED]
    with_evidence = sum(bool(case.evidence) for case in cases)
    return min(_EVIDENCE, _EVIDENCE_OF_ALL // max(1, with_evidence))
