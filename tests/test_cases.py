# SPDX-License-Identifier: GPL-2.0-only
"""The canonical ids, the axes behind them, and the lists that speak of them."""

import re
import subprocess
import sys
from errno import EBUSY, EINVAL
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from helpers import axes, known_issues
from helpers.cases import canonical_id, refuses

ROOT = Path(__file__).parent.parent
KCIDB_PATH = re.compile(r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")


@cache
def collected() -> list[str]:
    """The canonical ids of the whole suite."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "uffd_tests"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [canonical_id(line) for line in out.splitlines() if "::" in line]


def test_canonical_id() -> None:
    nodeid = "uffd_tests/test_none_pte.py::test_read[anon-none_pte-thp_off-wpu]"
    assert canonical_id(nodeid) == "none_pte.read.anon-none_pte-thp_off-wpu"
    assert canonical_id("test_api.py::test_once") == "api.once"


def test_canonical_ids_are_unique_and_fit_kcidb() -> None:
    names = collected()
    assert len(names) == len(set(names)) > 1000
    assert [name for name in names if not KCIDB_PATH.match(name)] == []


def test_every_known_issue_concerns_a_case() -> None:
    patterns = [pattern for issue in known_issues.load() for pattern in issue.cases]
    assert [p for p in patterns if not any(fnmatchcase(name, p) for name in collected())] == []


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [('link = "b"', "reason"), ('reason = "b"\nlink = "b"\nskip = true', "skip")],
)
def test_malformed_known_issue_is_refused(lines: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        known_issues.parse(f'[[issue]]\ncases = ["a"]\nkernels = ["*"]\n{lines}\n')


def test_senseless_combinations_are_absent() -> None:
    points = axes.setups(axes.KINDS, axes.STATES, axes.FEATURES)
    names = [point.name for point in points]
    assert len(names) == len(set(names))
    assert not any(p.thp for p in points if p.kind.hugetlb)
    assert not any(p.state is axes.zero_page for p in points if not p.kind.anonymous)
    assert "anon-huge_zero_page-thp_on-wpu" in names
    assert "hugetlb_shared-cached-plain" in names


def test_refuses_wants_just_that_error() -> None:
    with refuses(EINVAL, EBUSY):
        raise OSError(EBUSY, "busy", "call")
    with (
        pytest.raises(AssertionError, match="expected EINVAL, seen EBUSY from call"),
        refuses(EINVAL),
    ):
        raise OSError(EBUSY, "busy", "call")
    with pytest.raises(AssertionError, match="the call succeeded"), refuses(EINVAL):
        pass
