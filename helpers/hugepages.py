# SPDX-License-Identifier: GPL-2.0-only
"""The pool of hugetlb pages, whose size is a global knob: helpers/lease.py changes it for a run."""

from __future__ import annotations

from helpers.procfs import HUGETLB_KNOBS

PAGES_PER_WORKER = 8
_POOL = HUGETLB_KNOBS / "nr_hugepages"


def size() -> int:
    """The pool's persistent pages: what is written to the knob. Pages given back while they
    are in use are surplus until they are freed, and the knob reads as the sum of both."""
    surplus = (HUGETLB_KNOBS / "surplus_hugepages").read_text()
    return int(_POOL.read_text()) - int(surplus)


def available() -> int:
    """The free pages that no mapping has reserved."""
    free, reserved = (
        (HUGETLB_KNOBS / f"{name}_hugepages").read_text() for name in ("free", "resv")
    )
    return int(free) - int(reserved)


def take(pages: int) -> int:
    """Makes so many more pages available, as far as they are to be had, and tells by how many
    the pool grew for it: by more, if surplus pages are reserved. Raises OSError."""
    if not HUGETLB_KNOBS.exists():
        return 0
    before, wanted = size(), available() + pages
    _POOL.write_text(str(before + pages))
    if (short := wanted - available()) > 0:  # surplus pages have become persistent
        _POOL.write_text(str(int(_POOL.read_text()) + short))
    return size() - before


def give_back(pages: int) -> None:
    """Takes as many pages out of the pool. Raises OSError."""
    if pages:
        _POOL.write_text(str(max(0, size() - pages)))
