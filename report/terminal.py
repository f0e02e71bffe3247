# SPDX-License-Identifier: GPL-2.0-only
"""The summary for a person, on standard error: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from report.merge import Kernel, Run, State
from report.text import one_line

_SHOWN = 10  # of a kernel's failures
_WIDTH = 160
_STYLES = {State.PASSED: "green", State.XFAILED: "yellow", State.SKIPPED: "dim"}  # others: red
_ORDER = (State.PASSED, State.XFAILED, State.FAILED, State.TIMEOUT, State.CRASHED, State.SKIPPED)


def tell(run: Run, *, quiet: bool = False) -> None:
    """Each kernel's verdict and counts, and the first things that went wrong; if `quiet`, only
    of kernels that failed."""
    kernels = [k for k in run.kernels if k.state.red] if quiet else list(run.kernels)
    console = Console(stderr=True, highlight=False)
    if console.is_terminal and kernels:
        console.print(_table(kernels))
    for kernel in kernels:
        failures = _failures(kernel)
        if not console.is_terminal:
            note(_line(kernel))
        elif failures:
            note(f"{kernel.name}:")
        note(*failures)


def note(*lines: str) -> None:
    """Lines on standard error."""
    for line in lines:
        print(line, file=sys.stderr)


def _table(kernels: list[Kernel]) -> Table:
    counts = [Counter(case.state for case in kernel.cases) for kernel in kernels]
    present = [state for state in _ORDER if any(count[state] for count in counts)]
    table = Table("kernel", "verdict", box=None, pad_edge=False)
    for state in present:
        table.add_column(state, justify="right")
    for kernel, count in zip(kernels, counts, strict=True):
        numbers = (_coloured(state, str(count[state] or "")) for state in present)
        table.add_row(_name(kernel), _coloured(kernel.state, kernel.state), *numbers)
    return table


def _coloured(state: State, text: str) -> Text:
    return Text(text, _STYLES.get(state, "bold red"))


def _line(kernel: Kernel) -> str:
    counts = Counter(case.state for case in kernel.cases)
    told = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    return f"{_name(kernel)}: {kernel.state}: {told or 'no case'}"


def _name(kernel: Kernel) -> str:
    where = f" ({kernel.facts['accelerator']})" if "accelerator" in kernel.facts else ""
    return f"{kernel.name}{where}"


def _failures(kernel: Kernel) -> list[str]:
    red = [outcome for outcome in kernel.outcomes if outcome.state.red]
    lines = [f"  {o.state} " + one_line(f"{o.id}: {o.reason}", _WIDTH) for o in red[:_SHOWN]]
    if len(red) > _SHOWN:
        lines.append(f"  … and {len(red) - _SHOWN} more")
    return lines
