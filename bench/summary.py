# SPDX-License-Identifier: GPL-2.0-only
"""What a run says: the orders, and the questions that the thread left open, as figures."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench import stats
from bench.cases import BLOCK_BYTES, PAGE_BYTES, THREAD
from bench.run import Run
from bench.stats import Estimate

WPU = "WP-UNPOPULATE"
DISPUTED = ("MADVISE", WPU)
SPARSE = "one_page_of_each_2M"


@dataclass(frozen=True)
class Published:
    """Figures that were mailed, in microseconds."""

    who: str
    short: str
    where: str
    thp: bool
    stated: bool  # in the mail; else the figures themselves show it
    source: str
    total: dict[str, int]
    prefault: dict[str, int]

    @property
    def order(self) -> list[str]:
        return sorted(self.total, key=lambda name: self.total[name])


@cache
def published() -> list[Published]:
    with (Path(__file__).parent / "published.toml").open("rb") as file:
        return [Published(**run) for run in tomllib.load(file)["run"]]


def case_name(name: str, thp: bool) -> str:
    """The full name of one of the thread's cases."""
    return f"order.{name}.thp_{'on' if thp else 'off'}"


def order(run: Run, thp: bool) -> list[str]:
    """The thread's cases that were measured, the cheapest first."""
    found = {name: run.series(case_name(name, thp)) for name in THREAD}
    totals = {name: median(series) for name, series in found.items() if series}
    return sorted(totals, key=lambda name: totals[name])


def orders_as(run: Run, thp: bool) -> list[Published]:
    """The mails whose order of all four cases this run shows."""
    return [mail for mail in published() if mail.thp == thp and mail.order == order(run, thp)]


def disputed_as(run: Run, thp: bool) -> list[Published]:
    """The mails that have MADVISE and WP-UNPOPULATE, the two in dispute, in this run's order."""
    found = [name for name in order(run, thp) if name in DISPUTED]
    return [
        mail
        for mail in published()
        if mail.thp == thp and [name for name in mail.order if name in DISPUTED] == found
    ]


def names_of(mails: list[Published]) -> str:
    """Who had an order, each once."""
    return " and ".join(dict.fromkeys(mail.who for mail in mails))


def ties(run: Run, thp: bool) -> list[str]:
    """Neighbours in the order that the figures can't tell apart."""
    names = order(run, thp)
    return [
        f"{cheaper} and {dearer}"
        for cheaper, dearer in pairwise(names)
        if (found := ratio(run, case_name(dearer, thp), case_name(cheaper, thp)))
        and not found.excludes(1)
    ]


def figure(run: Run, make: Callable[..., float], *names: str) -> Estimate | None:
    """A figure made of the totals of some cases; None where one is not measured.

    A name may end in `/LABEL`, for one of the case's steps alone.
    """
    series = [run.series(*name.split("/")) for name in names]
    found = [each for each in series if each]
    return stats.estimate(make, *found) if len(found) == len(series) else None


def typical(run: Run, name: str, parts: float = 1) -> Estimate | None:
    """The nanoseconds of a case, or of `parts` equal parts of it each."""
    return figure(run, lambda ns: ns / parts, name)


def ratio(run: Run, name: str, base: str) -> Estimate | None:
    return figure(run, lambda a, b: a / b, name, base)


def slope(run: Run, name: str, thp: bool) -> Estimate | None:
    """Nanoseconds that one more page of range costs, from all sizes measured."""
    suffix = f"{name}.thp_{'on' if thp else 'off'}"
    found = [
        measured
        for full, measured in run.measured.items()
        if full == f"order.{suffix}" or full.startswith(f"scaling.{suffix}.")
    ]
    if len(found) < 2:
        return None
    return stats.slope([each.case.pages for each in found], [each.total for each in found])


def limit(run: Run) -> Estimate | None:
    """Nanoseconds a page for the bare writing of its page table entry."""
    return typical(run, "scaling.limit", run.size / PAGE_BYTES)


@dataclass(frozen=True)
class Deferred:
    """With THP on, how much sooner MADVISE is done than WP-UNPOPULATE, and what it pays later.

    MADVISE maps the huge zero page; the first write into each 2 MiB of it has to split that.
    """

    lead: Estimate  # ns by which MADVISE is done sooner, on the whole range
    marker: Estimate  # ns of the first write into 2 MiB of markers
    split: Estimate  # ns of the first write into 2 MiB of huge zero page
    repaid: Estimate  # the part of the lead that a write into each 2 MiB of the range costs


def deferred(run: Run, mode: str) -> Deferred | None:
    """The balance for resolving a fault `sync` or `async`; None where it isn't measured."""
    wpu, madvise = case_name(WPU, True), case_name("MADVISE", True)
    none = f"later.none.anon.thp_on.{mode}.{SPARSE}"
    zero = f"later.huge_zero_page.anon.thp_on.{mode}.{SPARSE}"
    if none not in run.measured:
        return None
    blocks, written = (bytes_ / BLOCK_BYTES for bytes_ in (run.size, run.measured[none].case.bytes))

    def repaid(wpu: float, madvise: float, none: float, zero: float) -> float:
        return (zero - none) / written * blocks / (wpu - madvise)

    lead = figure(run, lambda a, b: a - b, wpu, madvise)
    marker, split = typical(run, none, written), typical(run, zero, written)
    part = figure(run, repaid, wpu, madvise, none, zero)
    return Deferred(lead, marker, split, part) if lead and marker and split and part else None


def later(run: Run, state: str, mode: str) -> Estimate | None:
    """Nanoseconds that the first write to a page costs more than it would unprotected."""
    names = f"later.{state}.{mode}", f"later.{state}.free"
    if any(name not in run.measured for name in names):
        return None
    pages = run.measured[names[0]].case.pages
    return figure(run, lambda a, b: (a - b) / pages, *names)


def page_tables(run: Run, name: str) -> int | None:
    """Bytes of page tables that a case made."""
    found = run.measured.get(name)
    if found is None or found.before is None or found.after is None:
        return None
    return found.after.page_tables - found.before.page_tables


def figures(run: Run) -> dict[str, Any]:
    """The main figures as data: nanoseconds, bytes, and ratios, with their intervals."""
    data: dict[str, Any] = {}
    for thp in (False, True):
        names = {name: case_name(name, thp) for name in order(run, thp)}
        data[f"thp_{'on' if thp else 'off'}"] = {
            "order": list(names),
            "as": [mail.source for mail in orders_as(run, thp)],
            "total_ns": {name: typical(run, full) for name, full in names.items()},
            f"ratio_to_{WPU}": {
                name: ratio(run, full, case_name(WPU, thp)) for name, full in names.items()
            },
            "page_table_bytes": {name: page_tables(run, full) for name, full in names.items()},
            "slope_ns_per_page": {name: slope(run, name, thp) for name in names},
        }
    data["limit_ns_per_page"] = limit(run)
    data["deferred"] = {mode: deferred(run, mode) for mode in ("async", "sync")}
    return data
