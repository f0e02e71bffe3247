# SPDX-License-Identifier: GPL-2.0-only
"""Known issues, as data: cases that are known to fail on some kernels, and why.

`uffd_tests/known_issues.toml` holds a table [[issue]] for each: `cases`, shell patterns of
canonical ids; `kernels`, shell patterns of releases; `reason`; `link`, an address or a commit; and
`run = false` where the case would leave a kernel on which others can't run, or fails at times.
A listed case that passes on a listed kernel is a failure: the list must not go stale.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

SECONDS = 5.0  # for the subject of a case that is known to fail, as it may never answer
PATH = Path(__file__).parent.parent / "uffd_tests" / "known_issues.toml"


@dataclass(frozen=True)
class Issue:
    """One entry."""

    cases: tuple[str, ...]
    kernels: tuple[str, ...]
    reason: str
    link: str
    run: bool = True

    def here(self, release: str) -> bool:
        """Whether it concerns this kernel."""
        return any(fnmatchcase(release, pattern) for pattern in self.kernels)

    def covers(self, case: str) -> bool:
        """Whether it concerns this case."""
        return any(fnmatchcase(case, pattern) for pattern in self.cases)


def parse(text: str) -> list[Issue]:
    """The entries of a file's text. Raises ValueError on a malformed one."""
    try:
        tables = tomllib.loads(text).get("issue", [])
        return [
            Issue(**t | {"cases": tuple(t["cases"]), "kernels": tuple(t["kernels"])})
            for t in tables
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"known_issues.toml: an [[issue]] is not as it must be: {error}"
        ) from error


def load() -> list[Issue]:
    """The project's own list."""
    return parse(PATH.read_text())
