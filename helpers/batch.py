# SPDX-License-Identifier: GPL-2.0-only
"""Operations that a thread of a subject does in one go, at its own speed.

The table lies in the thread's scratch slot, its replies behind it. A batch that blocks in a
fault goes on when its page is resolved, and one that runs over and over counts what succeeded:
the exact oracle of what concurrent writers have done.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from helpers.subject import SLOT_BYTES, Answer, Pending, Subject, Thread, ffi, lib, number
from helpers.uapi import SCHED_FIFO

_TABLE_OFFSET = SLOT_BYTES // 4  # of the table in the slot; structures may lie below it
_ALIGN = 8
_WORDS = ffi.sizeof("struct request") // 8
_REPLY_BYTES = ffi.sizeof("struct reply")
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Operation:
    """One entry of a batch."""

    code: int
    arguments: tuple[int, ...]


def load(address: int) -> Operation:
    """Loads an 8-byte word."""
    return Operation(lib.OP_LOAD, (address, 0, 1))


def store(address: int, value: int) -> Operation:
    """Stores an 8-byte word."""
    return Operation(lib.OP_STORE, (address, 0, 1, value))


def add(address: int, delta: int = 1) -> Operation:
    """Reads, adds to and writes back an 8-byte word."""
    return Operation(lib.OP_ADD, (address, delta, 1))


def call(name: str, *arguments: int) -> Operation:
    """A system call."""
    return Operation(lib.OP_SYSCALL, (number(name), *arguments))


def child(operations: Sequence[Operation], pagemap: int) -> Operation:
    """Has the operations that follow, which these are, done by a forked child, whose pagemap has
    that number; the value is its wait status."""
    return Operation(lib.OP_CHILD, (len(operations), pagemap))


def anywhere(thread: Thread) -> Thread:
    """Lets a thread run on any CPU: beside the suite and its siblings, not in turns with them."""
    _run_on(thread, _MASK)
    return thread


def elsewhere(thread: Thread) -> Thread:
    """Has a thread run on another CPU than this process, from which subjects have theirs, if there
    is another."""
    ours = sum(1 << cpu for cpu in os.sched_getaffinity(0))
    _run_on(thread, _MASK & ~ours)
    return thread


def _run_on(thread: Thread, cpus: int) -> None:
    offset = SLOT_BYTES - _ALIGN  # not in a batch's way that is ready to start
    thread.scratch(_ALIGN, offset)[:] = cpus.to_bytes(_ALIGN, "little")
    thread.syscall("sched_setaffinity", 0, _ALIGN, thread.scratch_address + offset)


def real_time(thread: Thread) -> bool:
    """Has a thread run whenever it can, before all that are no real-time ones: whether it may."""
    priority = Room(thread).put((1).to_bytes(4, "little"))
    return not thread.syscall("sched_setscheduler", 0, SCHED_FIFO, priority).error


def pipe(subject: Subject) -> tuple[int, int]:
    """The ends of a new pipe, to read from and to write to. Raises OSError."""
    main = subject.main
    subject.syscall("pipe2", main.scratch_address, os.O_CLOEXEC)
    reads, writes = main.scratch(8).cast("i").tolist()
    return reads, writes


class Room:
    """The part of a thread's slot in front of a batch's table, for what its calls point to."""

    def __init__(self, thread: Thread) -> None:
        self.thread, self._taken = thread, 0

    def take(self, count: int) -> tuple[int, memoryview]:
        """The address of so many zeroed bytes, and the bytes."""
        offset = self._taken
        self._taken += -(-count // _ALIGN) * _ALIGN
        if self._taken > _TABLE_OFFSET:
            raise ValueError("a slot has no room for that much")
        view = self.thread.scratch(count, offset)
        view[:] = bytes(count)
        return self.thread.scratch_address + offset, view

    def put(self, raw: bytes) -> int:
        """The address of a copy of these bytes."""
        address, view = self.take(len(raw))
        view[:] = raw
        return address


def ioctl(room: Room, descriptor: int, request: int, kind: str, **fields: int) -> Operation:
    """An ioctl(2) whose argument is such a structure."""
    raw = bytes(ffi.buffer(ffi.new(f"struct {kind} *", fields)))
    return call("ioctl", descriptor, request, room.put(raw))


class Batch:
    """A table of operations in the slot of the thread that is to do them."""

    def __init__(self, thread: Thread, operations: Sequence[Operation]) -> None:
        self.thread = thread
        self._count = len(operations)
        table = array("Q")
        for operation in operations:
            words = (operation.code, *(argument & _MASK for argument in operation.arguments))
            table.extend((*words, *(0,) * (_WORDS - len(words))))
        raw = table.tobytes()
        self._replies = _TABLE_OFFSET + len(raw)
        self._stop = self._replies + self._count * _REPLY_BYTES
        thread.scratch(len(raw), _TABLE_OFFSET)[:] = raw

    def __len__(self) -> int:
        return self._count

    def start(self, *, forever: bool = False) -> Pending:
        """Starts the batch, once or until `stop`; its value is how many operations succeeded."""
        thread, base = self.thread, self.thread.scratch_address
        thread.scratch(8, self._stop)[:] = bytes(8)
        how = "over and over" if forever else "once"
        step = thread.subject.record(thread, "batch", (f"{self._count} operations", how))
        stop = base + self._stop if forever else 0
        places = (base + _TABLE_OFFSET, self._count, base + self._replies, stop)
        return thread.start(lib.OP_BATCH, places, step)

    def stop(self) -> None:
        """Lets a batch that was started `forever` end when its table next does."""
        self.thread.scratch(8, self._stop)[0] = 1

    def answers(self) -> list[Answer]:
        """What came of each operation, the last time that it was done."""
        return [Answer(r.value, r.error, r.signal, r.code, r.address) for r in self.replies()]

    def replies(self) -> Any:
        """The same as it lies in the slot: an array of struct reply."""
        raw = self.thread.scratch(self._count * _REPLY_BYTES, self._replies)
        return ffi.from_buffer("struct reply[]", raw)
