# SPDX-License-Identifier: GPL-2.0-only
"""usage: python -m mutants [OPTION...]

How many of the faults planted in a kernel does the suite find? Builds the kernel, has each case
tell which faults it reaches, lets one fault after another act on the cases that reach it, and
writes a table. A second call goes on where the first was interrupted, and does only what new
cases or faults ask for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.selftests import SELFTEST_DIR, BenchError, selftest_tree
from helpers import stream
from helpers.build import BuildError
from helpers.cases import canonical_id, shard
from mutants import choose, plant, selftests, table, units
from mutants.choose import Reach
from mutants.plant import Fault, PlantError
from mutants.table import Found, Score, Verdict
from vm import built, guests, kernels, qemu
from vm.campaign import Campaign
from vm.errors import VmError, first
from vm.guests import PROJECT, Terms
from vm.kernels import Kernel, KernelFiles

FLAVOUR = "mutants"
_LIST = "/uffd-wp/mutants.json"
_SEED = 7
_SECONDS = 6 * 3600.0
_SILENCE = 60.0  # of a guest: a case may wait for its subject, and its process be killed
_TURNS = 3
_MOST_LOST = 200  # faults panic and hang guests


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def planted(source: Path, config: str) -> dict[str, str]:
    """What the flavour's kernel differs in from the source."""
    return plant.planted(source, plant.plan(source, config).faults)


@dataclass(frozen=True)
class Side:
    """Whose cases are to find the faults, and what they take."""

    folder: Path  # for their streams, and those of other machines that are put there
    cases: Callable[[], set[str]]  # their ids
    paths: tuple[str, ...] = ()  # where pytest finds them, unless it knows
    files: Mapping[str, bytes] = field(default_factory=dict)  # what they need in a guest
    case_seconds: float = 10.0
    silence: float = _SILENCE


def _suite(folder: Path) -> Side:
    return Side(folder, _collected)


def _selftests(folder: Path) -> Side:
    """The kernel's own. Raises BenchError."""
    with selftest_tree(None) as source:
        programs = source / SELFTEST_DIR
        names, files = selftests.cases(programs), selftests.files(programs)
    seconds = units.SECONDS
    return Side(folder, lambda: names, (selftests.GUEST,), files, seconds, 2.5 * seconds)


def _collected() -> set[str]:
    """The ids of all cases. Raises VmError."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VmError("the cases can't be collected: run pytest --collect-only")
    return {canonical_id(line) for line in done.stdout.splitlines() if "::" in line}


def _events(folder: Path, what: str) -> list[dict[str, Any]]:
    """What was streamed in all runs of one kind, in their order."""
    runs = sorted(folder.glob(f"{what}-*/stream.jsonl"))
    return [event for run in runs for event in stream.read(run)]


def _campaign(folder: Path, what: str, tree: Path) -> tuple[Campaign, KernelFiles]:
    begun = f"{what}-{time.strftime('%Y%m%dT%H%M%S')}-{platform.node()}"
    made = Kernel(FLAVOUR, tree, None)
    return Campaign(made, folder / begun), made.files()


def _reach(side: Side, tree: Path) -> set[str]:
    """Has those cases tell what they reach that haven't yet; all there are."""
    known, cases = stream.ended(_events(side.folder, "reach")), side.cases()
    if not (new := cases - known):
        return cases
    _say(f"{len(new)} cases tell which faults they reach")
    campaign, files = _campaign(side.folder, "reach", tree)
    campaign.ended.update(known)  # a guest leaves out what it finds in the stream
    for name in known:
        campaign.record("result", sync=False, id=name, state="skipped")
    terms = Terms(["-p", "mutants.plugin", *side.paths], _SECONDS, None, side.files)
    asyncio.run(guests.run([(campaign, files)], terms))
    return cases


def _kill(side: Side, tree: Path, wanted: list[dict[str, Any]]) -> None:
    """Lets faults act, one after the other."""
    _say(f"{len(wanted)} faults act, one after the other")
    campaign, files = _campaign(side.folder, "kill", tree)
    arguments = ["-p", "mutants.plugin", f"--mutants={_LIST}", *side.paths]
    arguments += [f"--case-timeout={side.case_seconds:g}"]
    present = {**side.files, _LIST: json.dumps(wanted).encode()}
    terms = Terms(arguments, _SECONDS, side.silence, present, _MOST_LOST)
    asyncio.run(guests.run([(campaign, files)], terms))


def _found(folder: Path, cases: set[str] | None = None) -> Found:
    """What came of it so far, of these cases, or of all, also of those that are no more."""
    reaches = choose.passed(_events(folder, "reach"))
    kept = [reach for reach in reaches if cases is None or reach.case in cases]
    return Found(table.verdicts(_events(folder, "kill")), kept)


