# SPDX-License-Identifier: GPL-2.0-only
"""What is measured: each case is a row of steps on a fresh mapping, in sections.

A step is a word of native/measure.c. `label=word` is timed under that label; a word without a
label arranges. `look:STATE` proves, outside of the timed calls, what the memory is (evidence.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench.errors import BenchError
from helpers.procfs import HUGETLB_BYTES
from helpers.uapi import Feature

MIB, GIB = 1 << 20, 1 << 30
PAGE_BYTES = 4096
BLOCK_BYTES = 2 * MIB  # that one page table maps, and one huge page
BLOCK_PAGES = BLOCK_BYTES // PAGE_BYTES

THREAD_SIZE = 10 * GIB  # of the range that the thread measured
LEAST_SIZE = 64 * MIB
THREAD = ("DEFAULT", "PRE-READ", "MADVISE", "WP-UNPOPULATE")
SECTIONS = ("order", "later", "undo", "tracking", "scaling")
WRITTEN_PERCENT = {0: 0, 1: 100, 10: 10, 100: 1}  # and one page of how many that is

_SMALLER = (64 * MIB, 256 * MIB, GIB, 4 * GIB)
_PLAIN = Feature(0)
_WPU = Feature.WP_UNPOPULATED
_ASYNC = Feature.WP_ASYNC


@dataclass(frozen=True)
class Case:
    """One row of steps."""

    name: str  # dotted, unique; the first part is the section
    bytes: int
    steps: str
    thp: bool = False
    kind: str = "anon"
    features: Feature | None = _PLAIN  # None: no userfaultfd
    counts: int | None = None  # the faults or pages that some timed step has to count

    @property
    def pages(self) -> int:
        return self.bytes // page_bytes(self.kind)


def page_bytes(kind: str) -> int:
    """The size in bytes of the pages of a kind of memory."""
    return HUGETLB_BYTES if kind == "hugetlb" else PAGE_BYTES


def _thp(on: bool) -> str:
    return "thp_on" if on else "thp_off"


def _thread() -> Iterator[tuple[str, bool, Feature, str]]:
    """The four cases of the thread, with THP off and on: name, THP, features, steps."""
    for thp in (False, True):
        zero = "look:huge_zero" if thp else "look:zero"
        yield "DEFAULT", thp, _PLAIN, "look:none protect=protect look:none"
        read = f"look:none prefault=read {zero} protect=protect {zero}"
        yield "PRE-READ", thp, _PLAIN, read
        yield "MADVISE", thp, _PLAIN, read.replace("=read", "=populate")
        yield "WP-UNPOPULATE", thp, _WPU, "look:none protect=protect look:markers"


def _order(size: int) -> Iterator[Case]:
    for name, thp, features, steps in _thread():
        yield Case(f"order.{name}.{_thp(thp)}", size, steps, thp, features=features)


def _scaling(size: int) -> Iterator[Case]:
    """The same for smaller ranges, and the physical limit: writing what page tables hold."""
    for smaller in (each for each in _SMALLER if each < size):
        for name, thp, features, steps in _thread():
            case = f"scaling.{name}.{_thp(thp)}.{smaller // MIB}M"
            yield Case(case, smaller, steps, thp, features=features)
    yield Case("scaling.limit", size, "buffer limit=tables", features=None)


@dataclass(frozen=True)
class _State:
    """What memory is before it is protected, and how it is made so."""

    name: str
    steps: str
    looks: str  # in PAGEMAP_SCAN, once it is protected
    thp: bool = False
    kind: str = "anon"

    @property
    def protected(self) -> Feature:
        """What protecting it takes: nothing where there are pages, or in files."""
        return _PLAIN if self.steps or self.kind != "anon" else _WPU

    @property
    def case(self) -> str:
        return f"{self.name}.{self.kind}.{_thp(self.thp)}"


_STATES = (
    _State("none", "", "markers"),
    _State("zero_page", "populate", "zero"),
    _State("populated", "write", "small"),
    _State("none", "", "markers", thp=True),
    _State("huge_zero_page", "populate", "huge_zero", thp=True),
    _State("populated", "write", "thp", thp=True),
    _State("hole", "", "markers", kind="shmem"),
    _State("populated", "write", "present", kind="shmem"),
    _State("hole", "", "markers", kind="hugetlb"),
    _State("populated", "write", "present", kind="hugetlb"),
)
_HUGE_STATES = _STATES[3:6]


def _first_writes(state: _State, size: int, every: int, suffix: str) -> Iterator[Case]:
    """The first write to each page: unprotected, resolved by a handler, and async."""
    written = -(-size // page_bytes(state.kind) // every)
    modes = (
        ("free", _PLAIN, "", None),
        ("sync", state.protected, f"protect look:{state.looks} serve", written),
        ("async", _ASYNC, f"protect look:{state.looks}", 0),
    )
    for mode, features, protect, faults in modes:
        steps = f"look:none {state.steps} {protect} first=write:{every} look:any"
        name = f"later.{state.case}.{mode}{suffix}"
        yield Case(name, size, steps, state.thp, state.kind, features, faults)


def _later(size: int) -> Iterator[Case]:
    """What was put off: the first write after protection."""
    dense, sparse = _down(min(128 * MIB, size // 8)), _down(min(512 * MIB, size // 2))
    for state in _STATES:
        yield from _first_writes(state, dense, 1, "")
    for state in _HUGE_STATES:
        yield from _first_writes(state, sparse, BLOCK_PAGES, ".one_page_of_each_2M")
    lost = "look:none protect unprotect look:none first=write look:small"
    yield Case("later.none.anon.thp_on.unprotected", dense, lost, True, features=_WPU)


def _undo(size: int) -> Iterator[Case]:
    """Protecting, unprotecting, and protecting again."""
    for state in _STATES:
        steps = f"look:none {state.steps} protect=protect look:{state.looks}"
        steps += " unprotect=unprotect again=protect look:any"
        written = _down(min(128 * MIB, size // 8))
        name = f"undo.{state.case}"
        yield Case(name, written, steps, state.thp, state.kind, state.protected)


def _tracking(size: int) -> Iterator[Case]:
    """A round of dirty tracking on populated memory: the writes, and collecting them."""
    tracked = _down(min(128 * MIB, size // 8))
    methods = {
        "uffd_async": (_ASYNC, "protect", "scan"),
        "uffd_sync": (_PLAIN, "protect serve", "protect"),
        "soft_dirty": (None, "softdirty", "softdirty"),
        "mprotect": (None, "mprotect", "mprotect"),
    }
    for method, (features, arm, collect) in methods.items():
        for percent, every in WRITTEN_PERCENT.items():
            write = f"write=write:{every}" if every else ""
            steps = f"write look:small arm={arm} {write} collect={collect}"
            written = -(-tracked // PAGE_BYTES // every) if every else 0
            if method == "soft_dirty" and not every:  # what arming finds tells whether it is there
                written = tracked // PAGE_BYTES
            name = f"tracking.{method}.{percent}_percent"
            yield Case(name, tracked, steps, features=features, counts=written)


def _down(size: int) -> int:
    return size // BLOCK_BYTES * BLOCK_BYTES


def all_cases(size: int) -> list[Case]:
    """All cases for a range of `size` bytes."""
    makers = (_order, _later, _undo, _tracking, _scaling)
    return [case for make in makers for case in make(size)]


def choose(cases: list[Case], wanted: list[str]) -> list[Case]:
    """The cases that have one of the words in their name, or that match it as a pattern.

    Raises BenchError for a word that fits none.
    """
    for word in wanted:
        if not any(_fits(case, word) for case in cases):
            known = ", ".join((*SECTIONS, *THREAD))
            raise BenchError(f"no case fits {word!r}; there are {known}, and parts of full names")
    return [case for case in cases if any(_fits(case, word) for word in wanted)]


def _fits(case: Case, word: str) -> bool:
    return word in case.name.split(".") or fnmatchcase(case.name, word)
