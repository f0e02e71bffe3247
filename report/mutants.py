# SPDX-License-Identifier: GPL-2.0-only
"""The mutation score, as `python -m mutants` leaves it: which faults planted in a kernel the suite
finds.

    {"release": ..., "score": PERCENT, "selftests": TEXT,
     "faults": [{"id": ..., "place": "FILE:LINE", "fault": TEXT, "state": ..., "killer": CASE,
                 "clause": ..., "reason": why it survived, ...}]}

States: killed; equivalent or unreachable, which no case could kill; and why another survived.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from report.merge import Unreadable

KILLED = "killed"
EXCUSED = ("equivalent", "unreachable")


@dataclass(frozen=True)
class Fault:
    """One fault, and what became of it."""

    id: str
    place: str
    fault: str
    state: str
    killer: str
    clause: str
    reason: str

    @property
    def file(self) -> str:
        return self.place.partition(":")[0]


@dataclass(frozen=True)
class Score:
    """What was found in one kernel."""

    release: str
    percent: float  # of the faults that a case could kill, those that one does
    selftests: str  # what the kernel's selftests find of them; "": not tried
    faults: tuple[Fault, ...]

    @property
    def states(self) -> dict[str, list[Fault]]:
        """The faults by state: killed first, excused last."""
        found: dict[str, list[Fault]] = {}
        for fault in self.faults:
            found.setdefault(fault.state, []).append(fault)
        order = sorted(found, key=lambda state: (state != KILLED, state in EXCUSED, state))
        return {state: found[state] for state in order}

    @property
    def files(self) -> dict[str, Counter[str]]:
        """How many faults of each file ended how."""
        found: dict[str, Counter[str]] = {}
        for fault in self.faults:
            found.setdefault(fault.file, Counter())[fault.state] += 1
        return found


def load(path: Path) -> Score:
    """Raises Unreadable or OSError."""
    try:
        table = json.loads(path.read_text())
        faults = [Fault(*(str(f[field.name]) for field in fields(Fault))) for f in table["faults"]]
        selftests = str(table["selftests"])
        return Score(str(table["release"]), float(table["score"]), selftests, tuple(faults))
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable(f"{path}: not a table of `python -m mutants`: {error!r}") from None
