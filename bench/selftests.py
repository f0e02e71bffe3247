# SPDX-License-Identifier: GPL-2.0-only
"""Compare the suite's throughput with that of the kernel's own selftests, in cases per second.

The bar is what tools/testing/selftests/mm has for userfaultfd write-protect: uffd-unit-tests,
pagemap_ioctl and uffd-wp-mremap. A figure for either side says little away from the machine it was
taken on, so both are measured here, in turns (selftests, suite, selftests, suite, ...), and what
counts is the ratio of each such pair.

How it is counted, the same on both sides:

* A case is one result that a suite reports: a TAP result line, a JUnit testcase. A selftest that
  dies without a result for the case in flight gets one failure for it.
* A case is executed if it passed, failed or failed as expected. The ratio in the last line is that
  of executed cases per second; the figures with skipped cases counted in stand beside it.
* Time is wall-clock time from starting a process to its end. The suite's holds the start of the
  interpreter and of the workers and the collection, but not the compilation of its helper, just as
  the selftests' leaves out theirs.
* The selftests run one after another, because they change global knobs under each other's feet,
  with the huge pages that run_vmtests.sh reserves for them; the suite runs with `pytest -n auto`.

The selftests are those of the newest kernel source that Debian unstable offers, because the
kernels of the stable releases are older than uffd-wp-mremap, or those of a tree named with
--source. Only what they need is unpacked and built, into $XDG_CACHE_HOME/uffd-wp: a second run
fetches and builds nothing, and a run after the removal of that folder takes a newer kernel.

The knobs of huge pages, which the selftests change, are put back after each of their runs as they
were found. Other users of huge pages, this suite in another terminal among them, should wait.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median, median_low
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
SUITE = "uffd_tests"
SELFTESTS = ("uffd-unit-tests", "pagemap_ioctl", "uffd-wp-mremap")
SELFTEST_DIR = Path("tools/testing/selftests/mm")

EXECUTED = ("passed", "failed", "xfailed")
OUTCOMES = (*EXECUTED, "skipped")

SELFTEST_LIMIT = 300.0  # seconds for one binary, which takes a few
SUITE_LIMIT = 1800.0
KILL_LIMIT = 10.0
KSFT_SKIP = 4
HUGETLB_POOL_KB = 256 * 1024  # what run_vmtests.sh reserved until the selftests did so themselves

# The parts of a kernel tree that `make headers` and the three selftests need.
TREE_PARTS = (
    "Makefile",
    "scripts",
    "include/uapi",
    "mm/gup_test.h",
    "tools/include",
    "tools/testing/selftests/kselftest.h",
    "tools/testing/selftests/kselftest_harness.h",
    "tools/testing/selftests/lib.mk",
    "tools/testing/selftests/mm",
    "tools/testing/selftests/x86",  # compiler checks
)
SRCARCH = {"x86_64": "x86", "aarch64": "arm64"}

# Command: Debian package.
FETCH_TOOLS = {"apt-get": "apt", "dpkg-deb": "dpkg", "tar": "tar", "xz": "xz-utils"}
BUILD_TOOLS = {"make": "make", "gcc": "gcc libc6-dev"}


class BenchError(Exception):
    """A condition that makes the comparison impossible, in one line for the user."""


@dataclass(frozen=True)
class Result:
    """How many cases of one run had which outcome, and the time it took in seconds."""

    counts: Counter[str]
    wall: float

    @property
    def executed(self) -> int:
        return sum(self.counts[outcome] for outcome in EXECUTED)

    @property
    def executed_rate(self) -> float:
        return self.executed / self.wall

    @property
    def counted_rate(self) -> float:
        return sum(self.counts.values()) / self.wall

    def as_dict(self) -> dict[str, float]:
        return {**{outcome: self.counts[outcome] for outcome in OUTCOMES}, "wall": self.wall}


@dataclass(frozen=True)
class Pair:
    """One run of the selftests and the run of the suite that followed."""

    selftests: dict[str, Result]
    suite: Result

    @property
    def selftests_total(self) -> Result:
        results = self.selftests.values()
        counts = sum((each.counts for each in results), Counter[str]())
        return Result(counts, sum(each.wall for each in results))

    @property
    def executed_ratio(self) -> float:
        return self.suite.executed_rate / self.selftests_total.executed_rate

    @property
    def counted_ratio(self) -> float:
        return self.suite.counted_rate / self.selftests_total.counted_rate


def say(text: str) -> None:
    """Tell the user what goes on, apart from the figures on standard output."""
    print(text, file=sys.stderr, flush=True)


# Commands


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    output: str
    errors: str
    wall: float

    @property
    def complaint(self) -> str:
        """The line of its output that most likely says what went wrong."""
        lines = [line.strip() for line in (self.output + self.errors).splitlines() if line.strip()]
        telling = [line for line in lines if re.search(r"(?i)error: (?!usage)|^E: ", line)]
        return (telling[:1] or lines[-1:] or [f"exit code {self.code}"])[0]


def run(what: str, argv: Sequence[str], cwd: Path, limit: float | None = None) -> Finished:
    """Run a command in a process group of its own, of which nothing survives this call."""
    start = time.perf_counter()
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit)
            wall = time.perf_counter() - start
        except subprocess.TimeoutExpired:
            raise BenchError(f"{what} was killed: not done after {limit:.0f} s") from None
        finally:
            kill_group(process)
    return Finished(process.returncode, output, errors, wall)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process with all of its group, and wait for their end: it frees their huge pages."""
    deadline = time.monotonic() + KILL_LIMIT
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.01)


