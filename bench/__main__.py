# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark of the patch's thread: what write-protecting empty memory costs, now and later."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from bench import cases, environment, page, prove, summary
from bench.cases import LEAST_SIZE, MIB, THREAD_SIZE
from bench.errors import BenchError
from bench.measure import measure, say
from bench.run import Run
from helpers.build import BuildError

_RESULTS = Path(__file__).resolve().parent.parent / "results" / "bench"
_RUNS = 7
_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_UNITS = {"M": 20, "G": 30, "T": 40}


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise BenchError(f"{message} (--help tells more)")


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([MGT])(i?B)?", text, re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512M or 10G")
    size = int(match[1]) << _UNITS[match[2].upper()]
    if size < LEAST_SIZE or size % LEAST_SIZE:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of {LEAST_SIZE // MIB}M")
    return size


def _runs(text: str) -> int:
    if not text.isdecimal() or int(text) < 3:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 3 on: a median needs that")
    return int(text)


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    add: Callable[..., object] = parser.add_argument
    add("--size", type=_size, help="of the range, e.g. 2G (default: 10G, or what half of the "
        "available memory holds)")  # fmt: skip
    add("--runs", type=_runs, default=_RUNS, metavar="N", help=f"rounds (default: {_RUNS})")
    add("--cases", metavar="A,B", help="only these: sections, cases, or patterns of full names")
    add("--json", type=Path, default=_RESULTS / "bench.json", metavar="FILE",
        help="where the figures go, and beside it plot (.svg) and page (.md)")  # fmt: skip
    add("--from", type=Path, dest="source", metavar="FILE",
        help="measure nothing: tell, plot and write the page of this JSON file")  # fmt: skip
    add("--prove", action="store_true",
        help="hold the figures of the thread's cases against a bare C program")  # fmt: skip
    return parser.parse_args(words)


def _fit(size: int | None) -> tuple[int, list[str]]:
    """The range's size, and what there is to say about it. Raises BenchError."""
    free = environment.free_bytes()
    if size is not None:
        if size > free:
            raise BenchError(
                f"a range of {size // MIB} MiB doesn't fit: {free // MIB} MiB of memory are "
                "available; name a smaller --size"
            )
        return size, []
    size = THREAD_SIZE
    while size > free // 2:
        size = size // 2 // LEAST_SIZE * LEAST_SIZE
    if not size:
        raise BenchError(f"only {free // MIB} MiB of memory are available")
    if size == THREAD_SIZE:
        return size, []
    return size, [
        f"scaled down from {THREAD_SIZE // MIB} to {size // MIB} MiB, because only "
        f"{free // MIB} MiB of memory are available, half of which is used"
    ]


def _measured(options: argparse.Namespace) -> Run:
    size, notes = _fit(options.size)
    chosen = cases.all_cases(size)
    if options.cases is not None:
        chosen = cases.choose(chosen, options.cases.split(","))
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load >= cpus:
        notes.append(f"the machine is busy (load {load:.1f} on {cpus} CPUs): expect wide intervals")
    for note in notes:
        say(note)
    described = environment.describe()
    measured, missing = measure(chosen, options.runs)
    if not measured:
        raise BenchError(f"nothing could be measured: {next(iter(missing.values()))}")
    run = Run(
        size=size,
        runs=options.runs,
        emulated=environment.emulated(),
        environment=described,
        measured={each.case.name: each for each in measured},
        missing=missing,
        notes=notes,
    )
    run.save(options.json, summary.figures(run))
    return run


def main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = _arguments(words)
        if options.prove:
            size, _ = _fit(options.size)
            return 0 if prove.hold_against_bare(size, options.runs) else _FAILED
        run = Run.load(options.source) if options.source else _measured(options)
        print(page.terminal(run))
        for path in page.write(run, options.source or options.json):
            say(f"written: {path}")
        return 0
    except (BenchError, BuildError, OSError) as error:
        say(f"bench: {error}")
        return _USAGE
    except KeyboardInterrupt:
        say("bench: interrupted")
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
