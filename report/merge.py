# SPDX-License-Identifier: GPL-2.0-only
"""From the streams of a run to a model of its results, in which each case ends in one state.

A run is a folder with a folder for each kernel, or the folder of one native run; such a folder
holds a `stream.jsonl` (helpers/stream.py), to which whoever watches the guests from outside adds:

    {"event": "boot",    "kernel": ..., "attempt": ..., "accelerator": ..., "why": ...}
    {"event": "lost",    "kernel": ..., "attempt": ..., "reason": "panic" | "hang" | "lost" |
                         "limit" | "no boot", "detail": ..., "in_flight": [ids], "console": tail}
    {"event": "verdict", "kernel": ..., "expected_features": [...], "found_features": [...],
                         "missing": [...], "extra": [...]}

A stream may hold several boots, one after another or side by side, may be cut short, and may be
damaged. Nothing of that may turn a verdict green: what is not known to have gone well is a check
that did not pass.

    vm.boot.N         guest N booted
    vm.lost.N         guest N was lost after it had booted
    vm.features       the kernel has the features that it must have
    vm.verdict        the guests' host came to its end
    run.splat         the kernel complained of nothing while no case ran
    run.ended         every run came to its end, or its loss is on record
    run.counts        the stream has a result for each test that the runs counted
    run.complete      every case that a run planned was reached
    run.not_empty     the stream has results at all
    stream.readable   all of the stream could be read, but for lines that a loss cut short

vm.lost, vm.verdict and the checks of the run and the stream are there only if they do not pass.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from helpers import stream
from report.text import clean, one_line

STREAM = "stream.jsonl"
AXES = ("kind", "state", "thp", "features")  # of a case; `state` is that of its page
CONSOLE = "console.log"
NEVER_REACHED = "never reached: the run was over before"  # the reason of such a case
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
    reproducer: str = ""  # the path of a C file, from the run's folder; "": there is none

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

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        return self.checks + self.cases

    @cached_property
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
    reproducers: Mapping[str, str] = field(default_factory=dict)  # paths, by the case's id


def load(*folders: Path) -> Run:
    """The results of a run, or of its shards in whatever order: kernels of one name become one.
    Raises Unreadable or OSError."""
    found: dict[str, list[Source]] = {}
    for folder in folders:
        for source in sources(folder, folders[0]):
            found.setdefault(source.name, []).append(source)
    return merge(_joined(found[name]) for name in sorted(found, key=_natural))


def _joined(shards: list[Source]) -> Source:
    """One kernel's shards as one, the same for any order of them."""
    if len(shards) == 1:
        return shards[0]
    shards = sorted(shards, key=lambda shard: json.dumps(shard.events))
    return Source(
        shards[0].name,
        [event for shard in shards for event in shard.events],
        "".join(shard.console for shard in shards)[-_TAIL:],
        {name: path for shard in shards for name, path in shard.reproducers.items()},
    )


def sources(folder: Path, base: Path) -> list[Source]:
    """The streams in a run's folder; paths in them start from `base`. Raises Unreadable or
    OSError."""
    if not folder.is_dir():
        raise Unreadable(f"{folder}: no such folder")
    inside = sorted(
        (path for path in folder.iterdir() if path.is_dir() and _holds_results(path)),
        key=lambda path: _natural(path.name),
    )
    if _holds_results(folder):
        if inside:
            raise Unreadable(f"{folder}: holds a native run and the kernel {inside[0].name}")
        native = _source(folder, base)
        return [replace(native, name=_release(native.events) or native.name)]
    if not inside:
        raise Unreadable(f"{folder}: no {STREAM} in it or in a folder in it")
    return [_source(path, base) for path in inside]


def _holds_results(folder: Path) -> bool:
    return (folder / STREAM).exists() or (folder / CONSOLE).exists()


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """6.2 before 6.12, and numbers before words."""
    parts = re.findall(r"(\d+)|(\D+)", name)
    return [(bool(text), int(digits or 0), text) for digits, text in parts]


def _source(folder: Path, base: Path) -> Source:
    events = stream.read(folder / STREAM) if (folder / STREAM).exists() else []
    console = ""
    if (folder / CONSOLE).exists():
        console = (folder / CONSOLE).read_text(errors="replace")[-_TAIL:]
    return Source(_name(folder.resolve().name), events, clean(console), _reproducers(folder, base))


def _reproducers(folder: Path, base: Path) -> dict[str, str]:
    """The C files that the kernel's cases left; each guest has a folder of its own."""
    return {path.stem: os.path.relpath(path, base) for path in folder.glob("**/repro/*.c")}


def _release(events: list[dict[str, Any]]) -> str:
    facts = [event.get("kernel") for event in events if event["event"] == "run"]
    return next((_name(fact.get("release")) for fact in facts if isinstance(fact, dict)), "")


