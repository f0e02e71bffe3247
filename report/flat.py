# SPDX-License-Identifier: GPL-2.0-only
"""A run as one flat table, a line for each case and check of each kernel: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

from report.merge import AXES, Run
from report.text import one_line

COLUMNS = (
    "kernel",
    "id",
    "result",
    "seconds",
    "clause",
    "kind",
    "page",
    "thp",
    "features",
    "reason",
)
_REASON = 500  # characters


def rows(run: Run) -> Iterator[tuple[str, ...]]:
    """The lines, in the order of COLUMNS; seconds as a decimal number."""
    for kernel in run.kernels:
        for outcome in kernel.outcomes:
            axes = (outcome.axes.get(name, "") for name in AXES)
            reason = one_line(outcome.reason, _REASON)
            seconds = f"{outcome.seconds:.6f}"
            yield (kernel.name, outcome.id, outcome.state, seconds, outcome.clause, *axes, reason)


def as_csv(run: Run) -> str:
    """The table as CSV with a head line, as RFC 4180 has it."""
    file = io.StringIO()
    csv.writer(file).writerows((COLUMNS, *rows(run)))
    return file.getvalue()


def as_json(run: Run) -> str:
    """The table as a JSON list of objects, each on its own line."""
    lines = (json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows(run))
    return "[\n" + ",\n".join(lines) + "\n]\n"
