# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of a kernel log are splats."""

import re

import pytest

from helpers.kernel_log import ALLOWED, KernelLog, message, splat


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 1 PID: 312 at mm/memory.c:1563 zap_pte_range+0x6a1/0x7d0",
        "WARNING: mm/userfaultfd.c:80 at uffd_wp_range+0x91/0x120, CPU#0: subject/312",
        "WARNING: possible circular locking dependency detected",
        "BUG: kernel NULL pointer dereference, address: 0000000000000018",
        "BUG: Bad page map in process subject  pte:420000000000003f pmd:1c2d067",
        "BUG: Bad rss-counter state mm:00000000c0ffee00 type:MM_ANONPAGES val:1",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 62s! [subject:312]",
        "INFO: task khugepaged:31 blocked for more than 120 seconds.",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "kernel BUG at mm/huge_memory.c:2100!",
    ],
)
def test_a_splat_is_known(line: str) -> None:
    assert splat(line)


@pytest.mark.parametrize(
    "line",
    [
        "Speculative Return Stack Overflow: WARNING: See https://kernel.org/doc/html/latest/…",
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
        "subject[312]: segfault at 1000 ip 00007f sp 00007f error 7",
        "INFO: task subject:312 blocked for more than 120 seconds.",
        "zram: Added device: zram0",
        "ACPI DEBUG: nothing",
    ],
)
def test_what_is_harmless_is_no_splat(line: str) -> None:
    assert not splat(line)


def test_what_is_allowed_has_a_reason_and_a_link() -> None:
    for entry in ALLOWED:
        assert re.compile(entry.pattern)
        assert entry.reason
        assert entry.link


def test_a_record_is_the_kernels_own() -> None:
    assert message("4,1187,9216451,-;WARNING: CPU: 0 PID: 1\n SUBSYSTEM=mm\n") == (
        "WARNING: CPU: 0 PID: 1"
    )
    assert message("12,1188,9216452,-;WARNING: says a daemon") == ""


def test_a_log_that_cannot_be_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helpers.kernel_log._LOG", "/proc/self/nothing")
    log = KernelLog()
    assert "No such file" in log.unreadable
    assert log.news() == []
