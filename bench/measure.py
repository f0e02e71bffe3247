# SPDX-License-Identifier: GPL-2.0-only
"""Measures cases in interleaved rounds, after a round that proves each and warms up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from bench import evidence, native
from bench.cases import Case
from bench.native import Look, NotRun, Step
from helpers.lease import Reservation
from helpers.procfs import HUGETLB_BYTES


@dataclass
class Measured:
    """A case with what its rounds gave."""

    case: Case
    before: Look | None = None
    protected: Look | None = None  # the last look before the end, in the round that proves
    after: Look | None = None
    ns: dict[str, list[int]] = field(default_factory=dict)  # by label, one a round

    @property
    def total(self) -> list[int]:
        """The sum of the labelled steps, a round each."""
        return [sum(round_) for round_ in zip(*self.ns.values(), strict=True)]


def say(text: str) -> None:
    """Tells the user what goes on, apart from the figures on standard output."""
    print(text, file=sys.stderr, flush=True)


def _run(case: Case, *, every_look: bool) -> tuple[list[Look], dict[str, int]]:
    """Runs a case once. Raises NotRun where it can't be, or measured something else.

    A look walks the page tables, which warms caches: in a round that counts, there are only
    those before and after all timed steps.
    """
    steps = [step.rpartition("=") for step in case.steps.split()]
    looks = [i for i, (_, _, word) in enumerate(steps) if word.startswith("look")]
    if not every_look:
        steps = [step for i, step in enumerate(steps) if i not in looks[1:-1]]
    words = [word for _, _, word in steps]
    states = [word.partition(":")[2] for word in words if word.startswith("look")]
    done = native.measure(case, ["look" if word.startswith("look") else word for word in words])
    seen = [each for each in done if isinstance(each, Look)]
    ns: dict[str, int] = {}
    counts = []
    for (label, _, _), each in zip(steps, done, strict=True):
        if label and isinstance(each, Step):
            ns[label] = each.ns
            counts.append(each.count)
    why = evidence.fault(case, states, seen, counts)
    if why:
        raise NotRun(why)
    return seen, ns


@contextmanager
def _huge_pages(cases: list[Case]) -> Iterator[None]:
    """Holds the hugetlb pages that the cases need; those that get none say so themselves."""
    pages = max((case.bytes for case in cases if case.kind == "hugetlb"), default=0)
    if not pages:
        yield
        return
    reservation = Reservation(pages // HUGETLB_BYTES)
    try:
        yield
    finally:
        reservation.release()


def _prove(case: Case) -> Measured:
    looks, _ = _run(case, every_look=True)
    measured = Measured(case)
    if looks:
        measured.before, measured.after = looks[0], looks[-1]
        measured.protected = looks[-2] if len(looks) > 2 else looks[-1]
    return measured


def measure(cases: list[Case], runs: int) -> tuple[list[Measured], dict[str, str]]:
    """The figures of all cases that can be measured, and why others can't, by name."""
    proven: list[Measured] = []
    missing: dict[str, str] = {}
    with _huge_pages(cases):
        say("warming up, and proving what each case measures")
        for case in cases:
            try:
                proven.append(_prove(case))
            except NotRun as why:
                missing[case.name] = str(why)
        for number in range(1, runs + 1):
            say(f"round {number} of {runs}: {len(proven)} cases")
            for each in Random(number).sample(proven, len(proven)):
                try:
                    looks, ns = _run(each.case, every_look=False)
                except NotRun as why:
                    missing[each.case.name] = f"round {number}: {why}"
                    proven.remove(each)
                    continue
                for label, taken in ns.items():
                    each.ns.setdefault(label, []).append(taken)
                each.after = looks[-1] if looks else None
    return proven, missing