def environment() -> dict[str, str]:
    """The environment without what a make around this program says to its children."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def checked(what: str, argv: Sequence[str], cwd: Path) -> str:
    """Run a command that has to succeed, and return its standard output."""
    finished = run(what, argv, cwd)
    if finished.code:
        raise BenchError(f"{what} failed: {finished.complaint}")
    return finished.output


def require(tools: dict[str, str]) -> None:
    """Insist on the commands in `tools`, a mapping from command to Debian package."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = " ".join(tools[tool] for tool in missing)
        raise BenchError(f"no {' and no '.join(missing)} here: apt-get install {packages}")


# The kernel tree


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "uffd-wp"


def tree_parts() -> list[str]:
    """The paths in a kernel tree that the selftests need on this machine."""
    machine = platform.machine()
    if machine not in SRCARCH:
        raise BenchError(f"no {machine} here: the selftests are built for {' or '.join(SRCARCH)}")
    return [*TREE_PARTS, f"arch/{SRCARCH[machine]}"]


def version(text: str) -> tuple[int, ...]:
    """The numbers in a name such as linux-source-7.2, for comparison."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


@contextmanager
def selftest_tree(source: Path | None) -> Iterator[Path]:
    """A tree in which the selftests are built: the cached one, or a copy of what `source` has."""
    if source is None:
        tree = cached_tree()
        build(tree)
        yield tree
    else:
        with TemporaryDirectory(prefix="uffd-wp-") as scratch:
            tree = Path(scratch)
            copy_tree(source, tree)
            build(tree)
            yield tree


def copy_tree(source: Path, tree: Path) -> None:
    """Copy what the selftests need, so that nothing is built in the user's own tree."""
    require_selftests(source)
    for part in tree_parts():
        origin, copy = source / part, tree / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, copy, symlinks=True, ignore=shutil.ignore_patterns("*.o"))
        elif origin.exists():
            shutil.copy2(origin, copy)


def require_selftests(tree: Path) -> None:
    for name in SELFTESTS:
        if not (tree / SELFTEST_DIR / f"{name}.c").exists():
            raise BenchError(f"{tree.name} has no {SELFTEST_DIR / name}.c")


