# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin that turns reports into results: stream, mail, JUnit names, summary."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from _pytest.junitxml import xml_key  # as pytest's own record_xml_attribute does it

from helpers import mail, reproducer
from helpers.cases import canonical_id, declared, setup_of
from helpers.region import Region
from helpers.run import Run
from helpers.stream import SCHEMA
from helpers.subject import Subject

RESULTS = Path(__file__).parent.parent / "results"  # for what a run without a stream leaves
SUBJECT = pytest.StashKey[Subject]()
REGION = pytest.StashKey[Region]()
_REPORTS = pytest.StashKey[list[pytest.TestReport]]()


def is_case(item: pytest.Item) -> bool:
    """Whether an item is a conformance case and not a test of the project's own."""
    return item.get_closest_marker("case") is not None


class Results:
    """Hooks of every pytest process; what only one of them may do asks `is_worker` first."""

    def __init__(self, run: Run, config: pytest.Config) -> None:
        self.run = run
        self.config = config
        self.is_worker = hasattr(config, "workerinput")

    # -- where cases run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        made = yield
        if is_case(item):
            item.stash.setdefault(_REPORTS, []).append(made)
            if made.failed or hasattr(made, "wasxfail"):
                error = call.excinfo.value if call.excinfo else None
                made.user_properties.append(("state", getattr(error, "state", "failed")))
                made.sections.append(("for the mail", self._mail(item, made, str(error))))
        return made

    def _mail(self, item: pytest.Item, made: pytest.TestReport, error: str) -> str:
        name, region = canonical_id(item.nodeid), item.stash.get(REGION, None)
        clause = self.run.clauses.get(declared(item).clause)
        about = mail.heading(name, clause, self.run.machine, region)
        subject, told = item.stash.get(SUBJECT, None), "none: there was no subject yet"
        if subject is not None:
            folder = self.run.stream.path.parent if self.run.stream else RESULTS
            path = (folder / "repro" / f"{name}.c").resolve()
            try:
                reproducer.write(path, subject, "\n".join([*about, f"failed:  {error}"]))
                made.user_properties.append(("reproducer", str(path)))
                told = f"cc -o reproducer {path} -pthread"
            except (reproducer.Unwritable, OSError) as reason:
                told = f"none: {reason}"
        random = "rng" in getattr(item, "fixturenames", ())
        seed = self.config.getoption("seed") if random else None
        return mail.failure(about, name, subject, region, told, seed)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        stream = self.run.stream
        if stream is None or not is_case(item):
            return (yield)
        case: dict[str, Any] = {
            "id": canonical_id(item.nodeid),
            "clause": declared(item).clause,
            "axes": mail.axes(setup_of(item)),
        }
        stream.write("start", sync=False, **case, worker=self.run.worker)
        result = yield
        stream.write("result", **case, **_result(item))
        return result

    # -- where reports come together

    def pytest_sessionstart(self) -> None:
        if self.run.stream and not self.is_worker:
            facts = mail.kernel_facts(self.run.machine)
            facts["kernel_log"] = self.run.log.unreadable or "watched"
            self.run.stream.write(
                "run", schema=SCHEMA, kernel=facts, command=sys.argv, started=time.time()
            )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self.run.stream and not self.is_worker and not self.config.getoption("collectonly"):
            ids = [canonical_id(item.nodeid) for item in session.items if is_case(item)]
            self.run.stream.write("plan", sync=False, ids=ids)

    def pytest_report_header(self) -> list[str]:
        unreadable = self.run.log.unreadable
        missing = [f"missing: the kernel log, {unreadable}: run as root"] if unreadable else []
        return mail.headline(self.run.machine) + missing

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gives JUnit the canonical id, and records a case that took its worker along."""
        if self.is_worker or "::" not in report.nodeid:
            return
        name = canonical_id(report.nodeid)
        if xml := self.config.stash.get(xml_key, None):
            reporter = xml.node_reporter(report)
            reporter.add_attribute("classname", name.partition(".")[0])
            reporter.add_attribute("name", name)
        if report.when not in ("setup", "call", "teardown") and self.run.stream:
            reason = str(report.longrepr)
            self.run.stream.write("result", id=name, state="crashed", reason=reason)

    # -- what the kernel said while no case ran

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fails a run for it: no case does. Workers hand it on to the controller."""
        self.run.watch_log()
        if self.is_worker:
            self.config.workeroutput["splats"] = self.run.splats  # type: ignore[attr-defined]
        elif self.run.splats:
            if self.run.stream:
                self.run.stream.write("splat", lines=self.run.splats)
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes over what a worker of xdist's has seen, which others may have seen, too."""
        seen = getattr(node, "workeroutput", {}).get("splats", ())
        self.run.splats += [line for line in seen if line not in self.run.splats]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.is_worker:  # what its reports tell is the controller's to count
            return
        totals, skips = _tally(terminalreporter)
        if self.run.stream:
            self.run.stream.write("end", totals=totals)
        if not sum(totals.values()):
            return
        write = terminalreporter.write_line
        terminalreporter.section("userfaultfd write-protect")
        for line in self.pytest_report_header():
            write(line)
        counts = ", ".join(f"{count} {state}" for state, count in totals.items() if count)
        write(f"cases: {sum(totals.values())}: {counts}")
        for reason, count in skips.most_common():
            write(f"  {count} skipped: {reason}")
        for line in self.run.splats:
            write(f"the kernel complained while no case ran: {line}")
        if self.run.stream:
            write(f"results: {self.run.stream.path}")


def _tally(reporter: pytest.TerminalReporter) -> tuple[dict[str, int], Counter[str]]:
    """How many tests ended how, and why those were skipped that were."""
    stats = reporter.stats
    skipped: list[pytest.TestReport] = stats.get("skipped", [])
    totals = {
        "passed": len(stats.get("passed", [])),
        "failed": len({r.nodeid for key in ("failed", "error") for r in stats.get(key, [])}),
        "skipped": len(skipped),
        "xfailed": len(stats.get("xfailed", [])),
    }
    return totals, Counter(map(_skip_reason, skipped))


def _result(item: pytest.Item) -> dict[str, Any]:
    """The stream's record of a case that has ended, from its phases' reports."""
    reports = item.stash.get(_REPORTS, [])
    worst = next((r for r in reports if r.failed), None)
    worst = worst or next((r for r in reports if r.skipped), reports[-1])
    state, reason = str(dict(worst.user_properties).get("state", worst.outcome)), ""
    evidence = [text for _, text in worst.sections]
    if hasattr(worst, "wasxfail"):
        state, reason = "xfailed", str(worst.wasxfail)
        evidence.append(str(worst.longrepr))
    elif worst.skipped:
        reason = _skip_reason(worst)
    elif worst.failed:
        crash = getattr(worst.longrepr, "reprcrash", None)
        reason = str(crash.message if crash else worst.longrepr)
    return {
        "state": state,
        "seconds": round(sum(r.duration for r in reports), 6),
        "reason": reason,
        "evidence": "\n".join(evidence),
        "reproducer": dict(worst.user_properties).get("reproducer", ""),
    }


def _skip_reason(skipped: pytest.TestReport) -> str:
    reason = skipped.longrepr[2] if isinstance(skipped.longrepr, tuple) else str(skipped.longrepr)
    return reason.removeprefix("Skipped: ")
