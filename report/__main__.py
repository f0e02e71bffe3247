# SPDX-License-Identifier: GPL-2.0-only
"""Tell the results of a run: KTAP on standard output, a summary on standard error, and files.

A terminal gets no KTAP, which nobody reads there: pipe it.

Without an option for files, junit.xml and report.html are written into the first folder.
`python -m report diff EARLIER LATER` tells what changed between two runs.

Exit status: 0 passed, 1 failed, 4 everything was skipped, 2 there is no run to report on.
"""

from __future__ import annotations

import argparse
import gc
import io
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from report import diff, flat, html, junit, kcidb, ktap, lava, mutants, terminal
from report.merge import Run, State, Unreadable, load

_STATUS = {State.PASSED: 0, State.FAILED: 1, State.SKIPPED: 4}
_UNREADABLE = 2
_FILES = {  # option: what the file is, and its name if it is written unasked
    "junit": ("one JUnit document, a suite for each kernel", "junit.xml"),
    "html": ("the page: which kernel keeps which promise", "report.html"),
    "kcidb": ("KCIDB's JSON", ""),
    "csv": ("a flat table", ""),
    "json": ("the same table", ""),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _diff(words[1:]) if words[:1] == ["diff"] else _report(words)
    except (Unreadable, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return _UNREADABLE


def _report(words: list[str]) -> int:
    parser = argparse.ArgumentParser("report", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="a folder with results, or its shards'"
    )
    for name, (what, _) in _FILES.items():
        parser.add_argument(f"--{name}", metavar="FILE", type=Path, help=f"write {what}")
    parser.add_argument(
        "--since", metavar="RUN", type=Path, help="an earlier run: the page tells what changed"
    )
    parser.add_argument("--plot", metavar="SVG", type=Path, help="the benchmark's, for the page")
    parser.add_argument(
        "--mutants", metavar="JSON", type=Path, help="the mutation score's table, for the page"
    )
    parser.add_argument(
        "--origin", default=kcidb.ORIGIN, help="the CI system's name in KCIDB (%(default)s)"
    )
    parser.add_argument("--lava", action="store_true", help="print LAVA's signals and not KTAP")
    parser.add_argument("--quiet", action="store_true", help="print only what went wrong")
    options = parser.parse_args(words)
    wanted: dict[str, Path] = {n: p for n in _FILES if (p := getattr(options, n))}
    wanted = wanted or {n: options.runs[0] / name for n, (_, name) in _FILES.items() if name}
    run = load(*options.runs)
    changes = diff.changes(load(options.since), run) if options.since else None
    plot = options.plot.read_text() if options.plot else ""
    score = mutants.load(options.mutants) if options.mutants else None
    documents: dict[str, Callable[[Run], str]] = {
        "junit": junit.document,
        "html": partial(html.document, changes=changes, plot=plot, score=score),
        "kcidb": partial(kcidb.document, origin=options.origin),
        "csv": flat.as_csv,
        "json": flat.as_json,
    }
    for name, path in wanted.items():
        path.write_text(documents[name](run), encoding="utf-8")
    if not options.quiet and (options.lava or not sys.stdout.isatty()):
        _print((lava if options.lava else ktap).lines(run))
    terminal.tell(run, quiet=options.quiet)
    if not options.quiet:
        terminal.note(*(f"{name}: {path}" for name, path in wanted.items()))
    return _STATUS[run.state]


def _diff(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "report diff",
        description="Tell what changed between two runs. "
        "Exit status: 0 nothing got worse, 1 something failed that did not, 2 there is no run.",
    )
    parser.add_argument("earlier", metavar="EARLIER", type=Path, help="a folder with results")
    parser.add_argument("later", metavar="LATER", type=Path, help="the same, of a later run")
    parser.add_argument(
        "--failures", action="store_true", help="new failures only, with what they tell, for mail"
    )
    options = parser.parse_args(words)
    changes = diff.changes(load(options.earlier), load(options.later))
    _print(diff.mail(changes) if options.failures else diff.lines(changes))
    return int(any(change.worse for change in changes))


def _print(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    gc.disable()  # a fifth of the time, to find in a model that lives to the end no garbage
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has seen enough, as of head
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character
    sys.exit(main())
