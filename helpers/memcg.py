# SPDX-License-Identifier: GPL-2.0-only
"""A memory cgroup for a subject: its limit stands for a machine that has run out of memory, and
what is reclaimed of it for one that soon will.

The kernel charges page tables to the group of the process that needs them (__GFP_ACCOUNT). At
the limit it would kill the process; where it must not (cgroup v1: memory.oom_control, v2: the
process' oom_score_adj), the charge fails and the system call returns ENOMEM. Pages are charged
where they are when they come.

Source: Documentation/admin-guide/cgroup-v2.rst, memory.reclaim.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from helpers import procfs
from helpers.machine import Need
from helpers.subject import Subject

_PREFIX = "uffd-wp-"
_SPARED = "-1000"  # OOM_SCORE_ADJ_MIN
_SPARE_BYTES = 128 << 10
_GLANCE_SECONDS = 0.002
_RECLAIM = "memory.reclaim"
_FILES = {  # by type of file system: the limit, no limit, the usage
    "cgroup": ("memory.limit_in_bytes", "-1", "memory.usage_in_bytes"),
    "cgroup2": ("memory.max", "max", "memory.current"),
}


def hierarchy() -> tuple[Path, str] | None:
    """Where groups with a memory limit can be made, and the file system's type; None: nowhere."""
    for line in procfs.read("/proc/self/mounts").splitlines():
        _, folder, kind, options = line.split()[:4]
        first = kind == "cgroup" and "memory" in options.split(",")
        offered = procfs.read(f"{folder}/cgroup.subtree_control") if kind == "cgroup2" else ""
        if (first or "memory" in offered.split()) and os.access(folder, os.W_OK):
            return Path(folder), kind
    return None


MEMCG = Need(
    lambda _: hierarchy() is not None,
    "no memory cgroups: run as root with the memory controller of cgroup v1 or v2 mounted",
)


def _reclaims() -> bool:
    found = hierarchy()
    return found is not None and (found[0] / _RECLAIM).exists()


RECLAIM = Need(
    lambda _: _reclaims(),
    "no memory.reclaim: run as root with the memory controller of cgroup v2 mounted, on Linux 5.19 "
    "or later",
)


@contextmanager
def group(subject: Subject) -> Iterator[Memcg]:
    """Puts a subject into a group of its own, which goes when it has left. Raises OSError."""
    found = hierarchy()
    assert found is not None
    root, kind = found
    subject.note("beyond", "a memory cgroup")
    _sweep(root)
    made = root / f"{_PREFIX}{os.getpid()}"
    made.mkdir()
    try:
        if kind == "cgroup":
            (made / "memory.oom_control").write_text("1")
        else:
            Path(f"/proc/{subject.pid}/oom_score_adj").write_text(_SPARED)
        (made / "cgroup.procs").write_text(str(subject.pid))
        yield Memcg(made, kind, subject)
    finally:
        (root / "cgroup.procs").write_text(str(subject.pid))
        made.rmdir()


def _sweep(root: Path) -> None:
    """Removes what runs that were killed have left."""
    for left in root.glob(f"{_PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(_PREFIX)).exists():
            with suppress(OSError):
                left.rmdir()


class Memcg:
    """A subject's memory cgroup."""

    def __init__(self, folder: Path, kind: str, subject: Subject) -> None:
        self._folder = folder
        self._limit, self._unlimited, self._usage = _FILES[kind]
        self._subject = subject

    def reclaim(self) -> None:
        """Has the kernel take back all that it can of the group's pages, which it finds by their
        frames. Raises OSError."""
        with suppress(BlockingIOError):  # it could not take all
            (self._folder / _RECLAIM).write_text((self._folder / self._usage).read_text())

    @contextmanager
    def exhausted(self) -> Iterator[None]:
        """Leaves the group 128 KiB, for an act to begin on, and what the kernel has charged in
        advance (64 pages).

        The subject can't even answer then, and sleeps until it can: the limit is lifted as soon
        as it does, for by that time the system call has ended.
        """
        usage = int((self._folder / self._usage).read_text())
        (self._folder / self._limit).write_text(str(usage + _SPARE_BYTES))
        over = Event()
        watcher = Thread(target=self._lift_when_done, args=(over,))
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _lift_when_done(self, over: Event) -> None:
        pid = self._subject.pid
        while "nanosleep" not in procfs.wchan(pid, pid) and not over.wait(_GLANCE_SECONDS):
            pass
        (self._folder / self._limit).write_text(self._unlimited)
