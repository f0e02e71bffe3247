# SPDX-License-Identifier: GPL-2.0-only
"""Random programs by hypothesis: made, run, compared with the model, shrunk.

Imported only by what runs them: hypothesis takes its time to import.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.errors import FlakyFailure
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

from helpers import programs
from helpers.machine import Machine
from helpers.model import PER_TABLE, STEPS, Op, World, sensible
from helpers.programs import VALUES
from helpers.subject import Subject, SubjectLost

_ROUND = 50  # programs; those whose time has run out still take theirs to be made
OPS = 30  # of a program, with those that shrinking turns into nothing
_OFTEN = ("protect", "load", "populate_read", "store")  # what gives the others something to act on
_WRITES = ("store", "kernel_write", "copy", "copy_protected", "fork")
_PATIENCE = 10  # times what programs take: one that takes longer, while it shrinks, is stuck again
_LEAST_SECONDS = 2.0
_FEW = 2  # pages that an operation page by page takes of a THP
_EDGES = (0, 1, 5, PER_TABLE - 1, PER_TABLE, PER_TABLE + 1, 2 * PER_TABLE - 1)


class Uniform(HypothesisProvider):
    """Draws each number alike.

    Hypothesis' own way prefers small numbers, and constants that it finds in the sources of the
    running program: for programs that is of no use, and each change of a source would change what
    a seed stands for.
    """

    def draw_integer(
        self, min_value: int | None = None, max_value: int | None = None, **_: Any
    ) -> int:
        assert self._random is not None
        assert min_value is not None
        assert max_value is not None
        return self._random.randint(min_value, max_value)


AVAILABLE_PROVIDERS["uniform"] = f"{__name__}.{Uniform.__name__}"


def _ranges(world: World) -> list[tuple[int, int]]:
    """First page and length of the ranges that programs act on."""
    if not world.thp:
        count = world.pages
        return [(n, length) for length in range(1, count + 1) for n in range(count - length + 1)]
    whole = [(0, PER_TABLE), (PER_TABLE, PER_TABLE), (0, 2 * PER_TABLE)]
    pieces = [(PER_TABLE - 2, 4), (1, PER_TABLE - 1), (PER_TABLE, PER_TABLE - 1)]
    return [(n, 1) for n in _EDGES] + whole + pieces


def _names(world: World) -> list[str]:
    """The operations that programs of a world are made of, some of them more than once."""
    possible = [name for name in STEPS if sensible(world, [Op(name)])]
    return possible + [name for name in _OFTEN if name in possible]


def program(world: World) -> st.SearchStrategy[list[Op]]:
    """Programs of a world. Each operation is one number, 0 is none: so they shrink well."""
    ranges, names = _ranges(world), _names(world)

    def decoded(number: int) -> Op:
        rest, name_number = divmod(number - 1, len(names))
        value, place = divmod(rest, len(ranges))
        name, (first, length) = names[name_number], ranges[place]
        if world.thp and name.startswith("populate"):
            length = min(length, _FEW)
        return Op(name, first, length, value + 1 if name in _WRITES else 0)

    count = len(names) * len(ranges) * (VALUES - 1)
    numbers = st.lists(st.integers(0, count), min_size=OPS, max_size=OPS)
    return numbers.map(lambda chosen: sensible(world, map(decoded, filter(None, chosen))))


class Hunt:
    """Runs programs of a world, each in a fresh subject, and compares them with the model."""

    def __init__(self, world: World, machine: Machine, fresh: Callable[[], Subject]) -> None:
        self.world = programs.on(machine, world)
        self.machine = machine
        self.fresh = fresh
        self.taken = programs.Taken()
        self.programs = self.operations = 0  # that were run
        self._last: list[Op] = []  # the last one, or the shortest that has failed
        self._end = math.inf  # when no further program is begun
        self._longest = 0.0  # seconds that a program took which came to its end
        self._failed: Exception | None = None

    def run(
        self, count: int, *, seed: int, corpus: Path | None = None, seconds: float = math.inf
    ) -> None:
        """Runs `count` programs, the same ones for the same seed, after those that failed before
        and are in the corpus; on a slow machine only as many of them as begin in `seconds`, and
        one at least.

        Raises Disagreement or SubjectLost for the shortest one that fails.
        """
        self._end, self._failed = time.monotonic() + seconds, None
        test = hypothesis.seed(seed)(hypothesis.given(program(self.world))(self._holds))
        bounded = settings(
            max_examples=count,
            database=DirectoryBasedExampleDatabase(corpus / self.world.name) if corpus else None,
            backend="uniform",
            deadline=None,
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=tuple(HealthCheck),
        )
        try:
            bounded(test)()
        except FlakyFailure as flaky:  # one that fails at times
            assert self._failed is not None
            raise self._failed from flaky

    def run_for(self, seconds: float, corpus: Path) -> None:
        """Runs ever new programs for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            left = end - time.monotonic()
            self.run(_ROUND, seed=secrets.randbelow(1 << 32), corpus=corpus, seconds=left)

    def _holds(self, chosen: list[Op]) -> None:
        if self.programs and time.monotonic() > self._end and not self._failed:
            return
        if self._failed is None:
            self._last = chosen
        subject, begun = self.fresh(), time.monotonic()
        if isinstance(self._failed, SubjectLost):
            subject.hurry(max(_LEAST_SECONDS, _PATIENCE * self._longest))
        try:
            seen = programs.run(subject, self.machine, self.world, chosen)
            self._longest = max(self._longest, time.monotonic() - begun)
            self.programs += 1
            self.operations += len(chosen)
            self.taken += programs.check(self.world, chosen, seen)
        except (programs.Disagreement, SubjectLost) as failed:
            self._failed = failed  # what follows are attempts to shrink it
            self._last = chosen
            raise
        finally:
            subject.close()

    def slowly(self, subject: Subject) -> None:
        """Runs the program that has failed once more, so that it is on the subject's tape."""
        slowly(subject, self.machine, self.world, self._last)


def slowly(subject: Subject, machine: Machine, world: World, chosen: list[Op]) -> None:
    """Runs a program request by request. Raises Disagreement, SubjectLost; where it comes to what
    the model allows, its tape is no proof of the contrary."""
    programs.check(world, chosen, programs.run_slowly(subject, machine, world, chosen))
    subject.note("beyond", "request by request, the program does as the model says")
