# SPDX-License-Identifier: GPL-2.0-only
"""khugepaged: kept away from the cases' pages, or sent to them.

It scans the address spaces that asked for huge pages one after another, 4096 pages at a time,
and would collapse what a case has arranged. A decoy in the root subject, whose address space is
before those of the cases, takes it hours. A case about khugepaged turns the decoy off.

Source: Documentation/admin-guide/mm/transhuge.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from helpers import knobs
from helpers.procfs import THP_KNOBS
from helpers.subject import Subject
from helpers.uapi import Advice, Map, Prot

_DECOY = (32 << 40, 16 << 40)  # start and size: above the arena
_KNOBS = THP_KNOBS / "khugepaged"
_EAGER = {_KNOBS / "scan_sleep_millisecs": "1", _KNOBS / "pages_to_scan": "100000"}


def keep_busy(root: Subject) -> None:
    """Gives khugepaged an endless range to scan, of which one page is ever mapped."""
    start, size = _DECOY
    try:
        root.mmap(size, Prot.RW, Map.PRIVATE | Map.ANONYMOUS | Map.NORESERVE, at=start)
        root.main.store(start, 1).result()  # it passes over what was never written to
        root.madvise(start, size, Advice.HUGEPAGE)
        root.madvise(start, size, Advice.DONTFORK)
    except OSError:
        pass  # no THP, hence no khugepaged; or too small an address space


@contextmanager
def set_free(root: Subject) -> Iterator[None]:
    """Has khugepaged scan all address spaces, again and again. Raises OSError."""
    root.madvise(*_DECOY, Advice.NOHUGEPAGE)
    try:
        with knobs.set_to(_EAGER):
            yield
    finally:
        root.madvise(*_DECOY, Advice.HUGEPAGE)


def await_full_scans(count: int) -> None:
    """Waits until it has been through all address spaces so often. Raises Unproven."""
    wanted = _full_scans() + count
    knobs.await_that(lambda: _full_scans() >= wanted, "khugepaged has not scanned all")


def _full_scans() -> int:
    return int((_KNOBS / "full_scans").read_text())
