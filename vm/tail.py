# SPDX-License-Identifier: GPL-2.0-only
"""Follows the stream that a guest writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Tail:
    """Reads what has come to a file of JSON lines since the last look.

    A line that isn't JSON is passed over: a guest that dies, or a kernel that is broken, may
    leave anything behind. A last line without its end is left for the next look.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def news(self) -> list[dict[str, Any]]:
        """The new events. Raises OSError, but not for a file that isn't there yet."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [event for line in whole.split(b"\n") if (event := _event(line)) is not None]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