def _name(value: object) -> str:
    return one_line(_text(value), 100)


# -- from events


def merge(sources: Iterable[Source]) -> Run:
    """The results that the sources tell of."""
    declared: dict[str, _Declared] = {}
    readers = [_Reader(source, declared) for source in sources]
    return Run(tuple(reader.kernel() for reader in readers))


class _Declared(NamedTuple):
    """What a case is, wherever it runs."""

    clause: str
    axes: Mapping[str, str]


class _Reader:
    """Takes one kernel's events in. Those of guests that ran side by side stand mixed, and do not
    tell whose they are: so runs are counted, not followed. `declared` is what the streams of all
    kernels tell of cases, and is added to."""

    def __init__(self, source: Source, declared: dict[str, _Declared]) -> None:
        self._source = source
        self._declared = declared
        self._facts: dict[str, str] = {}
        self._started: datetime | None = None
        self._planned: set[str] = set()
        self._begun: set[str] = set()
        self._cases: dict[str, list[Outcome]] = {}  # each with its results
        self._checks: dict[str, list[Outcome]] = {}  # likewise
        self._lost: dict[str, Outcome] = {}  # cases in flight, with the loss
        self._runs = self._ends = self._boots = self._losses = self._verdicts = 0
        self._totals: Counter[str] = Counter()  # as the runs counted
        self._unreadable: list[str] = []
        for event in source.events:
            try:
                self._take(event)
            except _Malformed as malformed:
                self._unreadable.append(str(malformed))
        self._judge_stream()
        self._add_cases_without_result()
        if not self._cases and not any(check.state.red for check in self._final_checks()):
            self._check("run.not_empty", State.FAILED, "no case has a result", source.console)

    def kernel(self) -> Kernel:
        """The kernel's part of the model, once all kernels' streams are read: the result of a case
        that crashed may lack its clause and axes, and one that was never reached has none."""
        cases = [_final(results) for _, results in sorted(self._cases.items())]
        for number, case in enumerate(cases):
            if not case.clause and (known := self._declared.get(case.id)):
                cases[number] = replace(case, clause=known.clause, axes=known.axes)
        checks = tuple(self._final_checks())
        return Kernel(self._source.name, self._facts, self._started, checks, tuple(cases))

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "run":
                self._run(event)
            case "plan":
                self._planned |= set(_ids(event, "ids"))
            case "start":
                self._begun.add(_id(event["id"]))
                self._declare(event)
            case "result":
                self._result(event)
            case "splat":
                self._splat(event)
            case "end":
                self._end(event)
            case "boot":
                self._boot(event)
            case "lost":
                self._loss(event)
            case "verdict":
                self._verdict(event)
            case stream.GARBLED:
                raise _Malformed(event["text"])
            case other:
                raise _Malformed(f"an event of the unknown kind {other!r}")

    # -- what a run writes

    def _run(self, event: dict[str, Any]) -> None:
        self._runs += 1
        if event.get("schema") != stream.SCHEMA:
            raise _Malformed(f"a run in schema {event.get('schema')!r}, not {stream.SCHEMA}")
        self._facts |= _flat(event.get("kernel"))
        self._started = self._started or _time(event.get("started"))

    def _result(self, event: dict[str, Any]) -> None:
        name = _id(event["id"])
        try:
            state = State(_text(event.get("state")))
        except ValueError:
            raise _Malformed(f"a result of {name} in state {event.get('state')!r}") from None
        self._declare(event)
        known = self._declared.get(name, _Declared("", {}))
        result = Outcome(
            name,
            state,
            seconds=_seconds(event.get("seconds")),
            reason=_text(event.get("reason")),
            evidence=_text(event.get("evidence")),
            clause=known.clause,
            axes=known.axes,
            reproducer=self._source.reproducers.get(name, ""),
        )
        self._cases.setdefault(name, []).append(result)

    def _declare(self, event: dict[str, Any]) -> None:
        if event["id"] not in self._declared and (clause := _text(event.get("clause"))):
            self._declared[event["id"]] = _Declared(clause, _flat(event.get("axes")))

    def _end(self, event: dict[str, Any]) -> None:
        totals = event.get("totals")
        if not isinstance(totals, dict):
            raise _Malformed("an end without totals")
        self._ends += 1
        for state, count in totals.items():
            self._totals[state] += int(_seconds(count))

    def _splat(self, event: dict[str, Any]) -> None:
        reason = "the kernel complained while no case ran"
        self._check("run.splat", State.FAILED, reason, "\n".join(map(_text, _list(event, "lines"))))

    # -- what is seen from outside

    def _boot(self, event: dict[str, Any]) -> None:
        self._boots += 1
        accelerator, why = _text(event.get("accelerator")), _text(event.get("why"))
        self._facts |= {"accelerator": accelerator, "accelerator.why": why}
        self._check(f"vm.boot.{_attempt(event)}", State.PASSED, f"{accelerator}: {why}")

    def _loss(self, event: dict[str, Any]) -> None:
        attempt, in_flight = _attempt(event), _ids(event, "in_flight")
        self._losses += 1
        why, detail = _text(event.get("reason")), _text(event.get("detail"))
        state = State.TIMEOUT if why in ("hang", "limit") else State.CRASHED
        reason = _LOSSES.get(why, why or _LOSSES["lost"]) + (f": {detail}" if detail else "")
        evidence = _text(event.get("console")) or self._source.console
        name = f"vm.lost.{attempt}"
        if why == "no boot":
            name = f"vm.boot.{attempt}"
            self._checks.pop(name, None)  # what is on record is that it began
        told = f"{reason}; in flight: {', '.join(in_flight)}" if in_flight else reason
        self._check(name, state, told, evidence)
        for case in in_flight:
            self._lost[case] = Outcome(case, State.CRASHED, reason=reason, evidence=evidence)

    def _verdict(self, event: dict[str, Any]) -> None:
        self._verdicts += 1
        missing, extra = _list(event, "missing"), _list(event, "extra")
        if not self._runs:  # and what could not tell its features does not lack them
            self._check("vm.features", State.SKIPPED, "the kernel came to no run")
            return
        parts = [
            f"{title}: {' '.join(map(_text, names))}"
            for title, names in (("missing", missing), ("more than expected", extra))
            if names
        ]
        reason = "; ".join(parts) or "as expected"
        self._check("vm.features", State.FAILED if missing else State.PASSED, reason)

    # -- what follows at the end of the stream

    def _judge_stream(self) -> None:
        begun = max(self._runs, self._boots, bool(self._begun))
        cut = max(0, begun - self._ends - self._losses)
        if cut:
            reason = f"{cut} of {begun} runs cut short: neither an end nor a loss is on record"
            self._check("run.ended", State.CRASHED, reason, self._source.console)
        if self._boots and not self._verdicts:
            reason = "no verdict is on record: the run was broken off"
            self._check("vm.verdict", State.CRASHED, reason, self._source.console)
        if len(self._unreadable) > cut + self._losses:  # each may have cut a line
            reason = "\n".join(["parts of the stream can't be read:", *self._unreadable])
            self._check("stream.readable", State.FAILED, reason)
        self._compare_counts()

    def _compare_counts(self) -> None:
        """pytest counts a test that passed and then failed in its teardown twice, and a case
        may have two results: so these are bounds, which hold for each kind of test alone."""
        results = [result for results in self._cases.values() for result in results]
        red = sum(result.state.red for result in results)
        failed = self._totals["failed"]
        others = self._totals.total() - failed
        if failed > red or others > len(results):
            reason = (
                f"the runs counted {failed} failed tests and {others} others, "
                f"the stream has {len(results)} results and {red} of failures"
            )
            self._check("run.counts", State.FAILED, reason)

    def _add_cases_without_result(self) -> None:
        for name in (self._begun | self._lost.keys()) - self._cases.keys():
            case = Outcome(name, State.CRASHED, reason="started and never ended")
            if loss := self._lost.get(name):
                case = replace(loss, reason=f"in flight when {loss.reason}")
            self._cases[name] = [case]
        unreached = self._planned - self._cases.keys()
        for name in unreached:
            self._cases[name] = [Outcome(name, State.SKIPPED, reason=NEVER_REACHED)]
        if unreached:
            reason = f"cases that were planned and never reached: {len(unreached)}"
            self._check("run.complete", State.FAILED, reason)

    # -- checks

    def _check(self, name: str, state: State, reason: str, evidence: str = "") -> None:
        outcome = Outcome(name, state, reason=reason, evidence=evidence)
        self._checks.setdefault(name, []).append(outcome)

    def _final_checks(self) -> Iterator[Outcome]:
        yield from map(_final, self._checks.values())


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


def _id(value: object) -> str:
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise _Malformed(f"the name of no case: {value!r}")


def _ids(event: Mapping[str, Any], key: str) -> list[str]:
    return [_id(value) for value in _list(event, key)]


def _list(event: Mapping[str, Any], key: str) -> list[object]:
    values = event.get(key)
    if isinstance(values, list):
        return values
    raise _Malformed(f"{event['event']} without a list {key!r}")


def _attempt(event: Mapping[str, Any]) -> int:
    number = event.get("attempt")
    if isinstance(number, int) and 0 <= number < _LONGEST:
        return int(number)
    raise _Malformed(f"{event['event']} without the number of the attempt")


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
