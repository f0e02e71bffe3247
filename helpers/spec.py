# SPDX-License-Identifier: GPL-2.0-only
"""Reads SPEC.md: its clauses by id.

A clause is a list item: `- **NONE-3** Text. Source: …. Since: ….`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parent.parent / "SPEC.md"
_ITEM = re.compile(r"^- \*\*([A-Z]+-\d+)\*\* (.*?)(?=^- \*\*|^#|\Z)", re.MULTILINE | re.DOTALL)
_CHAPTER = re.compile(r"^## ([A-Z]+): (.*?)(?: \(`.*)?$", re.MULTILINE)
_PARTS = re.compile(r"(.*?)\s*Source: (.*?)\.\s*Since: (.*?)\.\s*$")


@dataclass(frozen=True)
class Clause:
    """One numbered promise."""

    id: str
    text: str
    source: str
    since: str


def clauses(text: str) -> dict[str, Clause]:
    """The clauses of a specification's text. Raises ValueError on a malformed or repeated one."""
    found: dict[str, Clause] = {}
    for name, body in _ITEM.findall(text):
        parts = _PARTS.match(" ".join(body.split()))
        if parts is None:
            raise ValueError(f"{name}: a clause ends with 'Source: …. Since: ….'")
        if name in found:
            raise ValueError(f"{name} stands twice in the specification")
        found[name] = Clause(name, *parts.groups())
    return found


def chapters() -> dict[str, str]:
    """The titles of the project's own specification's chapters, by the prefix of their clauses."""
    return dict(_CHAPTER.findall(PATH.read_text()))


def load() -> dict[str, Clause]:
    """The project's own specification."""
    return clauses(PATH.read_text())
