# SPDX-License-Identifier: GPL-2.0-only
"""Which cases are tried on a fault, and in which order: likely and cheap killers first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

# Chapters whose cases take long and fail of many things: they come when all others have passed.
_LATE = ("programs", "races", "scenarios")
_LATE_SHARE = 8  # but every so many of those that are tried may be theirs


@dataclass(frozen=True)
class Reach:
    """What a case did on the kernel on which no fault acts."""

    case: str
    clause: str
    seconds: float
    faults: frozenset[int]

    @property
    def test(self) -> str:
        """The test that it is a case of, as CHAPTER.NAME."""
        return ".".join(self.case.split(".")[:2])

    @cached_property
    def values(self) -> frozenset[str]:
        """Those of its axes and parameters."""
        return frozenset(self.case.removeprefix(self.test).lstrip(".").split("-"))

    @cached_property
    def cost(self) -> float:
        """The cheaper, and the fewer faults a case reaches, the sooner it is tried."""
        return self.seconds * len(self.faults)


def _varied(cases: list[Reach]) -> list[Reach]:
    """A test's cases: the cheapest first, then each time the one with the most values of axes and
    parameters that those before it don't have."""
    left, seen, chosen = sorted(cases, key=lambda case: case.cost), set[str](), list[Reach]()
    while left:
        case = max(left, key=lambda case: len(case.values - seen))  # the cheapest of the best
        seen |= case.values
        chosen.append(case)
        left.remove(case)
    return chosen


def by_test(cases: Iterable[Reach]) -> list[list[Reach]]:
    """The cases of each test in the order in which they are tried; the quickest tests first."""
    found: dict[str, list[Reach]] = {}
    for case in sorted(cases, key=lambda case: case.cost):
        found.setdefault(case.test, []).append(case)
    return [_varied(listed) for listed in found.values()]


def reaching(number: int, tests: Iterable[list[Reach]], most: int) -> list[str]:
    """At most so many of the cases that reach a fault: of each test the first, then of each the
    next; those of the late chapters, of which a few are always among them, at the end."""
    reach = ([case for case in listed if number in case.faults] for listed in tests)
    names = [case.case for turn in zip_longest(*reach) for case in turn if case]
    late = [name for name in names if name.partition(".")[0] in _LATE]
    first = [name for name in names if name.partition(".")[0] not in _LATE]
    first = first[: most - min(len(late), most // _LATE_SHARE)]
    return [*first, *late[: most - len(first)]]


def passed(events: Iterable[dict[str, object]]) -> Iterator[Reach]:
    """The cases of a stream that passed, and what they reach."""
    faults: dict[str, frozenset[int]] = {}
    results: dict[str, tuple[str, float]] = {}
    for event in events:
        match event:
            case {"event": "result", "id": str(name), "state": "passed"}:
                results[name] = str(event["clause"]), float(str(event["seconds"]))
            case {"event": "reach", "id": str(name), "faults": list(numbers)}:
                faults[name] = frozenset(numbers)
    for name, (clause, seconds) in results.items():
        if name in faults:
            yield Reach(name, clause, seconds, faults[name])
