# SPDX-License-Identifier: GPL-2.0-only
"""A run's figures as data: what is measured once, and read by the tables, the plot and the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.cases import Case
from bench.errors import BenchError
from bench.measure import Measured
from bench.native import Look
from helpers.uapi import Feature

SCHEMA = "uffd-wp benchmark 1"


@dataclass
class Run:
    """One run on one machine."""

    size: int  # bytes of the range that the thread's cases protect
    runs: int
    emulated: bool
    environment: dict[str, str]
    measured: dict[str, Measured]
    missing: dict[str, str]  # why a case is not measured, by its name
    notes: list[str] = field(default_factory=list)

    def series(self, name: str, *labels: str) -> Sequence[float] | None:
        """The nanoseconds of a case's labelled steps, summed, a round each; None if not measured.

        Without a label: of all of them.
        """
        measured = self.measured.get(name)
        if measured is None:
            return None
        wanted = [ns for label, ns in measured.ns.items() if not labels or label in labels]
        return [sum(round_) for round_ in zip(*wanted, strict=True)]

    def save(self, path: Path, summary: dict[str, Any]) -> None:
        """Writes all figures as JSON, and what they sum up to. Raises OSError."""
        cases = {name: _to_data(measured) for name, measured in self.measured.items()}
        data = {"schema": SCHEMA, **{k: v for k, v in vars(self).items() if k != "measured"}}
        path.parent.mkdir(parents=True, exist_ok=True)
        data |= {"summary": summary, "cases": cases}
        path.write_text(json.dumps(data, indent=1, default=vars) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Raises BenchError where the file is none of save()'s."""
        try:
            data = json.loads(path.read_text())
            if data.pop("schema") != SCHEMA:
                raise ValueError
            cases = data.pop("cases")
            del data["summary"]
            return cls(**data, measured={name: _from_data(each) for name, each in cases.items()})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            why = error.strerror if isinstance(error, OSError) else f"no {SCHEMA}"
            raise BenchError(f"{path}: {why}") from None


def _to_data(measured: Measured) -> dict[str, Any]:
    data = asdict(measured)
    return {**data.pop("case"), **data}


def _from_data(data: dict[str, Any]) -> Measured:
    looks = {name: data.pop(name) for name in ("before", "protected", "after")}
    ns = data.pop("ns")
    if data["features"] is not None:
        data["features"] = Feature(data["features"])
    return Measured(Case(**data), **{k: v and Look(**v) for k, v in looks.items()}, ns=ns)
