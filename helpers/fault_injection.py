# SPDX-License-Identifier: GPL-2.0-only
"""One allocation of memory that is made to fail, the first of an act, its second, and so on: for
kernels that are built for it.

Source: Documentation/fault-injection/fault-injection.rst (fail-nth).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from helpers import knobs
from helpers.machine import Need
from helpers.subject import Thread

_DEBUG = Path("/sys/kernel/debug")
_PAGES, _SLAB = _DEBUG / "fail_page_alloc", _DEBUG / "failslab"
_ANY_ALLOCATION = {
    _PAGES / "min-order": "0",
    _PAGES / "ignore-gfp-wait": "N",
    _PAGES / "ignore-gfp-highmem": "N",
    _PAGES / "verbose": "0",
    _SLAB / "ignore-gfp-wait": "N",
    _SLAB / "verbose": "0",
}

FAULT_INJECTION = Need(
    lambda _: _PAGES.exists() and _SLAB.exists(),
    "the kernel can't make allocations fail: boot one with CONFIG_FAILSLAB=y, "
    "CONFIG_FAIL_PAGE_ALLOC=y and CONFIG_FAULT_INJECTION_DEBUG_FS=y, with debugfs mounted",
)


@contextmanager
def enabled() -> Iterator[None]:
    """Lets any allocation be one that is made to fail. Raises OSError."""
    with knobs.set_to(_ANY_ALLOCATION):
        yield


def each(thread: Thread, prepare: Callable[[], Callable[[], None]]) -> Iterator[int]:
    """Has a thread do an act, prepared anew each time, in which its first allocation fails, then
    its second, and so on, until none is left: the errno of each act, 0 where it succeeded."""
    knob = Path(f"/proc/{thread.subject.pid}/task/{thread.tid}/fail-nth")
    for number in count(1):
        act, error = prepare(), 0
        knob.write_text(str(number))
        try:
            act()
        except OSError as told:
            error = told.errno or 0
        left = int(knob.read_text())
        knob.write_text("0")
        yield error
        if left:
            return
