# SPDX-License-Identifier: GPL-2.0-only
"""The ways in which the kernel itself touches a user's page, as data.

A `Call` is one of them. It is prepared on a region before the page is protected, with all that
needs no touch of the page (files, pipes, vectors); its act is then one system call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from errno import EFAULT, EIO
from functools import cache
from mmap import PAGESIZE, mmap
from pathlib import Path
from signal import SIGUSR1

import pytest

from helpers import procfs
from helpers.arrange import content
from helpers.io_uring import IO_URING, Opcode, Ring
from helpers.machine import DISK, PAGEMAP_SCAN, ROOT, Need
from helpers.region import Region, Touch
from helpers.subject import Pending, Subject, Thread
from helpers.uapi import (
    FUTEX_CMP_REQUEUE,
    FUTEX_PRIVATE_FLAG,
    FUTEX_WAKE,
    FUTEX_WAKE_OP,
    MFD_CLOEXEC,
    O_TMPFILE,
    PTRACE_INTERRUPT,
    PTRACE_PEEKDATA,
    PTRACE_POKEDATA,
    PTRACE_SEIZE,
    SA_ONSTACK,
    SPLICE_F_GIFT,
    WALL,
    Category,
    Ioctl,
)

VALUE = 7  # what is written, where the call lets us choose
_WORD = 8
_SCAN_BYTES = Ioctl.PAGEMAP_SCAN >> 16 & 0x3FFF
_DATA_OFFSET = 512  # of the other end of a transfer in the acting thread's slot


@dataclass
class Prepared:
    """A call that is ready to be begun, and how to learn what it did."""

    begin: Callable[[], Pending]
    written: int = VALUE  # the page's first word after a call that writes
    read: Callable[[], int] = lambda: 0  # the word that a call which reads has brought
    failure: Callable[[], int] = lambda: 0  # an errno that is told elsewhere than by the answer


@dataclass(frozen=True)
class Call:
    """A system call that has the kernel touch a page."""

    name: str
    prepare: Callable[[Region, Subject], Prepared]  # with the subject that does the call
    foreign: bool = False  # that is another process than the one whose page it is
    refusal: int = EFAULT  # where the fault can't be handled
    needs: tuple[Need, ...] = ()


class Act:
    """A call on a region's tested page, prepared."""

    def __init__(self, call: Call, mem: Region, actor: Subject) -> None:
        self.refusal = call.refusal
        self._mem = mem
        self._prepared = call.prepare(mem, actor)
        self.written = self._prepared.written

    def begin(self) -> Touch:
        """Starts the call, until it has ended or raised a message."""
        return Touch(self._prepared.begin(), self._mem.uffd)

    @property
    def read(self) -> int:
        """The word that the call has read from the page."""
        return self._prepared.read()

    def error(self, touch: Touch) -> int:
        """The errno of a call that has ended, else 0."""
        return touch.error or self._prepared.failure()


def of(calls: Iterable[Call]) -> pytest.MarkDecorator:
    """Runs a case over these calls, each of which the fixture `act` prepares."""
    return pytest.mark.parametrize("act", calls, ids=lambda call: call.name, indirect=True)


# -- what calls need


def _words(thread: Thread, *words: int, offset: int = 0) -> int:
    """The address of 8-byte words in the thread's slot."""
    raw = b"".join(word.to_bytes(_WORD, "little") for word in words)
    thread.scratch(len(raw), offset)[:] = raw
    return thread.scratch_address + offset


def _word(thread: Thread) -> int:
    return int.from_bytes(thread.scratch(_WORD, _DATA_OFFSET), "little")


def stack_for_signals(thread: Thread, start: int, size: int) -> None:
    """Has the handler of SIGUSR1 run on an alternate stack there, in this thread."""
    action = thread.scratch_address
    thread.syscall("rt_sigaction", SIGUSR1, 0, action, _WORD)
    handler, flags, *rest = memoryview(thread.scratch(4 * _WORD)).cast("Q")
    _words(thread, handler, flags | SA_ONSTACK, *rest)
    thread.syscall("rt_sigaction", SIGUSR1, action, 0, _WORD)
    thread.syscall("sigaltstack", _words(thread, start, 0, size), 0)


