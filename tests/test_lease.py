# SPDX-License-Identifier: GPL-2.0-only
"""The lease of hugetlb pages and swap: runs side by side, and runs that are killed."""

import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers import hugepages, lease, swap
from helpers.lease import Reservation
from helpers.procfs import HUGETLB_BYTES

MAP_PRIVATE_HUGETLB = 0x02 | 0x20 | 0x40000 | 21 << 26  # private, anonymous, 2 MiB
ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="changing the pool needs root: run as root"
)
HOLDER = "from helpers.lease import Reservation; print(Reservation(2).granted, flush=True); input()"


@contextmanager
def locked_ledger() -> Iterator[list[lease.Lease]]:
    """The leases, none of which begins or ends meanwhile."""
    with lease.LEDGER.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield lease.parse(file.read())["leases"]


def unleased() -> int:
    """What no run has taken of the pool, which must stay as it is whatever others do."""
    with locked_ledger() as leases:
        return hugepages.size() - sum(each["pages"] for each in leases)


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within two minutes."""
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)  # neither the pool nor the ledger has an event to wait for
    return condition()


def swap_is_on() -> bool:
    """Whether pages can go to our device; a case of another run may just have turned it off."""
    return str(swap.ours()) in swap.devices()


@pytest.fixture(autouse=True)
def balance() -> Iterator[None]:
    """Nothing is left behind, and nothing is taken that isn't ours."""
    lease.settle()
    before = unleased()
    yield
    assert eventually(lambda: unleased() == before)
    assert eventually(lambda: swap.ours() is None or bool(lease.leases()))


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
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
    yield process
    process.kill()
    process.wait()


def keeper_of(holder: subprocess.Popen[str]) -> int:
    out = subprocess.run(
        ["pgrep", "-P", str(holder.pid)], capture_output=True, text=True, check=True
    )
    return int(out.stdout)


def test_pages_are_granted_and_given_back() -> None:
    reservation = Reservation(3)
    assert reservation.granted == 3
    assert lease.leases()[reservation.keeper.pid] == 3
    reservation.release()
    assert reservation.keeper.pid not in lease.leases()


def test_runs_side_by_side_give_back_only_their_own() -> None:
    first, second = Reservation(2), Reservation(3)
    first.release()
    assert first.keeper.pid not in lease.leases()
    assert lease.leases()[second.keeper.pid] == 3
    second.release()


def test_a_killed_run_gives_all_back(holder: subprocess.Popen[str]) -> None:
    keeper = keeper_of(holder)
    holder.kill()
    holder.wait()
    assert eventually(lambda: keeper not in lease.leases())


def test_what_a_killed_keeper_left_is_settled_by_the_next_run(
    holder: subprocess.Popen[str],
) -> None:
    keeper = keeper_of(holder)
    os.kill(keeper, signal.SIGKILL)
    holder.kill()
    holder.wait()
    Reservation(1).release()
    assert keeper not in lease.leases()


def test_pages_given_back_while_in_use_are_not_counted_twice() -> None:
    first = Reservation(2)
    with mmap.mmap(-1, 2 * HUGETLB_BYTES, flags=MAP_PRIVATE_HUGETLB) as used:
        used[0] = used[HUGETLB_BYTES] = 1
        first.release()
        Reservation(3).release()


def test_a_damaged_ledger_is_started_anew() -> None:
    assert lease.parse('{"boot": "')["leases"] == []


def test_swap_is_there_until_the_last_run_ends() -> None:
    if swap.devices() and swap.ours() is None:
        pytest.skip("the machine has swap of its own")
    first, second = Reservation(0), Reservation(0)
    assert eventually(swap_is_on)
    first.release()
    assert eventually(swap_is_on)
    second.release()


def test_swap_that_a_killed_run_turned_off_is_found_again(holder: subprocess.Popen[str]) -> None:
    keeper = keeper_of(holder)
    with locked_ledger() as leases:
        if not swap.exclusive() or len(leases) > 2:  # the holder's, and that of this run
            pytest.skip("others use the swap device: let them end")
        os.kill(keeper, signal.SIGKILL)
        holder.kill()
        holder.wait()
        subprocess.run(["swapoff", str(swap.ours())], check=True)
    second = Reservation(0)
    assert eventually(swap_is_on)
    second.release()
