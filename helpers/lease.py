# SPDX-License-Identifier: GPL-2.0-only
"""Takes for a run what only global settings give, and gives it back, whatever becomes of the run.

There is no local way to hugetlb pages and to swap, so the pool grows and, on a machine
without swap, a device is made, under one lock for the machine. Each run's share is a lease in
a ledger. A keeper, a detached process, holds the lease: it ends it when its standard input
closes, which is the run's end or its SIGKILL alike. Should the keeper be killed too, the next
lease settles what is left in the ledger. Runs side by side add and take away only their own
pages; they share the swap device, which goes with the last of them.

usage: python -m helpers.lease PAGES    (holds PAGES and swap until its standard input closes)
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

from helpers import hugepages, procfs, swap

LEDGER = Path("/run/uffd-wp-hugepages.json")


class Lease(TypedDict):
    """What a keeper has taken."""

    pid: int  # the keeper's, in its own PID namespace
    lock: str  # a file that it holds locked for as long as it lives
    pages: int


class Ledger(TypedDict):
    """The leases of this boot; those of an earlier one mean nothing."""

    boot: str
    leases: list[Lease]


def _boot() -> str:
    return procfs.read("/proc/sys/kernel/random/boot_id")


def _over(lease: Lease) -> bool:
    """Whether the keeper is gone. A pid wouldn't tell: it may be another container's."""
    try:
        with open(lease["lock"]) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True


def parse(text: str) -> Ledger:
    """A ledger from its text."""
    try:
        ledger: Ledger = json.loads(text)
        if ledger["boot"] == _boot() and all(lease["lock"] for lease in ledger["leases"]):
            return ledger
    except (ValueError, KeyError, TypeError):
        pass  # empty, or cut short by a crash: the settings' own figures stay the truth
    return {"boot": _boot(), "leases": []}


@contextmanager
def _ledger() -> Iterator[Ledger]:
    """The ledger, locked, settled, and written back. Raises OSError."""
    with open(os.open(LEDGER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ledger = parse(file.read())
        for lease in list(ledger["leases"]):
            if _over(lease):
                _end(ledger, lease)
        yield ledger
        file.seek(0)
        file.truncate()
        json.dump(ledger, file)


def _end(ledger: Ledger, lease: Lease) -> None:
    hugepages.give_back(lease["pages"])
    ledger["leases"].remove(lease)
    Path(lease["lock"]).unlink(missing_ok=True)
    if not ledger["leases"]:
        with suppress(OSError):  # one that is still in use is the next run's
            swap.remove()


def hold(pages: int) -> None:
    """Takes hugetlb pages and swap, says on standard output how many pages there were to be
    had, and holds them until standard input closes. Raises OSError."""
    lock = LEDGER.with_name(f"uffd-wp-lease-{secrets.token_hex(8)}")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with _ledger() as ledger:
            got = hugepages.take(pages)
            lease = Lease(pid=os.getpid(), lock=str(lock), pages=got)
            ledger["leases"].append(lease)
            with suppress(OSError):  # no zram: the cases that need swap say so
                swap.provide()
        print(min(got, pages), flush=True)
        sys.stdin.read()
        with _ledger() as ledger:
            _end(ledger, lease)


class Reservation:
    """The run's side of a lease."""

    def __init__(self, pages: int) -> None:
        """Starts a keeper for `pages` hugetlb pages; `granted` tells how many it got (0: not
        root). Swap is there when this returns, where it can be."""
        self.keeper = subprocess.Popen(
            [sys.executable, "-m", "helpers.lease", str(pages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        assert self.keeper.stdout is not None
        self.granted = int(self.keeper.stdout.readline() or 0)

    def release(self) -> None:
        """Gives all back and waits until that is done."""
        self.keeper.communicate()


def leases() -> dict[int, int]:
    """The pages of each lease that has not ended, by the pid of its keeper. Raises OSError."""
    with open(LEDGER) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return {lease["pid"]: lease["pages"] for lease in parse(file.read())["leases"]}


def settle() -> None:
    """Gives back what killed runs have left. Raises OSError."""
    with _ledger():
        pass


if __name__ == "__main__":
    hold(int(sys.argv[1]))