def file_with(actor: Subject, *words: int) -> int:
    """A memfd that begins with these 8-byte words."""
    file = actor.syscall("memfd_create", actor.text("other end"), MFD_CLOEXEC)
    actor.syscall("pwrite64", file, _words(actor.main, *words), len(words) * _WORD, 0)
    return file


def _word_of(actor: Subject, file: int) -> int:
    actor.syscall("pread64", file, actor.main.scratch_address + _DATA_OFFSET, _WORD, 0)
    return _word(actor.main)


def _pipe(actor: Subject) -> tuple[int, int]:
    """The reading and the writing end."""
    actor.syscall("pipe2", actor.main.scratch_address, os.O_CLOEXEC)
    raw = bytes(actor.main.scratch(8))
    return int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")


@cache
def _direct_folder() -> str:
    """A folder on a disk, with room for a file that is read and written directly; or ""."""
    for folder in (tempfile.gettempdir(), "/var/tmp", str(Path.cwd())):
        flags = O_TMPFILE | os.O_RDWR | os.O_DIRECT
        try:
            descriptor = os.open(folder, flags, 0o600)
        except OSError:
            continue
        os.close(descriptor)
        if procfs.file_system(Path(folder)) != "tmpfs":
            return folder
    return ""


@cache
def _direct_source() -> Path | None:
    """A file, or else a block device, whose first page can be read past the page cache."""
    devices = (Path("/dev") / entry.name for entry in Path("/sys/block").glob("*"))
    return next(filter(_reads_directly, (DISK, *devices)), None)


