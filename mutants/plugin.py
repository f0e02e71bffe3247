# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin in a guest whose kernel has faults planted: which it reaches, what kills them.

Without more, each case tells in the stream which faults it reaches: where they would have made a
difference. With --mutants, the units of the run are not the cases but the faults of the list in
that file: for each, a forked child lets it act, runs the cases that reach it, and stops at the
first that fails. That case, or, if none failed, one that was skipped, must then pass without the
fault, else the guest is spoilt and not used again.

    {"event": "reach",  "id": CASE, "faults": [NUMBER...]}
    {"event": "try",    "id": FAULT, "case": CASE}
    {"event": "result", "id": FAULT, "state": "passed": it was killed, "failed": it survived,
                        "killer": CASE or "", "tried": [CASE...] that ended, "damage": what
                        spoilt the guest, ... as the stream's}
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from _pytest.runner import runtestprotocol

from helpers import stream
from helpers.cases import canonical_id, declared
from helpers.results import Results, is_case
from helpers.run import Run

_KNOBS = Path("/sys/module/wp_mutant/parameters")
_HANG_SECONDS = 30.0  # of a case, after all that it may wait for its subject
_SPOILT = 3  # the exit code of a session whose guest is to be booted anew


def set_active(number: int) -> None:
    """Has a fault act, or none (0), and forgets which were reached."""
    (_KNOBS / "active").write_text(f"{number}\n")


def reached() -> list[int]:
    """The faults that were reached since `set_active`."""
    bits = int((_KNOBS / "reached").read_text().replace(",", ""), 16)
    return [number for number in range(bits.bit_length()) if bits >> number & 1]


def spare_this_process() -> None:
    """Has the faults that could end it spare this process, and others of its name."""
    (_KNOBS / "spare").write_text(Path("/proc/self/comm").read_text())


@dataclass(frozen=True)
class Mutant:
    """A fault to be killed, and the cases that reach it, likely killers first."""

    number: int
    id: str
    function: str
    cases: list[str]


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    case: str
    state: str  # passed, skipped, failed, timeout, crashed
    reason: str = ""
    again: str = ""  # the state, of one that failed, in a second run, without the fault

    @property
    def failed(self) -> bool:
        return self.state not in ("passed", "skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutants", "faults planted in the kernel")
    group.addoption("--mutants", type=Path, metavar="FILE", help="the faults to be killed, as JSON")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    spare_this_process()
    set_active(0)
    killing = config.getoption("mutants") is not None
    config.pluginmanager.register(Killing(config) if killing else Reaching(config))


def _run_of(config: pytest.Config) -> Run:
    return next(p.run for p in config.pluginmanager.get_plugins() if isinstance(p, Results))


class Reaching:
    """Tells which faults each case reaches."""

    def __init__(self, config: pytest.Config) -> None:
        self._run = _run_of(config)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        set_active(0)
        result = yield
        if self._run.stream and is_case(item):
            found = reached()
            self._run.stream.write("reach", id=canonical_id(item.nodeid), faults=found)
        return result


class Killing:
    """Runs faults instead of cases."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._run = _run_of(config)
        assert self._run.stream is not None
        self._stream = self._run.stream
        number, count = config.option.shard
        config.option.shard = (1, 1)  # it is the faults that are shared out
        skip = config.option.skip_done
        done = stream.ended(stream.read(skip)) if skip else set()
        listed = [Mutant(**entry) for entry in json.loads(config.option.mutants.read_text())]
        self._mutants = [m for m in listed[number - 1 :: count] if m.id not in done]
        self._items: dict[str, pytest.Item] = {}
        self._killers: dict[str, Counter[str]] = {}  # by the fault's function

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._items = {canonical_id(item.nodeid): item for item in items}
        items.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        manager = self._config.pluginmanager
        manager.unregister(next(p for p in manager.get_plugins() if isinstance(p, Results)))
        manager.register(_States())
        self._stream.write("plan", ids=[mutant.id for mutant in self._mutants])
        # each child has a root subject of its own, and only one may keep khugepaged busy
        self._run.close()
        self._run.__dict__.pop("root", None)
        gc.freeze()  # what a child doesn't touch it needn't copy
        totals: Counter[str] = Counter()
        for mutant in self._mutants:
            self._stream.write("start", id=mutant.id, clause="", axes={}, worker="main")
            result = self._result(mutant)
            self._stream.write("result", id=mutant.id, **result)
            totals[result["state"]] += 1
            if result["damage"]:
                os._exit(_SPOILT)
        self._stream.write("end", totals=totals)
        return True

    def _result(self, mutant: Mutant) -> dict[str, Any]:
        begun = time.monotonic()
        known = self._killers.setdefault(mutant.function, Counter())
        cases = sorted(
            (name for name in mutant.cases if name in self._items),
            key=lambda name: -known[name],  # stable: else as they are given
        )
        outcomes = self._attempt(mutant.number, mutant.id, cases)
        failure = next((outcome for outcome in outcomes if outcome.failed), None)
        skipped = [outcome for outcome in outcomes if outcome.state == "skipped"]
        doubtful = [failure] if failure and failure.again != "passed" else []
        doubtful += [] if failure else skipped[:1]
        damage = ""
        for outcome in self._attempt(0, mutant.id, [each.case for each in doubtful]):
            if outcome.state != "passed":
                damage = f"{outcome.state}: {outcome.reason}"
        if failure:
            known[failure.case] += 1
        ended = outcomes if not damage else [o for o in outcomes if o.state != "skipped"]
        item = self._items[failure.case] if failure else None
        return {
            "state": "passed" if failure else "failed",
            "clause": declared(item).clause if item else "",
            "axes": {},
            "seconds": round(time.monotonic() - begun, 3),
            "reason": f"{failure.state}: {failure.reason}" if failure else "it survived",
            "evidence": "",
            "reproducer": "",
            "killer": failure.case if failure else "",
            "tried": [outcome.case for outcome in ended],
            "damage": damage,
        }

    def _attempt(self, number: int, name: str, cases: list[str]) -> list[Outcome]:
        """Lets a fault act on some cases, up to the first that fails: how they ended."""
        if not cases:
            return []
        self._run.log.news()  # what was said before is no case's
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.close(ours)
            self._serve(theirs, number, name, cases)
        os.close(theirs)
        try:
            return self._follow(ours, cases)
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(ours)
            set_active(0)

    def _follow(self, pipe: int, cases: list[str]) -> list[Outcome]:
        news = _lines(pipe, self._config.option.case_timeout + _HANG_SECONDS)
        outcomes = []
        for case in cases:
            line = next(news, None)
            lost = Outcome(case, "crashed", "the case took its process along, or hung")
            outcomes.append(Outcome(**json.loads(line)) if line else lost)
            if outcomes[-1].failed:
                break
        return outcomes

    def _serve(self, pipe: int, number: int, name: str, cases: list[str]) -> NoReturn:
        """The child: runs cases, and tells of each how it ended, in a line."""
        code = 1
        try:
            assert self._run.root  # spawned before the fault acts
            set_active(number)
            for case in cases:
                self._stream.write("try", id=name, case=case)
                outcome = _run_case(self._items[case])
                if outcome.failed and number:
                    set_active(0)
                    again = _run_case(self._items[case])
                    outcome = replace(outcome, again=again.state)
                os.write(pipe, f"{json.dumps(vars(outcome))}\n".encode())
            code = 0
        finally:
            os._exit(code)


class _States:
    """Keeps what a timeout says of itself."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        made = yield
        if made.failed and call.excinfo:
            made.user_properties.append(("state", getattr(call.excinfo.value, "state", "failed")))
        return made


def _run_case(item: pytest.Item) -> Outcome:
    reports = runtestprotocol(item, log=False, nextitem=None)
    name = canonical_id(item.nodeid)
    worst = next((r for r in reports if r.failed), None)
    worst = worst or next((r for r in reports if r.skipped), None)
    if worst is None:
        return Outcome(name, "passed")
    crash = getattr(worst.longrepr, "reprcrash", None)
    lines = str(crash.message if crash else worst.longrepr).splitlines() or [""]
    state = str(dict(worst.user_properties).get("state", worst.outcome))
    return Outcome(name, state, lines[0][:500])


def _lines(pipe: int, patience: float) -> Iterator[str]:
    """The lines that come through a pipe; ends when it does, or when none comes for too long."""
    pending = b""
    while True:
        line, found, rest = pending.partition(b"\n")
        if found:
            pending = rest
            yield line.decode()
            continue
        ready, _, _ = select.select([pipe], [], [], patience)
        more = os.read(pipe, 1 << 16) if ready else b""
        if not more:
            return
        pending += more
