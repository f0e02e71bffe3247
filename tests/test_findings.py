# SPDX-License-Identifier: GPL-2.0-only
"""Each finding is a C program that compiles, and a text that names cases which are there."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "findings").glob("*.c"))
EACH = pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)


@EACH
def test_program_compiles_without_a_warning(program: Path, tmp_path: Path) -> None:
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "program"), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@EACH
def test_text_names_its_program_and_cases_that_are_there(program: Path) -> None:
    text = program.with_suffix(".md").read_text()
    assert f"./{program.stem}" in text
    for chapter, name in re.findall(r"`([a-z_]+)\.([a-z_]+)`", text):
        assert f"def test_{name}(" in (ROOT / f"uffd_tests/test_{chapter}.py").read_text()
