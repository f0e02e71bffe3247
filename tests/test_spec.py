# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md and the cases hold each other: no clause without a case, no case without a clause."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from helpers import spec

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "uffd_tests").glob("test_*.py"))


def cited(chapter: Path) -> list[str]:
    """The clause of each case declaration of a file."""
    return [
        node.args[0].value
        for node in ast.walk(ast.parse(chapter.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "case"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


def test_every_clause_has_a_case_and_every_case_a_clause() -> None:
    cases = {clause for chapter in CHAPTERS for clause in cited(chapter)}
    assert cases == set(spec.load())


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_file_holds_the_cases_of_one_chapter(chapter: Path) -> None:
    heading = re.search(rf"^## ([A-Z]+): .*`{chapter.name}`", spec.PATH.read_text(), re.MULTILINE)
    assert heading is not None, f"SPEC.md has no chapter for {chapter.name}"
    assert {clause.partition("-")[0] for clause in cited(chapter)} == {heading[1]}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_test_is_declared_as_a_case(chapter: Path) -> None:
    functions = [n for n in ast.parse(chapter.read_text()).body if isinstance(n, ast.FunctionDef)]
    tests = [function for function in functions if function.name.startswith("test_")]
    assert len(tests) == len(cited(chapter))
    assert [name for name, n in Counter(t.name for t in tests).items() if n > 1] == []


def test_every_clause_that_is_referred_to_is_there() -> None:
    clauses = spec.load()
    chapters = "|".join({clause.partition("-")[0] for clause in clauses})
    named = re.findall(rf"\b(?:{chapters})-\d+\b", spec.PATH.read_text())
    assert set(named) == set(clauses)


def test_clauses_of_a_chapter_are_numbered_without_a_gap() -> None:
    numbers: dict[str, list[int]] = {}
    for name in spec.load():
        chapter, _, number = name.partition("-")
        numbers.setdefault(chapter, []).append(int(number))
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values()), numbers


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- **X-1** Text. Since: 5.7.\n", "Source"),
        ("- **X-1** A. Source: b. Since: 1.\n- **X-1** A. Source: b. Since: 1.\n", "twice"),
    ],
    ids=["no_source", "repeated"],
)
def test_malformed_clause_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        spec.clauses(text)
