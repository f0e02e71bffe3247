# SPDX-License-Identifier: GPL-2.0-only
"""The machine as far as it bears on the figures, and how much memory it has to spare."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from helpers import procfs
from helpers.procfs import THP_KNOBS

_CPU = Path("/sys/devices/system/cpu")
_POLICIES = {os.SCHED_FIFO: "FIFO", os.SCHED_RR: "RR", os.SCHED_OTHER: "normal"}
_CONFIG = ("PREEMPT_DYNAMIC", "HZ", "MEM_SOFT_DIRTY", "DEBUG_VM", "KASAN", "LOCKDEP")


def free_bytes() -> int:
    """What the kernel calls available memory."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", procfs.read("/proc/meminfo"), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def _cpuinfo(field: str) -> str:
    found = re.search(rf"^{field}\s*: (.+)$", procfs.read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else ""


def _option(name: str) -> str:
    found = re.search(rf"^CONFIG_{name}=(.+)$", procfs.kernel_config(), re.MULTILINE)
    return found[1] if found else "n"


def _mitigations() -> str:
    """What the CPU is vulnerable to, and what the kernel does about it."""
    found = {
        path.name: procfs.read(path).replace("Mitigation: ", "")
        for path in sorted((_CPU / "vulnerabilities").glob("*"))
    }
    return "; ".join(f"{name}: {state}" for name, state in found.items() if state[:3] != "Not")


def emulated() -> bool:
    """Whether the CPU is emulated in software: a figure then tells of the emulator."""
    return "TCG" in _cpuinfo("model name")


def describe() -> dict[str, str]:
    """What may explain that another machine's figures differ, by name."""
    virtual = "hypervisor" in _cpuinfo("flags").split()
    board = procfs.read("/sys/class/dmi/id/product_name")
    knobs = {
        name: procfs.chosen(THP_KNOBS / name) or procfs.read(THP_KNOBS / name, "absent")
        for name in ("enabled", "defrag", "use_zero_page", "shmem_enabled")
    }
    return {
        "kernel": f"{os.uname().release} {platform.machine()}",
        "built": os.uname().version,
        "CPU": f"{_cpuinfo('model name')}, {os.cpu_count()} CPUs",
        "virtualised": "emulated in software" if emulated() else "yes" if virtual else "no",
        **({"board": board} if board else {}),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20} MiB, "
        f"{free_bytes() >> 20} MiB available",
        "NUMA nodes": str(len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1),
        **{f"THP {name}": state for name, state in knobs.items()},
        "governor": procfs.read(_CPU / "cpu0/cpufreq/scaling_governor", "none to be seen"),
        "clock": procfs.read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "mitigations": _mitigations() or "none",
        "configuration": " ".join(f"{name}={_option(name)}" for name in _CONFIG),
        "scheduling": f"{_POLICIES.get(os.sched_getscheduler(0), 'other')}, nice {os.nice(0)}",
        "load before": procfs.read("/proc/loadavg").rpartition(" ")[0],
    }
