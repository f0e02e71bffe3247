# SPDX-License-Identifier: GPL-2.0-only
"""A run as the signals that LAVA takes its results from.

A kernel message may cut a signal in two on a console; so they come in one go after the run.
"""

from __future__ import annotations

from collections.abc import Iterator

from report.merge import Run, State

_RESULTS = {State.PASSED: "pass", State.SKIPPED: "skip", State.XFAILED: "pass"}


def lines(run: Run) -> Iterator[str]:
    """The lines, a test set for each kernel. LAVA knows no expected failure: one passes, for it
    tells of nothing new; the other reports have it."""
    for kernel in run.kernels:
        yield f"<LAVA_SIGNAL_TESTSET START {kernel.name}>"
        for outcome in kernel.outcomes:
            result = _RESULTS.get(outcome.state, "fail")
            yield f"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID={outcome.id} RESULT={result}>"
        yield "<LAVA_SIGNAL_TESTSET STOP>"
