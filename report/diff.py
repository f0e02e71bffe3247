# SPDX-License-Identifier: GPL-2.0-only
"""What changed from one run to another, case by case on each kernel that both have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from report.merge import Kernel, Outcome, Run, State


class Kind(StrEnum):
    """What became of a case, from the worst."""

    REGRESSED = "regressed"  # red now, and was not
    NEW_FAILURE = "new and failing"
    LOST = "no longer tested"  # skipped or gone, and was put to the test
    FIXED = "fixed"  # was red
    NEW = "new"
    FOUND = "now tested"  # was skipped


@dataclass(frozen=True)
class Change:
    """A case, or a check of the run, on one kernel; None: the run does not have it."""

    kind: Kind
    kernel: str
    before: Outcome | None
    after: Outcome | None

    @property
    def id(self) -> str:
        outcome = self.after or self.before
        assert outcome is not None
        return outcome.id

    @property
    def worse(self) -> bool:
        return self.kind in (Kind.REGRESSED, Kind.NEW_FAILURE)


def changes(before: Run, after: Run) -> list[Change]:
    """The changes, the worst first. A kernel that one of the runs lacks is no change; if each
    has one kernel only, these are compared whatever their names are."""
    found = [change for pair in _pairs(before, after) for change in _of_kernel(*pair)]
    order = list(Kind)
    return sorted(found, key=lambda change: (order.index(change.kind), change.kernel, change.id))


def _pairs(before: Run, after: Run) -> list[tuple[Kernel, Kernel]]:
    if len(before.kernels) == len(after.kernels) == 1:
        return [(before.kernels[0], after.kernels[0])]
    earlier = {kernel.name: kernel for kernel in before.kernels}
    return [(earlier[k.name], k) for k in after.kernels if k.name in earlier]


def _of_kernel(before: Kernel, after: Kernel) -> Iterator[Change]:
    earlier = {outcome.id: outcome for outcome in before.outcomes}
    later = {outcome.id: outcome for outcome in after.outcomes}
    for name in earlier.keys() | later.keys():
        then, now = earlier.get(name), later.get(name)
        if kind := _kind(then, now):
            yield Change(kind, after.name, then, now)


def _kind(then: Outcome | None, now: Outcome | None) -> Kind | None:
    if now is None:
        tested = then is not None and then.state is not State.SKIPPED
        return Kind.LOST if tested else None
    if then is None:
        return Kind.NEW_FAILURE if now.state.red else Kind.NEW
    if now.state.red:
        return None if then.state.red else Kind.REGRESSED
    if then.state.red:
        return Kind.LOST if now.state is State.SKIPPED else Kind.FIXED
    skipped = (then.state is State.SKIPPED, now.state is State.SKIPPED)
    return {(False, True): Kind.LOST, (True, False): Kind.FOUND}.get(skipped)


def lines(changes: list[Change]) -> Iterator[str]:
    """A table: what became of it, kernel, case, and from which state to which."""
    if not changes:
        yield "nothing changed"
        return
    left = max(len(change.kind) for change in changes)
    middle = max(len(change.kernel) for change in changes)
    for change in changes:
        then, now = (o.state if o else "absent" for o in (change.before, change.after))
        what = f"{change.kind:<{left}}  {change.kernel:<{middle}}"
        yield f"{what}  {change.id}  {then} -> {now}"
    counts = Counter(change.kind for change in changes)
    yield ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])


def mail(changes: list[Change]) -> Iterator[str]:
    """What failed that did not, each with what it told: to be mailed."""
    worse = [change for change in changes if change.worse]
    yield f"new failures: {len(worse)}"
    for change in worse:
        assert change.after is not None
        yield ""
        yield f"{change.kernel}: {change.id}: {change.after.state}"
        yield from filter(None, (change.after.reason, change.after.evidence))
