# SPDX-License-Identifier: GPL-2.0-only
"""The C programs of the benchmark: built on demand, and run, each time in a fresh process."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.cases import Case
from bench.errors import BenchError
from helpers import build, uapi

_SOURCES = Path(__file__).parent / "native"
_LIMIT = 900.0  # seconds for one process; a range of 10 GiB takes a few
_NUMBERS = {
    **{ioctl.name: ioctl.value for ioctl in uapi.Ioctl},
    "MADV_POPULATE_READ": uapi.Advice.POPULATE_READ,
    **{f"PAGE_IS_{category.name}": category.value for category in uapi.Category},
    **{f"PM_SCAN_{flag.name}": flag.value for flag in uapi.ScanFlag},
}


@dataclass(frozen=True)
class Step:
    """A step that was done."""

    word: str
    ns: int
    count: int


@dataclass(frozen=True)
class Look:
    """What the memory was at some point, in bytes; None where the kernel can't tell."""

    page_tables: int
    anon_huge: int
    present: int | None
    huge: int | None
    zero: int | None
    marked: int | None


class NotRun(BenchError):
    """The kernel refused a case, with the call and its error."""


def _compile(folder: Path) -> None:
    flags = [f"-D{name}={value:#x}UL" for name, value in _NUMBERS.items()]
    flags.append(f"-I{build.NATIVE}")
    for program in ("measure", "bare"):
        build.compile_program(_SOURCES / f"{program}.c", folder / program, *flags)


def built() -> Path:
    """The folder with the finished programs. Raises BuildError."""
    sources = [*sorted(_SOURCES.iterdir()), build.NATIVE / "uapi.h", Path(uapi.__file__)]
    return build.finished([*sources, Path(__file__)], _compile)


def call(program: str, *arguments: str) -> list[list[str]]:
    """The words of each line that a program prints. Raises NotRun, BenchError."""
    try:
        command = [str(built() / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{program} {' '.join(arguments)}: not done in {_LIMIT:g} s") from None
    if done.returncode:
        raise NotRun(done.stderr.strip() or f"{program} ended with {done.returncode}")
    return [line.split() for line in done.stdout.splitlines()]


def measure(case: Case, words: list[str]) -> list[Step | Look]:
    """Does a case's steps in a fresh process. Raises NotRun, BenchError."""
    features = "-" if case.features is None else hex(case.features)
    thp = "on" if case.thp else "off"
    lines = call("measure", case.kind, thp, features, str(case.bytes), *words)
    return [_parsed(line) for line in lines]


def _parsed(line: list[str]) -> Step | Look:
    word, *numbers = line[0], *map(int, line[1:])
    if word == "look":
        tables, huge, *scanned = numbers
        return Look(tables, huge, *(None if number < 0 else number for number in scanned))
    return Step(word, *numbers)
