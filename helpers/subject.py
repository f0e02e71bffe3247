# SPDX-License-Identifier: GPL-2.0-only
"""The subject: a process that holds the tested memory and acts on command.

`Subject.spawn()` starts a pristine one; a case works on a fork of it, and so has a
fresh, small, predictable address space. Every operation that meets tested memory, every
ioctl and every look at /proc/self is done by the subject; Python only commands, waits
with a deadline, and judges. What a subject did is its `trace`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import build, procfs, tape
from helpers.uapi import AT_FDCWD, NEW_SYSCALLS, Advice, Map, Prot

_module, _EXECUTABLE = build.load()
ffi: Any = _module.ffi
lib: Any = _module.lib
_SYSCALL_NAMES = {number: name for name, number in NEW_SYSCALLS.items()}
_SYSCALL_NAMES |= {getattr(lib, f"SYS_{name}"): name for name in build.SYSCALLS}

SLOT_BYTES = 4 << 20  # scratch memory of one thread; a hugetlb page and its vectors fit
SLOTS = 64
SCRATCH_BYTES = SLOTS * SLOT_BYTES
SCRATCH_ADDRESS = 0x6_0000_0000
ARENA_ADDRESS = 0x10_0000_0000  # mappings under test, each in a GiB of its own
ARENA_STRIDE = 1 << 30
_ASLEEP = ("S", "D")  # D: a fault of the kernel's own access
_LAST_LOOK_SECONDS = 1.0
_KILL_SECONDS = 2.0
_GLANCE_SECONDS = 0.2  # how long an answer may take before we look what it waits for


class SubjectLost(Exception):
    """A subject that can't go on; `evidence` says what was seen of it."""

    state = "crashed"

    def __init__(self, what: str, evidence: dict[str, str]) -> None:
        lines = "".join(f"\n  {name}: {text}" for name, text in evidence.items())
        super().__init__(what + lines)
        self.evidence = evidence


class SubjectDied(SubjectLost):
    """The subject was killed by a signal or exited, where an answer was due."""


class SubjectStuck(SubjectLost):
    """An answer did not come by the deadline, or can't come any more."""

    state = "timeout"


def number(name: str) -> int:
    """A system call's number on this machine."""
    return NEW_SYSCALLS.get(name) or int(getattr(lib, f"SYS_{name}"))


def system_call(number: int) -> str:
    """The name of a system call, or "" for one that no subject is asked for by name."""
    return _SYSCALL_NAMES.get(number, "")


@dataclass(frozen=True)
class Answer:
    """The result of one operation: a value, or an errno, or the signal that ended a touch."""

    value: int
    error: int = 0
    signal: int = 0
    code: int = 0
    address: int = 0

    def __str__(self) -> str:
        if self.signal:
            name = signal.Signals(self.signal).name
            return f"{name} (code {self.code}) at {self.address:#x}"
        if self.error:
            return f"-1 {procfs.errno_name(self.error)}"
        return f"{self.value:#x}" if self.value > 4096 else str(self.value)


@dataclass(eq=False)
class Step:
    """One operation of the trace: who did what, and what came of it (None: no answer yet).

    What a replay needs beside it (helpers/reproducer.py): the request itself, the scratch memory
    that it read and wrote, and the descriptor of ours that went or came with it (-1: none).
    """

    thread: str
    name: str
    arguments: tuple[object, ...]
    answer: Answer | None = None
    by: Thread | None = field(default=None, repr=False)
    request: tuple[int, ...] = field(default=(), repr=False)  # the operation and its arguments
    inputs: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)  # address and contents
    output: bytes = field(default=b"", repr=False)
    passed: int = field(default=-1, repr=False)

    @property
    def call(self) -> str:
        """The system call's name, or the operation's own."""
        if self.request[0] != lib.OP_SYSCALL:
            return self.name
        return system_call(self.request[1])

    @property
    def operands(self) -> tuple[int, ...]:
        """The arguments of the system call or of the operation."""
        return self.request[2 if self.request[0] == lib.OP_SYSCALL else 1 :]


@dataclass(frozen=True)
class Event:
    """What came next on a tape, the record of all that a case did and saw, in order."""

    # begin, end, born, readable, message, drop, kill, gone, text, asleep, arranged, beyond
    what: str
    about: Any = None
    seen: Any = None


