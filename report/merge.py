# SPDX-License-Identifier: GPL-2.0-only
"""From the streams of a run to a model of its results, in which each case ends in one state.

A run is a folder with a folder for each kernel, or the folder of one native run; such a folder
holds a `stream.jsonl` (helpers/stream.py), to which whoever watches a guest from outside adds:

    {"event": "boot",    "kernel": ..., "attempt": ..., "accelerator": ..., "why": ...}
    {"event": "lost",    "kernel": ..., "attempt": ..., "reason": "panic" | "hang" | "lost" |
                         "limit" | "no boot", "in_flight": [ids], "console": tail}
    {"event": "verdict", "kernel": ..., "expected_features": [...], "found_features": [...],
                         "missing": [...], "extra": [...]}

A stream may hold several boots one after another, may be cut short, and may be damaged. Nothing
of that may turn a verdict green: what is not known to have gone well is a check that did not pass.

    vm.boot.N         the Nth boot
    vm.lost.N         the Nth loss of a guest that had booted
    vm.features       the kernel has the features that it must have
    run.ended         every run came to its end, or its loss is on record
    run.counts        the stream has a result for each test that a run counted
    run.not_empty     the stream has results at all
    stream.readable   all of the stream could be read

The checks of the run and the stream are there only if they do not pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from helpers import stream
from report.text import clean, one_line

STREAM = "stream.jsonl"
CONSOLE = "console.log"
_LONGEST = 1e11  # seconds, and as a time since 1970 still one that datetime can hold
_TAIL = 16384  # of a console's characters: what is kept of one for a check without a tail
_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LOSSES = {
    "panic": "the kernel panicked",
    "hang": "the guest hung",
    "lost": "the guest was lost",
    "limit": "the time limit was reached",
    "no boot": "the kernel did not boot",
}


class Unreadable(Exception):
    """There is no run to report on; the message says why, in one line."""


# -- the model


class State(StrEnum):
    """How a case or a check ended. If a case has several results, the one that stands last
    here counts: a pass after a crash takes nothing back, a skip tells nothing."""

    SKIPPED = "skipped"
    PASSED = "passed"
    XFAILED = "xfailed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CRASHED = "crashed"

    @property
    def red(self) -> bool:
        return self in (State.FAILED, State.TIMEOUT, State.CRASHED)


_RANK = {state: rank for rank, state in enumerate(State)}


@dataclass(frozen=True)
class Outcome:
    """How one thing ended: a case, or a check of the run. All text is clean."""

    id: str
    state: State
    seconds: float = 0.0
    reason: str = ""
    evidence: str = ""
    clause: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)

    @property
    def chapter(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True)
class Kernel:
    """All that is known of one kernel; cases are in the order of their ids, checks in that of
    the run. `facts` is flat: release, features, accelerator, config.KSM, …"""

    name: str
    facts: Mapping[str, str]
    started: datetime | None
    checks: tuple[Outcome, ...]
    cases: tuple[Outcome, ...]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return self.checks + self.cases

    @property
    def state(self) -> State:
        """Failed if anything is red, skipped if no case was put to the test, else passed."""
        if any(outcome.state.red for outcome in self.outcomes):
            return State.FAILED
        tested = any(case.state is not State.SKIPPED for case in self.cases)
        return State.PASSED if tested else State.SKIPPED


@dataclass(frozen=True)
class Run:
    """The kernels of a run, in the natural order of their names."""

    kernels: tuple[Kernel, ...]

    @property
    def state(self) -> State:
        """As that of a kernel, over all of them."""
        states = {kernel.state for kernel in self.kernels}
        return next(s for s in (State.FAILED, State.PASSED, State.SKIPPED) if s in states)


# -- from files


@dataclass(frozen=True)
class Source:
    """What was read for one kernel."""

    name: str
    events: list[dict[str, Any]]
    console: str = ""


def load(folder: Path) -> Run:
    """The results of a run. Raises Unreadable or OSError."""
    return merge(sources(folder))


def sources(folder: Path) -> list[Source]:
    """The streams in a run's folder. Raises Unreadable or OSError."""
    if not folder.is_dir():
        raise Unreadable(f"{folder}: no such folder")
    inside = sorted(
        (path for path in folder.iterdir() if path.is_dir() and _holds_results(path)),
        key=_natural,
    )
    if _holds_results(folder):
        if inside:
            raise Unreadable(f"{folder}: holds a native run and the kernel {inside[0].name}")
        native = _source(folder)
        return [replace(native, name=_release(native.events) or native.name)]
    if not inside:
        raise Unreadable(f"{folder}: no {STREAM} in it or in a folder in it")
    return [_source(path) for path in inside]


def _holds_results(folder: Path) -> bool:
    return (folder / STREAM).exists() or (folder / CONSOLE).exists()


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """6.2 before 6.12, and numbers before words."""
    parts = re.findall(r"(\d+)|(\D+)", path.name)
    return [(bool(text), int(digits or 0), text) for digits, text in parts]


