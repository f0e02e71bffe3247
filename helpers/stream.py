# SPDX-License-Identifier: GPL-2.0-only
"""The result stream: JSON lines, each written with one write(2) and synced as it ends.

    {"event": "run",    "schema": 1, "kernel": {...}, "command": [...], "started": ...}
    {"event": "start",  "id": ..., "clause": ..., "axes": {...}, "worker": ...}
    {"event": "result", "id": ..., "clause": ..., "axes": {...}, "state": ..., "seconds": ...,
                        "reason": ..., "evidence": ...}
    {"event": "end",    "totals": {...}}

States: passed, failed, skipped, xfailed, timeout, crashed. Any number of processes append
to one file; a case that has started and has no result was in flight when the run was lost. The
result of a case that took its worker along has no clause, axes, seconds or evidence.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 1
STATES = ("passed", "failed", "skipped", "xfailed", "timeout", "crashed")


class Stream:
    """An append-only file of events."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises OSError."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )

    def write(self, event: str, *, sync: bool = True, **fields: Any) -> None:
        """Appends one event; with `sync`, it is on the disk when this returns."""
        line = json.dumps({"event": event, **fields}, ensure_ascii=True) + "\n"
        os.write(self._descriptor, line.encode())
        if sync:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a stream; a last line that was cut short is left out."""
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def in_flight(events: list[dict[str, Any]]) -> list[str]:
    """The ids of cases that have started and have no result."""
    ended = {event["id"] for event in events if event["event"] == "result"}
    return [e["id"] for e in events if e["event"] == "start" and e["id"] not in ended]
