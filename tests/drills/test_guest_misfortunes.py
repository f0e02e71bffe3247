# SPDX-License-Identifier: GPL-2.0-only
"""Cases that take their whole guest along; tests/test_vm_drills.py looks what becomes of them.

Two guests share them, so that each has a misfortune with cases before and after it. They are
not for a machine that one wants to keep.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from helpers.cases import case
from helpers.machine import UFFD


@pytest.fixture(autouse=True)
def _in_a_guest():
    if not Path("/uffd-wp/plan.json").exists():
        pytest.skip("would take this machine along: ./run-in-vm.sh -- tests/drills/…")


@pytest.fixture(autouse=True, scope="module")
def _taint_after_the_cases():
    """What /proc/sys/kernel/tainted is given, stays, as after a splat."""
    yield
    Path("/proc/sys/kernel/tainted").write_text("64")


@case("API-1", needs=(UFFD,))
def test_the_kernel_is_tainted(subject):
    Path("/proc/sys/kernel/tainted").write_text("512")


@case("API-1", needs=(UFFD,))
def test_before_the_silence(subject):
    assert subject.pid


@case("API-1", needs=(UFFD,))
def test_the_kernel_panics(subject):
    Path("/proc/sysrq-trigger").write_text("c")


@case("API-1", needs=(UFFD,))
def test_the_guest_falls_silent(subject):
    os.kill(os.getpid(), signal.SIGSTOP)


@case("API-1", needs=(UFFD,))
def test_after_the_panic(subject):
    assert subject.pid


@case("API-1", needs=(UFFD,))
def test_after_the_silence(subject):
    assert subject.pid


@case("API-1", needs=(UFFD,))
def test_the_guest_is_killed(subject):
    time.sleep(600)  # the drill kills QEMU meanwhile


@case("API-1", needs=(UFFD,))
def test_the_worker_exits(subject):
    os._exit(7)


@case("API-1", needs=(UFFD,))
def test_after_the_kill(subject):
    assert subject.pid


@pytest.mark.parametrize("time", range(6), ids=str)
@case("API-1", needs=(UFFD,))
def test_the_kernel_panics_each_time(subject, time):
    Path("/proc/sysrq-trigger").write_text("c")


@case("API-1", needs=(UFFD,))
def test_after_many_panics(subject):
    assert subject.pid
