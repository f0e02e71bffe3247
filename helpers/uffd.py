# SPDX-License-Identifier: GPL-2.0-only
"""userfaultfd: the descriptor, its ioctls and its messages.

The ioctls are done by the subject's main thread; messages are read here, from a duplicate
of the descriptor, so that a wait for "an answer or a message" needs one poll. Addresses
and lengths are bytes; every call raises OSError with the kernel's errno (ioctl_userfaultfd(2)).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import Any

from helpers.subject import Answer, Subject, ffi, lib
from helpers.uapi import (
    UFFD_API,
    UFFD_USER_MODE_ONLY,
    CopyMode,
    Event,
    FaultFlag,
    Feature,
    Ioctl,
    ProtectMode,
    RegisterMode,
)

DEVICE = "/dev/userfaultfd"
_MESSAGE_BYTES = 32


class Access(Enum):
    """The ways to a userfaultfd (Documentation/admin-guide/mm/userfaultfd.rst)."""

    SYSCALL = "userfaultfd(2)"
    DEVICE = "/dev/userfaultfd"
    USER_MODE_ONLY = "userfaultfd(2) with UFFD_USER_MODE_ONLY"


@dataclass(frozen=True)
class Message:
    """One uffd_msg. `flags`, `address` and `tid` are of a page fault; `range` of the other
    events: REMAP (from, to, length), REMOVE and UNMAP (start, end)."""

    event: Event
    flags: FaultFlag = FaultFlag(0)
    address: int = 0
    tid: int = 0
    range: tuple[int, ...] = ()
    descriptor: int = -1  # EVENT_FORK: the child's userfaultfd, in this process

    @classmethod
    def decode(cls, raw: bytes) -> Message:
        """The message in 32 bytes as read from a userfaultfd."""
        message = ffi.from_buffer("struct uffd_message *", raw)
        event = Event(message.event)
        first, second, third = message.argument
        if event is Event.PAGEFAULT:
            return cls(event, FaultFlag(first), second, third & 0xFFFF_FFFF)
        if event is Event.FORK:
            return cls(event, descriptor=first & 0xFFFF_FFFF)
        return cls(event, range=(first, second, third)[: 3 if event is Event.REMAP else 2])


class Userfaultfd:
    """A userfaultfd of a subject's address space."""

    def __init__(self, subject: Subject, descriptor: int, ours: int | None = None) -> None:
        self.subject = subject
        self.descriptor = descriptor
        self._ours = subject.share(descriptor) if ours is None else ours
        self.seen: list[Message] = []
        subject.messengers.append(self)
        subject.all_messengers.append(self)

    @classmethod
    def open(cls, subject: Subject, access: Access, flags: int | None = None) -> Userfaultfd:
        """A new descriptor, O_NONBLOCK | O_CLOEXEC unless `flags` says otherwise."""
        wanted = os.O_NONBLOCK | os.O_CLOEXEC if flags is None else flags
        if access is Access.DEVICE:
            device = subject.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
            try:
                made = subject.syscall("ioctl", device, Ioctl.USERFAULTFD_IOC_NEW, wanted)
            finally:
                subject.syscall("close", device)
            return cls(subject, made)
        if access is Access.USER_MODE_ONLY:
            wanted |= UFFD_USER_MODE_ONLY
        return cls(subject, subject.syscall("userfaultfd", wanted))

    # -- ioctls

    def try_ioctl(self, request: Ioctl, kind: str, **fields: int) -> tuple[Answer, Any]:
        """An ioctl's answer and its structure as the kernel left it."""
        thread = self.subject.main
        struct = thread.struct(kind, **fields)
        step = self.subject.record(thread, request.name, tuple(fields.values()))
        arguments = (lib.SYS_ioctl, self.descriptor, request, thread.scratch_address)
        return thread.start(lib.OP_SYSCALL, arguments, step).result(), struct

    def ioctl(self, request: Ioctl, kind: str, **fields: int) -> Any:
        """The structure as a successful ioctl left it. Raises OSError."""
        answer, struct = self.try_ioctl(request, kind, **fields)
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error), request.name)
        return struct

    def api(self, features: Feature = Feature(0)) -> Feature:
        """The handshake; all features the kernel has (6.10: even those not asked for)."""
        struct = self.ioctl(Ioctl.UFFDIO_API, "uffdio_api", api=UFFD_API, features=features)
        return Feature(struct.features)

    def register(self, start: int, size: int, mode: RegisterMode = RegisterMode.WP) -> int:
        """UFFDIO_REGISTER; the mask of ioctls that the range takes (bit n: ioctl number n)."""
        made = self.ioctl(
            Ioctl.UFFDIO_REGISTER, "uffdio_register", start=start, len=size, mode=mode
        )
        return int(made.ioctls)

    def unregister(self, start: int, size: int) -> None:
        """UFFDIO_UNREGISTER."""
        self.ioctl(Ioctl.UFFDIO_UNREGISTER, "uffdio_range", start=start, len=size)

    def wake(self, start: int, size: int) -> None:
        """UFFDIO_WAKE."""
        self.ioctl(Ioctl.UFFDIO_WAKE, "uffdio_range", start=start, len=size)

    def writeprotect(self, start: int, size: int, mode: ProtectMode = ProtectMode.WP) -> None:
        """UFFDIO_WRITEPROTECT; mode 0 unprotects and wakes."""
        self.ioctl(
            Ioctl.UFFDIO_WRITEPROTECT, "uffdio_writeprotect", start=start, len=size, mode=mode
        )

    def rwprotect(self, start: int, size: int, mode: ProtectMode = ProtectMode.WP) -> None:
        """UFFDIO_RWPROTECT (7.3); mode 0 unprotects and wakes."""
        self.ioctl(Ioctl.UFFDIO_RWPROTECT, "uffdio_writeprotect", start=start, len=size, mode=mode)

    def set_mode(self, enable: Feature = Feature(0), disable: Feature = Feature(0)) -> None:
        """UFFDIO_SET_MODE (7.3)."""
        self.ioctl(Ioctl.UFFDIO_SET_MODE, "uffdio_set_mode", enable=enable, disable=disable)

    def copy(self, target: int, source: int, size: int, mode: CopyMode = CopyMode(0)) -> int:
        """UFFDIO_COPY from the subject's address `source`; bytes copied."""
        made = self.ioctl(
            Ioctl.UFFDIO_COPY, "uffdio_copy", dst=target, src=source, len=size, mode=mode
        )
        return int(made.done)

    def move(self, target: int, source: int, size: int, mode: int = 0) -> int:
        """UFFDIO_MOVE (6.8); bytes moved."""
        made = self.ioctl(
            Ioctl.UFFDIO_MOVE, "uffdio_copy", dst=target, src=source, len=size, mode=mode
        )
        return int(made.done)

    def fill(self, request: Ioctl, start: int, size: int, mode: CopyMode = CopyMode(0)) -> int:
        """UFFDIO_ZEROPAGE, UFFDIO_CONTINUE (5.13) or UFFDIO_POISON (6.6); bytes done."""
        return int(self.ioctl(request, "uffdio_fill", start=start, len=size, mode=mode).done)

    # -- messages

    def readable(self) -> bool:
        """Whether a message waits to be read."""
        return self._ours >= 0 and bool(lib.channel_wait(self._ours, -1, 0) == 0)

    @property
    def pollable(self) -> int:
        """Our duplicate, to wait on."""
        return self._ours

    def read(self) -> Message | None:
        """The next message, or None when there is none. Raises OSError (EINVAL before api())."""
        if self._ours < 0:
            return None
        try:
            raw = os.read(self._ours, _MESSAGE_BYTES)
        except BlockingIOError:
            self.subject.note("message", self._ours)
            return None
        self.subject.note("message", self._ours, raw)
        message = Message.decode(raw)
        self.seen.append(message)
        return message

    def lend(self, subject: Subject) -> Userfaultfd:
        """The same userfaultfd as a descriptor of another subject; it still acts on ours."""
        duplicate = self.subject.share(self.descriptor)
        return Userfaultfd(subject, subject.adopt(duplicate), duplicate)

    def child(self, subject: Subject, message: Message) -> Userfaultfd:
        """The userfaultfd that an EVENT_FORK message brought, for the forked subject."""
        return Userfaultfd(subject, subject.adopt(message.descriptor), message.descriptor)

    # -- ends

    def detach(self) -> None:
        """Drops our duplicate; the subject's descriptor stays open."""
        if self._ours >= 0:
            os.close(self._ours)
            self.subject.note("drop", self._ours)
            self._ours = -1
            self.subject.messengers.remove(self)

    def close(self) -> None:
        """Closes the userfaultfd here and in its subject: the last reference, unless forked."""
        self.detach()
        self.subject.syscall("close", self.descriptor)
