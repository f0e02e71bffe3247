# SPDX-License-Identifier: GPL-2.0-only
"""A run told to people: on a terminal, and as a page with a plot beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench import plot, summary
from bench.cases import BLOCK_BYTES, PAGE_BYTES
from bench.measure import say
from bench.run import Run
from bench.summary import WPU
from bench.tables import Table, duration, in_order, round_cost, size, tables, times


def findings(run: Run) -> Iterator[str]:
    """What the figures say, a sentence or two each."""
    yield from _on_orders(run)
    yield from _on_deferred(run)
    yield from _on_memory(run)
    yield from _on_limit(run)
    yield from _on_tracking(run)


def _on_orders(run: Run) -> Iterator[str]:
    for thp in (False, True):
        names = summary.order(run, thp)
        if len(names) < 4:
            continue
        yield (
            f"**THP {'on' if thp else 'off'}: {in_order(names)}.** "
            + _whose(run, thp)
            + "".join(f" This run can't tell {tie} apart." for tie in summary.ties(run, thp))
        )
    moved = {
        name: summary.ratio(run, summary.case_name(name, False), summary.case_name(name, True))
        for name in ("MADVISE", WPU)
    }
    if all(moved.values()):
        yield (
            "**Why they differ: THP.** With THP off MADVISE maps the zero page into each pte, one "
            "fault a page; with THP on it maps the huge zero page, one fault for 512 pages, and "
            f"protects a pmd instead of 512 ptes: THP off costs MADVISE {times(moved['MADVISE'])} "
            "what THP on does. A marker lives in a pte whether THP is on or off, so that "
            f"{WPU} pays the same for both: {times(moved[WPU])}."
        )


def _whose(run: Run, thp: bool) -> str:
    """Who in the thread had this order, or that of the cases in dispute."""
    if same := summary.orders_as(run, thp):
        return f"This is the order of {summary.names_of(same)}."
    if not (same := summary.disputed_as(run, thp)):
        return "Nobody in the thread had this order."
    pages = run.size / PAGE_BYTES
    load = summary.typical(run, f"{summary.case_name('PRE-READ', thp)}/prefault", pages)
    marker = summary.typical(run, summary.case_name(WPU, thp), pages)
    why = f": a page's load costs {duration(load.value)} here, and its marker " if load else ""
    return (
        f"MADVISE and {WPU}, which were in dispute, are in the order of {summary.names_of(same)}; "
        f"PRE-READ is elsewhere{why}{duration(marker.value) if marker else ''}."
    )


def _on_deferred(run: Run) -> Iterator[str]:
    for mode in ("async", "sync"):
        found = summary.deferred(run, mode)
        if found is None:
            continue
        if found.lead.high <= 0:
            yield f"**The deferred cost, {mode}:** with THP on, MADVISE has no lead here to lose."
            continue
        costs = (
            f"With THP on, MADVISE is done {duration(found.lead.value)} sooner. The first write "
            f"into 2 MiB of huge zero page then takes {duration(found.split.value)}, which splits "
            f"it, and into 2 MiB of markers {duration(found.marker.value)}."
        )
        repaid = found.repaid
        blocks = (
            f"a write into each 2 MiB of the range pays back {repaid.value:.0%} "
            f"[{repaid.low:.0%} {repaid.high:.0%}] of MADVISE's lead"
        )
        if repaid.value > 1:
            count = round(run.size / BLOCK_BYTES / repaid.value)
            blocks += f", which is gone after {count} of them ({1 / repaid.value:.0%})"
        yield f"**The deferred cost, {mode}:** {blocks}. {costs}"


def _on_memory(run: Run) -> Iterator[str]:
    wpu, zero = (
        summary.page_tables(run, summary.case_name(name, True)) for name in (WPU, "MADVISE")
    )
    if wpu is not None and zero is not None:
        same = "as many" if abs(wpu - zero) < wpu / 10 else f"{zero >> 10} KiB"
        yield (
            f"**Page tables:** {wpu >> 10} KiB for {size(run.size)} of markers; MADVISE with THP "
            f"takes {same}, since a page table is kept for each huge page that may be split."
        )
    free, lost = (
        run.measured.get(f"later.none.anon.thp_on.{mode}") for mode in ("free", "unprotected")
    )
    if free and lost and free.after and lost.after:
        slower = summary.ratio(run, lost.case.name, free.case.name)
        yield (
            "**Lost THP:** memory that was protected by markers and unprotected again is filled "
            f"with {lost.after.anon_huge * 100 // lost.case.bytes} % huge pages, memory that never "
            f"was with {free.after.anon_huge * 100 // free.case.bytes} %; filling it takes "
            f"{times(slower)} as long."
        )


def _on_limit(run: Run) -> Iterator[str]:
    marker, limit = summary.slope(run, WPU, False), summary.limit(run)
    if marker and limit:
        yield (
            f"**A marker costs {duration(marker.value)}** a page [{duration(marker.low)} "
            f"{duration(marker.high)}], {marker.value / limit.value:.1f} times the bare writing of "
            f"its page table entry ({duration(limit.value)})."
        )


def _on_tracking(run: Run) -> Iterator[str]:
    for percent in (1, 100):
        ours, segv = (round_cost(run, method, percent) for method in ("uffd_async", "mprotect"))
        soft = round_cost(run, "soft_dirty", percent)
        if ours and segv:
            beside = f", soft-dirty {duration(soft.value)}" if soft else ""
            yield (
                f"**A tracking round at {percent} % written** takes {duration(ours.value)} with "
                f"WP_ASYNC and PAGEMAP_SCAN{beside}, and {duration(segv.value)} with mprotect and "
                "SIGSEGV."
            )


def _terminal_table(table: Table) -> Iterator[str]:
    rows = [table.head, *table.rows] if any(table.head) else table.rows
    last = len(rows[0]) - 1
    widths = [max(len(row[i]) for row in rows) for i in range(last + 1)]
    yield f"\n{table.title}"
    for row in rows:
        cells = [
            cell.ljust(width) if i == 0 or last == 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()
    if table.note:
        yield f"  ({table.note})"


def _headline(run: Run) -> str:
    emulated = ", EMULATED: the figures tell of the emulator" if run.emulated else ""
    return f"Write-protecting {size(run.size)} of empty memory on Linux " + (
        f"{run.environment['kernel']}{emulated}"
    )


def terminal(run: Run) -> str:
    """All figures as text."""
    lines = [_headline(run), *run.notes]
    for table in tables(run):
        lines += _terminal_table(table)
    lines.append("")
    lines += [f"* {_plain(each)}" for each in findings(run)]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Without Markdown's emphasis and links."""
    text = text.replace("**", "")
    while "](" in text:
        head, _, rest = text.partition("](")
        before, _, label = head.rpartition("[")
        text = before + label + rest.partition(")")[2]
    return text


