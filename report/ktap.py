# SPDX-License-Identifier: GPL-2.0-only
"""A run as KTAP version 1, a block of subtests for each kernel, as kselftest writes it.

A failure's reason stands in diagnostic lines before its result line and not behind it, where a
reason that begins with "skip" would turn the failure into a skip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from report.merge import Kernel, Outcome, Run, State
from report.text import one_line

_VERSION = "KTAP version 1"
_INDENT = "  "
_REASON_LINES = 20
_WIDTH = 500
_TOTALS = {
    "pass": (State.PASSED,),
    "fail": (State.FAILED, State.TIMEOUT),
    "xfail": (State.XFAILED,),
    "xpass": (),  # is a failure: the list of known issues is strict
    "skip": (State.SKIPPED,),
    "error": (State.CRASHED,),
}


def lines(run: Run) -> Iterator[str]:
    """The lines, without line ends."""
    yield _VERSION
    yield f"1..{len(run.kernels)}"
    for number, kernel in enumerate(run.kernels, 1):
        yield from (_INDENT + line for line in _kernel(kernel))
        result = "not ok" if kernel.state.red else "ok"
        skip = " # SKIP no case was put to the test" if kernel.state is State.SKIPPED else ""
        yield f"{result} {number} {_description(kernel.name)}{skip}"


def _kernel(kernel: Kernel) -> Iterator[str]:
    yield _VERSION
    yield f"# Subtest: {_description(kernel.name)}"
    yield f"1..{len(kernel.outcomes)}"
    for number, outcome in enumerate(kernel.outcomes, 1):
        yield from _outcome(number, outcome)
    counts = Counter(outcome.state for outcome in kernel.outcomes)
    totals = (f"{key}:{sum(counts[s] for s in states)}" for key, states in _TOTALS.items())
    yield f"# Totals: {' '.join(totals)}"


def _outcome(number: int, outcome: Outcome) -> Iterator[str]:
    reason = one_line(outcome.reason, _WIDTH)
    line = f"{number} {outcome.id}"
    match outcome.state:
        case State.PASSED:
            yield f"ok {line}"
        case State.SKIPPED:
            yield f"ok {line} # SKIP {reason}".rstrip()
        case State.XFAILED:
            yield f"ok {line} # XFAIL {reason}".rstrip()
        case State.FAILED:
            yield from _diagnosis(outcome)
            yield f"not ok {line}"
        case State.TIMEOUT:
            yield from _diagnosis(outcome)
            yield f"not ok {line} # TIMEOUT"
        case State.CRASHED:
            yield from _diagnosis(outcome)
            yield f"not ok {line} # ERROR crashed"


def _diagnosis(outcome: Outcome) -> Iterator[str]:
    told = outcome.reason.splitlines()
    for line in filter(str.strip, told[:_REASON_LINES]):
        yield f"# {outcome.id}: {one_line(line, _WIDTH)}"
    if len(told) > _REASON_LINES:
        yield f"# {outcome.id}: … and {len(told) - _REASON_LINES} lines more"


def _description(name: str) -> str:
    """A name without what would begin a directive."""
    return name.replace("#", "_")