def cached_tree() -> Path:
    """The newest tree in the cache, fetched if there is none yet."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    trees = sorted(cache.glob("linux-source-*"), key=lambda tree: version(tree.name))
    return trees[-1] if trees else fetch_tree(cache)


def fetch_tree(cache: Path) -> Path:
    """Unpack Debian's newest kernel source into the cache, where it appears whole or not at all."""
    require(FETCH_TOOLS)
    with TemporaryDirectory(prefix="fetch-", dir=cache) as scratch:
        folder = Path(scratch)
        package = download_source(folder)
        say(f"unpacking {package}")
        (deb,) = folder.glob("*.deb")
        checked("dpkg-deb", ["dpkg-deb", "-x", deb.name, "package"], folder)
        members = [f"{package}/{part}" for part in tree_parts()]
        archive = f"package/usr/src/{package}.tar.xz"
        checked("tar", ["nice", "tar", "-xf", archive, *members], folder)
        require_selftests(folder / package)
        return (folder / package).rename(cache / package)


def download_source(folder: Path) -> str:
    """Download Debian's newest linux-source package into `folder` and return its name."""
    options = apt_options(folder)
    checked("apt-get update", ["apt-get", "update", *options], folder)
    names = checked("apt-cache", ["apt-cache", "pkgnames", "linux-source-", *options], folder)
    package = max(names.split(), key=version, default="")
    if not package:
        raise BenchError("apt offers no linux-source package: name a kernel tree with --source")
    say(f"fetching {package}")
    checked("apt-get download", ["apt-get", "download", package, *options], folder)
    return package


def apt_options(folder: Path) -> list[str]:
    """Options that let apt see Debian unstable and keep the machine's own lists out of it."""
    for subfolder in ("lists/partial", "cache/archives/partial"):
        (folder / subfolder).mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={archive_keyring()}] {archive_uri()} unstable main\n")
    settings = {
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "-",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def archive_uri() -> str:
    """The Debian archive that the machine's own apt sources name."""
    debian = ["Created-By: Packages", "Origin: Debian", "Label: Debian"]
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *debian]
    uris = checked("apt-get indextargets", command, ROOT).split()
    if not uris:
        raise BenchError("apt knows no Debian archive: run apt-get update, or give --source")
    return uris[0]


def archive_keyring() -> Path:
    keyrings = sorted(Path("/usr/share/keyrings").glob("debian-archive-keyring.*"))
    if not keyrings:
        raise BenchError("no Debian archive keyring: apt-get install debian-archive-keyring")
    return keyrings[-1]


def build(tree: Path) -> None:
    """Build the three selftests, and before them the uapi headers of their own tree."""
    folder = (tree / SELFTEST_DIR).resolve()
    binaries = [str(folder / name) for name in SELFTESTS]
    if all(map(os.path.exists, binaries)):
        return
    require(BUILD_TOOLS)
    say(f"building the selftests of Linux {kernel_version(tree)}")
    what = f"the build (packages: {' '.join(BUILD_TOOLS.values())})"
    make = ["nice", "make", "-s", f"-j{os.cpu_count()}"]
    checked(what, [*make, "headers"], tree)
    checked(what, [*make, "-C", str(folder), f"OUTPUT={folder}", *binaries], tree)


def kernel_version(tree: Path) -> str:
    """VERSION.PATCHLEVEL.SUBLEVEL of the tree's Makefile."""
    head = (tree / "Makefile").read_text()
    return ".".join(re.findall(r"^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$", head, re.MULTILINE))


# The machine's knobs


def huge_page_knobs() -> Iterator[Path]:
    """Each setting of hugetlb pools, THP and khugepaged that can be read and written."""
    memory = Path("/sys/kernel/mm")
    yield from memory.glob("hugepages/*/nr_*hugepages")
    for path in memory.glob("transparent_hugepage/**/*"):
        if path.is_file() and path.stat().st_mode & 0o600 == 0o600:
            yield path


def setting(knob: Path) -> str:
    """The value of a knob, which for a choice of words is the one in brackets."""
    text = knob.read_text().strip()
    chosen = re.search(r"\[(\S+)\]", text)
    return chosen[1] if chosen else text