def _markdown_table(table: Table) -> Iterator[str]:
    yield f"\n### {table.title}\n"
    for row in (table.head, ["---"] * len(table.head), *table.rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    if table.note:
        yield f"\n{table.note[0].upper()}{table.note[1:]}."


def markdown(run: Run, plot_name: str | None) -> str:
    """The page that explains the discrepancy with this run's own figures."""
    lines = [f"# {_headline(run)}", *run.notes, ""]
    lines += [
        'In the thread of "mm/uffd: UFFD_FEATURE_WP_UNPOPULATED" two people measured the same four',
        "cases and got opposite orders. This run shows both, and why.",
        "",
    ]
    if plot_name:
        lines += [f"![the figures]({plot_name})", ""]
    lines += [f"* {each}" for each in findings(run)]
    lines += ["", "## The figures"]
    for table in tables(run):
        lines += _markdown_table(table)
    lines += ["", "## Published figures", ""]
    for mail in summary.published():
        said = "" if mail.stated else "; the mail doesn't say THP, the figures show it"
        thp = "on" if mail.thp else "off"
        lines.append(f"* {mail.who}, {mail.where}: [THP {thp}]({mail.source}){said}")
    return "\n".join(lines) + "\n"


def write(run: Run, beside: Path) -> list[Path]:
    """Writes the page, and the plot where matplotlib is there, beside a JSON file.

    Returns their paths. Raises OSError.
    """
    page, picture = beside.with_suffix(".md"), beside.with_suffix(".svg")
    plotted = plot.draw(run, picture)
    if not plotted:
        say("no plot: pip install -r bench/requirements.txt")
    page.write_text(markdown(run, picture.name if plotted else None))
    return [beside, page, *([picture] if plotted else [])]
