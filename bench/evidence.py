# SPDX-License-Identifier: GPL-2.0-only
"""Proof that a case measured what it says: the state of the memory, the faults, the pages found.

A kernel without PAGEMAP_SCAN (before 6.7) can't tell all of it; what it can't tell is not held
against a case.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.cases import Case
from bench.native import Look

# What a range of so many bytes looks like in each state.
_STATES: dict[str, Callable[[Look, int], bool]] = {
    "any": lambda look, size: True,
    "none": lambda look, size: _is(look.present, 0) and _is(look.marked, 0),
    "markers": lambda look, size: _is(look.present, 0) and _is(look.marked, size),
    "zero": lambda look, size: _is(look.zero, size) and _is(look.huge, 0),
    "huge_zero": lambda look, size: (
        _is(look.zero, size) and _is(look.huge, size) and not look.anon_huge
    ),
    "present": lambda look, size: _is(look.present, size),
    "small": lambda look, size: (
        _is(look.present, size) and _is(look.huge, 0) and _is(look.zero, 0) and not look.anon_huge
    ),
    "thp": lambda look, size: look.anon_huge == size and _is(look.huge, size),
}


def _is(found: int | None, wanted: int) -> bool:
    return found is None or found == wanted


def fault(case: Case, states: list[str], looks: list[Look], counts: list[int]) -> str | None:
    """Why a run of a case does not count; None where all is as it should be."""
    for state, look in zip(states, looks, strict=True):
        if not _STATES[state](look, case.bytes):
            return f"the memory was not {state}: {look}"
    if case.counts is not None and case.counts not in counts:
        return f"it counted {' and '.join(map(str, counts))} pages where it should {case.counts}"
    return None
