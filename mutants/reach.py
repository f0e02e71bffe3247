# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of the kernel's uffd-wp code run under the suite, and under the kernel's selftests.

    python -m mutants.reach

builds Debian's kernel with gcov for the files that name uffd-wp, runs both in guests of it, and
writes reach.md: a table by file and function, and the lines that none reaches.

What counts is a line of code that names uffd-wp (the bit in page tables, the marker, the flags
that ask for them), and each that such a line guards: the block below it, the body of a function.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bench.selftests import BenchError, kernel_version, selftest_tree
from helpers import stream
from helpers.build import BuildError
from mutants import gcov, plant, selftests
from vm import __main__ as vm
from vm import built
from vm.errors import VmError
from vm.guests import PROJECT

PAGE = Path(__file__).with_name("reach.md")
_NAMES = re.compile(
    r"(uffd|userfaultfd)\w*w(rite)?p|mwriteprotect|pte_?marker|mfill\w*wp", re.IGNORECASE
)
_FOLDERS = ("fs", "mm")
_USAGE = 2

Counts = Counter[tuple[str, int]]  # how often a line, by its file and number, has run


# -- the code


def profiled(tree: Path, _config: str) -> dict[str, str]:
    """The Makefiles that have gcov count in the C files that name uffd-wp: also the lines of
    calls, which gcc otherwise inlines before it counts."""
    files: dict[str, str] = {}
    for path in sorted(path for folder in _FOLDERS for path in (tree / folder).rglob("*.c")):
        if _NAMES.search(plant.masked(path.read_text())):
            makefile = path.with_name("Makefile")
            name = str(makefile.relative_to(tree))
            text = files.get(name) or makefile.read_text()
            text += f"GCOV_PROFILE_{path.stem}.o := y\n"
            files[name] = text + f"CFLAGS_{path.stem}.o += -fno-early-inlining\n"
    return files


FLAVOUR = built.Flavour("gcov", (Path(__file__).with_name("gcov.config"),), change=profiled)


def uffd_wp(text: str) -> dict[int, str]:
    """The lines of a C file that count, by number from 1, with the function each is in."""
    code = plant.masked(text)
    found: dict[int, str] = {}
    for function in plant.functions(code):
        first = code.count("\n", 0, function.start) + 1
        body = code[function.start : function.end].splitlines()
        whole = _NAMES.search(function.name)
        numbers = range(len(body)) if whole else _named(body)
        found |= {first + number: function.name for number in numbers}
    return found


def _named(body: list[str]) -> Iterator[int]:
    """The lines of a function's body that name uffd-wp, and those that they guard."""
    number = 0
    while number < len(body):
        first, statement = number, body[number]
        while statement.count("(") > statement.count(")"):
            number += 1
            statement += body[number]
        number += 1
        if _NAMES.search(statement):
            while number < len(body) and _indent(body[number]) > _indent(body[first]):
                number += 1
            yield from range(first, number)


def _indent(line: str) -> float:
    expanded = line.expandtabs(8)
    return len(expanded) - len(expanded.lstrip()) if expanded.strip() else math.inf


# -- what ran


def ended(results: Path) -> str:
    """How the cases of a run ended. Raises VmError where none passed."""
    streams = [stream.read(path) for path in results.glob("vm-*/*/stream.jsonl")]
    states = Counter(e["state"] for events in streams for e in events if e["event"] == "result")
    if not states["passed"]:
        raise VmError(f"no case has passed, so nothing can be told: look into {results}")
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def counts(tree: Path, results: Path) -> Counts:
    """What the guests of a run have counted, together. Raises BuildError without gcov's help."""
    found: Counts = Counter()
    for folder in results.resolve().rglob(gcov.FOLDER):
        with tempfile.TemporaryDirectory() as scratch:
            for data in sorted(folder.rglob("*.gcda")):
                name = data.relative_to(folder).relative_to(str(tree)[1:])
                beside = Path(scratch) / name
                beside.parent.mkdir(parents=True, exist_ok=True)
                beside.symlink_to(data)
                notes = name.with_suffix(".gcno")
                (Path(scratch) / notes).symlink_to(tree / notes)
                found.update(parsed(_gcov(beside)))
    return found


