# SPDX-License-Identifier: GPL-2.0-only
"""A run as one picture: both orders side by side, and under them what follows from them.

Each panel's title says what it shows. Colours are from Okabe and Ito's palette, which the
colour-blind can tell apart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import summary
from bench.cases import BLOCK_BYTES, MIB, PAGE_BYTES, WRITTEN_PERCENT
from bench.run import Run
from bench.summary import WPU
from bench.tables import METHODS, duration, round_cost, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _VERMILION, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
_EDGES = 3e2, 3e10  # ns of the two upper panels
_MIDDLE = 3e7
_COLOURS = {WPU: _BLUE, "MADVISE": _VERMILION}
_MARKS = {"Xu, 27 Feb": "D", "Anjum, 2 Mar": "s", "Anjum, 3 Mar": "^"}
_STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "font.size": 9,
    "svg.hashsalt": "uffd-wp",
}


def draw(run: Run, path: Path) -> bool:
    """Writes the picture as SVG; False where there is no matplotlib to draw it."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(13, 8.2))
        upper = figure.add_gridspec(1, 2, left=0.105, right=0.98, top=0.86, bottom=0.5, wspace=0.3)
        lower = figure.add_gridspec(1, 3, left=0.06, right=0.98, top=0.39, bottom=0.07, wspace=0.27)
        for column, thp in enumerate((False, True)):
            _order(figure.add_subplot(upper[column]), run, thp)
        for column, panel in enumerate((_later, _tracking, _scaling)):
            axes = figure.add_subplot(lower[column])
            if not panel(axes, run):
                axes.set_axis_off()
        emulated = " (emulated: the figures tell of the emulator)" if run.emulated else ""
        figure.suptitle(
            f"Write-protecting {size(run.size)} of empty memory: THP decides which way is cheaper",
            x=0.01,
            y=0.985,
            ha="left",
            fontsize=15,
            fontweight="bold",
        )
        figure.text(
            0.01,
            0.942,
            f"Linux {run.environment['kernel']}{emulated}, {run.environment['CPU']}; "
            f"median of {run.runs} runs",
            va="top",
            color=_GREY,
        )
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True


def _order_title(run: Run, thp: bool) -> str:
    state = f"THP {'on' if thp else 'off'}"
    names = summary.case_name("MADVISE", thp), summary.case_name(WPU, thp)
    found = summary.ratio(run, *names)
    if found is None:
        return state
    if found.value > 1:
        return f"{state}: markers are {found.value:.0f}× cheaper than MADVISE"
    return f"{state}: MADVISE is {1 / found.value:.1f}× cheaper than markers"


