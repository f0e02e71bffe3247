# SPDX-License-Identifier: GPL-2.0-only
"""What of the kernel's selftests can be run alone, and how a run of it goes; for guests, too.

uffd-unit-tests has a filter, by a part of a test's name; the others run whole.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer

from bench.selftests import SELFTESTS, kill_group, tap_results

FOLDER = Path("/uffd-wp/selftests")  # in a guest
SECONDS = 120.0  # for a unit, which takes a few, and a minute on a busy machine that emulates
_UNIT_TESTS = "uffd-unit-tests"
_HANDSHAKE = "UFFDIO_API"


@dataclass(frozen=True)
class Unit:
    """What is run in one process."""

    program: str
    arguments: tuple[str, ...] = ()
    until: str = ""  # it is ended by the first result of a test whose name begins otherwise

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.program, *self.arguments[1:], self.until)))


@dataclass(frozen=True)
class Ran:
    """A unit that was run: the outcome of each of its tests, and how the process ended."""

    outcomes: dict[str, str]
    end: str  # "exit 0", "exit -11" by a signal, "timeout"; "enough" when it was ended
    output: str

    @property
    def well(self) -> bool:
        """Whether it ended as it does when no test fails; 4 is that all were skipped."""
        return self.end in ("exit 0", "exit 4", "enough") and "failed" not in self.outcomes.values()

    def told(self) -> str:
        """What came of it, in the first line in short: the tests that failed, or the error that
        ended the program without a word of which test it was."""
        failed = [name for name, outcome in self.outcomes.items() if outcome == "failed"]
        errors = [line.strip("# ") for line in self.output.splitlines() if "ERROR" in line]
        short = ", ".join(failed or errors[:1]) or "no test failed"
        return f"{self.end}: {short}\n{self.output}"


def filters(listed: Iterable[str]) -> list[str]:
    """The filters that select each test once: what a test's name is a part of goes with it."""
    names = list(listed)
    return [name for name in names if not any(o in name for o in names if o != name)]


def units(folder: Path = FOLDER) -> list[Unit]:
    """The units of the programs in a folder; none where the programs aren't there."""
    if not all((folder / name).exists() for name in SELFTESTS):
        return []
    command = [str(folder / _UNIT_TESTS), "-l"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [
        Unit(_UNIT_TESTS, until=_HANDSHAKE),  # which no filter selects; it comes first
        *(Unit(_UNIT_TESTS, ("-f", name)) for name in filters(listed.split())),
        *(Unit(name) for name in SELFTESTS if name != _UNIT_TESTS),
    ]


def outcomes(output: str) -> dict[str, str]:
    """The outcome of each test; that of a name's second result as `NAME #2`."""
    found: dict[str, str] = {}
    seen = Counter[str]()
    for name, outcome in tap_results(output):
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} #{seen[name]}"] = outcome
    return found


def run(unit: Unit, seconds: float, folder: Path = FOLDER) -> Ran:
    """Runs a unit for some seconds at most; none of its processes is left then."""
    lines: list[str] = []
    end = ""
    with subprocess.Popen(
        [str(folder / unit.program), *unit.arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        late = Event()

        def give_up() -> None:
            late.set()
            kill_group(process)

        timer = Timer(seconds, give_up)
        timer.start()
        try:
            for line in process.stdout:
                if not all(name.startswith(unit.until) for name, _ in tap_results(line)):
                    end = "enough"
                    break
                lines.append(line)
            else:
                code = process.wait()
                end = "timeout" if late.is_set() else f"exit {code}"  # negative: by a signal
        finally:
            timer.cancel()
            kill_group(process)
    output = "".join(lines)
    return Ran(outcomes(output), end, output)
