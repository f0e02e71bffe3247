# SPDX-License-Identifier: GPL-2.0-only
"""Follows the stream that a guest writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import stream


class Tail:
    """Reads what has come to a stream since the last look.

    What can't be read becomes an event stream.GARBLED: a guest that dies, or a kernel that is
    broken, may leave anything behind. A last line without its end is left for the next look.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def news(self, *, over: bool = False) -> list[dict[str, Any]]:
        """The new events; `over` takes a last line without its end, too: nothing more will come.

        Raises OSError, but not for a file that isn't there yet.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data if over else data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.decode(errors="replace").split("\n")
        return [event for line in lines for event in stream.events(line)]
