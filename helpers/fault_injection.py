# SPDX-License-Identifier: GPL-2.0-only
"""Allocations of memory that are made to fail, one in each attempt: for kernels built for it.

Source: Documentation/fault-injection/fault-injection.rst (fail-nth).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from helpers import knobs
from helpers.machine import Need
from helpers.subject import Thread

_DEBUG = Path("/sys/kernel/debug")
_PAGES, _SLAB = _DEBUG / "fail_page_alloc", _DEBUG / "failslab"
_IN_VAIN = 6  # attempts; a fork does without up to three of its allocations in a row
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
    "the kernel can't make allocations fail: ./run-in-vm.sh built, or boot one with "
    "CONFIG_FAILSLAB=y, CONFIG_FAIL_PAGE_ALLOC=y and CONFIG_FAULT_INJECTION_DEBUG_FS=y, and mount "
    "debugfs",
)


@contextmanager
def enabled() -> Iterator[None]:
    """Lets any allocation be one that is made to fail. Raises OSError."""
    with knobs.set_to(_ANY_ALLOCATION):
        yield


class Attempt:
    """A context in which one allocation of a thread fails, the nth from its beginning; an OSError
    that its body raises ends it, as `error`."""

    def __init__(self, thread: Thread, number: int) -> None:
        self._knob = Path(f"/proc/{thread.subject.pid}/task/{thread.tid}/fail-nth")
        self._number = number
        self.error = 0
        self.hit = False  # there was such an allocation

    def __enter__(self) -> Attempt:
        self._knob.write_text(str(self._number))
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self.hit = self._knob.read_text().strip() == "0"
        self._knob.write_text("0")
        if isinstance(error, OSError):
            self.error = error.errno or 0
        return isinstance(error, OSError)


def attempts(thread: Thread) -> Iterator[Attempt]:
    """An attempt for each allocation that the thread makes in one.

    They end after one in which nothing failed, or after some that ended well though something did:
    that was what came after the tested call, such as the copies of pages after a fork.
    """
    in_vain = 0
    for number in count(1):
        attempt = Attempt(thread, number)
        yield attempt
        in_vain = 0 if attempt.error else in_vain + 1
        if not attempt.hit or in_vain == _IN_VAIN:
            return
