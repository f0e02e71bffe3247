# SPDX-License-Identifier: GPL-2.0-only
"""The lease of hugetlb pages: runs side by side, and runs that are killed."""

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import hugepages
from helpers.hugepages import Reservation
from helpers.procfs import HUGETLB_BYTES, HUGETLB_KNOBS

MAP_PRIVATE_HUGETLB = 0x02 | 0x20 | 0x40000 | 21 << 26  # private, anonymous, 2 MiB
ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="changing the pool needs root: run as root"
)
HOLDER = (
    "from helpers.hugepages import Reservation; print(Reservation(2).granted, flush=True); input()"
)


def pool() -> int:
    return int((HUGETLB_KNOBS / "nr_hugepages").read_text())


@pytest.fixture
def before() -> Iterator[int]:
    """The pool's size before the test, which must be its size after it."""
    hugepages.settle()
    size = pool()
    yield size
    assert pool() == size


@pytest.fixture
def holder() -> subprocess.Popen[str]:
    """Another process that has reserved two pages."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "2\n"
    return process


def eventually(size: int) -> bool:
    """Whether the pool comes to a size within ten seconds."""
    deadline = time.monotonic() + 10
    while pool() != size and time.monotonic() < deadline:
        time.sleep(0.01)  # the pool has no event to wait for
    return pool() == size


def keeper_of(holder: subprocess.Popen[str]) -> int:
    out = subprocess.run(
        ["pgrep", "-P", str(holder.pid)], capture_output=True, text=True, check=True
    )
    return int(out.stdout)


def test_pages_are_granted_and_given_back(before: int) -> None:
    reservation = Reservation(3)
    assert reservation.granted == 3
    assert pool() == before + 3
    reservation.release()


def test_runs_side_by_side_give_back_only_their_own(before: int) -> None:
    first, second = Reservation(2), Reservation(3)
    assert pool() == before + 5
    first.release()
    assert pool() == before + 3
    second.release()


def test_a_killed_run_gives_its_pages_back(before: int, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert eventually(before)


def test_what_a_killed_keeper_left_is_settled_by_the_next_run(
    before: int, holder: subprocess.Popen[str]
) -> None:
    os.kill(keeper_of(holder), signal.SIGKILL)
    holder.kill()
    holder.wait()
    assert pool() == before + 2
    Reservation(1).release()
    assert pool() == before


def test_pages_given_back_while_in_use_are_not_counted_twice(before: int) -> None:
    first = Reservation(2)
    with mmap.mmap(-1, 2 * HUGETLB_BYTES, flags=MAP_PRIVATE_HUGETLB) as used:
        used[0] = used[HUGETLB_BYTES] = 1
        first.release()
        Reservation(3).release()
    assert pool() == before


def test_a_damaged_ledger_is_started_anew(before: int) -> None:
    hugepages.LEDGER.write_text('{"boot": "')
    Reservation(1).release()
    assert pool() == before
