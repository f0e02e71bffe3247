# SPDX-License-Identifier: GPL-2.0-only
"""What one pytest process holds for its whole life: the root subject and the kernel's facts."""

from __future__ import annotations

import os
import time
from functools import cached_property
from pathlib import Path

from helpers import khugepaged, machine, spec
from helpers.kernel_log import KernelLog
from helpers.machine import Machine
from helpers.stream import Stream
from helpers.subject import Subject, SubjectLost


class Run:
    """One pytest process: xdist's controller, one of its workers, or the only one."""

    def __init__(self, stream: Path | None, case_seconds: float, worker: str) -> None:
        """`worker` names the process in the stream; opening the stream raises OSError."""
        self.clauses = spec.load()
        self.stream = Stream(stream) if stream else None
        self.log = KernelLog(since_boot=machine.disposable())
        self.splats: list[str] = []  # what the kernel said while no case ran
        self.worker = worker
        self._case_seconds = case_seconds

    @cached_property
    def root(self) -> Subject:
        """The pristine subject from which those of the cases are forked.

        It and this process share a CPU: they take turns anyway, and a wake-up on the same CPU
        costs a third of one that has to cross to another.
        """
        cpus = sorted(os.sched_getaffinity(0))
        number = int(self.worker[2:]) if self.worker.startswith("gw") else os.getpid()
        os.sched_setaffinity(0, {cpus[number % len(cpus)]})
        root = Subject.spawn()
        khugepaged.keep_busy(root)
        return root

    @cached_property
    def machine(self) -> Machine:
        """The running kernel as probed, once."""
        return machine.probe(self.root)

    def watch_log(self) -> None:
        """Takes what the kernel has complained of since the last case."""
        self.splats += self.log.news()

    def subject(self) -> Subject:
        """A fresh subject for a case; the root is started anew where it was lost."""
        self.root.deadline = time.monotonic() + self._case_seconds
        try:
            return self.root.fork(self._case_seconds)
        except SubjectLost:
            del self.root
            return self.root.fork(self._case_seconds)

    def close(self) -> None:
        """Ends the root subject, if there is one."""
        if "root" in self.__dict__:
            self.root.close()
