# SPDX-License-Identifier: GPL-2.0-only
"""Watches the kernel log and the taint flags, so that a splat fails the case it came in.

What the kernel says between two cases, or after the last, fails the run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

_SPLAT = re.compile(
    r"\bWARNING: |\bBUG: |kernel BUG at|Oops|general protection fault|INFO: task .* blocked"
    r"|rcu: INFO: .*stall|soft lockup|UBSAN|KASAN|Bad page|Bad rss-counter|VM_WARN_ON"
)


@dataclass(frozen=True)
class Allowed:
    """A line that looks like a splat and says nothing of the kernel's memory management."""

    pattern: str
    reason: str
    link: str


ALLOWED = (
    Allowed(
        r"^(Spectre|Speculative|RETBleed|MDS|TAA|SRBDS|Transient|VMSCAPE)[^:]*: WARNING: ",
        "tells at boot that the CPU is vulnerable and how far that is mitigated",
        "Documentation/admin-guide/hw-vuln/index.rst",
    ),
    Allowed(
        r"^INFO: task subject:\d+ blocked for more than ",
        "a subject that hangs in the kernel fails its own case, and is told here minutes later",
        "Documentation/admin-guide/sysctl/kernel.rst, hung_task_timeout_secs",
    ),
)

_LOG = "/dev/kmsg"
_TAINTED = "/proc/sys/kernel/tainted"
_KERNEL = 0  # the facility of the kernel's own messages, as syslog(3) numbers them


def splat(line: str) -> bool:
    """Whether a line of the kernel log is one that is never to be seen."""
    allowed = any(re.search(entry.pattern, line) for entry in ALLOWED)
    return bool(_SPLAT.search(line)) and not allowed


def message(record: str) -> str:
    """The text of a record of /dev/kmsg; "" of one that a process has written there.

    Source: Documentation/ABI/testing/dev-kmsg.
    """
    head, _, text = record.partition(";")
    priority = head.partition(",")[0]
    return text.partition("\n")[0] if int(priority) >> 3 == _KERNEL else ""


class KernelLog:
    """The kernel log from now on, or from boot. `unreadable` says why it can't be watched: the
    taint flags alone then tell."""

    def __init__(self, *, since_boot: bool = False) -> None:
        self.unreadable = ""
        self._flags = os.open(_TAINTED, os.O_RDONLY | os.O_CLOEXEC)
        self._taint = self._read_taint()
        try:
            self._descriptor = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not since_boot:
                os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            self._descriptor = -1
            self.unreadable = f"{_LOG}: {error.strerror}"

    def news(self) -> list[str]:
        """The lines since the last call that tell of a splat, and a change of the taint flags."""
        found = [line for line in self._lines() if splat(line)]
        taint = self._read_taint()
        if taint != self._taint:
            found.append(f"the kernel's taint flags went from {self._taint} to {taint}")
            self._taint = taint
        return found

    def _read_taint(self) -> str:
        return os.pread(self._flags, 32, 0).decode().strip()

    def _lines(self) -> Iterator[str]:
        while self._descriptor >= 0:
            try:
                yield message(os.read(self._descriptor, 8192).decode(errors="replace"))
            except BlockingIOError:
                break
            except BrokenPipeError:
                yield "WARNING: parts of the kernel log were overwritten before they were read"