def _gcov(data: Path) -> str:
    command = ["gcov", "--json-format", "--stdout", data.name]
    done = subprocess.run(command, cwd=data.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"gcov can't read {data.name}: {done.stderr.strip()}")
    return done.stdout


def parsed(text: str) -> Counts:
    """The counts of gcov's JSON. A line that is in several functions has their sum."""
    found: Counts = Counter()
    for file in json.loads(text)["files"]:
        for line in file["lines"]:
            found[os.path.normpath(file["file"]), line["line_number"]] += line["count"]
    return found


# -- the page


@dataclass(frozen=True)
class Line:
    """A line of uffd-wp code that was compiled, and how often it ran under each of the two."""

    file: str
    function: str
    number: int
    ours: int
    theirs: int


def lines(tree: Path, ours: Counts, theirs: Counts) -> list[Line]:
    """All lines of uffd-wp code for which gcov counts."""
    counted = sorted({*ours, *theirs})
    found = []
    for file, numbers in groupby(counted, key=lambda line: line[0]):
        code = uffd_wp((tree / file).read_text(errors="replace"))
        found += [
            Line(file, code[number], number, ours[file, number], theirs[file, number])
            for _, number in numbers
            if number in code
        ]
    return found


def page(release: str, suite: str, selftests: str, found: list[Line]) -> str:
    """The results as Markdown; `suite` and `selftests` say what ran."""
    return "\n".join(
        [
            "# Reach",
            "",
            f"Lines of uffd-wp code of Linux {release} that ran under the suite and under the "
            "kernel's own selftests. `make reach` writes this page; `mutants/reach.py` says which "
            "lines count. Only what was compiled is here.",
            "",
            f"* suite: {suite}",
            f"* selftests: {selftests}",
            "",
            "| file, function | lines | suite | selftests |",
            "|---|--:|--:|--:|",
            _row("**all**", found),
            *_table(found),
            "",
            "## Reached by neither",
            "",
            *_listed(line for line in found if not line.ours and not line.theirs),
            "",
            "## Reached by the selftests alone",
            "",
            *_listed(line for line in found if line.theirs and not line.ours),
            "",
        ]
    )


def _table(found: list[Line]) -> Iterator[str]:
    for file, of_file in groupby(found, key=lambda line: line.file):
        there = list(of_file)
        yield _row(f"**{file}**", there)
        by_name = sorted(there, key=lambda line: line.function)
        for function, of_function in groupby(by_name, key=lambda line: line.function):
            yield _row(f"{function}()", list(of_function))


def _row(what: str, found: list[Line]) -> str:
    ours, theirs = sum(bool(line.ours) for line in found), sum(bool(line.theirs) for line in found)
    return f"| {what} | {len(found)} | {ours} | {theirs} |"


def _listed(found: Iterable[Line]) -> Iterator[str]:
    where = [(line.file, line.function, line.number) for line in found]
    if not where:
        yield "None."
    for (file, function), there in groupby(where, key=lambda each: each[:2]):
        yield f"- {file}: {function}(), {ranges(number for _, _, number in there)}"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order as text: 3, 7-9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if run[1:] else str(run[0]) for run in runs)


def main() -> int:
    results = PROJECT / "results" / f"reach-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    ours, theirs = results / "suite", results / "selftests"
    plugin = ["-p", gcov.__name__]
    try:
        tree = built.build(FLAVOUR)
        selftests.in_guests([str(tree), "--results", str(theirs)], plugin)
        vm.main([str(tree), "--results", str(ours), "--", *plugin])
        with selftest_tree(None) as source:
            units = f"{ended(theirs)} units of those of {kernel_version(source)}"
        found = lines(tree, counts(tree, ours), counts(tree, theirs))
        PAGE.write_text(page(kernel_version(tree), f"{ended(ours)} cases", units, found))
    except (BenchError, BuildError, VmError, OSError) as error:
        print(f"mutants.reach: {error}", file=sys.stderr)
        return _USAGE
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
