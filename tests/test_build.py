# SPDX-License-Identifier: GPL-2.0-only
"""Building the C side: at once from many processes, from a read-only tree, after a change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECONDS = 300  # for a build that takes one on an idle machine
WHERE = "from helpers import build; print(build.built())"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the helpers in which nothing is built."""
    copy = tmp_path / "tree"
    shutil.copytree(
        ROOT / "helpers", copy / "helpers", ignore=shutil.ignore_patterns("__pycache__")
    )
    return copy


def start(tree: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-B", "-c", WHERE],
        cwd=tree,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def built(tree: Path, **environment: str) -> Path:
    out, error = start(tree, **environment).communicate(timeout=SECONDS)
    assert out, error
    return Path(out.splitlines()[-1])


def test_eight_processes_at_once_build_once(tree: Path) -> None:
    processes = [start(tree) for _ in range(8)]
    folders = {process.communicate(timeout=SECONDS)[0].splitlines()[-1] for process in processes}
    assert [Path(folder).parent for folder in folders] == [tree / "build"]
    assert len(list((tree / "build").iterdir())) == 1


def test_a_changed_source_is_built_anew(tree: Path) -> None:
    before = built(tree)
    with (tree / "helpers/native/subject.c").open("a") as source:
        source.write("/* changed */\n")
    after = built(tree)
    assert before != after
    assert (after / "subject").exists()


def test_an_unwritable_tree_builds_in_the_users_cache(tree: Path, tmp_path: Path) -> None:
    (tree / "build").write_text("not a folder, as if the tree could not be written\n")
    assert built(tree, XDG_CACHE_HOME=str(tmp_path / "cache")).is_relative_to(tmp_path / "cache")


def test_a_finished_build_needs_no_compiler(tree: Path) -> None:
    before = built(tree)
    assert built(tree, CC="/no/compiler", PATH="/none") == before


def test_no_compiler_is_said_in_one_line(tree: Path) -> None:
    _, error = start(tree, CC="/no/compiler").communicate(timeout=SECONDS)
    assert "cannot build the C helper: install a C compiler" in error.splitlines()[-1]
