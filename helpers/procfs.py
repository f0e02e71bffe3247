# SPDX-License-Identifier: GPL-2.0-only
"""What /proc and /sys tell of threads, mappings and the kernel, as text and numbers."""

from __future__ import annotations

import errno
import gzip
import os
import re
from pathlib import Path

THP_KNOBS = Path("/sys/kernel/mm/transparent_hugepage")
MTHP_KNOBS = THP_KNOBS / "hugepages-16kB"  # 6.8: the smallest THP that anon memory can have
HUGETLB_BYTES = 2 << 20
HUGETLB_KNOBS = Path(f"/sys/kernel/mm/hugepages/hugepages-{HUGETLB_BYTES >> 10}kB")


def errno_name(number: int) -> str:
    """EINVAL for 22, and so on."""
    return errno.errorcode.get(number, str(number))


def read(path: str | Path, default: str = "") -> str:
    """A small file's text, or `default` where it can't be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return default


def chosen(path: Path) -> str:
    """The bracketed word of a sysfs choice such as `always [madvise] never`; "" if absent."""
    _, _, rest = read(path).partition("[")
    return rest.partition("]")[0]


def thread_state(pid: int, tid: int) -> str:
    """R, S, D, Z, … as in /proc/PID/task/TID/stat; "" when the thread is gone."""
    fields = read(f"/proc/{pid}/task/{tid}/stat").rpartition(")")[2].split()
    return fields[0] if fields else ""


def wchan(pid: int, tid: int) -> str:
    """The kernel function a thread sleeps in; "" or "0" where the kernel doesn't say."""
    return read(f"/proc/{pid}/task/{tid}/wchan")


def thread_evidence(pid: int, tid: int) -> str:
    """State, wchan, system call and kernel stack of a thread, as far as they can be read."""
    task = f"/proc/{pid}/task/{tid}"
    parts = [f"state {thread_state(pid, tid) or 'gone'}", f"wchan {wchan(pid, tid) or '-'}"]
    parts.append(f"syscall {read(f'{task}/syscall') or '-'}")
    stack = " < ".join(line.split()[-1] for line in read(f"{task}/stack").splitlines())
    if stack:
        parts.append(f"stack {stack}")
    return ", ".join(parts)


def smaps_range(smaps: str, start: int, end: int) -> dict[str, int]:
    """The sums, in bytes, of the kB fields of all VMAs in [start, end) of an smaps text.

    A VMA begins at `start`.
    """
    sums: dict[str, int] = {}
    for line in smaps[smaps.index(f"{start:x}-") :].splitlines():
        name, _, amount = line.partition(":")
        if amount.endswith(" kB"):
            sums[name] = sums.get(name, 0) + int(amount[:-3]) * 1024
        elif "-" in name and int(name.partition("-")[0], 16) >= end:
            break
    return sums


def status_bytes(status: str, name: str) -> int:
    """A kB field of a /proc/PID/status text (VmPTE, …), in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise ValueError(f"no {name} in /proc/PID/status")
    return int(found[1]) * 1024


def numa_nodes() -> list[int]:
    """The NUMA nodes that have memory."""
    nodes: list[int] = []
    for part in filter(None, read("/sys/devices/system/node/has_memory").split(",")):
        first, _, last = part.partition("-")
        nodes += range(int(first), int(last or first) + 1)
    return nodes


def kernel_config() -> str:
    """The running kernel's configuration text, or "" where none is offered."""
    try:
        return gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    except OSError:
        return read(f"/boot/config-{os.uname().release}")


def file_system(path: Path) -> str:
    """The type of the file system that a file lies on; "" when it can't be told."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in read("/proc/self/mountinfo").splitlines():
        fields, _, kind = line.partition(" - ")
        if fields.split()[2] == number:
            return kind.split()[0]
    return ""