def _source(folder: Path) -> Source:
    events = stream.read(folder / STREAM) if (folder / STREAM).exists() else []
    console = ""
    if (folder / CONSOLE).exists():
        console = (folder / CONSOLE).read_text(errors="replace")[-_TAIL:]
    return Source(_name(folder.resolve().name), events, clean(console))


def _release(events: list[dict[str, Any]]) -> str:
    facts = [event.get("kernel") for event in events if event["event"] == "run"]
    return next((_name(fact.get("release")) for fact in facts if isinstance(fact, dict)), "")


def _name(value: object) -> str:
    return one_line(_text(value), 100)


# -- from events


def merge(sources: Iterable[Source]) -> Run:
    """The results that the sources tell of."""
    readers = [_Reader(source) for source in sources]
    declared = {
        outcome.id: outcome for reader in readers for outcome in reader.results() if outcome.clause
    }
    return Run(tuple(reader.kernel(declared) for reader in readers))


class _Reader:
    """Reads one kernel's events in their order."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._facts: dict[str, str] = {}
        self._started: datetime | None = None
        self._cases: dict[str, list[Outcome]] = {}  # each with its results
        self._checks: dict[str, list[Outcome]] = {}
        self._lost: dict[str, Outcome] = {}  # cases in flight, with the loss
        self._begun: set[str] = set()
        self._since_run: list[Outcome] = []
        self._open = ""  # the boot's check or "run", if one has begun and not ended
        self._torn: list[str] = []  # what could not be read since then
        self._unreadable: list[str] = []
        self._read()

    def results(self) -> Iterator[Outcome]:
        """Every result on record, of every case."""
        for results in self._cases.values():
            yield from results

    def kernel(self, declared: Mapping[str, Outcome]) -> Kernel:
        """The kernel's part of the model. A case that crashed took its clause and its axes
        along: these are filled in from `declared`, the same cases' results elsewhere."""
        cases = [_final(results) for _, results in sorted(self._cases.items())]
        for number, case in enumerate(cases):
            if not case.clause and (known := declared.get(case.id)):
                cases[number] = replace(case, clause=known.clause, axes=known.axes)
        checks = tuple(_final(results) for results in self._checks.values())
        return Kernel(self._source.name, self._facts, self._started, checks, tuple(cases))

    def _read(self) -> None:
        for event in self._source.events:
            try:
                self._take(event)
            except _Malformed as malformed:
                self._torn.append(str(malformed))
        self._close()
        if unreadable := self._unreadable + self._torn:
            reason = "\n".join(["parts of the stream can't be read:", *unreadable])
            self._check("stream.readable", State.FAILED, reason)
        for name in sorted((self._begun | self._lost.keys()) - self._cases.keys()):
            loss = self._lost.get(name)
            reason = f"in flight when {loss.reason}" if loss else "started and never ended"
            evidence = loss.evidence if loss else self._source.console
            self._cases[name] = [Outcome(name, State.CRASHED, reason=reason, evidence=evidence)]
        if not self._cases and all(_final(c).state is State.PASSED for c in self._checks.values()):
            reason = "no case has a result"
            self._check("run.not_empty", State.FAILED, reason, self._source.console)

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "boot":
                self._boot(event)
            case "run":
                self._run(event)
            case "start":
                self._begun.add(_id(event))
                self._open = "run"
            case "result":
                self._result(event)
            case "end":
                self._end(event)
            case "lost":
                self._loss(event)
            case "verdict":
                self._verdict(event)
            case stream.GARBLED:
                raise _Malformed(_text(event.get("text")))
            case other:
                raise _Malformed(f"an event of the unknown kind {other!r}")

    # -- what a run writes

    def _run(self, event: dict[str, Any]) -> None:
        if self._open == "run":
            self._close()
        self._open = "run"
        self._since_run = []
        if event.get("schema") != stream.SCHEMA:
            raise _Malformed(f"a run in schema {event.get('schema')!r}, not {stream.SCHEMA}")
        self._facts |= _flat(event.get("kernel"))
        self._started = self._started or _time(event.get("started"))

    def _result(self, event: dict[str, Any]) -> None:
        name = _id(event)
        try:
            state = State(_text(event.get("state")))
        except ValueError:
            raise _Malformed(f"a result of {name} in state {event.get('state')!r}") from None
        result = Outcome(
            name,
            state,
            seconds=_seconds(event.get("seconds")),
            reason=_text(event.get("reason")),
            evidence=_text(event.get("evidence")),
            clause=_text(event.get("clause")),
            axes=_flat(event.get("axes")),
        )
        self._cases.setdefault(name, []).append(result)
        self._since_run.append(result)

    def _end(self, event: dict[str, Any]) -> None:
        """Compares what the run counted with what is on record. pytest counts a test that passed
        and then failed in its teardown twice, so both counts are lower bounds."""
        self._open = ""
        self._unreadable += self._torn
        self._torn = []
        totals = event.get("totals")
        if not isinstance(totals, dict):
            raise _Malformed("an end without totals")
        counted = {state: int(_seconds(count)) for state, count in totals.items()}
        failed = counted.pop("failed", 0)
        others = sum(counted.values())
        on_record = len({result.id for result in self._since_run})
        red = len({result.id for result in self._since_run if result.state.red})
        if failed > red or others > on_record:
            reason = (
                f"the run counted {failed} failed tests and {others} others, "
                f"the stream has {red} failed cases of {on_record}"
            )
            self._check("run.counts", State.FAILED, reason)

    # -- what is seen from outside

    def _boot(self, event: dict[str, Any]) -> None:
        self._close()
        self._open = self._next("vm.boot")
        accelerator, why = _text(event.get("accelerator")), _text(event.get("why"))
        self._facts |= {"accelerator": accelerator, "accelerator.why": why}
        self._check(self._open, State.PASSED, f"{accelerator}: {why}")

    def _loss(self, event: dict[str, Any]) -> None:
        why = _text(event.get("reason"))
        in_flight = [_id({"id": name}) for name in _list(event, "in_flight")]
        state = State.TIMEOUT if why in ("hang", "limit") else State.CRASHED
        reason = _LOSSES.get(why, why or _LOSSES["lost"])
        evidence = _text(event.get("console")) or self._source.console
        if why == "no boot":  # the one that is open, if the boot is on record
            self._checks.pop(self._open, None)
            name = self._next("vm.boot")
        else:
            name = self._next("vm.lost")
        self._open, self._torn = "", []
        told = f"{reason}; in flight: {', '.join(in_flight)}" if in_flight else reason
        self._check(name, state, told, evidence)
        for case in (*in_flight, *self._begun - self._cases.keys()):
            self._lost.setdefault(case, Outcome(name, state, reason=reason, evidence=evidence))

    def _verdict(self, event: dict[str, Any]) -> None:
        missing, extra = _list(event, "missing"), _list(event, "extra")
        parts = [
            f"{title}: {' '.join(names)}"
            for title, names in (("missing", missing), ("more than expected", extra))
            if names
        ]
        reason = "; ".join(parts) or "as expected"
        self._check("vm.features", State.FAILED if missing else State.PASSED, reason)

    # -- checks

    def _close(self) -> None:
        """Something begins or the stream is over: what is still open should have ended before.
        That its last line can't be read is no news then, no more than before a loss."""
        if self._open:
            what = "run" if self._open == "run" else "boot"
            reason = f"the {what} was cut short: neither its end nor a loss is on record"
            self._check("run.ended", State.CRASHED, reason, self._source.console)
            self._open, self._torn = "", []

    def _check(self, name: str, state: State, reason: str, evidence: str = "") -> None:
        outcome = Outcome(name, state, reason=reason, evidence=evidence)
        self._checks.setdefault(name, []).append(outcome)

    def _next(self, name: str) -> str:
        return f"{name}.{1 + sum(check.startswith(f'{name}.') for check in self._checks)}"


