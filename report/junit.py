# SPDX-License-Identifier: GPL-2.0-only
"""A run as one JUnit document, a suite for each kernel.

What its readers do shaped it: GitLab tells cases apart by classname and name, and takes no file
of 30 MB or more; Jenkins' schema knows properties of suites only; junit-xml writes a failure
without a message as a pass. So every case has a unique pair of names and every failure a message,
and evidence is clipped as hard as the size demands.
"""

from __future__ import annotations

from junit_xml import TestCase, TestSuite, to_xml_report_string

from report.merge import Kernel, Outcome, Run, State
from report.text import clip, one_line

MAX_BYTES = 29_000_000
EXPECTED = "expected failure: "  # begins the message of one, which JUnit can't tell from a skip
_LIMITS = (16384, 4096, 1024, 256)  # characters of evidence a case
_MESSAGE = 300
_INSTANT = 1e-9  # junit-xml leaves out a time of 0.0; this one it writes as 0.000000


def document(run: Run) -> str:
    """The document, with as much evidence as fits. What is larger with the least evidence than
    MAX_BYTES holds more cases than any reader takes; it is whole all the same."""
    for limit in _LIMITS[:-1]:
        if _evidence(run, limit) < MAX_BYTES:  # else there is no need to try
            xml = _xml(run, limit)
            if len(xml.encode()) <= MAX_BYTES:
                return xml
    return _xml(run, _LIMITS[-1])


def _evidence(run: Run, limit: int) -> int:
    return sum(
        min(len(outcome.reason) + len(outcome.evidence), limit)
        for kernel in run.kernels
        for outcome in kernel.outcomes
    )


def _xml(run: Run, limit: int) -> str:
    suites = [_suite(kernel, limit) for kernel in run.kernels]
    return str(to_xml_report_string(suites, prettyprint=False, encoding="utf-8"))


def _suite(kernel: Kernel, limit: int) -> TestSuite:
    return TestSuite(
        kernel.name,
        [_case(kernel.name, outcome, limit) for outcome in kernel.outcomes],
        timestamp=kernel.started and kernel.started.strftime("%Y-%m-%dT%H:%M:%S"),
        properties=dict(kernel.facts),
    )


def _case(kernel: str, outcome: Outcome, limit: int) -> TestCase:
    case = TestCase(
        outcome.id,
        classname=f"{kernel}.{outcome.chapter}",
        elapsed_sec=outcome.seconds or _INSTANT,
    )
    told = "\n\n".join(filter(None, (outcome.reason, outcome.evidence)))
    message = one_line(outcome.reason, _MESSAGE) or outcome.state.value
    output = clip(told, limit)
    match outcome.state:
        case State.PASSED:
            case.stdout = outcome.reason
        case State.SKIPPED:
            case.add_skipped_info(message)
        case State.XFAILED:
            case.add_skipped_info(f"{EXPECTED}{message}", output)
        case State.FAILED | State.TIMEOUT:
            case.add_failure_info(message, output, outcome.state.value)
        case State.CRASHED:
            case.add_error_info(message, output, outcome.state.value)
    return case
