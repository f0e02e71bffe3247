# SPDX-License-Identifier: GPL-2.0-only
"""An io_uring of a subject's, for one submission, by the raw system calls (io_uring(7))."""

from __future__ import annotations

import os
from enum import IntEnum
from functools import cache
from mmap import PAGESIZE

from helpers.machine import Need
from helpers.region import Region
from helpers.subject import Pending, Subject, Thread, ffi
from helpers.uapi import Map, Prot

_SQ_RING, _CQ_RING, _SQES = 0, 0x800_0000, 0x1000_0000  # offsets to map
_RING_BYTES = PAGESIZE  # more than the rings of one entry take
_GETEVENTS = 1
_REGISTER_BUFFERS, _UNREGISTER_BUFFERS = 0, 1
_BUFFER_OFFSET = 512  # of the vector of buffers in the slot


class Opcode(IntEnum):
    """IORING_OP_*."""

    READ_FIXED = 4
    READ = 22
    WRITE = 23


class Ring:
    """An io_uring whose rings lie in the subject."""

    def __init__(self, subject: Subject) -> None:
        """Raises OSError where there is no io_uring, or it is closed to this user."""
        main = subject.main
        params = main.struct("io_uring_setup_params")
        self.descriptor = subject.syscall("io_uring_setup", 1, main.scratch_address)
        self._subject = subject
        self._tail, self._completion = params.sq.tail, params.cq.dropped_or_cqes
        # at addresses of the kernel's choice: it refuses any other (6.5)
        self._submissions, self._completions, self._entries = (
            subject.syscall("mmap", 0, _RING_BYTES, Prot.RW, Map.SHARED, self.descriptor, offset)
            for offset in (_SQ_RING, _CQ_RING, _SQES)
        )

    def prepare(self, opcode: Opcode, file: int, address: int, count: int) -> None:
        """Queues a transfer of `count` bytes between the file's start and memory."""
        main = self._subject.main
        main.struct("io_uring_entry", opcode=opcode, fd=file, address=address, len=count)
        size = ffi.sizeof("struct io_uring_entry")
        main.copy(self._entries, main.scratch_address, size).result()
        main.scratch(4)[:] = (1).to_bytes(4, "little")
        main.copy(self._submissions + self._tail, main.scratch_address, 4).result()

    def submit(self, thread: Thread) -> Pending:
        """Starts to submit what is queued and to wait for its completion."""
        return thread.begin("io_uring_enter", self.descriptor, 1, 1, _GETEVENTS, 0, 0)

    def result(self) -> int:
        """The completed transfer's bytes, or -errno."""
        main = self._subject.main
        made = main.struct("io_uring_completion")
        size = ffi.sizeof("struct io_uring_completion")
        main.copy(main.scratch_address, self._completions + self._completion, size).result()
        return int(made.result)

    def register(self, thread: Thread, address: int, count: int) -> Pending:
        """Starts to register a buffer, which pins its pages for long."""
        raw = address.to_bytes(8, "little") + count.to_bytes(8, "little")
        thread.scratch(16, _BUFFER_OFFSET)[:] = raw
        vector = thread.scratch_address + _BUFFER_OFFSET
        return thread.begin("io_uring_register", self.descriptor, _REGISTER_BUFFERS, vector, 1)

    def pin(self, region: Region) -> None:
        """Registers the tested page as a buffer, before it is protected. Raises OSError."""
        answer = self.register(self._subject.main, region.address(), region.page_bytes).result()
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error), "io_uring_register")

    def unregister(self) -> None:
        """Unpins the registered buffer, if there is one, at once: closing the ring does it only
        after a while, and hugetlb pages are few."""
        arguments = (self.descriptor, _UNREGISTER_BUFFERS, 0, 0)
        self._subject.main.syscall("io_uring_register", *arguments)


def _rings(_: object) -> bool:
    subject = Subject.spawn()
    try:
        Ring(subject)
    except OSError:
        return False
    finally:
        subject.close()
    return True


IO_URING = Need(
    cache(_rings),
    "io_uring is absent or closed: set kernel.io_uring_disabled=0, or boot with CONFIG_IO_URING=y",
)
