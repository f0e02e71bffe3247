# SPDX-License-Identifier: GPL-2.0-only
"""A run as tables: the same rows for a terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from bench import stats, summary
from bench.cases import MIB, PAGE_BYTES, THREAD, WRITTEN_PERCENT
from bench.run import Run
from bench.stats import Estimate
from bench.summary import SPARSE, WPU, Published


@dataclass(frozen=True)
class Table:
    """Rows under a title; a cell is text."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


def duration(ns: float) -> str:
    """Three digits and a unit: 1.23 ms."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= 0.9995 * scale:
            return f"{_digits(ns / scale)} {unit}"
    return f"{_digits(ns)} ns"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def times(found: Estimate | None) -> str:
    """A ratio with its interval: 2.19 × [2.10 2.31]."""
    if found is None:
        return "–"
    return f"{_digits(found.value)} × [{_digits(found.low)} {_digits(found.high)}]"


def _span(found: Estimate | None) -> str:
    """A duration with its interval."""
    if found is None:
        return "–"
    return f"{duration(found.value)} [{duration(found.low)} {duration(found.high)}]"


def _short(found: Estimate | None) -> str:
    return duration(found.value) if found else "–"


def size(count: int) -> str:
    """Bytes in the largest unit that divides them."""
    mib = count // MIB
    return f"{mib >> 10} GiB" if mib and not mib % 1024 else f"{mib} MiB"


def in_order(names: list[str]) -> str:
    return " < ".join(names)


def _order(run: Run, thp: bool) -> Table | None:
    names = summary.order(run, thp)
    if not names:
        return None
    mails = [mail for mail in summary.published() if mail.thp == thp]
    rows = [_order_row(run, name, thp, mails) for name in names]
    head = ["case", "prefault", "protect", "total", f"× {WPU}", "page tables"]
    return Table(
        f"THP {'on' if thp else 'off'}: {in_order(names)}",
        head + [mail.short for mail in mails],
        rows,
        f"{size(run.size)} of empty anonymous memory; median of {run.runs} runs "
        "with 95 % intervals; published figures are for 10 GiB",
    )


def _order_row(run: Run, name: str, thp: bool, mails: list[Published]) -> list[str]:
    full = summary.case_name(name, thp)
    prefault = run.series(full, "prefault") if name in ("PRE-READ", "MADVISE") else None
    tables = summary.page_tables(run, full)
    protect = run.series(full, "protect")
    return [
        name,
        duration(median(prefault)) if prefault else "–",
        duration(median(protect)) if protect else "–",
        _span(summary.typical(run, full)),
        "1" if name == WPU else times(summary.ratio(run, full, summary.case_name(WPU, thp))),
        f"{tables >> 10} KiB" if tables is not None else "–",
        *(duration(mail.total[name] * 1e3) for mail in mails),
    ]


_STATES = {
    "none.anon.thp_off": "none pte (marker)",
    "zero_page.anon.thp_off": "zero page",
    "populated.anon.thp_off": "populated, 4 KiB",
    "none.anon.thp_on": "none pmd (markers), THP on",
    "huge_zero_page.anon.thp_on": "huge zero page",
    "populated.anon.thp_on": "populated, THP",
    "hole.shmem.thp_off": "shmem hole (marker)",
    "populated.shmem.thp_off": "shmem, populated",
    "hole.hugetlb.thp_off": "hugetlb hole (marker)",
    "populated.hugetlb.thp_off": "hugetlb, populated",
}


def _later(run: Run, sparse: bool) -> Table | None:
    rows = []
    suffix = f".{SPARSE}" if sparse else ""
    for state, title in _STATES.items():
        writes = _writes(run, state, sparse)
        if not writes:
            continue
        names = [f"later.{state}.{mode}{suffix}" for mode in ("free", "async", "sync")]
        costs = [summary.typical(run, name, writes) for name in names]
        if sparse:
            rows.append([title, *map(_span, costs)])
        else:
            extra = [summary.later(run, state, mode) for mode in ("async", "sync")]
            rows.append([title, *map(_short, costs), *map(_span, extra)])
    if not rows:
        return None
    head = ["memory", "unprotected", "async", "sync"]
    if sparse:
        where, note = "into 2 MiB", "unprotected, it fills all of the 2 MiB, else 4 KiB"
    else:
        where, note = "to a page", "sync: a thread reads each message and unprotects the page"
        head += ["async costs more by", "sync costs more by"]
    return Table(f"Paid later: the first write {where}", head, rows, note)


def _writes(run: Run, state: str, sparse: bool) -> int:
    """How many writes a case of this state did."""
    suffix = f".{SPARSE}" if sparse else ""
    found = run.measured.get(f"later.{state}.free{suffix}")
    if found is None:
        return 0
    return found.case.pages // (512 if sparse else 1)


def _undo(run: Run) -> Table | None:
    rows = []
    for state, title in _STATES.items():
        name = f"undo.{state}"
        if name not in run.measured:
            continue
        pages = run.measured[name].case.pages
        labels = ("protect", "unprotect", "again")
        costs = [summary.typical(run, f"{name}/{label}", pages) for label in labels]
        rows.append([title, *map(_span, costs)])
    head = ["memory", "protect", "unprotect", "protect again"]
    return Table("Protect, unprotect, protect again: a page's share", head, rows) if rows else None


METHODS = {
    "uffd_async": "WP_ASYNC + PAGEMAP_SCAN",
    "soft_dirty": "soft-dirty",
    "mprotect": "mprotect + SIGSEGV",
    "uffd_sync": "UFFDIO_WRITEPROTECT + handler",
}


def round_cost(run: Run, method: str, percent: int) -> Estimate | None:
    """Nanoseconds of a tracking round: the writes and collecting them."""
    name = f"tracking.{method}.{percent}_percent"
    labels = ("write", "collect") if percent else ("collect",)
    series = run.series(name, *labels)
    return stats.estimate(lambda ns: ns, series) if series else None


def _tracking(run: Run) -> Table | None:
    percents = sorted(WRITTEN_PERCENT.values())
    rows = []
    for method, title in METHODS.items():
        costs = [round_cost(run, method, percent) for percent in percents]
        absent = f"tracking.{method}.0_percent" in run.missing
        if any(costs):
            rows.append([title, *map(_span, costs)])
        elif absent:
            rows.append([title, *["not on this kernel"] * len(costs)])
    found = next((m for n, m in run.measured.items() if n.startswith("tracking.")), None)
    if found is None:
        return None
    head = ["method", *(f"{percent} % written" for percent in percents)]
    title = f"A round of dirty tracking over {size(found.case.bytes)} of populated 4 KiB pages"
    note = "a round: the writes, collecting which pages they were, and protecting these again"
    return Table(title, head, rows, note)


def _scaling(run: Run) -> Table | None:
    names = [(name, thp) for name in THREAD[1:] for thp in (False, True)]
    sizes = sorted({m.case.bytes for n, m in run.measured.items() if n.startswith("scaling.W")})
    if not sizes:
        return None
    rows = []
    for name, thp in names:
        suffix = f"{name}.thp_{'on' if thp else 'off'}"
        smaller = [f"scaling.{suffix}.{bytes_ // MIB}M" for bytes_ in sizes]
        costs = [summary.typical(run, each) for each in [*smaller, f"order.{suffix}"]]
        label = f"{name}, THP {'on' if thp else 'off'}"
        rows.append([label, *map(_short, costs), _span(summary.slope(run, name, thp))])
    limit = summary.limit(run)
    note = ""
    if limit:
        entries = run.size // PAGE_BYTES
        rate = 2 * 8 / limit.value  # each entry is written twice, 8 bytes: bytes/ns are GB/s
        note = (
            f"the physical limit, {_span(limit)} a page: the {entries} page table entries "
            f"written by user space, cleared and then filled, at {rate:.1f} GB/s"
        )
    head = ["case", *map(size, [*sizes, run.size]), "slope, a page"]
    return Table("Cost against the size of the range", head, rows, note)


def tables(run: Run) -> Iterator[Table]:
    """All that were measured, in the order in which they are read."""
    made = (
        _order(run, False),
        _order(run, True),
        _later(run, False),
        _later(run, True),
        _undo(run),
        _tracking(run),
        _scaling(run),
    )
    yield from (table for table in made if table)
    if run.missing:
        yield Table("Not measured", ["case", "why"], [list(row) for row in run.missing.items()])
    yield Table("The machine", ["", ""], [list(row) for row in run.environment.items()])
