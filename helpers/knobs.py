# SPDX-License-Identifier: GPL-2.0-only
"""Global settings of a kernel that can be thrown away (machine.DISPOSABLE), for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import procfs
from helpers.region import Unproven

SYS_MM = Path("/sys/kernel/mm")
_PATIENCE_SECONDS = 5.0


@contextmanager
def set_to(settings: dict[Path, str]) -> Iterator[None]:
    """Writes settings, and at the end what was there before, the last one first. Raises OSError."""
    before = {path: procfs.chosen(path) or procfs.read(path) for path in settings}
    try:
        for path, value in settings.items():
            path.write_text(value)
        yield
    finally:
        for path in reversed(settings):
            path.write_text(before[path])


def await_that(
    condition: Callable[[], bool], complaint: str, seconds: float = _PATIENCE_SECONDS
) -> None:
    """Waits until the kernel has done something. Raises Unproven with the complaint."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Unproven(f"{complaint} in {seconds:.0f} s")
        time.sleep(0.01)  # nothing tells when kernel threads have done their work