class Scratch:
    """Memory shared by Python and its subjects, one slot for each thread.

    The first page of slot 0 is the mailbox, whose first word counts the interruptions.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("scratch")
        os.ftruncate(self.descriptor, SCRATCH_BYTES)
        self.memory = mmap.mmap(self.descriptor, SCRATCH_BYTES)
        self.pointer = int(ffi.cast("uintptr_t", ffi.from_buffer(self.memory)))
        self.view = memoryview(self.memory)
        self.free = list(range(SLOTS - 1, 0, -1))

    def peek(self, address: int, count: int) -> bytes:
        """The bytes at a subject's address of scratch memory; none elsewhere."""
        start = address - SCRATCH_ADDRESS
        return bytes(self.view[start : start + count]) if 0 <= start < len(self.view) else b""


class Pending:
    """An operation on its way."""

    def __init__(self, thread: Thread, step: Step) -> None:
        self.thread = thread
        self.step = step

    @property
    def answer(self) -> Answer | None:
        return self.step.answer

    def wait(self, descriptor: int = -1) -> Answer | None:
        """The answer; or None as soon as `descriptor` is readable and there is no answer.

        Raises SubjectDied, SubjectStuck.
        """
        __tracebackhide__ = True
        if self.step.answer is None and self.thread.wait(descriptor):
            self.step.answer, _ = self.thread.receive()
        return self.step.answer

    def result(self) -> Answer:
        """The answer, waited for. Raises SubjectDied, SubjectStuck."""
        answer = self.wait()
        assert answer is not None
        return answer