@contextmanager
def knobs_restored() -> Iterator[None]:
    """Put the knobs back as they were found, however the block ends."""
    found = {knob: setting(knob) for knob in huge_page_knobs()}
    try:
        yield
    finally:
        for knob, value in found.items():
            restore(knob, value)


def restore(knob: Path, value: str) -> None:
    try:
        if setting(knob) != value:
            knob.write_text(value)
        if setting(knob) != value:
            say(f"{knob}: {value} as found, now {setting(knob)}")
    except OSError as error:
        say(f"{knob}: {value} could not be put back: {error}")


def reserve_huge_pages() -> None:
    """Reserve the huge pages that run_vmtests.sh reserves."""
    pool = Path("/proc/sys/vm/nr_hugepages")
    size = re.search(r"^Hugepagesize: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if size and pool.exists():
        wanted = HUGETLB_POOL_KB // int(size[1])
        pool.write_text(str(max(wanted, int(pool.read_text()))))


# The two sides


def run_selftests(tree: Path) -> dict[str, Result]:
    """Run the selftests one after another, each without arguments as run_vmtests.sh does."""
    folder = tree / SELFTEST_DIR
    with knobs_restored():
        reserve_huge_pages()
        return {name: run_selftest(name, folder) for name in SELFTESTS}


def run_selftest(name: str, folder: Path) -> Result:
    finished = run(name, [f"./{name}"], folder, SELFTEST_LIMIT)
    counts = Counter(outcome for _, outcome in tap_results(finished.output))
    if finished.code not in (0, KSFT_SKIP) and not counts["failed"]:
        counts["failed"] = 1
    return Result(counts, finished.wall)


def tap_results(output: str) -> Iterator[tuple[str, str]]:
    """Names and outcomes in TAP, or in the `Testing ... done` of older uffd-unit-tests."""
    own = {"done": "passed", "failed": "failed", "skipped": "skipped"}
    tap = r"^(not )?ok \d+ *(?:# (SKIP|XFAIL) )?(.*?)(?: # (SKIP|XFAIL)\b.*)?$"
    lines = rf"{tap}|^Testing (.*?)\.\.\. (done|failed|skipped)"
    for bad, before, name, after, old, word in re.findall(lines, output, re.MULTILINE):
        if word:
            yield old, own[word]
        elif bad:
            yield name, "failed"
        else:
            yield name, {"SKIP": "skipped", "XFAIL": "xfailed"}.get(before or after, "passed")


def pytest_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, SUITE]


def warm_up(root: Path) -> None:
    """Collect the suite once, so that its helper is compiled before the clock runs."""
    checked("pytest", pytest_command("--collect-only"), root)


def run_suite(root: Path) -> Result:
    """Run the suite that lies in `root`; it puts its own knobs back."""
    with TemporaryDirectory(prefix="uffd-wp-") as scratch:
        report = Path(scratch) / "junit.xml"
        command = pytest_command("-n", "auto", f"--junitxml={report}")
        finished = run("pytest", command, root, SUITE_LIMIT)
        if finished.code not in (0, 1):
            raise BenchError(f"pytest ended with exit code {finished.code}: {finished.complaint}")
        cases = ElementTree.parse(report).iter("testcase")
        return Result(Counter(map(junit_outcome, cases)), finished.wall)


def junit_outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    skipped = case.find("skipped")
    if skipped is None:
        return "passed"
    return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"


def measure(tree: Path, root: Path, runs: int) -> list[Pair]:
    """Run both sides in turns, `runs` times each."""
    warm_up(root)
    pairs = []
    for number in range(1, runs + 1):
        pair = Pair(run_selftests(tree), run_suite(root))
        if not (pair.selftests_total.executed and pair.suite.executed):
            raise BenchError("nothing to compare: one side skipped all of its cases here")
        say(f"pair {number} of {runs}: {pair.executed_ratio:.1f} times the selftests")
        pairs.append(pair)
    return pairs


