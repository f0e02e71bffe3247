# SPDX-License-Identifier: GPL-2.0-only
"""The examples for CI systems, by these systems' own linters and schemas."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from report import ktap
from report.merge import State, load
from vm import kernels, packages

ROOT = Path(__file__).parent.parent
CI = ROOT / "ci"
GOLDEN = ROOT / "tests" / "golden" / "streams"
BIN = Path(sys.executable).parent
SECONDS = 300  # for a tool that takes two on an idle machine
USUAL = [kernel.name for kernel in kernels.load(ROOT / "kernels.txt") if not kernel.group]


def run(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.mark.parametrize(
    ("schema", "name"), [("gitlab-ci", "gitlab.yml"), ("github-workflows", "github.yml")]
)
def test_the_schema_takes_the_file(schema: str, name: str) -> None:
    done = run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", CI / name)
    assert done.returncode == 0, done.stdout


def test_gitlab_runs_the_kernels_of_the_list() -> None:
    jobs = YAML(typ="safe").load(CI / "gitlab.yml")
    assert jobs["kernel"]["parallel"]["matrix"] == [{"KERNEL": USUAL}]


@pytest.mark.skipif(not shutil.which("jq"), reason="no jq: apt-get install jq")
def test_github_makes_its_matrix_of_the_list(tmp_path: Path) -> None:
    jobs = YAML(typ="safe").load(CI / "github.yml")["jobs"]
    script = next(s["run"] for s in jobs["kernels"]["steps"] if s.get("id") == "list")
    output = tmp_path / "output"
    done = run("env", f"GITHUB_OUTPUT={output}", "bash", "-euo", "pipefail", "-c", script)
    assert done.returncode == 0, done.stderr
    assert json.loads(output.read_text().removeprefix("names=")) == USUAL


def test_tmt_takes_the_plan(tmp_path: Path) -> None:
    shutil.copytree(CI, tmp_path / "ci")
    (tmp_path / ".fmf").mkdir()
    (tmp_path / ".fmf" / "version").write_text("1\n")  # as `tmt init` writes it
    done = run(BIN / "tmt", "lint", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "fail" not in done.stdout


@pytest.mark.skipif(
    not Path("/usr/lib/python3/dist-packages/lava_common").exists(),
    reason="no schema of LAVA's: apt-get install lava-common",
)
def test_lava_takes_the_definition() -> None:
    program = "import sys, yaml; from lava_common.schemas.test.testdef import validate"
    check = f"{program}; validate(yaml.safe_load(open(sys.argv[1])))"
    done = run("/usr/bin/python3", "-c", check, CI / "lava.yaml")
    assert done.returncode == 0, done.stderr


def test_the_suite_joins_installed_selftests_once(tmp_path: Path) -> None:
    listed = tmp_path / "kselftest-list.txt"
    listed.write_text("mm:ksft_uffd_wp.sh\n")
    for _ in range(2):
        assert run(CI / "kselftest" / "install.sh", tmp_path).returncode == 0
    assert listed.read_text().splitlines() == ["mm:ksft_uffd_wp.sh", "uffd-wp:uffd-wp.sh"]
    assert (tmp_path / "uffd-wp" / "suite" / "pytest.ini").exists()
    assert (tmp_path / "uffd-wp" / "settings").read_text() == "timeout=900\n"


# -- by the kernel's own tools


@pytest.fixture(scope="module")
def source() -> Path:
    """A kernel's."""
    found = sorted((packages.cache().parent / "source").glob("linux-source-*"))
    if not found:
        pytest.skip("no kernel source in the cache: make mutants")
    return found[-1]


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_kunit_reads_the_same_from_ktap(source: Path, name: str, tmp_path: Path) -> None:
    results = load(GOLDEN / name)
    (tmp_path / "ktap").write_text("\n".join(ktap.lines(results)) + "\n")
    done = run("python3", source / "tools/testing/kunit/kunit.py", "parse", tmp_path / "ktap")
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).rpartition("Testing complete. Ran ")[2]
    read = {word: int(count) for word, count in re.findall(r"(\w+): (\d+)", told)}
    counts = Counter(o.state for kernel in results.kernels for o in kernel.outcomes)
    assert read == {
        word: count
        for word, count in {
            "passed": counts[State.PASSED] + counts[State.XFAILED],
            "failed": sum(counts[state] for state in State if state.red),
            "skipped": counts[State.SKIPPED],
        }.items()
        if count
    }


def test_run_kselftest_runs_the_suite(source: Path, tmp_path: Path) -> None:
    selftests = source / "tools" / "testing" / "selftests"
    shutil.copy(selftests / "run_kselftest.sh", tmp_path)
    shutil.copytree(selftests / "kselftest", tmp_path / "kselftest")
    (tmp_path / "kselftest-list.txt").touch()
    assert run(CI / "kselftest" / "install.sh", tmp_path).returncode == 0
    runner = ("sh", tmp_path / "run_kselftest.sh")
    assert run(*runner, "--list").stdout.strip() == "uffd-wp:uffd-wp.sh"
    done = run(*runner, "--collection", "uffd-wp", "--dry-run")
    assert "uffd-wp.sh" in done.stdout
    assert done.returncode == 0, done.stderr


def test_what_holds_no_selftests_is_refused(tmp_path: Path) -> None:
    done = run(CI / "kselftest" / "install.sh", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
