# SPDX-License-Identifier: GPL-2.0-only
"""Memory that fails, or that the kernel is told to use no more: for kernels that can be thrown
away, since such a page is lost until the next boot.

Sources: Documentation/ABI/testing/sysfs-memory-page-offline, Documentation/mm/hwpoison.rst.
"""

from __future__ import annotations

from mmap import PAGESIZE
from pathlib import Path

from helpers.machine import Need
from helpers.region import Region

_KNOBS = Path("/sys/devices/system/memory")
_HARD, _SOFT = _KNOBS / "hard_offline_page", _KNOBS / "soft_offline_page"

PAGE_OFFLINE = Need(
    lambda _: _HARD.exists(),
    f"there is no {_HARD}: boot a kernel with CONFIG_MEMORY_FAILURE=y and CONFIG_MEMORY_HOTPLUG=y",
)


def frame(region: Region) -> int:
    """The page frame number of the tested page."""
    return region.frames(range(region.page, region.page + 1))[0]


def fail(region: Region) -> None:
    """The tested page has an error that can't be corrected (it is poisoned). Raises OSError."""
    _HARD.write_text(hex(frame(region) * PAGESIZE))


def retire(region: Region) -> None:
    """The tested page has had too many errors that could be: its contents go elsewhere.
    Raises OSError."""
    _SOFT.write_text(hex(frame(region) * PAGESIZE))