def _wanted(
    faults: list[Fault], reaches: list[Reach], verdicts: Mapping[str, Verdict], most: int
) -> list[dict[str, Any]]:
    """The faults that are not killed and that there are untried cases for, the quickest first;
    those in functions in which a fault took a guest along, those that have survived before, and
    those whose survival is explained, come last."""
    wanted, reasons, tests = [], table.reasons(), choose.by_test(reaches)
    for fault in faults:
        verdict = verdicts.get(fault.id)
        if verdict and verdict.killed:
            continue
        tried = set(verdict.tried) if verdict else set()
        cases = [name for name in choose.reaching(fault.number, tests, most) if name not in tried]
        if cases:
            about = {"number": fault.number, "id": fault.id, "function": fault.function}
            wanted.append(about | {"cases": cases})
    explained = {fault.id for fault in faults if any(r.covers(fault.id) for r in reasons)}

    lost = {f.function for f in faults if verdicts.get(f.id, Verdict()).how.startswith(table.LOST)}

    def effort(entry: dict[str, Any]) -> tuple[bool, bool, bool, int]:
        name, function = entry["id"], entry["function"]
        return name in explained, name in verdicts, function in lost, len(entry["cases"])

    return sorted(wanted, key=effort)


def _source(text: str) -> built.LinuxSource:
    suite, _, package = text.partition("/")
    if not re.fullmatch(r"linux-source-[\d.]+", package):
        raise argparse.ArgumentTypeError(f"{text!r} isn't like trixie/linux-source-6.12")
    return built.LinuxSource(suite, package)


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make mutants ARGS=…", usage=(__doc__ or "").removeprefix("usage: ")
    )
    parser.add_argument(
        "--only", metavar="ID", default="*", help="only faults whose id matches this shell pattern"
    )
    parser.add_argument(
        "--most",
        type=int,
        default=400,
        metavar="N",
        help="how many cases are tried on a fault, each test's cheapest first (default: 400)",
    )
    parser.add_argument(
        "--selftests",
        action="store_true",
        help="have the kernel's own selftests find the faults, taken in random order, instead",
    )
    parser.add_argument(
        "--source", type=_source, default=built.LinuxSource(), metavar="SUITE/PACKAGE",
        help="of Linux, from Debian (default: trixie/linux-source-6.12)",
    )  # fmt: skip
    parser.add_argument(
        "--shard", type=shard, default=(1, 1), metavar="K/N",
        help="only every Nth fault, from the Kth on: for one of N machines, whose folders under "
        "results/mutants are then put into one",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="forget what earlier calls found")
    parser.add_argument("--list", action="store_true", help="list the faults, and do no more")
    return parser.parse_args(words)


def _run(options: argparse.Namespace) -> None:
    source = options.source.tree()
    _say(f"the kernel: {source}")
    tree = built.build(built.Flavour(FLAVOUR, change=planted), options.source)
    plan = plant.plan(source, (tree / ".config").read_text())
    for place in plan.missing:
        _say(f"handmade.toml: {place}, in this source")
    first, step = options.shard
    chosen = [f for f in plan.faults[first - 1 :: step] if fnmatchcase(f.id, options.only)]
    if not chosen:
        raise PlantError(f"no fault's id matches {options.only}: --list shows them")
    if options.list:
        print("\n".join(f"{f.id}  {f.file}:{f.line}  {f.told()}" for f in chosen))
        return
    folder = PROJECT / "results" / "mutants" / (tree / built.STAMP).read_text()[:12]
    theirs = folder / "selftests"
    side = _selftests(theirs) if options.selftests else _suite(folder)
    if options.fresh:
        shutil.rmtree(side.folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    qemu.check()
    cases = _reach(side, tree)
    found = _found(side.folder, cases)
    for _ in range(_TURNS):  # a guest that was spoilt leaves cases untried
        wanted = _wanted(chosen, found.reaches, found.verdicts, options.most)
        if not wanted:
            break
        if options.selftests:  # so that those that were tried are a sample, whenever it ends
            random.Random(_SEED).shuffle(wanted)
        _kill(side, tree, wanted)
        found = _found(side.folder, cases)
    release, ours = kernels.at(tree).release, _found(folder)
    score = Score(release, chosen, ours.verdicts, ours.reaches, selftests=_found(theirs))
    table.write(folder, score)


def main(words: list[str]) -> int:
    guests.interruptible()
    try:
        _run(_parse(words))
    except KeyboardInterrupt:
        _say("mutants: interrupted; the next call goes on from here")
        return 130
    except Exception as caught:
        error = first(caught)
        if not isinstance(error, (BenchError, BuildError, PlantError, VmError, OSError)):
            raise
        _say(f"mutants: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
