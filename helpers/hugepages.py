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


def take(pages: int) -> int:
    """Adds pages to the pool; how many there were to be had. Raises OSError."""
    if not HUGETLB_KNOBS.exists():
        return 0
    before = size()
    _POOL.write_text(str(before + pages))
    return size() - before


def give_back(pages: int) -> None:
    """Takes as many pages out of the pool. Raises OSError."""
    if pages:
        _POOL.write_text(str(max(0, size() - pages)))
