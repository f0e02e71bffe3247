# SPDX-License-Identifier: GPL-2.0-only
"""Tells how the kernels are doing: a live line each on a terminal, plain lines in a log."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time

from vm.campaign import Campaign

_LIVE_SECONDS = 0.5
_PLAIN_SECONDS = 30.0
_ENOUGH = 20  # cases that tell how long the others will take


def line(campaign: Campaign, width: int) -> str:
    """A campaign in one line."""
    parts = [f"{campaign.kernel.name:<{width}}", campaign.stage]
    done, all_ = len(campaign.ended), len(campaign.planned | campaign.ended)
    if campaign.stage in ("runs", "done"):
        parts.append(f"{done} of {all_}")
    if campaign.failures:
        parts.append(f"{campaign.failures} failed")
    if campaign.losses:
        parts.append(f"{len(campaign.losses)} guests lost")
    if campaign.stage == "done":
        parts.append(f"in {_duration(campaign.seconds)}")
    elif campaign.stage == "runs" and done > _ENOUGH and campaign.first_result:
        left = (time.monotonic() - campaign.first_result) / done * (all_ - done)
        parts.append(f"about {_duration(left)} left")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


class Progress:
    """Writes to standard error; standard output belongs to the results."""

    def __init__(self, campaigns: list[Campaign]) -> None:
        self._campaigns = campaigns
        self._width = max(len(campaign.kernel.name) for campaign in campaigns)
        self._live = sys.stderr.isatty()
        self._drawn = 0
        self._told: dict[str, str] = {}
        self._notes = dict.fromkeys((c.kernel.name for c in campaigns), 0)

    async def show(self) -> None:
        """Goes on until it is cancelled."""
        last = 0.0
        while True:
            if self._live:
                self._draw()
            else:
                due = time.monotonic() - last > _PLAIN_SECONDS
                last = time.monotonic() if due else last
                self._tell(due=due)
            await asyncio.sleep(_LIVE_SECONDS)

    def end(self) -> None:
        """Says the last word."""
        if self._live:
            self._draw()
        else:
            self._tell(due=False)

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns
        text = f"\x1b[{self._drawn}A" if self._drawn else ""
        text += "".join(f"\r\x1b[K{note[:columns]}\n" for note in self._new_notes())
        lines = [line(campaign, self._width) for campaign in self._campaigns]
        text += "".join(f"\r\x1b[K{text[: columns - 1]}\n" for text in lines)
        self._drawn = len(lines)
        sys.stderr.write(text)
        sys.stderr.flush()

    def _tell(self, *, due: bool) -> None:
        for note in self._new_notes():
            print(note, file=sys.stderr, flush=True)
        for campaign in self._campaigns:
            name = campaign.kernel.name
            changed = self._told.get(name) != campaign.stage
            if changed or (due and campaign.stage == "runs"):
                self._told[name] = campaign.stage
                print(line(campaign, self._width), file=sys.stderr, flush=True)

    def _new_notes(self) -> list[str]:
        new = []
        for campaign in self._campaigns:
            name = campaign.kernel.name
            new += [f"{name}: {note}" for note in campaign.notes[self._notes[name] :]]
            self._notes[name] = len(campaign.notes)
        return new
