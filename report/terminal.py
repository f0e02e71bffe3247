# SPDX-License-Identifier: GPL-2.0-only
"""The summary for a person, on standard error: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from report.merge import Kernel, Run, State
from report.text import one_line

_SHOWN = 10  # of a kernel's failures
_WIDTH = 160
_STYLES = {State.PASSED: "green", State.FAILED: "bold red", State.SKIPPED: "dim"}


def tell(run: Run, *, quiet: bool = False) -> None:
    """Each kernel's verdict and counts, and the first things that went wrong; if `quiet`, only
    of kernels that failed."""
    kernels = [k for k in run.kernels if k.state.red] if quiet else list(run.kernels)
    console = Console(stderr=True, highlight=False)
    if console.is_terminal and kernels:
        console.print(_table(kernels))
    for kernel in kernels:
        if not console.is_terminal:
            print(_line(kernel), file=sys.stderr)
        note(*_failures(kernel))


def note(*lines: str) -> None:
    """Lines on standard error."""
    for line in lines:
        print(line, file=sys.stderr)


def _table(kernels: list[Kernel]) -> Table:
    present = [s for s in State if any(c.state is s for k in kernels for c in k.cases)]
    table = Table("kernel", "verdict", *present, box=None)
    for kernel in kernels:
        counts = Counter(case.state for case in kernel.cases)
        verdict = f"[{_STYLES[kernel.state]}]{kernel.state}[/]"
        table.add_row(_name(kernel), verdict, *(str(counts[state] or "") for state in present))
    return table


def _line(kernel: Kernel) -> str:
    counts = Counter(case.state for case in kernel.cases)
    told = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
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
