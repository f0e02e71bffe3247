# SPDX-License-Identifier: GPL-2.0-only
"""A run as KCIDB's JSON, schema 5.3: a build for each kernel, a test for each case and check.

KCIDB has no expected failure: one is a failure, with an incident that ties it to a known issue.
What says that the harness went wrong, and not the kernel, is a MISS.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from report.merge import NEVER_REACHED, Kernel, Outcome, Run, State
from report.text import clip

ORIGIN = "uffd_wp"
_EXCERPT = 16000  # characters; the schema takes 16384, and clipping leaves a note
# checks that tell of us and not of a kernel
_HARNESS = (
    "run.ended",
    "run.counts",
    "run.complete",
    "run.not_empty",
    "stream.readable",
    "vm.verdict",
)
# how the reason of a case begins that did not run, which may be for the guests that others lost
_UNRUN = (NEVER_REACHED, "never ran: ")
_STATUS = {State.PASSED: "PASS", State.SKIPPED: "SKIP"}  # the others FAIL


def document(run: Run, origin: str = ORIGIN) -> str:
    """The document; `origin` names the CI system that reports."""
    made = _Document(origin)
    for kernel in run.kernels:
        made.add(kernel)
    return json.dumps(made.content)


class _Document:
    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.content: dict[str, Any] = {"version": {"major": 5, "minor": 3}}
        for part in ("checkouts", "builds", "tests", "issues", "incidents"):
            self.content[part] = []
        self._issues: set[str] = set()

    def add(self, kernel: Kernel) -> None:
        started = kernel.started.isoformat() if kernel.started else ""
        name = self._id(kernel.name, started)
        timed = {"start_time": started} if started else {}
        self._put(
            "checkouts", id=name, git_commit_name=kernel.facts.get("release", kernel.name), **timed
        )
        machine = {"architecture": kernel.facts["machine"]} if "machine" in kernel.facts else {}
        self._put("builds", id=name, checkout_id=name, misc=dict(kernel.facts), **machine)
        for outcome in kernel.outcomes:
            self._test(outcome, name, timed)

    def _test(self, outcome: Outcome, build: str, timed: dict[str, str]) -> None:
        name = f"{build}:{outcome.id}"
        told = "\n\n".join(filter(None, (outcome.reason, outcome.evidence)))
        excerpt = {"log_excerpt": clip(told, _EXCERPT)} if told else {}
        misc = {"clause": outcome.clause, "axes": dict(outcome.axes), "state": outcome.state}
        self._put(
            "tests",
            id=name,
            build_id=build,
            path=f"{ORIGIN}.{outcome.id}",
            status=_status(outcome),
            duration=outcome.seconds,
            misc=misc,
            **timed,
            **excerpt,
        )
        if outcome.state is State.XFAILED:
            issue = self._issue(outcome.reason)
            incident = f"{issue}:{name.partition(':')[2]}"
            self._put(
                "incidents",
                id=incident,
                issue_id=issue,
                issue_version=1,
                test_id=name,
                present=True,
            )

    def _issue(self, reason: str) -> str:
        name = self._id(hashlib.sha256(reason.encode()).hexdigest()[:16])
        if name not in self._issues:
            self._issues.add(name)
            self._put("issues", id=name, version=1, comment=reason, culprit={"code": True})
        return name

    def _put(self, part: str, **fields: Any) -> None:
        self.content[part].append({"origin": self._origin, **fields})

    def _id(self, *parts: str) -> str:
        return f"{self._origin}:{':'.join(filter(None, parts))}"


def _status(outcome: Outcome) -> str:
    harness = outcome.state.red and outcome.id in _HARNESS
    if harness or outcome.reason.startswith(_UNRUN):
        return "MISS"
    return _STATUS.get(outcome.state, "FAIL")
