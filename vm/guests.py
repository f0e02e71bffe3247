# SPDX-License-Identifier: GPL-2.0-only
"""The campaigns of several kernels side by side, as far as CPUs and memory go."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import native
from helpers import build
from vm import initramfs, packages, qemu
from vm.campaign import MOST_LOST, Campaign, Setting
from vm.kernels import KernelFiles
from vm.progress import Progress

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Terms:
    """What is wanted of each kernel's guests; `Setting` tells what the fields mean."""

    arguments: list[str]
    seconds: float
    silence: float | None
    files: Mapping[str, bytes] = field(default_factory=dict)
    most_lost: int = MOST_LOST
    quiet: bool = False  # tells only what went wrong


def _slots() -> int:
    """How many guests may run side by side: one for each CPU, as far as memory goes."""
    available = re.search(r"^MemAvailable: +(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    mib = int(available[1]) >> 10 if available else 0
    return max(1, min(len(os.sched_getaffinity(0)), mib // (qemu.MEMORY_MIB + 512)))


def interruptible() -> None:
    """Has a request to end be treated as Ctrl-C, which asyncio knows how to pass on, and Ctrl-C
    not be ignored, as it is where a shell had it so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


async def run(found: Sequence[tuple[Campaign, KernelFiles]], terms: Terms) -> None:
    """Runs the campaigns, each on its kernel. Raises VmError, BuildError, OSError."""
    accelerator = await qemu.choose(found[0][1])
    slots = _slots()
    shards = max(min(2, slots), slots // len(found))
    if not terms.quiet:
        print(
            f"accelerator: {accelerator.name}, because {accelerator.why}; "
            f"{slots} guests side by side, {shards} for each kernel",
            file=sys.stderr,
            flush=True,
        )
    bytecode = packages.cache().parent / "bytecode"
    initramfs.compile_bytecode(PROJECT, bytecode)
    with tempfile.TemporaryFile() as base:
        initramfs.write_base(base, PROJECT, (build.built(), native.built()), bytecode)
        setting = Setting(
            project=PROJECT,
            base=base,
            bytecode=bytecode,
            arguments=terms.arguments,
            accelerator=accelerator,
            seconds=terms.seconds,
            silence=terms.silence,
            slots=asyncio.Semaphore(slots),
            files=terms.files,
            most_lost=terms.most_lost,
        )
        progress = Progress([campaign for campaign, _ in found], quiet=terms.quiet)
        shown = asyncio.create_task(progress.show())
        try:
            async with asyncio.TaskGroup() as group:
                for campaign, files in found:
                    group.create_task(campaign.run(files, setting, shards))
        finally:
            shown.cancel()
            progress.end()
