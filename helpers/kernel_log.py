# SPDX-License-Identifier: GPL-2.0-only
"""Watches the kernel log and the taint flags, so that a splat fails the case it came in."""

from __future__ import annotations

import os
import re

from helpers import procfs

_SPLAT = re.compile(
    r"WARNING: |BUG: |kernel BUG at|Oops|general protection fault|INFO: task .* blocked"
    r"|rcu: INFO: .*stall|soft lockup|UBSAN|KASAN|Bad page|Bad rss-counter|VM_WARN_ON"
)
_TAINTED = "/proc/sys/kernel/tainted"


class KernelLog:
    """The kernel log from now on. Without the right to read it, the taint flags alone tell."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:
            self._descriptor = -1
        self._taint = procfs.read(_TAINTED)

    def news(self) -> list[str]:
        """The lines since the last call that tell of a splat, and a change of the taint flags."""
        found = [line for line in self._lines() if _SPLAT.search(line)]
        taint = procfs.read(_TAINTED)
        if taint != self._taint:
            found.append(f"the kernel's taint flags went from {self._taint} to {taint}")
            self._taint = taint
        return found

    def _lines(self) -> list[str]:
        lines: list[str] = []
        while self._descriptor >= 0:
            try:
                record = os.read(self._descriptor, 8192).decode(errors="replace")
            except BlockingIOError:
                break
            except OSError:  # EPIPE: records were overwritten before we read them
                continue
            lines.append(record.partition(";")[2].splitlines()[0])
        return lines
