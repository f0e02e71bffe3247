# SPDX-License-Identifier: GPL-2.0-only
"""The result stream: JSON lines, each written with one write(2) and synced as it ends.

    {"event": "run",    "schema": 1, "kernel": {...}, "command": [...], "started": ...}
    {"event": "plan",   "ids": [...]}
    {"event": "start",  "id": ..., "clause": ..., "axes": {...}, "worker": ...}
    {"event": "result", "id": ..., "clause": ..., "axes": {...}, "state": ..., "seconds": ...,
                        "reason": ..., "evidence": ..., "reproducer": ...}
    {"event": "splat",  "lines": [...]}
    {"event": "end",    "totals": {...}}

`plan` names the cases that a process is going to run; under xdist there is none. `splat` tells
what the kernel complained of while no case ran.
States: passed, failed, skipped, xfailed, timeout, crashed. Any number of processes append
to one file; a case that has started and has no result was in flight when the run was lost. The
result of a case that took its worker along has no clause, axes, seconds, evidence or reproducer,
which is a C file's path ("": none).

A machine that goes down cuts the last line, and the next boot's first line may follow without a
line end; what was not on the disk yet may come back as zeros. So `read` takes what it can.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import procfs

SCHEMA = 1
STATES = ("passed", "failed", "skipped", "xfailed", "timeout", "crashed")
GARBLED = "garbled"
_BEGINNING = re.compile(r'(?=\{"event": ?")')  # inside an event's text its quotes are escaped
_BLANK = " \t\r\0"
_EXCERPT = 200
_DECODER = json.JSONDecoder(strict=False)  # a control character inside a text is bearable


class Stream:
    """An append-only file of events."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises OSError."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        # a guest's stream is with the host as soon as it is written, and the host lives on
        self._synced = procfs.file_system(path) != "9p"

    def write(self, event: str, *, sync: bool = True, **fields: Any) -> None:
        """Appends one event; with `sync`, it outlives the kernel when this returns."""
        line = json.dumps({"event": event, **fields}, ensure_ascii=True) + "\n"
        os.write(self._descriptor, line.encode())
        if sync and self._synced:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a stream. In the place of what can't be read stands an event GARBLED, with
    the start of that `text`."""
    lines = path.read_bytes().decode(errors="replace").split("\n")
    return [event for line in lines for event in events(line)]


def events(line: str) -> Iterator[dict[str, Any]]:
    """The events of a line: one, or those that can be told from the rest by how they begin."""
    one = (
        line.rfind('{"event"') <= 0
    )  # as nearly all are, which splitting would take twice the time
    for piece in [line] if one else _BEGINNING.split(line):
        text = piece.strip(_BLANK)
        if not text:
            continue
        try:
            event, end = _DECODER.raw_decode(text)
            whole = isinstance(event["event"], str)
            if whole and event["event"] in ("start", "result"):
                whole = isinstance(event["id"], str)
        except (ValueError, TypeError, KeyError, RecursionError):
            whole = False
        if whole:
            yield event
        else:
            end = 0
        if text[end:]:
            yield {"event": GARBLED, "text": text[end:][:_EXCERPT]}


def ended(events: list[dict[str, Any]]) -> set[str]:
    """The ids of the cases that have a result."""
    return {event["id"] for event in events if event["event"] == "result"}


def in_flight(events: list[dict[str, Any]]) -> list[str]:
    """The ids of cases that have started and have no result."""
    done = ended(events)
    return [e["id"] for e in events if e["event"] == "start" and e["id"] not in done]