class Thread:
    """One thread of a subject, with a socket and a scratch slot of its own."""

    def __init__(self, subject: Subject, descriptor: int, name: str) -> None:
        self.subject = subject
        self.descriptor = descriptor
        self.name = name
        self.tid = subject.pid
        self.step: Step | None = None  # the operation that is on its way
        self.slot = subject.scratch.free.pop()
        self.request = ffi.new("struct request *")
        self.reply = ffi.new("struct reply *")
        self.passed = ffi.new("int *")

    @property
    def scratch_address(self) -> int:
        """Where the subject sees this thread's slot."""
        return SCRATCH_ADDRESS + self.slot * SLOT_BYTES

    def scratch(self, count: int, offset: int = 0) -> memoryview:
        """`count` bytes of the slot, at `offset`."""
        start = self.slot * SLOT_BYTES + offset
        return self.subject.scratch.view[start : start + count]

    def struct(self, kind: str, **fields: int) -> Any:
        """A zeroed structure of the given C type at the start of the slot, with `fields` set."""
        self.scratch(256)[:] = bytes(256)
        made = ffi.cast(f"struct {kind} *", self.subject.scratch.pointer + self.slot * SLOT_BYTES)
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    def start(
        self, operation: int, arguments: Iterable[int], step: Step, passing: int = -1
    ) -> Pending:
        """Sends an operation and doesn't wait for its answer. Raises SubjectLost."""
        if self.step is not None:
            raise self.subject.stuck(f"{self.name} has not answered yet and can't do more")
        step.by, step.request, step.passed = self, (operation, *arguments), passing
        if self.subject.tape is not None:
            step.inputs = tape.inputs(step.call, step.operands, self.subject.scratch.peek)
        self.request.operation = operation
        for index, argument in enumerate(arguments):
            self.request.argument[index] = argument & 0xFFFF_FFFF_FFFF_FFFF
        error = lib.channel_send(self.descriptor, self.request, passing)
        if error:
            raise self.subject.died()
        self.step = step
        self.subject.note("begin", step)
        return Pending(self, step)

    def wait(self, descriptor: int = -1) -> bool:
        """Waits for an answer (True) or for `descriptor` to be readable (False)."""
        __tracebackhide__ = True
        patience = _GLANCE_SECONDS
        while True:
            left = self.subject.deadline - time.monotonic()
            ready = lib.channel_wait(
                self.descriptor, descriptor, int(1000 * max(0.0, min(patience, left)))
            )
            if ready >= 0:
                if ready:
                    self.subject.note("readable", descriptor)
                return bool(ready == 0)
            if left <= 0:
                raise self.subject.stuck(f"no answer from {self.name} by the deadline")
            if self.subject.waits_in_vain(self):
                raise self.subject.stuck(
                    f"{self.name} waits in a userfaultfd fault, and no message is left to read"
                )
            patience *= 2

    def receive(self) -> tuple[Answer, int]:
        """The answer that is there, and the descriptor that came with it (-1: none)."""
        if lib.channel_receive(self.descriptor, self.reply, self.passed):
            raise self.subject.died()
        reply, step, self.step = self.reply, self.step, None
        answer = Answer(reply.value, reply.error, reply.signal, reply.code, reply.address)
        if step is not None:
            step.answer, step.passed = answer, max(step.passed, self.passed[0])
            if self.subject.tape is not None:
                peek = self.subject.scratch.peek
                step.output = tape.output(step.call, step.operands, answer.value, peek)
            self.subject.note("end", step)
        return answer, self.passed[0]

    def syscall(self, name: str, *arguments: int) -> Answer:
        """The named system call's result, errno included. Raises SubjectDied, SubjectStuck."""
        return self.begin(name, *arguments).result()

    def begin(self, name: str, *arguments: int) -> Pending:
        """Starts the named system call."""
        step = self.subject.record(self, name, arguments)
        return self.start(lib.OP_SYSCALL, (number(name), *arguments), step)

    def load(self, address: int, stride: int = 0, count: int = 1) -> Pending:
        """Starts loading `count` 8-byte words, `stride` bytes apart; the value is their sum."""
        step = self.subject.record(self, "load", (address, stride, count)[: 1 if count == 1 else 3])
        return self.start(lib.OP_LOAD, (address, stride, count), step)

    def store(self, address: int, value: int, stride: int = 0, count: int = 1) -> Pending:
        """Starts storing value, value + 1, … to `count` 8-byte words, `stride` bytes apart."""
        step = self.subject.record(
            self, "store", (address, value, stride, count)[: 2 if count == 1 else 4]
        )
        return self.start(lib.OP_STORE, (address, stride, count, value), step)

    def add(self, address: int, delta: int, times: int = 1) -> Pending:
        """Starts `times` read-modify-writes of one 8-byte word; the value is the last result."""
        step = self.subject.record(self, "add", (address, delta, times))
        return self.start(lib.OP_ADD, (address, delta, times), step)

    def vfork(self, address: int, value: int) -> Pending:
        """Starts a vfork(2) whose child stores a word; the value is the child's wait status."""
        step = self.subject.record(self, "vfork", (address, value))
        return self.start(lib.OP_VFORK, (address, value), step)

    def copy(self, destination: int, source: int, count: int) -> Pending:
        """Starts copying `count` bytes within the subject."""
        step = self.subject.record(self, "copy", (destination, source, count))
        return self.start(lib.OP_COPY, (destination, source, count), step)


@dataclass(frozen=True)
class Mapping:
    """A named range of tested memory, in bytes; the trace speaks of its pages."""

    name: str
    start: int
    size: int
    page_bytes: int


