# SPDX-License-Identifier: GPL-2.0-only
"""Merge the results of a run: one JUnit file, KTAP on standard output, a summary on standard error.

Exit status: 0 passed, 1 failed, 4 everything was skipped, 2 there is no run to report on.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from report import junit, ktap
from report.merge import Kernel, State, Unreadable, load
from report.text import one_line

_STATUS = {State.PASSED: 0, State.FAILED: 1, State.SKIPPED: 4}
_UNREADABLE = 2
_SHOWN = 10  # of a kernel's failures
_WIDTH = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser("report", description=__doc__.partition("\n\n")[0])
    parser.add_argument("run", metavar="RUN", type=Path, help="a folder with results")
    parser.add_argument(
        "--junit", metavar="FILE", type=Path, help="where the JUnit file goes (RUN/junit.xml)"
    )
    options = parser.parse_args(arguments)
    file = options.junit or options.run / "junit.xml"
    try:
        run = load(options.run)
        file.write_text(junit.document(run), encoding="utf-8")
    except (Unreadable, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return _UNREADABLE
    for line in ktap.lines(run):
        print(line)
    for kernel in run.kernels:
        for line in _summary(kernel):
            print(line, file=sys.stderr)
    print(f"JUnit: {file}", file=sys.stderr)
    return _STATUS[run.state]


def _summary(kernel: Kernel) -> Iterator[str]:
    """A kernel's verdict and counts, and the first things that went wrong."""
    counts = Counter(case.state for case in kernel.cases)
    told = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    where = f" ({kernel.facts['accelerator']})" if "accelerator" in kernel.facts else ""
    yield f"{kernel.name}{where}: {kernel.state}: {told or 'no case'}"
    red = [outcome for outcome in kernel.outcomes if outcome.state.red]
    for outcome in red[:_SHOWN]:
        yield f"  {outcome.state} " + one_line(f"{outcome.id}: {outcome.reason}", _WIDTH)
    if len(red) > _SHOWN:
        yield f"  … and {len(red) - _SHOWN} more"


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has seen enough, as of head
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character
    sys.exit(main())
