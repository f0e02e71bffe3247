# SPDX-License-Identifier: GPL-2.0-only
"""Tells how the kernels are doing: a live line each on a terminal, plain lines in a log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from vm.campaign import Campaign

_LIVE_SECONDS = 0.5
_PLAIN_SECONDS = 30.0
_ENOUGH = 20  # cases that tell how long the others will take


def line(campaign: Campaign, width: int) -> Text:
    """A campaign in one line."""
    name = Text(f"{campaign.kernel.name:<{width}}", "bold")
    return Text("  ").join([name, Text(campaign.stage), *_how_it_goes(campaign)])


def _how_it_goes(campaign: Campaign) -> Iterator[Text]:
    """How far it has come, what went wrong, how long it took or about how long it will."""
    done, all_ = len(campaign.ended), _all(campaign)
    if campaign.stage in ("runs", "done"):
        yield Text(f"{done} of {all_}")
    if campaign.failures:
        yield Text(f"{campaign.failures} failed", "red")
    if lost := len(campaign.losses):
        yield Text(f"{lost} guest{'s' if lost > 1 else ''} lost", "red")
    if campaign.stage == "done":
        yield Text(f"in {_duration(campaign.seconds)}")
    elif campaign.stage == "runs" and done > _ENOUGH and campaign.first_result:
        left = (time.monotonic() - campaign.first_result) / done * (all_ - done)
        yield Text(f"about {_duration(left)} left")


def _all(campaign: Campaign) -> int:
    return len(campaign.planned | campaign.ended)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


class _Field(ProgressColumn):
    """One of a task's fields, as it stands."""

    def __init__(self, name: str) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self._name = name

    def render(self, task: Task) -> Text:
        text: Text = task.fields[self._name]
        return text


class _Live:
    """A line for each kernel that is drawn ever anew, with a bar."""

    def __init__(self, campaigns: Sequence[Campaign], console: Console) -> None:
        bar = BarColumn(
            None,
            complete_style="cyan",
            pulse_style="cyan",
            finished_style="green",
            table_column=Column(ratio=1, min_width=4, max_width=30),
        )
        columns = (_Field("name"), bar, _Field("told"))
        self._bars = Bars(*columns, console=console, auto_refresh=False, expand=True)
        self._tasks: list[tuple[TaskID, Campaign]] = []
        for campaign in campaigns:
            name = Text(campaign.kernel.name, "bold")
            self._tasks.append((self._bars.add_task("", name=name, told=Text()), campaign))

    def draw(self) -> None:
        for task, campaign in self._tasks:
            told = list(_how_it_goes(campaign))
            if campaign.stage not in ("runs", "done"):
                told.insert(0, Text(campaign.stage))
            # a total of None: there is no saying yet how far it is, but something goes on
            total = {"waits": 1, "boots": None}.get(campaign.stage, _all(campaign) or 1)
            self._bars.update(task, total=total, completed=len(campaign.ended))
            self._bars.update(task, told=Text("  ").join(told))
        self._bars.start()
        self._bars.refresh()

    def end(self) -> None:
        self.draw()
        self._bars.stop()


class Progress:
    """Writes to standard error; standard output belongs to the results. If `quiet`, it tells
    only what befell guests."""

    def __init__(
        self, campaigns: Sequence[Campaign], *, quiet: bool = False, console: Console | None = None
    ) -> None:
        self._campaigns = campaigns
        self._console = console or Console(stderr=True, highlight=False)
        self._quiet = quiet
        can_draw = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = _Live(campaigns, self._console) if can_draw and not quiet else None
        self._width = max(len(campaign.kernel.name) for campaign in campaigns)
        self._told: dict[str, str] = {}
        self._notes = dict.fromkeys((c.kernel.name for c in campaigns), 0)

    async def show(self) -> None:
        """Goes on until it is cancelled."""
        last = 0.0
        while True:
            due = time.monotonic() - last > _PLAIN_SECONDS
            last = time.monotonic() if due else last
            self._tell(due=due)
            await asyncio.sleep(_LIVE_SECONDS)

    def end(self) -> None:
        """Says the last word."""
        self._tell(due=False)
        if self._live:
            self._live.end()

    def _tell(self, *, due: bool) -> None:
        for note in self._new_notes():
            self._say(Text(note))
        if self._live:
            self._live.draw()
        elif not self._quiet:
            self._tell_news(due=due)

    def _tell_news(self, *, due: bool) -> None:
        for campaign in self._campaigns:
            name = campaign.kernel.name
            changed = self._told.get(name) != campaign.stage
            if changed or (due and campaign.stage == "runs"):
                self._told[name] = campaign.stage
                self._say(line(campaign, self._width))

    def _say(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _new_notes(self) -> list[str]:
        new = []
        for campaign in self._campaigns:
            name = campaign.kernel.name
            new += [f"{name}: {note}" for note in campaign.notes[self._notes[name] :]]
            self._notes[name] = len(campaign.notes)
        return new
