# SPDX-License-Identifier: GPL-2.0-only
"""Reserves hugetlb pages for a run and gives them back, whatever becomes of the run.

There is no local way to hugetlb pages, so the pool's size, a global knob, is changed under
one lock for the machine. Each run's share is a lease in a ledger. A keeper, a detached
process, holds the lease: it gives the pages back when its standard input closes, which is
the run's end or its SIGKILL alike. Should the keeper be killed too, the next lease settles
what is left in the ledger. Runs side by side add and take away only their own pages.

usage: python -m helpers.hugepages PAGES    (holds PAGES until its standard input closes)
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from helpers import procfs
from helpers.procfs import HUGETLB_KNOBS

PAGES_PER_WORKER = 8
LEDGER = Path("/run/uffd-wp-hugepages.json")
_POOL = HUGETLB_KNOBS / "nr_hugepages"


class Lease(TypedDict):
    """Pages taken by a keeper, known by its pid and start time."""

    pid: int
    started: str
    pages: int


class Ledger(TypedDict):
    """The leases of this boot; those of an earlier one mean nothing."""

    boot: str
    leases: list[Lease]


def _boot() -> str:
    return procfs.read("/proc/sys/kernel/random/boot_id")


def _started(pid: int) -> str:
    """A process' start time in clock ticks; "" when it is gone, or a zombie."""
    fields = procfs.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _parse(text: str) -> Ledger:
    try:
        ledger: Ledger = json.loads(text)
        if ledger["boot"] == _boot():
            return ledger
    except (ValueError, KeyError, TypeError):
        pass  # empty, or cut short by a crash: the pool's own figure stays the truth
    return {"boot": _boot(), "leases": []}


@contextmanager
def _ledger() -> Iterator[Ledger]:
    """The ledger, locked, settled, and written back. Raises OSError."""
    with open(os.open(LEDGER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ledger = _parse(file.read())
        for lease in list(ledger["leases"]):
            if _started(lease["pid"]) != lease["started"]:
                _give_back(ledger, lease)
        yield ledger
        file.seek(0)
        file.truncate()
        json.dump(ledger, file)


def _pool() -> int:
    """The pool's persistent pages: what is written to the knob. Pages given back while they
    are in use are surplus until they are freed, and the knob reads as the sum of both."""
    surplus = (HUGETLB_KNOBS / "surplus_hugepages").read_text()
    return int(_POOL.read_text()) - int(surplus)


def _give_back(ledger: Ledger, lease: Lease) -> None:
    _POOL.write_text(str(max(0, _pool() - lease["pages"])))
    ledger["leases"] = [other for other in ledger["leases"] if other["pid"] != lease["pid"]]


def hold(pages: int) -> None:
    """Takes pages into the pool, says on standard output how many, and holds them until
    standard input closes. Raises OSError."""
    with _ledger() as ledger:
        before = _pool()
        _POOL.write_text(str(before + pages))
        got = _pool() - before
        lease = Lease(pid=os.getpid(), started=_started(os.getpid()), pages=got)
        ledger["leases"].append(lease)
    print(got, flush=True)
    sys.stdin.read()
    with _ledger() as ledger:
        _give_back(ledger, lease)


class Reservation:
    """The run's side of a lease."""

    def __init__(self, pages: int) -> None:
        """Starts a keeper for `pages` pages; `granted` tells how many it got (0: not root)."""
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "helpers.hugepages", str(pages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        self.granted = int(self._keeper.stdout.readline() or 0)

    def release(self) -> None:
        """Gives the pages back and waits until that is done."""
        self._keeper.communicate()


def settle() -> None:
    """Gives back what killed runs have left. Raises OSError."""
    with _ledger():
        pass


if __name__ == "__main__":
    hold(int(sys.argv[1]))
