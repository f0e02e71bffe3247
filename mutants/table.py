# SPDX-License-Identifier: GPL-2.0-only
"""The mutation score: which fault was killed by which case and clause, and why the others lived."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mutants.choose import Reach
from mutants.plant import Fault

SURVIVORS = Path(__file__).with_name("survivors.toml")
# What keeps a fault out of the score: no case could kill it.
LOST = "the guest was lost"  # how a fault is reported that a guest did not outlive
EXCUSED = ("equivalent", "unreachable")


@dataclass(frozen=True)
class Verdict:
    """What became of a fault."""

    killer: str = ""  # the case; "": it survived
    clause: str = ""
    how: str = ""
    tried: tuple[str, ...] = ()

    @property
    def killed(self) -> bool:
        return bool(self.killer)


@dataclass(frozen=True)
class Reason:
    """Why faults survive."""

    faults: tuple[str, ...]  # patterns of ids
    verdict: str
    reason: str

    def covers(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.faults)


def verdicts(events: Iterable[Mapping[str, Any]]) -> dict[str, Verdict]:
    """What became of the faults of a stream, or of several, one after the other.

    A guest that is lost counts as a kill only by the case that was in flight, as which it is
    reported: one lost between cases proves nothing.
    """
    found: dict[str, Verdict] = {}
    trying: dict[str, str] = {}
    for event in events:
        match event:
            case {"event": "try", "id": str(name), "case": str(case)}:
                trying[name] = case
            case {"event": "result", "id": str(name), "killer": str(killer), "tried": list(tried)}:
                if event["damage"].startswith("timeout") and event["reason"].startswith("timeout"):
                    killer = ""  # which it has without the fault, too: the machine is slow
                found[name] = _with(found.get(name), killer, event, tried)
                trying.pop(name, None)
            case {"event": "result", "id": str(name), "state": "crashed"} if name in trying:
                killer = trying.pop(name)
                found[name] = _with(found.get(name), killer, event, [killer])
    return found


def _with(
    before: Verdict | None, killer: str, event: Mapping[str, Any], tried: list[str]
) -> Verdict:
    slow = before and before.how.startswith("timeout") and before.killer in tried and not killer
    if before and before.killed and not slow:  # what a busy machine made look hung is taken back
        return before
    all_tried = (*(before.tried if before else ()), *tried)
    return Verdict(killer, event["clause"] if killer else "", event["reason"], all_tried)


def reasons(path: Path = SURVIVORS) -> list[Reason]:
    """The entries of `survivors.toml`."""
    entries = tomllib.loads(path.read_text())["survivor"]
    return [
        Reason(tuple(entry["faults"]), entry["verdict"], " ".join(entry["reason"].split()))
        for entry in entries
    ]


@dataclass(frozen=True)
class Found:
    """What some cases reach, and what became of the faults."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    reaches: list[Reach] = field(default_factory=list)


@dataclass(frozen=True)
class Score:
    """All that the table tells."""

    release: str
    faults: list[Fault]
    verdicts: Mapping[str, Verdict]
    reaches: list[Reach]
    reasons: list[Reason] = field(default_factory=reasons)
    selftests: Found = field(default_factory=Found)

    def verdict(self, fault: Fault) -> Verdict:
        return self.verdicts.get(fault.id, Verdict())

    def reason(self, fault: Fault) -> Reason | None:
        return next((reason for reason in self.reasons if reason.covers(fault.id)), None)

    def state(self, fault: Fault) -> str:
        """killed, the verdict on a survivor, unfinished while a case that reaches it has not been
        tried, or open. A reason is worth nothing before the fault has met a case, if any reach it
        and leave the kernel running."""
        verdict, reason = self.verdict(fault), self.reason(fault)
        if verdict.killed:
            return "killed"
        if reason and (verdict.tried or reason.verdict == "unreachable" or not self.reached(fault)):
            return reason.verdict
        tried = set(verdict.tried)
        left = any(fault.number in r.faults and r.case not in tried for r in self.reaches)
        return "unfinished" if left else "open"

    def states(self) -> Counter[str]:
        return Counter(map(self.state, self.faults))

    def percent(self) -> float:
        """Of the faults that are done with and that a case could kill, those that one does."""
        states = self.states()
        rest = len(self.faults) - sum(states[verdict] for verdict in (*EXCUSED, "unfinished"))
        return 100 * states["killed"] / rest if rest else 100.0

    def reached(self, fault: Fault) -> int:
        """How many cases reach a fault."""
        return sum(fault.number in reach.faults for reach in self.reaches)

    def idle(self) -> list[str]:
        """The tests that were first to kill nothing, and whose clause others prove, too."""
        tests: dict[str, set[str]] = {}
        for reach in self.reaches:
            tests.setdefault(reach.clause, set()).add(reach.test)
        killers = {".".join(v.killer.split(".")[:2]) for v in self.verdicts.values()}
        shared = (test for found in tests.values() if len(found) > 1 for test in found)
        return sorted(set(shared) - killers)

    def of_selftests(self, fault: Fault) -> str:
        """What the kernel's selftests made of a fault: the unit that killed it, or why none did;
        "" where they have not run."""
        if not self.selftests.reaches:
            return ""
        verdict = self.selftests.verdicts.get(fault.id)
        if verdict and verdict.killed:
            return verdict.killer.rpartition(".")[2]
        reached = any(fault.number in reach.faults for reach in self.selftests.reaches)
        return ("survived" if verdict else "not tried") if reached else "not reached"

    def comparison(self) -> str:
        """The selftests beside the suite, in a few words; "" where they have not run."""
        if not self.selftests.reaches:
            return ""
        made = {fault.id: self.of_selftests(fault) for fault in self.faults}
        reached = [fault for fault in self.faults if made[fault.id] != "not reached"]
        tried = [fault for fault in reached if made[fault.id] != "not tried"]
        theirs = [fault for fault in tried if made[fault.id] != "survived"]
        ours = [fault for fault in tried if self.verdict(fault).killed]
        pending = [f for f in tried if f.id not in self.verdicts and self.reached(f)]
        alone = [f for f in theirs if not self.verdict(f).killed and f not in pending]
        sample = "all tried" if tried == reached else f"{len(tried)}, taken at random, tried"
        return (
            f"The kernel's own selftests reach {len(reached)} of {len(self.faults)} faults. Of "
            f"those, {sample}: they kill {len(theirs)}, the suite {len(ours)}"
            + (f", which has not met {len(pending)} of them yet" if pending else "")
            + f"; {len(alone)} are killed by them alone."
        )

    def stale(self) -> list[str]:
        """The patterns of reasons that cover killed faults alone; one that covers no fault may be
        for another source."""
        covered = {
            pattern: [f for f in self.faults if fnmatchcase(f.id, pattern)]
            for reason in self.reasons
            for pattern in reason.faults
        }
        return [p for p, found in covered.items() if found and all(map(self._killed, found))]

    def _killed(self, fault: Fault) -> bool:
        return self.verdict(fault).killed

    def rows(self) -> list[dict[str, Any]]:
        """The table as data."""
        return [
            {
                "id": fault.id,
                "place": f"{fault.file}:{fault.line}",
                "fault": fault.told(),
                "why": fault.why,
                "state": self.state(fault),
                "reached_by": self.reached(fault),
                "selftests": self.of_selftests(fault),
                "killer": self.verdict(fault).killer,
                "clause": self.verdict(fault).clause,
                "how": self.verdict(fault).how,
                "tried": len(self.verdict(fault).tried),
                "reason": reason.reason if (reason := self.reason(fault)) else "",
            }
            for fault in self.faults
        ]