def _final(results: list[Outcome]) -> Outcome:
    """The one that counts, with a note if they contradict each other."""
    final = max(results, key=lambda outcome: _RANK[outcome.state])
    if len({outcome.state for outcome in results}) == 1:
        return final
    note = f"its results, in their order: {', '.join(outcome.state for outcome in results)}"
    return replace(final, evidence="\n".join(filter(None, (final.evidence, note))))


# -- fields, which a damaged stream may have turned into anything


class _Malformed(ValueError):
    """An event that does not say what it should; the message is clean."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(clean(message), 200))


def _id(event: Mapping[str, Any]) -> str:
    name = event.get("id")
    if isinstance(name, str) and _ID.fullmatch(name):
        return name
    raise _Malformed(f"{event.get('event', 'a list')} names no case: {name!r}")


def _list(event: Mapping[str, Any], key: str) -> list[str]:
    values = event.get(key)
    if isinstance(values, list):
        return [_text(value) for value in values]
    raise _Malformed(f"{event['event']} without a list {key!r}")


def _text(value: object) -> str:
    return "" if value is None else clean(str(value))


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value < _LONGEST else 0.0


def _time(value: object) -> datetime | None:
    seconds = _seconds(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    """Nested facts as one table: {"thp": {"enabled": "always"}} as {"thp.enabled": "always"}."""
    if isinstance(value, dict):
        facts: dict[str, str] = {}
        for key, inner in value.items():
            facts |= _flat(inner, f"{prefix}.{clean(key)}" if prefix else clean(key))
        return facts
    if not prefix or value is None:
        return {}
    return {prefix: " ".join(map(_text, value)) if isinstance(value, list) else _text(value)}
