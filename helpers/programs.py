# SPDX-License-Identifier: GPL-2.0-only
"""Runs a program of the model on the kernel, and tells where the two disagree.

A program is one batch of a subject: each operation, and after each a look at all pages through
pagemap and PAGEMAP_SCAN, while a thread of the subject serves the userfaultfd. `Slowly` does the
same one request at a time, so that it is on the subject's tape (helpers/reproducer.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from mmap import PAGESIZE
from typing import Any, NamedTuple

from helpers import batch, hugepages, known_issues, pagemap
from helpers.batch import Batch, Operation
from helpers.machine import (
    HUGETLB,
    KERNEL_FAULTS,
    PAGEMAP_WP,
    ROOT,
    THP,
    WP_SHMEM,
    Machine,
    Need,
    advice,
    feature,
)
from helpers.model import (
    CATEGORIES,
    FLAGS,
    PER_TABLE,
    SHIFT,
    TRANSITIONS,
    Entry,
    Kind,
    Op,
    Outcome,
    State,
    World,
    beneath,
    looks,
    step,
    transitions,
)
from helpers.pagemap import Page as Bits
from helpers.procfs import HUGETLB_BYTES
from helpers.subject import Answer, Mapping, Pending, Subject, ffi, lib
from helpers.uapi import (
    MFD_CLOEXEC,
    MFD_HUGE_2MB,
    MFD_HUGETLB,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Advice,
    Category,
    CopyMode,
    Event,
    FaultFlag,
    Feature,
    Ioctl,
    Map,
    Prot,
    ProtectMode,
    RegisterMode,
    ScanFlag,
)
from helpers.uffd import Message, Userfaultfd

# Programs of each world in a run that is no hunt, and their seed: they take all of the model's
# transitions.
FEW, SEED = 20, 4
VALUES = 8  # that programs write: 0 to 7
LOG_ENTRIES = 1024  # messages, more than any program raises
_MOST_MESSAGES = 64  # and than any request of one
_STRUCTURES = 64 << 10  # offset in the main thread's slot, below the batch's table
_LOG = 3 << 19  # of messages, in front of the looks
_LOOKS = 2 << 20  # what looks have seen
_WORDS = 8
_MOST_TOLD = 6  # differences
_REGIONS = 256  # of a scan's vector
_MEMFD_FLAGS = {
    Kind.PRIVATE_SHMEM: MFD_CLOEXEC,
    Kind.HUGETLB: MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB,
    Kind.PRIVATE_HUGETLB: MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB,
}
_FILLS = {
    "zeropage": Ioctl.UFFDIO_ZEROPAGE,
    "continue": Ioctl.UFFDIO_CONTINUE,
    "continue_protected": Ioctl.UFFDIO_CONTINUE,
    "poison": Ioctl.UFFDIO_POISON,
}
_ADVICES = {
    "dontneed": Advice.DONTNEED,
    "pageout": Advice.PAGEOUT,
    "cold": Advice.COLD,
    "free": Advice.FREE,
    "remove": Advice.REMOVE,
    "collapse": Advice.COLLAPSE,
    "guard": Advice.GUARD_INSTALL,
    "unguard": Advice.GUARD_REMOVE,
    "populate_read": Advice.POPULATE_READ,
    "populate_write": Advice.POPULATE_WRITE,
}


_ANON, _SHMEM, _PRIVATE_SHMEM = (Kind.ANON,), (Kind.SHMEM,), 8 * (Kind.PRIVATE_SHMEM,)
_MIXED = 4 * _ANON + 4 * _SHMEM
_THPS = 2 * PER_TABLE * _ANON
_HUGETLB, _PRIVATE_HUGETLB = 4 * (Kind.HUGETLB,), 4 * (Kind.PRIVATE_HUGETLB,)
_HUGETLB_MOST = 8  # pages that a program takes: its file's, its copies, a child's

WORLDS = (
    World("plain", 8 * _ANON),
    World("wpu", 8 * _ANON, markers=True),
    World("async", 8 * _ANON, asynchronous=True),
    World("wpu_events", 8 * _ANON, markers=True, fork_event=True, remap_event=True),
    World("shmem", 8 * _SHMEM),
    World("shmem_events", 8 * _SHMEM, fork_event=True, remap_event=True),
    World("mixed_plain", _MIXED),
    World("mixed_wpu", _MIXED, markers=True),
    World("mixed_async", _MIXED, asynchronous=True),
    World("mixed_reclaim", _MIXED, markers=True, reclaims=True),
    World("thp_plain", _THPS, thp=True),
    World("thp_wpu", _THPS, markers=True, thp=True),
    World("thp_events", _THPS, markers=True, fork_event=True, remap_event=True, thp=True),
    World("thp_async", _THPS, asynchronous=True, thp=True),
    World("memfd_private", _PRIVATE_SHMEM),
    World("memfd_private_async", _PRIVATE_SHMEM, asynchronous=True),
    World("memfd_private_events", _PRIVATE_SHMEM, fork_event=True, remap_event=True),
    World("hugetlb", _HUGETLB),
    World("hugetlb_async", _HUGETLB, asynchronous=True),
    World("hugetlb_events", _HUGETLB, fork_event=True, remap_event=True),
    World("hugetlb_private", _PRIVATE_HUGETLB),
    World("hugetlb_private_async", _PRIVATE_HUGETLB, asynchronous=True),
    World("hugetlb_private_events", _PRIVATE_HUGETLB, fork_event=True, remap_event=True),
)


_FREE_HUGETLB = Need(
    lambda _: hugepages.available() >= _HUGETLB_MOST,
    f"fewer than {_HUGETLB_MOST} free hugetlb pages: run as root, or set vm.nr_hugepages",
)


def needs(world: World) -> Iterator[Need]:
    """What the machine must offer for programs of a world."""
    yield KERNEL_FAULTS
    yield PAGEMAP_WP
    yield advice(Advice.POPULATE_READ)
    if wanted := features(world):
        yield feature(wanted)
    if any(kind.file for kind in world.kinds):
        yield WP_SHMEM
    if world.hugetlb:
        yield HUGETLB
        yield _FREE_HUGETLB
    if world.fork_event:
        yield ROOT
    if world.thp:
        yield THP
        yield advice(Advice.COLLAPSE)


def features(world: World) -> Feature:
    """What UFFDIO_API is asked for."""
    wanted = Feature.WP_UNPOPULATED if world.markers else Feature(0)
    wanted |= Feature.WP_ASYNC if world.asynchronous else Feature(0)
    wanted |= Feature.EVENT_FORK if world.fork_event else Feature(0)
    return wanted | (Feature.EVENT_REMAP if world.remap_event else Feature(0))


# Operations that some kernels lack.
_ANNOUNCED = {
    "continue": Feature.MINOR_SHMEM,
    "continue_protected": Feature.WP_UNPOPULATED,
    "poison": Feature.POISON,
    "move": Feature.MOVE,
}
# Operations that some kernels do wrong, and the case that is then a known issue.
_DOUBTFUL = {
    "reopen": "history.close_leaves_nothing_behind.anon-populated-thp_off-plain",
    "mremap": "history.mremap_leaves_nothing_behind.anon-populated-thp_off-plain",
    "unregister": "history.unregister_leaves_nothing_behind.anon-populated-thp_off-plain",
}
_DOUBTFUL_OF_HUGETLB = {
    "scan": "history.scan_ends_that_protects_a_hugetlb_hole.hugetlb_shared-none_pmd-async",
    "fork": "fork.child_without_the_event_has_no_protection.hugetlb_private-populated-plain",
}


def on(machine: Machine, world: World) -> World:
    """The world as this kernel has it. That a range may lie in several VMAs, and CONTINUE_MODE_WP,
    came in the release that brought WP_UNPOPULATED."""
    spans = Feature.WP_UNPOPULATED in machine.features
    absent = {name for name, wanted in _ANNOUNCED.items() if wanted not in machine.features}
    absent |= {name for name, advice in _ADVICES.items() if advice not in machine.advices}
    issues = [issue for issue in known_issues.load() if issue.here(machine.release)]
    doubtful = _DOUBTFUL | (_DOUBTFUL_OF_HUGETLB if world.hugetlb else {})
    known = {n for n, case in doubtful.items() if any(issue.covers(case) for issue in issues)}
    without = frozenset(known | absent)
    return replace(world, spans=spans, scans=machine.pagemap_scan, without=without)


class Seen(NamedTuple):
    """What an operation came to on the kernel."""

    answer: Answer
    messages: tuple[tuple[Event, FaultFlag, int, int], ...]  # event, flags, page, word
    looks: list[int]  # of each page, as the model's `look`
    pages: frozenset[int] | None = None
    child: list[int] | None = None


@dataclass
class _Act:
    """An operation as the batch does it: where its requests are, and where their results."""

    op: Op
    requests: list[Operation]
    answer: int = 0  # the request whose answer counts
    expected: int = 0  # the value that counts as 0
    address: int = 0  # of the mapping afterwards
    look: int = 0  # offset of the words in the slot
    scanned: int = -1  # offset of the vector of a scan for the state
    vector: int = -1  # offset of the vector of the operation's own scan
    child: int = -1  # offset of the child's words


class Session:
    """A fresh subject with a world's mappings, registered, as a program finds them."""

    def __init__(self, subject: Subject, machine: Machine, world: World) -> None:
        """Raises OSError, SubjectLost."""
        self.subject, self.machine, self.world = subject, machine, world
        self.main = subject.main
        self.page_bytes = HUGETLB_BYTES if world.hugetlb else PAGESIZE
        self.size = world.pages * self.page_bytes
        self.start = self._place()
        self._map()
        self.values = self._values()
        self.pagemap = subject.pagemap
        self.uffds = [self._userfaultfd() for _ in range(2)]
        self.uffds[0].register(self.start, self.size)
        self.structures, self.looked = _STRUCTURES, _LOOKS

    def _place(self) -> int:
        """Room for the mappings, whose middle lies where a page table ends."""
        table = PER_TABLE * self.page_bytes
        lead = 0 if self.world.thp else self.world.pages // 2 * self.page_bytes
        return self.subject.place(self.size, table, lead)

    def _map(self) -> None:
        subject, start = self.subject, self.start
        for kind, pages in groupby(self.world.kinds):
            size = len(list(pages)) * self.page_bytes
            self._map_kind(kind, start, size)
            start += size
        if self.machine.thp and not self.world.hugetlb:
            advice = Advice.HUGEPAGE if self.world.thp else Advice.NOHUGEPAGE
            subject.madvise(self.start, self.size, advice)
        subject.mappings.append(Mapping("mem", self.start, self.size, self.page_bytes))

    def _map_kind(self, kind: Kind, start: int, size: int) -> None:
        flags = Map.SHARED if kind.shared else Map.PRIVATE
        if kind not in _MEMFD_FLAGS:
            self.subject.mmap(size, Prot.RW, flags | Map.ANONYMOUS, at=start)
            return
        file = self._file(kind, size)
        self.subject.mmap(size, Prot.RW, flags | Map.NORESERVE, file, at=start)

    def _file(self, kind: Kind, size: int) -> int:
        """A file of so many bytes, with what the model has beneath a mapping of the kind."""
        subject = self.subject
        file = subject.syscall("memfd_create", subject.text("tested"), _MEMFD_FLAGS[kind])
        subject.syscall("ftruncate", file, size)
        pages = [(n, value) for n in range(size // self.page_bytes) if (value := beneath(kind, n))]
        other = subject.mmap(size, Prot.RW, Map.SHARED | Map.NORESERVE, file) if pages else 0
        for number, value in pages:
            self.main.store(other + number * self.page_bytes, value).result()
        return file

    def _values(self) -> int:
        """A file of the words 0 to VALUES - 1, which is mapped as what UFFDIO_COPY copies, too:
        a page that begins with the n-th word."""
        subject, size = self.subject, self.page_bytes + PAGESIZE
        words = b"".join(value.to_bytes(8, "little") for value in range(VALUES))
        self.main.scratch(len(words), 1024)[:] = words
        file = subject.syscall("memfd_create", subject.text("values"), MFD_CLOEXEC)
        subject.syscall("ftruncate", file, size)
        subject.syscall("pwrite64", file, self.main.scratch_address + 1024, len(words), 0)
        self.sources = subject.mmap(size, Prot.READ, Map.SHARED, file)
        subject.mappings.append(Mapping("values", self.sources, size, PAGESIZE))
        return file

    def _userfaultfd(self) -> Userfaultfd:
        access = self.machine.access
        assert access is not None
        made = Userfaultfd.open(self.subject, access)
        made.api(features(self.world))
        return made

    # -- requests

    def acts(self, program: Sequence[Op]) -> list[_Act]:
        """The program's requests, with their structures laid out in the slot."""
        address, uffd, made = self.start, self.uffds[0].descriptor, []
        for op in program:
            act = _Act(op, [], address=address)
            self._requests(act, uffd)
            if op.name == "mremap":
                act.address = address = act.expected
            if op.name == "reopen":
                uffd = self.uffds[1].descriptor
            self._add_look(act)
            made.append(act)
        return made

    def _struct(self, *words: int) -> int:
        """The address of a structure of 8-byte words."""
        offset, self.structures = self.structures, self.structures + 128
        raw = b"".join((word & (1 << 64) - 1).to_bytes(8, "little") for word in words)
        self.main.scratch(128, offset)[: len(raw)] = raw
        return self.main.scratch_address + offset

    def _ioctl(self, descriptor: int, request: Ioctl, *words: int) -> Operation:
        return batch.call("ioctl", descriptor, request, self._struct(*words))

    def _requests(self, act: _Act, uffd: int) -> None:
        op, start = act.op, act.address + act.op.first * self.page_bytes
        size, whole = op.length * self.page_bytes, (act.address, self.size)
        page = (start, self.page_bytes)
        made = act.requests
        match op.name:
            case "protect":
                made.append(
                    self._ioctl(uffd, Ioctl.UFFDIO_WRITEPROTECT, start, size, ProtectMode.WP)
                )
            case "unprotect":
                made.append(self._ioctl(uffd, Ioctl.UFFDIO_WRITEPROTECT, start, size, 0))
            case "load":
                made.append(batch.load(start))
            case "store":
                made.append(batch.store(start, op.value))
            case "kernel_write":
                made.append(batch.call("pread64", self.values, start, 8, op.value * 8))
            case "kernel_read":
                made.append(batch.call("pwrite64", self.values, start, 8, VALUES * 8))
            case "copy" | "copy_protected":
                source = (start, self.sources + op.value * 8, self.page_bytes)
                mode = CopyMode.WP if op.name == "copy_protected" else CopyMode(0)
                made.append(self._ioctl(uffd, Ioctl.UFFDIO_COPY, *source, mode, 0))
            case "zeropage" | "continue" | "continue_protected" | "poison":
                mode = CopyMode.WP if op.name == "continue_protected" else CopyMode(0)
                made.append(self._ioctl(uffd, _FILLS[op.name], *page, mode, 0))
            case "move":
                made.append(self._ioctl(uffd, Ioctl.UFFDIO_MOVE, start + size, start, size, 0, 0))
            case "collapse":
                first = start // (PER_TABLE * PAGESIZE) * PER_TABLE * PAGESIZE
                made.append(batch.call("madvise", first, PER_TABLE * PAGESIZE, Advice.COLLAPSE))
            case "read_only" | "read_write":
                prot = Prot.READ if op.name == "read_only" else Prot.RW
                made.append(batch.call("mprotect", *whole, prot))
            case "unregister":
                made.append(self._ioctl(uffd, Ioctl.UFFDIO_UNREGISTER, start, size))
            case "register":
                made.append(
                    self._ioctl(uffd, Ioctl.UFFDIO_REGISTER, start, size, RegisterMode.WP, 0)
                )
            case "reopen":
                made.append(batch.call("close", uffd))
                other = self.uffds[1].descriptor
                made.append(self._ioctl(other, Ioctl.UFFDIO_REGISTER, *whole, RegisterMode.WP, 0))
                act.answer = 1
            case "mremap":
                act.expected = self._place()
                flags = MREMAP_MAYMOVE | MREMAP_FIXED
                made.append(batch.call("mremap", *whole, self.size, flags, act.expected))
            case "scan":
                act.vector = self._vector()
                made.append(self._scan(act.vector, start, size, ScanFlag.WP_MATCHING))
            case "fork":
                act.child = self._words()
                done = [self._pagemap(act.address, act.child), batch.store(start, op.value)]
                made += [batch.child(done, self.pagemap), *done]
            case advised:
                made.append(batch.call("madvise", start, size, _ADVICES[advised]))

    @property
    def words(self) -> int:
        """How many words pagemap has of the mappings."""
        return self.size // PAGESIZE

    def _words(self) -> int:
        """The offset of room for all pages' words."""
        offset, self.looked = self.looked, self.looked + self.words * _WORDS
        return offset

    def _vector(self) -> int:
        offset, self.looked = self.looked, self.looked + _REGIONS * 24
        return offset

    def _pagemap(self, address: int, offset: int) -> Operation:
        place, count = address // PAGESIZE * _WORDS, self.words * _WORDS
        return batch.call("pread64", self.pagemap, self.main.scratch_address + offset, count, place)

    def _scan(self, offset: int, start: int, size: int, flags: ScanFlag) -> Operation:
        wanted = Category.WRITTEN if flags else Category(0)
        returned = Category.WRITTEN if flags else CATEGORIES
        vector = self.main.scratch_address + offset
        words = (96, flags, start, start + size, 0, vector, _REGIONS, 0, 0, wanted, 0, returned)
        return self._ioctl(self.pagemap, Ioctl.PAGEMAP_SCAN, *words)

    def _add_look(self, act: _Act) -> None:
        act.look = self._words()
        act.requests.append(self._pagemap(act.address, act.look))
        if self.machine.pagemap_scan:
            act.scanned = self._vector()
            act.requests.append(self._scan(act.scanned, act.address, self.size, ScanFlag(0)))

    # -- results

    def _read_words(self, offset: int) -> list[int]:
        words = self.main.scratch(self.words * _WORDS, offset).cast("Q")
        parts = self.page_bytes // PAGESIZE
        first = [word & FLAGS for word in words[::parts].tolist()]
        if parts == 1:
            return first
        last = [word & FLAGS for word in words[parts - 1 :: parts].tolist()]
        # a huge page looks alike from end to end; one that does not has what no page has
        return [one if one == other else FLAGS for one, other in zip(first, last, strict=True)]

    def _regions(self, offset: int, count: int) -> list[tuple[int, int, int]]:
        words = self.main.scratch(max(count, 0) * 24, offset).cast("Q").tolist()
        return list(zip(words[0::3], words[1::3], words[2::3], strict=True))

    def _pages(self, act: _Act, first: int, end: int) -> range:
        """The pages from one address to another."""
        return range(
            (first - act.address) // self.page_bytes, (end - act.address) // self.page_bytes
        )

    def seen(self, act: _Act, answers: list[Answer], told: list[tuple[Message, int]]) -> Seen:
        """What the act came to, from the answers to its requests."""
        answer = answers[act.answer]
        looked = self._read_words(act.look)
        if act.scanned >= 0:
            for first, end, categories in self._regions(act.scanned, answers[-1].value):
                pages, shown = self._pages(act, first, end), categories << SHIFT
                chosen = slice(pages.start, pages.stop)
                looked[chosen] = [word | shown for word in looked[chosen]]
        reported, child = None, None
        if act.vector >= 0:
            reported = frozenset(
                page
                for first, end, _ in self._regions(act.vector, answer.value)
                for page in self._pages(act, first, end)
            )
            answer = Answer(min(answer.value, 0), answer.error)
        if act.child >= 0:
            child = self._read_words(act.child)
            answer = Answer(answer.value, answer.error, answers[2].signal)
        if act.expected:
            answer = Answer(answer.value - act.expected, answer.error)
        messages = tuple(
            (
                message.event,
                message.flags,
                (message.address - act.address) // self.page_bytes if message.address else 0,
                word & FLAGS,
            )
            for message, word in told
        )
        return Seen(answer, messages, looked, reported, child)


def run(subject: Subject, machine: Machine, world: World, program: Sequence[Op]) -> list[Seen]:
    """Runs a program in one batch. Raises OSError, SubjectLost."""
    subject.tape = None  # which could not tell what is in a batch
    subject.serves_itself = True
    session = Session(subject, machine, world)
    acts = session.acts(program)
    for uffd in session.uffds:
        uffd.detach()  # our duplicate would keep it open
    main, log = subject.main, subject.main.scratch_address + _LOG
    descriptors = [*(uffd.descriptor for uffd in session.uffds), session.pagemap]
    served_by = subject.record(main, "serve", tuple(descriptors))
    place = (log, LOG_ENTRIES, session.page_bytes)
    main.start(lib.OP_SERVE, (*descriptors, *place), served_by).result()
    made = Batch(main, [request for act in acts for request in act.requests])
    made.start().result()
    replies = list(made.replies())
    raw = main.scratch(LOG_ENTRIES * ffi.sizeof("struct served"), _LOG + 8)
    served = ffi.from_buffer("struct served[]", raw)
    seen, told = [], 0
    for act in acts:
        mine, replies = replies[: len(act.requests)], replies[len(act.requests) :]
        answers = [Answer(reply.value, reply.error, reply.signal) for reply in mine]
        before, told = told, mine[-1].messages
        log_of_act = [(bytes(e.message), e.word) for e in served[before:told]]
        messages = [(Message.decode(raw), word) for raw, word in log_of_act]
        seen.append(session.seen(act, answers, messages))
    return seen


def run_slowly(
    subject: Subject, machine: Machine, world: World, program: Sequence[Op]
) -> Iterator[Seen]:
    """Runs a program request by request, on the subject's tape. Raises OSError, SubjectLost."""
    session = Session(subject, machine, world)
    uffd = session.uffds[0]
    for act in session.acts(program):
        subject.note("arranged")  # and what comes from here on is what may be wrong
        told: list[tuple[Message, int]] = []
        if act.op.name == "reopen":
            uffd.detach()
        if act.op.name == "fork":
            answers = _fork_slowly(session, act, uffd, told)
        else:
            answers = [_do_slowly(session, subject, uffd, r, told) for r in act.requests]
        if act.op.name == "reopen":
            uffd = session.uffds[1]
        yield session.seen(act, answers, told)


def _do_slowly(
    session: Session,
    subject: Subject,
    uffd: Userfaultfd,
    request: Operation,
    told: list[tuple[Message, int]],
) -> Answer:
    """One request of a toucher's, whose messages are served meanwhile."""
    names = {lib.OP_LOAD: "load", lib.OP_STORE: "store", lib.OP_SYSCALL: "call"}
    thread = subject.toucher()
    step = subject.record(thread, names[request.code], request.arguments)
    return _served(session, thread.start(request.code, request.arguments, step), uffd, told)


def _served(
    session: Session, pending: Pending, uffd: Userfaultfd, told: list[tuple[Message, int]]
) -> Answer:
    """The answer; until it comes, messages are read and their pages unprotected.

    Raises SubjectStuck when they come again and again.
    """
    before = len(told)
    while pending.wait(uffd.pollable) is None:
        message = uffd.read()
        assert message is not None
        word = 0
        if message.event is Event.PAGEFAULT:
            (word,) = pagemap.words(uffd.subject, message.address, 1)
            uffd.writeprotect(message.address, session.page_bytes, ProtectMode(0))
        told.append((message, word))
        if len(told) - before > _MOST_MESSAGES:
            raise uffd.subject.stuck("messages come again and again, though each is resolved")
    return pending.result()


def _fork_slowly(
    session: Session, act: _Act, uffd: Userfaultfd, told: list[tuple[Message, int]]
) -> list[Answer]:
    subject, (_, _, store, *looks) = session.subject, act.requests
    pending = subject.begin_fork()
    _served(session, pending, uffd, told)
    child = subject.forked(pending)
    theirs = uffd.child(child, told[-1][0]) if told else uffd
    words = pagemap.words(child, act.address, session.words)
    raw = b"".join(word.to_bytes(_WORDS, "little") for word in words)
    session.main.scratch(len(raw), act.child)[:] = raw
    before = len(told)
    stored = _do_slowly(session, child, theirs, store, told)
    told[before:] = [(message, 0) for message, _ in told[before:]]
    child.kill()
    child.close()
    answers = [_do_slowly(session, subject, uffd, look, told) for look in looks]
    return [Answer(0), Answer(0), stored, *answers]


# -- the comparison


class Disagreement(AssertionError):
    """The kernel did what the model does not allow."""


Taken = Counter[tuple[str, Entry, bool]]  # how often each transition was


def coverage(taken: Taken) -> str:
    """How many of the model's transitions were taken, and which were not."""
    left = sorted(
        f"{name} ({entry.value}{', protected' if wp else ''})"
        for name, entry, wp in TRANSITIONS - taken.keys()
    )
    said = f"{len(TRANSITIONS) - len(left)} of {len(TRANSITIONS)}"
    return f"{said}, but not {', '.join(left)}" if left else said


def check(world: World, program: Sequence[Op], seen: Iterable[Seen]) -> Taken:
    """Compares a run with the model; the transitions that were taken.

    Raises Disagreement at the first operation that came to what the model does not allow; `seen`
    is not asked for more.
    """
    states, taken, results = [State.fresh(world)], Taken(), iter(seen)
    for number, op in enumerate(program):
        result = next(results)
        outcomes = [outcome for state in states for outcome in step(world, state, op)]
        allowed = [o for o in outcomes if next(_differences(world, o, result), None) is None]
        if not allowed:
            raise Disagreement(_told(world, program[: number + 1], outcomes, result))
        taken.update(transitions(states[0], op))
        states = list(dict.fromkeys(outcome.state for outcome in allowed))
    return taken


def _differences(world: World, outcome: Outcome, seen: Seen) -> Iterator[str]:
    """What a run saw that this outcome does not allow."""
    reply, answer = outcome.reply, seen.answer
    expected = (reply.value, reply.error, reply.signal)
    if expected != (answer.value, answer.error, answer.signal):
        yield f"it gave {answer}, and not {Answer(*expected)}"
    messages = [(t.event, t.flags, t.page, *t.look) for t in reply.messages]
    same = len(messages) == len(seen.messages) and all(
        allowed[:3] == got[:3] and not (allowed[3] ^ got[3]) & allowed[4]
        for allowed, got in zip(messages, seen.messages, strict=True)
    )
    if not same:
        yield f"messages: {_messages(seen.messages)}, and not {_messages(messages)}"
    if reply.pages != seen.pages:
        yield f"it reported {sorted(seen.pages or ())}, and not {sorted(reply.pages or ())}"
    yield from _look_differences("page", looks(world, outcome.state), seen.looks)
    yield from _look_differences("child's page", reply.child, seen.child or [])


def _look_differences(
    what: str, allowed: Sequence[tuple[int, int]], seen: list[int]
) -> Iterator[str]:
    pairs = list(zip(allowed, seen, strict=True))
    wrong = {pair for pair in set(pairs) if (pair[0][0] ^ pair[1]) & pair[0][1]}
    for number, pair in enumerate(pairs) if wrong else ():
        if pair in wrong:
            (bits, _), got = pair
            yield f"{what} {number} is {_show(got)}, and not {_show(bits)}"


def _messages(messages: Iterable[tuple[Any, ...]]) -> str:
    told = [
        f"{event.name} {flags.name or ''} {page} {_show(word)}"
        for event, flags, page, word, *_ in messages
    ]
    return ", ".join(told) or "none"


def _show(bits: int) -> str:
    categories = Category(bits >> SHIFT & CATEGORIES)
    return f"{Bits(bits & FLAGS)} {categories.name or ''}".rstrip()


def text(op: Op) -> str:
    """An operation as a program lists it."""
    last = f"..{op.first + op.length - 1}" if op.length > 1 else ""
    return f"{op.name} {op.first}{last}" + (f" = {op.value}" if op.value else "")


def _told(world: World, program: Sequence[Op], outcomes: list[Outcome], seen: Seen) -> str:
    """A disagreement for people: the program, and how the run differs from the nearest outcome."""
    found, nearest = min(
        ((list(_differences(world, outcome, seen)), outcome) for outcome in outcomes),
        key=lambda pair: len(pair[0]),
    )
    lines = [f"the kernel does what the model does not allow ({nearest.clauses}):"]
    lines += [f"  {number}. {text(op)}" for number, op in enumerate(program, 1)]
    lines += found[:_MOST_TOLD] + (["…"] if len(found) > _MOST_TOLD else [])
    return "\n".join(lines)