def _sockets() -> tuple[int, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours.detach(), theirs.detach()


@dataclass(eq=False)
class Subject:
    """A process under command. Its main thread does system calls; touchers touch memory."""

    pid: int
    scratch: Scratch
    deadline: float
    parent: Subject | None = None
    trace: list[Step] = field(default_factory=list)
    tape: list[Event] | None = None  # of a case: that of its subject and all its children
    mappings: list[Mapping] = field(default_factory=list)
    messengers: list[Any] = field(default_factory=list)  # userfaultfds whose messages we read
    all_messengers: list[Any] = field(default_factory=list)  # and those we have read
    children: list[Subject] = field(default_factory=list)
    locked: set[Path] = field(default_factory=set)
    next_address: int = ARENA_ADDRESS
    recording: bool = True
    ended: bool = False  # and reaped
    given_up: bool = False  # an answer did not come
    serves_itself: bool = False  # its userfaultfds, so that a fault may still be resolved
    main: Thread = field(init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @classmethod
    def spawn(cls, seconds: float = 10.0) -> Subject:
        """A pristine subject, from which cases fork theirs."""
        scratch = Scratch()
        ours, theirs = _sockets()
        arguments = [theirs, scratch.descriptor, SCRATCH_ADDRESS, os.getpid()]
        process = subprocess.Popen(
            [str(_EXECUTABLE), *map(str, arguments)],
            pass_fds=(theirs, scratch.descriptor),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a ^C ends the run through its own end, not through this
        )
        os.close(theirs)
        made = cls(process.pid, scratch, time.monotonic() + seconds)
        made.process = process
        return made._with_main(ours)

    def _with_main(self, descriptor: int) -> Subject:
        self.pidfd = os.pidfd_open(self.pid)
        self.main = Thread(self, descriptor, "main")
        self.threads = [self.main]
        self.touchers: list[Thread] = []
        self.pagemap_descriptor = -1  # not opened yet
        self._unborn = -1  # our socket to a child whose fork has begun
        return self

    def hurry(self, seconds: float) -> None:
        """Gives the subject only so long to answer from now on: for what may never end."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)

    def stay(self) -> None:
        """Keeps it and its descendants on one CPU. A page waits on a list of the CPU that has
        touched it first, and MADV_PAGEOUT on another one passes it over."""
        os.sched_setaffinity(self.pid, {max(os.sched_getaffinity(self.pid))})

    # -- processes and threads

    def fork(self, seconds: float | None = None) -> Subject:
        """A child that serves commands of its own; its deadline is ours or `seconds` from now.

        Raises OSError, SubjectLost.
        """
        return self.forked(self.begin_fork(), seconds)

    def begin_fork(self) -> Pending:
        """Starts a fork, which with EVENT_FORK waits until the event's message is read."""
        ours, theirs = _sockets()
        pending = self.main.start(lib.OP_FORK, (), self.record(self.main, "fork", ()), theirs)
        os.close(theirs)
        self._unborn = ours
        return pending

    def forked(self, pending: Pending, seconds: float | None = None) -> Subject:
        """The child of a started fork. Raises OSError, SubjectLost."""
        answer = pending.result()
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error), "fork")
        deadline = self.deadline if seconds is None else time.monotonic() + seconds
        child = Subject(
            answer.value, self.scratch, deadline, parent=self, next_address=self.next_address
        )
        child.mappings = list(self.mappings)
        self.children.append(child)
        child.tape = [] if self.tape is None else self.tape  # a case's subject begins one
        ours, self._unborn = self._unborn, -1
        child._with_main(ours)
        self.note("born", pending.step, child.main)
        return child

    def thread(self) -> Thread:
        """A new thread."""
        ours, theirs = _sockets()
        step = self.record(self.main, "thread", ())
        pending = self.main.start(lib.OP_THREAD, (), step, theirs)
        os.close(theirs)
        pending.result()
        thread = Thread(self, ours, f"toucher {len(self.touchers)}")
        thread.wait()
        thread.tid = thread.receive()[0].value
        self.note("born", step, thread)
        self.threads.append(thread)
        return thread

    def toucher(self, number: int = 0) -> Thread:
        """The thread that touches memory as number `number`, started when first wanted."""
        while len(self.touchers) <= number:
            self.touchers.append(self.thread())
        return self.touchers[number]

    def share(self, descriptor: int) -> int:
        """A duplicate, in this process, of the subject's descriptor."""
        pending = self.main.start(lib.OP_SHARE, (descriptor,), Step("", "share", ()))
        self.main.wait()
        _, passed = pending.thread.receive()
        return passed

    def adopt(self, descriptor: int) -> int:
        """The number, in the subject, of a duplicate of our descriptor."""
        step = self.record(self.main, "adopt", ())
        return self.main.start(lib.OP_ADOPT, (), step, descriptor).result().value

    def close(self) -> None:
        """Kills the subject and its children and frees what they held here.

        Raises SubjectStuck when SIGKILL doesn't end one of them in 2 s: it is left to the kernel.
        """
        for child in list(self.children):
            child.close()
        for messenger in list(self.messengers):
            messenger.detach()
        evidence = {} if self.ended or self._killed() else self._evidence()
        if self.parent is not None:
            self.parent.children.remove(self)
        if self._unborn >= 0:
            os.close(self._unborn)
        for thread in self.threads:
            os.close(thread.descriptor)
            self.scratch.free.append(thread.slot)
        self.threads = []
        os.close(self.pidfd)
        if evidence:
            raise SubjectStuck("the subject is still there after SIGKILL", evidence)

    def _killed(self) -> bool:
        """Whether SIGKILL ended the subject; its zombie is then reaped."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        gone = self._gone(_KILL_SECONDS)
        if gone and self.process is not None:
            self.process.wait()
        elif gone and self.parent is not None and self.parent.process is not None:
            self.parent.reap(self.pid)  # only the root lives on and has to reap
        return gone

    def _gone(self, seconds: float) -> bool:
        """Whether the subject ends within so many seconds."""
        return bool(lib.channel_wait(self.pidfd, -1, int(1000 * max(0.0, seconds))) == 0)

    def kill(self) -> int:
        """Kills the subject; the signal that ended it. Raises SubjectStuck if none did in time."""
        self.note("kill", self.main)
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        return os.WTERMSIG(self._end_of("SIGKILL"))

    def end(self, name: str, *arguments: int) -> int:
        """Ends the subject by a system call of its main thread; the exit status. Raises
        SubjectStuck if it didn't end in time."""
        self.main.begin(name, *arguments)
        self.note("gone", self.main)
        return os.waitstatus_to_exitcode(self._end_of(name))

    def _end_of(self, cause: str) -> int:
        """The wait status with which `cause` ends the subject; 0 where its parent can't tell."""
        if not self._gone(self.deadline - time.monotonic()):
            raise self.stuck(f"{cause} did not end the subject by the deadline")
        return self._status() or 0

    def _status(self) -> int | None:
        """The wait status of the subject, which has ended; None where its parent can't tell."""
        self.ended = True
        try:
            return self.parent.reap(self.pid) if self.parent else None
        except SubjectLost:
            return None

    @property
    def interruptions(self) -> int:
        """How many SIGUSR1 handlers have run in the subjects that share our scratch memory."""
        return int.from_bytes(self.scratch.view[:8], "little")

    def reap(self, pid: int) -> int | None:
        """The wait status of a child that has ended, else None."""
        self.deadline = max(self.deadline, time.monotonic() + _KILL_SECONDS)
        thread = self.main
        status = thread.struct("reply")
        step = Step("", "wait4", ())
        arguments = (lib.SYS_wait4, pid, thread.scratch_address, os.WNOHANG, 0)
        answer = thread.start(lib.OP_SYSCALL, arguments, step).result()
        return status.value & 0xFFFF_FFFF if answer.value == pid else None

    # -- what went wrong

    def died(self) -> SubjectDied:
        """What is known of an unexpected end."""
        ended = self._gone(_KILL_SECONDS)
        status = self._status() if ended else None
        what = "exited" if ended else "closed its socket"
        if status is not None and os.WIFSIGNALED(status):
            what = f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
        elif status is not None:
            what = f"exited with status {os.WEXITSTATUS(status)}"
        return SubjectDied(f"the subject {what}", {"subject": f"pid {self.pid}"})

    def stuck(self, what: str) -> SubjectStuck:
        """What can be seen of the subject's threads; there is a last second for looks at it."""
        if not self.given_up:
            self.given_up = True
            self.deadline = time.monotonic() + _LAST_LOOK_SECONDS
        return SubjectStuck(what, self._evidence())

    def _evidence(self) -> dict[str, str]:
        return {
            thread.name: procfs.thread_evidence(self.pid, thread.tid) for thread in self.threads
        }

    def waits_in_vain(self, thread: Thread) -> bool:
        """True when the thread sleeps in a userfaultfd fault and every message has been read.

        The kernel queues a fault's message before it lets the thread sleep, so nothing that
        is still to come could wake it. False where wchan can't be read.
        """
        if self.serves_itself:
            return False
        state = procfs.thread_state(self.pid, thread.tid)
        asleep = state in _ASLEEP and "userfault" in procfs.wchan(self.pid, thread.tid)
        return asleep and not any(messenger.readable() for messenger in self.messengers)

    def blocked_in_fault(self, thread: Thread) -> bool:
        """Whether the thread sleeps, and not for a command of ours.

        A thread that has been woken is runnable at once, so this needs no waiting.
        """
        asleep = (
            procfs.thread_state(self.pid, thread.tid) in _ASLEEP
            and lib.channel_wait(thread.descriptor, -1, 0) != 0
        )
        self.note("asleep", thread, asleep)
        return asleep

    def record(self, thread: Thread, name: str, arguments: tuple[object, ...]) -> Step:
        """Adds an operation to the trace."""
        step = Step(thread.name, name, arguments)
        if self.recording:
            self.trace.append(step)
        return step

    def note(self, what: str, about: Any = None, seen: Any = None) -> None:
        """Adds an event to the tape, if there is one."""
        if self.tape is not None:
            self.tape.append(Event(what, about, seen))

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Keeps what only looks (pagemap, smaps) out of the trace."""
        before, self.recording = self.recording, False
        try:
            yield
        finally:
            self.recording = before

    # -- system calls of the main thread

    def syscall(self, name: str, *arguments: int) -> int:
        """A system call of the main thread. Raises OSError, SubjectDied, SubjectStuck."""
        answer = self.main.syscall(name, *arguments)
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error), name)
        return answer.value

    def text(self, text: str, offset: int = 2048) -> int:
        """The subject's address of a NUL-terminated string in the main thread's slot."""
        raw = text.encode() + b"\0"
        self.main.scratch(len(raw), offset)[:] = raw
        return self.main.scratch_address + offset

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """openat(2) of a path; the subject's descriptor. Raises OSError."""
        return self.syscall("openat", AT_FDCWD, self.text(path), flags, mode)

    def lock(self, path: Path, how: int = fcntl.LOCK_SH) -> None:
        """Locks a file, flock(2), until the subject and its children end; a file that it has
        locked already stays as it is. Raises OSError."""
        if path not in self.locked:
            tape, self.tape = self.tape, None  # it is no part of what is tested
            with self.unrecorded():
                descriptor = self.open(str(path), os.O_RDONLY)
                self.syscall("flock", descriptor, how)
            self.tape = tape
            self.locked.add(path)

    def read_file(self, path: str) -> str:
        """The text of a file in the subject's /proc/self, read by this process: that takes no
        round trip for each page of the text. Raises OSError, SubjectStuck."""
        if self.main.step is not None:  # and may hold the locks that the file takes, too
            raise self.stuck("main has not answered yet, so it is not looked at")
        text = Path(path.replace("/proc/self/", f"/proc/{self.pid}/")).read_text()
        self.note("text", self.main, (path, text))
        return text

    def place(self, size: int, align: int = ARENA_STRIDE, lead: int = 0) -> int:
        """A free address for `size` bytes, `lead` bytes below a multiple of `align`, in page
        tables that nothing else uses."""
        stride = max(align, ARENA_STRIDE)
        boundary = (self.next_address + lead + stride - 1) // stride * stride
        self.next_address = boundary + max(size - lead, 1)
        return boundary - lead if align >= stride else boundary + align - lead

    def mmap(
        self, size: int, prot: Prot, flags: Map, fd: int = -1, offset: int = 0, at: int = 0
    ) -> int:
        """mmap(2) at `at`, or at a place of the arena's choice; the address. Raises OSError."""
        address = at or self.place(size)
        fixed = flags | Map.FIXED_NOREPLACE
        return self.syscall("mmap", address, size, prot, fixed, fd, offset)

    def madvise(self, address: int, size: int, advice: Advice) -> None:
        """madvise(2). Raises OSError."""
        self.syscall("madvise", address, size, advice)

    def mprotect(self, address: int, size: int, prot: Prot) -> None:
        """mprotect(2). Raises OSError."""
        self.syscall("mprotect", address, size, prot)

    @property
    def pagemap(self) -> int:
        """The subject's descriptor of its own /proc/self/pagemap."""
        if self.pagemap_descriptor < 0:
            with self.unrecorded():
                self.pagemap_descriptor = self.open("/proc/self/pagemap", os.O_RDONLY)
        return self.pagemap_descriptor
