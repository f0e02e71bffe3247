# SPDX-License-Identifier: GPL-2.0-only
"""Holds the benchmark's figures against a bare C program of the same calls (native/bare.c)."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from bench import cases, native, stats
from bench.cases import Case
from bench.measure import say
from bench.native import Step

TOLERANCE = 0.02
_RESOLUTION = 5e3  # ns: what a case this short differs by is the clock's and the caches' doing


@dataclass
class Pair:
    """A case's total nanoseconds, measured in turns by the benchmark and by the bare program."""

    case: Case
    ours: list[int] = field(default_factory=list)
    bare: list[int] = field(default_factory=list)

    def measure(self) -> None:
        """Measures both, the one first that was second the last time. Raises BenchError."""
        turns = [self._measure_ours, self._measure_bare]
        for turn in turns if len(self.ours) % 2 else reversed(turns):
            turn()

    def _measure_ours(self) -> None:
        steps = [step.partition("=") for step in self.case.steps.split()]
        words = [word for _, timed, word in steps if timed]
        done = native.measure(self.case, words)
        self.ours.append(sum(step.ns for step in done if isinstance(step, Step)))

    def _measure_bare(self) -> None:
        _, name, thp = self.case.name.split(".")
        ((prefault, protect),) = native.call(
            "bare", name, thp.removeprefix("thp_"), str(self.case.bytes)
        )
        self.bare.append(int(prefault) + int(protect))


def hold_against_bare(size: int, runs: int) -> bool:
    """Whether all of the thread's cases agree with the bare program; says so for each.

    Raises BenchError.
    """
    pairs = [Pair(case) for case in cases.choose(cases.all_cases(size), ["order"])]
    for number in range(runs + 1):
        say(f"round {number} of {runs}" if number else "warming up")
        for pair in pairs:
            pair.measure()
    verdicts = [_verdict(pair) for pair in pairs]
    return all(verdicts)


def _verdict(pair: Pair) -> bool:
    both = list(zip(pair.ours, pair.bare, strict=True))[1:]  # without the round that warms up
    found = stats.estimate(lambda off: off, [ours / bare - 1 for ours, bare in both])
    short = median(abs(ours - bare) for ours, bare in both) <= _RESOLUTION
    agrees = abs(found.value) <= TOLERANCE or short
    if agrees:
        verdict = "agrees"
    elif found.low > TOLERANCE or found.high < -TOLERANCE:
        verdict = f"DIFFERS from the bare program by more than {TOLERANCE:.0%}"
    else:
        verdict = "undecided: name more --runs, on a machine that does nothing else"
    interval = f"[{found.low:+.2%} {found.high:+.2%}]"
    print(f"{pair.case.name:<28} {found.value:+7.2%} {interval:<19} {verdict}", flush=True)
    return agrees
