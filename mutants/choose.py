# SPDX-License-Identifier: GPL-2.0-only
"""Which cases are tried on a fault, and in which order: likely and cheap killers first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

# Chapters whose cases take long and fail of many things: they come when all others have passed.
_LATE = ("programs", "races", "scenarios")


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

    @property
    def cost(self) -> float:
        """The cheaper, and the fewer faults a case reaches, the sooner it is tried."""
        return self.seconds * len(self.faults)


def ordered(cases: Iterable[Reach]) -> list[str]:
    """The cases in the order in which they are tried: of each test the cheapest, then of each
    the next; those of the late chapters at the end."""
    by_test: dict[str, list[Reach]] = {}
    for case in sorted(cases, key=lambda case: case.cost):
        by_test.setdefault(case.test, []).append(case)
    rounds = zip_longest(*by_test.values())
    names = [case.case for turn in rounds for case in turn if case]
    return sorted(names, key=lambda name: name.partition(".")[0] in _LATE)


def reaching(number: int, reaches: Iterable[Reach], most: int) -> list[str]:
    """At most so many of the cases that reach a fault."""
    return ordered(reach for reach in reaches if number in reach.faults)[:most]


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