# The figures


def spread(values: Sequence[float]) -> str:
    """Median and range, as in 12.6 (11.9-13.0)."""
    return f"{median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def row(name: str, results: Sequence[Result]) -> str:
    """A line of the table, over all runs of one test program."""
    counts = [f"{median_low(each.counts[outcome] for each in results):>8}" for outcome in OUTCOMES]
    wall = median(each.wall for each in results)
    executed = spread([each.executed_rate for each in results])
    counted = spread([each.counted_rate for each in results])
    return f"{name:<15}{''.join(counts)}{wall:>9.2f}{executed:>22}{counted:>22}"


def table(pairs: Sequence[Pair]) -> Iterable[str]:
    counts = "".join(f"{outcome:>8}" for outcome in OUTCOMES)
    yield f"{'':<15}{counts}{'wall, s':>9}{'executed/s':>22}{'with skipped/s':>22}"
    for name in SELFTESTS:
        yield row(name, [pair.selftests[name] for pair in pairs])
    yield row("selftests", [pair.selftests_total for pair in pairs])
    yield row(SUITE, [pair.suite for pair in pairs])


def report(release: str, pairs: Sequence[Pair]) -> str:
    """The figures as text, the ratio in the last line."""
    executed = [pair.executed_ratio for pair in pairs]
    counted = [pair.counted_ratio for pair in pairs]
    lines = [
        f"selftests of Linux {release} and {SUITE} on Linux {os.uname().release}",
        f"{os.cpu_count()} CPUs, in turns: median (min-max) of {len(pairs)} runs",
        "",
        *table(pairs),
        "",
        "executed: passed, failed or failed as expected (xfailed)",
        f"ratio of each pair: {'  '.join(f'{ratio:.1f}' for ratio in executed)}",
        f"ratio with skipped cases counted in: {spread(counted)}",
        f"ratio of executed cases per second: {spread(executed)}",
    ]
    return "\n".join(lines)


def figures(release: str, pairs: Sequence[Pair]) -> dict[str, object]:
    """The figures as data."""
    return {
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "selftests_release": release,
        "pairs": [
            {
                "selftests": {name: each.as_dict() for name, each in pair.selftests.items()},
                "suite": pair.suite.as_dict(),
                "executed_ratio": pair.executed_ratio,
                "counted_ratio": pair.counted_ratio,
            }
            for pair in pairs
        ],
        "executed_ratio": median(pair.executed_ratio for pair in pairs),
        "counted_ratio": median(pair.counted_ratio for pair in pairs),
    }


# The command line


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.selftests",
        description="Compare the suite's cases per second with those of the kernel's selftests.",
    )
    parser.add_argument(
        "--runs",
        type=positive,
        default=3,
        metavar="N",
        help="how often each side runs (default: 3)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="a kernel tree to take the selftests from, instead of Debian's",
    )
    return parser.parse_args()


def require_suite(root: Path) -> None:
    """Insist on all that the suite's side needs, before the long work starts."""
    if os.geteuid() != 0:
        raise BenchError("not root: the selftests set the knobs of huge pages")
    for module, package in {"pytest": "pytest", "xdist": "pytest-xdist"}.items():
        if find_spec(module) is None:
            raise BenchError(f"no {package} here: pip install {package}")
    if not (root / SUITE).is_dir():
        raise BenchError(f"no {SUITE} in {root}")


def compare(root: Path, arguments: argparse.Namespace) -> None:
    """Measure the suite in `root` against the selftests and print the figures."""
    require_suite(root)
    with selftest_tree(arguments.source) as tree:
        release = kernel_version(tree)
        pairs = measure(tree, root, arguments.runs)
    print(report(release, pairs), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures(release, pairs), indent=2) + "\n")


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        compare(ROOT, arguments)
    except (BenchError, OSError, ElementTree.ParseError) as error:
        say(f"bench.selftests: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench.selftests: interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
