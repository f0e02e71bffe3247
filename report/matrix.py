# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel keeps which clause: a run's cases folded by clause, and clauses by promise.

A promise (promises.toml) is what a user asks for in his own words, such as a live snapshot; it
stands on several clauses.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from helpers.spec import Clause
from report.merge import NEVER_REACHED, Kernel, Outcome, Run, State

PROMISES = Path(__file__).parent / "promises.toml"


class Standing(StrEnum):
    """How a kernel stands to a clause or a promise, from the best to the worst."""

    KEPT = "kept"
    KNOWN = "known issue"
    NOT_RUN = "not run"  # or the machine could not show it
    NOT_OFFERED = "not offered"  # by the kernel
    BROKEN = "broken"


# How the reason of a skip begins for which the kernel is to blame, and no other: what pagemap does
# not show, or a machine has no second node for, may be kept all the same.
_LACKS = re.compile(r"the kernel (lacks|has no|can't) ")
_RANK = {standing: rank for rank, standing in enumerate(Standing)}


@dataclass(frozen=True)
class Cell:
    """A clause on a kernel."""

    standing: Standing
    counts: Mapping[State, int]

    @property
    def cases(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Row:
    """A clause on each kernel of a run, in the run's order."""

    clause: Clause
    cells: tuple[Cell, ...]

    @property
    def differs(self) -> bool:
        """Whether the kernels do not all stand alike."""
        return len({cell.standing for cell in self.cells}) > 1


@dataclass(frozen=True)
class Promise:
    """What a user asks for, and the clauses that it takes."""

    asks: str
    who: str
    clauses: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """How each kernel stands to a promise, and the first kernel that keeps it with all later."""

    promise: Promise
    standings: tuple[Standing, ...]
    since: str  # a kernel's name; "": not even the last
    issues: bool  # whether one of these has a known issue
    linux: str  # the first release that is to keep it, by the specification


def rows(run: Run, clauses: Mapping[str, Clause]) -> list[Row]:
    """A row for each clause, in the order of the specification; cases whose clause it does not
    have come last."""
    folded: list[dict[str, list[Outcome]]] = [_by_clause(kernel.cases) for kernel in run.kernels]
    strange = {name for kernel in folded for name in kernel} - clauses.keys()
    wanted = [*clauses.values(), *(Clause(name, "", "", "") for name in sorted(strange))]
    return [
        Row(clause, tuple(_cell(kernel.get(clause.id, [])) for kernel in folded))
        for clause in wanted
    ]


def _by_clause(cases: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for case in cases:
        found.setdefault(case.clause or "?", []).append(case)
    return found


def _cell(cases: list[Outcome]) -> Cell:
    counts = Counter(case.state for case in cases)
    return Cell(_standing(cases, counts), counts)


def _standing(cases: list[Outcome], counts: Mapping[State, int]) -> Standing:
    """What a kernel does not offer takes nothing from what it keeps where it does."""
    if any(state.red for state in counts):
        return Standing.BROKEN
    if State.XFAILED in counts:
        return Standing.KNOWN
    if any(case.reason == NEVER_REACHED for case in cases) or not cases:
        return Standing.NOT_RUN
    if State.PASSED in counts:
        return Standing.KEPT
    lacking = all(_LACKS.match(case.reason) for case in cases)
    return Standing.NOT_OFFERED if lacking else Standing.NOT_RUN


def promises(clauses: Iterable[str]) -> list[Promise]:
    """The promises of promises.toml. Raises ValueError where one cites an unknown clause."""
    known = set(clauses)
    entries = tomllib.loads(PROMISES.read_text())["promise"]
    made = [Promise(e["asks"], e["who"], tuple(e["clauses"])) for e in entries]
    for promise in made:
        if unknown := set(promise.clauses) - known:
            raise ValueError(f"{PROMISES.name}: no such clause: {', '.join(sorted(unknown))}")
    return made


def answer(promise: Promise, table: Iterable[Row], kernels: tuple[Kernel, ...]) -> Answer:
    """How the kernels stand to a promise: each as it stands to the worst of its clauses."""
    needed = [row for row in table if row.clause.id in promise.clauses]
    standings = tuple(
        max((row.cells[number].standing for row in needed), key=_RANK.__getitem__)
        for number in range(len(kernels))
    )
    since, issues = "", False
    for kernel, standing in zip(reversed(kernels), reversed(standings), strict=True):
        if standing not in (Standing.KEPT, Standing.KNOWN):
            break
        since, issues = kernel.name, issues or standing is Standing.KNOWN
    return Answer(promise, standings, since, issues, _linux(row.clause for row in needed))


def _linux(clauses: Iterable[Clause]) -> str:
    """The release from which on all clauses hold: "6.7 (6.6.30)" is of 6.7."""
    releases = (re.match(r"\d+\.\d+", clause.since) for clause in clauses)
    numbers = [[int(part) for part in found[0].split(".")] for found in releases if found]
    return ".".join(map(str, max(numbers, default=[])))