def summary(score: Score) -> str:
    """The score in a few lines."""
    states = score.states()
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    lines = [
        f"Linux {score.release}: {len(score.faults)} faults: {counts}",
        f"score: {score.percent():.1f} % of those that a case could kill",
        *filter(None, [score.comparison()]),
    ]
    lines += [
        f"  {score.state(fault)}: {fault.id}  {fault.file}:{fault.line}  {fault.told()}"
        for fault in score.faults
        if score.state(fault) not in ("killed", *EXCUSED)
    ]
    lines += [f"  survivors.toml: what it covers is killed: {pattern}" for pattern in score.stale()]
    return "\n".join(lines)


def page(score: Score) -> str:
    """The results as Markdown."""
    states = score.states()
    by_file = Counter((fault.file, score.state(fault)) for fault in score.faults)
    kinds = [state for state, _ in states.most_common()]
    lines = [
        "# What the suite catches",
        "",
        f"Faults planted in Linux {score.release}, made by `make mutants`: "
        f"**{states['killed']} of {len(score.faults)} killed, "
        f"{score.percent():.1f} % of those that a case could kill.** "
        + (
            f"{states['unfinished']} have not met all cases that reach them yet. "
            if states["unfinished"]
            else ""
        )
        + "A race counts against the suite, what is equivalent or unreachable does not.",
        "",
        *([comparison, ""] if (comparison := score.comparison()) else []),
        f"| file | {' | '.join(kinds)} |",
        f"|---|{'---|' * len(kinds)}",
    ]
    for file in dict.fromkeys(fault.file for fault in score.faults):
        lines.append(f"| {file} | {' | '.join(str(by_file[file, kind] or '') for kind in kinds)} |")
    lines += ["", "## Survivors", ""]
    for reason in score.reasons:
        lived = [
            f for f in score.faults if score.reason(f) == reason and not score.verdict(f).killed
        ]
        if lived:
            lines += [f"**{reason.verdict}**: {reason.reason}", ""]
            lines += [f"- {fault.file}, `{fault.function}`: {fault.told()}" for fault in lived]
            lines += [""]
    if left := [f for f in score.faults if score.state(f) == "open" and not score.reason(f)]:
        lines += ["**open**: not explained yet", ""]
        lines += [f"- {fault.file}, `{fault.function}`: {fault.told()}" for fault in left]
        lines += [""]
    lines += ["## Killed", "", "| fault | | killed by | clause | selftests |"]
    lines += ["|---|---|---|---|---|"]
    for fault in score.faults:
        if (verdict := score.verdict(fault)).killed:
            about = f"| `{fault.function}` | {_cell(fault.told())} | {verdict.killer} |"
            lines.append(f"{about} {verdict.clause} | {score.of_selftests(fault)} |")
    if idle := score.idle():
        lines += ["", "## Tests that were first to kill nothing, and prove no clause alone", ""]
        lines += [f"- {test}" for test in idle]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write(folder: Path, score: Score) -> None:
    """Writes `table.json` and `results.md` into a folder, and the summary for people."""
    table = {
        "release": score.release,
        "score": score.percent(),
        "selftests": score.comparison(),
        "faults": score.rows(),
        "idle": score.idle(),
    }
    (folder / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    (folder / "results.md").write_text(page(score))
    print(summary(score))
    print(f"results: {folder}")