def _order(axes: Axes, run: Run, thp: bool) -> None:
    """The thread's cases, the cheapest on top, beside what was published."""
    names = summary.order(run, thp)
    rows = {name: len(names) - row for row, name in enumerate(names)}
    for name, row in rows.items():
        full = summary.case_name(name, thp)
        total = run.series(full) or ()
        colour = _COLOURS.get(name, _GREY)
        axes.hlines(row, _EDGES[0], median(total), color=colour, linewidth=7, alpha=0.25)
        axes.plot(median(total), row, "o", color=colour, markersize=11, zorder=3)
        axes.annotate(
            duration(median(total)) + _parts(run, full),
            (median(total), row),
            xytext=(6, -17),
            textcoords="offset points",
            ha="right" if median(total) > _MIDDLE else "left",
            color=colour,
            fontweight="bold",
        )
    for mail in (mail for mail in summary.published() if mail.thp == thp):
        axes.plot(
            [mail.total[name] * 1e3 for name in names],
            [row + 0.27 for row in rows.values()],
            _MARKS[mail.short],
            markerfacecolor="white",
            markeredgecolor="black",
            markersize=6,
            linestyle="",
            label=f"{mail.short} 2023, 10 GiB",
        )
    axes.plot([], [], "o", color=_GREY, label=f"this run, {size(run.size)}")
    axes.set_yticks(list(rows.values()), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set(color=_COLOURS.get(name, _GREY), fontweight="bold")
    axes.set_ylim(0.3, len(names) + 0.6)
    _time_axis(axes.set_xscale, axes.xaxis.set_major_formatter)
    axes.set_xlim(_EDGES)
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", length=0)
    axes.set_title(_order_title(run, thp))
    axes.set_xlabel("total (prefault + protect)")
    axes.legend(loc="upper right", frameon=False, fontsize=8)


def _parts(run: Run, full: str) -> str:
    prefault, protect = run.series(full, "prefault"), run.series(full, "protect")
    if not prefault or not any(prefault) or not protect:
        return ""
    return f" ({duration(median(prefault))} + {duration(median(protect))})"


def _time_axis(scale: Callable[..., None], formatter: Callable[..., None]) -> None:
    """A logarithmic axis of durations."""
    scale("log")
    formatter(lambda ns, _: duration(ns).replace(".00", "").replace(".0", ""))


def _later(axes: Axes, run: Run) -> bool:
    """Both ways with THP on, once some of the memory has been written to."""
    found = summary.deferred(run, "async")
    wpu, madvise = (run.series(summary.case_name(name, True)) for name in (WPU, "MADVISE"))
    if not found or not wpu or not madvise:
        return False
    blocks = run.size / BLOCK_BYTES
    shares = [0.0, 1.0]
    for name, now, later in (
        (WPU, median(wpu), found.marker.value),
        ("MADVISE", median(madvise), found.split.value),
    ):
        costs = [(now + share * blocks * later) / 1e6 for share in shares]
        axes.plot([100 * share for share in shares], costs, color=_COLOURS[name], linewidth=2.5)
        axes.annotate(
            name, (100, costs[1]), xytext=(-4, 8), textcoords="offset points",
            color=_COLOURS[name], fontweight="bold", ha="right",
        )  # fmt: skip
    repaid = found.repaid.value
    title = f"Later: first writes pay back {repaid:.0%} of the lead"
    if repaid >= 1:
        share = 1 / repaid
        title = f"Later: the lead is gone when {share:.0%} are written to"
        cost = (median(wpu) + share * blocks * found.marker.value) / 1e6
        axes.plot(100 * share, cost, "o", color="black", zorder=3)
        axes.axvline(100 * share, color="black", linewidth=0.8, linestyle=":")
    axes.set_title(title)
    axes.set_xlabel("2 MiB blocks written to, % (THP on, async)")
    axes.set_ylabel("protection and first writes, ms")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(alpha=0.25)
    return True


def _name_lines(axes: Axes, where: str) -> None:
    axes.legend(loc=where, frameon=False, labelcolor="linecolor", handlelength=3)


_METHOD_COLOURS = {
    "uffd_async": _BLUE,
    "soft_dirty": _GREEN,
    "mprotect": _VERMILION,
    "uffd_sync": _PURPLE,
}


def _tracking(axes: Axes, run: Run) -> bool:
    percents = sorted(WRITTEN_PERCENT.values())
    places = range(len(percents))
    for method, title in METHODS.items():
        costs = [round_cost(run, method, percent) for percent in percents]
        known = [cost.value for cost in costs if cost]
        if len(known) == len(percents):
            colour = _METHOD_COLOURS[method]
            axes.plot(places, known, "o-", color=colour, linewidth=2, label=title)
    if not axes.lines:
        return False
    _time_axis(axes.set_yscale, axes.yaxis.set_major_formatter)
    _name_lines(axes, "lower right")
    ours, segv = (round_cost(run, method, 1) for method in ("uffd_async", "mprotect"))
    title = "A round of dirty tracking"
    if ours and segv:
        title = f"Tracking 1 % written: async beats SIGSEGV {segv.value / ours.value:.0f}×"
    axes.set_title(title)
    axes.set_xticks(places, [f"{percent} %" for percent in percents])
    tracked = next(m.case.bytes for n, m in run.measured.items() if n.startswith("tracking."))
    axes.set_xlabel(f"written in a round, of {size(tracked)} populated")
    axes.grid(alpha=0.25)
    return True


def _scaling(axes: Axes, run: Run) -> bool:
    """Cost against size, over the bare writing of the page tables."""
    marker, limit = summary.slope(run, WPU, False), summary.limit(run)
    if not marker or not limit:
        return False
    for name, thp, style in (("MADVISE", False, "-"), (WPU, False, "-"), ("MADVISE", True, "--")):
        suffix = f"{name}.thp_{'on' if thp else 'off'}"
        points = sorted(
            (measured.case.bytes / MIB, median(measured.total))
            for full, measured in run.measured.items()
            if full == f"order.{suffix}" or full.startswith(f"scaling.{suffix}.")
        )
        label = name if name == WPU else f"{name}, THP {'on' if thp else 'off'}"
        axes.plot(
            *zip(*points, strict=True), "o", linestyle=style, color=_COLOURS[name], linewidth=2,
            label=label,
        )  # fmt: skip
    ends = [points[0][0], points[-1][0]]
    bare = [mib * MIB / PAGE_BYTES * limit.value for mib in ends]
    axes.plot(ends, bare, ":", color="black", linewidth=1.5, label="writing the page tables")
    axes.set_xscale("log")
    axes.set_xticks([mib for mib, _ in points], [size(int(mib) * MIB) for mib, _ in points])
    axes.minorticks_off()
    _time_axis(axes.set_yscale, axes.yaxis.set_major_formatter)
    axes.set_title(f"A marker costs {marker.value / limit.value:.0f}× the writing of its pte")
    axes.set_ylim(top=20 * axes.get_ylim()[1])  # room for the names
    _name_lines(axes, "upper left")
    axes.set_xlabel("size of the range")
    axes.grid(alpha=0.25)
    return True