def _reads_directly(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    try:
        return os.readv(descriptor, [mmap(-1, PAGESIZE)]) == PAGESIZE
    except OSError:
        return False
    finally:
        os.close(descriptor)


DIRECT_READ = Need(
    lambda _: _direct_source() is not None,
    "Python's own file can't be read with O_DIRECT: install it on ext4 or xfs",
)
DIRECT_WRITE = Need(
    lambda _: bool(_direct_folder()), "no folder takes O_DIRECT: set TMPDIR to one on ext4 or xfs"
)


# -- calls that write to the page


def _process_vm(name: str) -> Callable[[Region, Subject], Prepared]:
    """Between the actor's memory and the page, by one vector each."""

    def prepare(mem: Region, actor: Subject) -> Prepared:
        thread = actor.toucher()
        local = _words(thread, VALUE, offset=_DATA_OFFSET)
        vectors = _words(thread, local, _WORD, mem.address(), _WORD)
        arguments = (mem.subject.pid, vectors, 1, vectors + 16, 1, 0)
        return Prepared(lambda: thread.begin(name, *arguments), read=lambda: _word(thread))

    return prepare


def _read_directly(mem: Region, actor: Subject) -> Prepared:
    source = _direct_source()
    assert source is not None
    file = actor.open(str(source), os.O_RDONLY | os.O_DIRECT)
    with source.open("rb") as same:
        head = int.from_bytes(same.read(_WORD), "little")
    arguments = (file, mem.address(), PAGESIZE, 0)
    return Prepared(lambda: actor.toucher().begin("pread64", *arguments), written=head)


def _ring_read(mem: Region, actor: Subject) -> Prepared:
    ring = Ring(actor)
    ring.prepare(Opcode.READ, file_with(actor, VALUE), mem.address(), _WORD)
    return Prepared(lambda: ring.submit(actor.toucher()), failure=lambda: max(0, -ring.result()))


def _vmsplice_out(mem: Region, actor: Subject) -> Prepared:
    reader, writer = _pipe(actor)
    thread = actor.toucher()
    actor.syscall("write", writer, _words(thread, VALUE, offset=_DATA_OFFSET), _WORD)
    vector = _words(thread, mem.address(), _WORD)
    return Prepared(lambda: thread.begin("vmsplice", reader, vector, 1, 0))


def _structure(
    call: Callable[[Subject, int], tuple[str, tuple[int, ...]]],
) -> Callable[[Region, Subject], Prepared]:
    """A call that fills a structure; what it writes is learned by having it done elsewhere."""

    def prepare(mem: Region, actor: Subject) -> Prepared:
        thread = actor.toucher()
        name, arguments = call(actor, _words(thread, content(mem), offset=_DATA_OFFSET))
        thread.syscall(name, *arguments)
        expected = _word(thread)
        name, arguments = call(actor, mem.address())
        return Prepared(lambda: thread.begin(name, *arguments), written=expected)

    return prepare


def _fstat(actor: Subject, place: int) -> tuple[str, tuple[int, ...]]:
    return "fstat", (actor.pagemap, place)


def _getcwd(_: Subject, place: int) -> tuple[str, tuple[int, ...]]:
    return "getcwd", (place, PAGESIZE)


def _scan(actor: Subject, place: int) -> tuple[str, tuple[int, ...]]:
    """PAGEMAP_SCAN, whose vector's first word is where the acting thread's slot begins."""
    thread = actor.toucher()
    start, any_page = thread.scratch_address, Category.PRESENT
    masks = (0, 0, 0, any_page)  # category_inverted, category_mask, category_anyof_mask, returned
    words = (_SCAN_BYTES, 0, start, start + PAGESIZE, 0, place, 1, 0, *masks)
    return "ioctl", (actor.pagemap, Ioctl.PAGEMAP_SCAN, _words(thread, *words))


# -- calls that read it


def _write_directly(mem: Region, actor: Subject) -> Prepared:
    flags = O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT
    file = actor.open(_direct_folder(), flags)
    arguments = (file, mem.address(), PAGESIZE, 0)

    def read() -> int:
        thread = actor.main
        aligned = thread.scratch_address + PAGESIZE
        actor.syscall("pread64", file, aligned, PAGESIZE, 0)
        return int.from_bytes(thread.scratch(_WORD, PAGESIZE), "little")

    return Prepared(lambda: actor.toucher().begin("pwrite64", *arguments), read=read)


def _ring_write(mem: Region, actor: Subject) -> Prepared:
    ring, file = Ring(actor), file_with(actor, VALUE)
    ring.prepare(Opcode.WRITE, file, mem.address(), _WORD)
    return Prepared(
        lambda: ring.submit(actor.toucher()),
        read=lambda: _word_of(actor, file),
        failure=lambda: max(0, -ring.result()),
    )


def _vmsplice_in(flags: int, *, tee: bool = False) -> Callable[[Region, Subject], Prepared]:
    """The whole page becomes a pipe's; `tee` looks at it through a second pipe."""

    def prepare(mem: Region, actor: Subject) -> Prepared:
        reader, writer = _pipe(actor)
        thread = actor.toucher()
        vector = _words(thread, mem.address(), PAGESIZE)

        def read() -> int:
            source = reader
            if tee:
                source, other = _pipe(actor)
                actor.syscall("tee", reader, other, PAGESIZE, 0)
            actor.syscall("read", source, thread.scratch_address + _DATA_OFFSET, _WORD)
            return _word(thread)

        return Prepared(lambda: thread.begin("vmsplice", writer, vector, 1, flags), read=read)

    return prepare


def _futex_compare(private: int) -> Callable[[Region, Subject], Prepared]:
    """Succeeds only when it reads the content: EAGAIN else."""

    def prepare(mem: Region, actor: Subject) -> Prepared:
        thread, word = actor.toucher(), content(mem)
        arguments = (mem.address(), FUTEX_CMP_REQUEUE | private, 0, 0, thread.scratch_address, word)
        return Prepared(lambda: thread.begin("futex", *arguments), read=lambda: word)

    return prepare


def _futex_wake(mem: Region, actor: Subject) -> Prepared:
    thread, word = actor.toucher(), content(mem)
    arguments = (mem.address(), FUTEX_WAKE, 1, 0, 0, 0)
    return Prepared(lambda: thread.begin("futex", *arguments), read=lambda: word)


# -- calls whose faults can't wait: the futex word, /proc/PID/mem and ptrace


def _futex_wake_op(mem: Region, actor: Subject) -> Prepared:
    """Sets the page's first half-word, whose upper half is zero, to VALUE."""
    thread = actor.toucher()
    private, set_value = FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, VALUE << 12
    arguments = (thread.scratch_address, private, 0, 0, mem.address(), set_value)
    return Prepared(lambda: thread.begin("futex", *arguments))


def _through_mem(name: str) -> Callable[[Region, Subject], Prepared]:
    def prepare(mem: Region, actor: Subject) -> Prepared:
        file = actor.open(f"/proc/{mem.subject.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        thread = actor.toucher()
        arguments = (file, _words(thread, VALUE, offset=_DATA_OFFSET), _WORD, mem.address())
        return Prepared(lambda: thread.begin(name, *arguments), read=lambda: _word(thread))

    return prepare


def _traced(request: int) -> Callable[[Region, Subject], Prepared]:
    """The actor's main thread stops a thread of the region's subject and traces it."""

    def prepare(mem: Region, actor: Subject) -> Prepared:
        main, tid = actor.main, mem.subject.toucher(1).tid  # number 0 stays free to touch
        actor.syscall("ptrace", PTRACE_SEIZE, tid, 0, 0)
        actor.syscall("ptrace", PTRACE_INTERRUPT, tid, 0, 0)
        actor.syscall("wait4", tid, 0, WALL, 0)
        place = main.scratch_address + _DATA_OFFSET
        data = VALUE if request == PTRACE_POKEDATA else place
        return Prepared(
            lambda: main.begin("ptrace", request, tid, mem.address(), data),
            read=lambda: _word(main),
        )

    return prepare


_OTHERS = (ROOT,)  # to reach into a process that is not a child takes CAP_SYS_PTRACE

WRITES = (
    Call("process_vm_writev", _process_vm("process_vm_writev")),
    Call("process_vm_writev_of_another", _process_vm("process_vm_writev"), True, needs=_OTHERS),
    Call("o_direct_read", _read_directly, needs=(DIRECT_READ,)),
    Call("io_uring_read", _ring_read, needs=(IO_URING,)),
    Call("vmsplice_from_pipe", _vmsplice_out),
    Call("fstat", _structure(_fstat)),
    Call("getcwd", _structure(_getcwd)),
    Call("pagemap_scan", _structure(_scan), needs=(PAGEMAP_SCAN,)),
)
PROCESS_VM_READV = Call("process_vm_readv", _process_vm("process_vm_readv"))  # pins the page
PATIENT_READS = (
    PROCESS_VM_READV,
    Call("process_vm_readv_of_another", _process_vm("process_vm_readv"), True, needs=_OTHERS),
    Call("o_direct_write", _write_directly, needs=(DIRECT_WRITE,)),
    Call("io_uring_write", _ring_write, needs=(IO_URING,)),
    Call("vmsplice_to_pipe", _vmsplice_in(0)),
    Call("vmsplice_gift", _vmsplice_in(SPLICE_F_GIFT)),
    Call("vmsplice_and_tee", _vmsplice_in(0, tee=True)),
    Call("futex_cmp_requeue", _futex_compare(FUTEX_PRIVATE_FLAG)),
)
HASTY_READS = (
    Call("proc_mem_read", _through_mem("pread64"), refusal=EIO),
    Call("proc_mem_read_of_another", _through_mem("pread64"), True, EIO, _OTHERS),
    Call("ptrace_peek", _traced(PTRACE_PEEKDATA), True, EIO, _OTHERS),
)
READS = (*PATIENT_READS, *HASTY_READS)
SHARED_FUTEX_READS = (  # without FUTEX_PRIVATE_FLAG
    Call("futex_cmp_requeue", _futex_compare(0)),
    Call("futex_wake", _futex_wake),
)
HASTY_WRITES = (
    Call("futex_wake_op", _futex_wake_op),
    Call("proc_mem_write", _through_mem("pwrite64"), refusal=EIO),
    Call("proc_mem_write_of_another", _through_mem("pwrite64"), True, EIO, _OTHERS),
    Call("ptrace_poke", _traced(PTRACE_POKEDATA), True, EIO, _OTHERS),
)
