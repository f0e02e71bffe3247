# SPDX-License-Identifier: GPL-2.0-only
"""Writers that run free while protection comes and goes, and what holds whatever wins.

Each writer adds one to a word of its own in every page, over and over, and counts what it has
done: so a lost write shows, and so does one that lands on a page while that is protected.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mmap import PAGESIZE
from random import Random

from helpers import arrange, batch, machine, pagemap
from helpers.batch import Batch, Operation, Room
from helpers.machine import Need
from helpers.migration import moves
from helpers.pagemap import Page
from helpers.region import Region
from helpers.subject import Pending, Thread
from helpers.uapi import (
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Advice,
    CopyMode,
    Event,
    FaultFlag,
    Ioctl,
    Prot,
    ProtectMode,
    RegisterMode,
)
from helpers.uffd import Message

WRITERS = 2
TURNS = 500
_TOLD_TURNS = 300  # in which we take part
_LATE = (2.5, 5.3)  # log10 of nanoseconds
_WORD = 8


def protecting(mem: Region, room: Room, *modes: ProtectMode) -> list[Operation]:
    """UFFDIO_WRITEPROTECT of the whole region in one mode after another; or UFFDIO_RWPROTECT, where
    that is its protection."""
    rwp = RegisterMode.RWP in mem.setup.mode
    request = Ioctl.UFFDIO_RWPROTECT if rwp else Ioctl.UFFDIO_WRITEPROTECT
    uffd, whole = mem.uffd.descriptor, {"start": mem.start, "len": mem.size}
    return [
        batch.ioctl(room, uffd, request, "uffdio_writeprotect", **whole, mode=mode)
        for mode in modes
    ]


def refilling(mem: Region, room: Room, request: Ioctl, mode: CopyMode = CopyMode(0)) -> Operation:
    """UFFDIO_ZEROPAGE or UFFDIO_CONTINUE of the page."""
    start, size = mem.span(mem.page)
    fields = {"start": start, "len": size, "mode": mode}
    return batch.ioctl(room, mem.uffd.descriptor, request, "uffdio_fill", **fields)


def unmapping(mem: Region) -> Operation:
    """The page is unmapped; shared memory keeps what it holds."""
    return _advise(mem, range(mem.page, mem.page + 1), Advice.DONTNEED)


def to_and_fro(mem: Region, room: Room) -> list[Operation]:
    """UFFDIO_MOVE of the page's PMD to the region's other one, which is emptied, and back."""
    start, size = mem.span(mem.pmd)
    other = mem.start if start != mem.start else start + size
    mem.subject.madvise(other, size, Advice.DONTNEED)
    uffd, move = mem.uffd.descriptor, Ioctl.UFFDIO_MOVE
    return [
        batch.ioctl(room, uffd, move, "uffdio_copy", dst=target, src=source, len=size)
        for target, source in ((other, start), (start, other))
    ]


def there_and_back(mem: Region) -> list[Operation]:
    """mremap(2) of the whole region to another place, and back."""
    away, flags = mem.subject.place(mem.size), MREMAP_MAYMOVE | MREMAP_FIXED
    return [
        batch.call("mremap", source, mem.size, mem.size, flags, target)
        for source, target in ((mem.start, away), (away, mem.start))
    ]


class Turns:
    """In each turn a page is taken away, a thread that touches it is sent for, and the page is
    given back while that is on its way.

    How late is drawn, from less than a call takes to more than a thread takes that is sent for
    and has to go to sleep, on a slow machine. Who gives it back is on another CPU, or takes the
    other's in the middle of its fault, where the kernel has one and lets it (PREEMPT).
    """

    def __init__(self, mem: Region, rng: Random) -> None:
        """Raises OSError."""
        self.mem = mem
        self.thread = batch.elsewhere(mem.subject.toucher(1))
        batch.real_time(self.thread)  # else it takes two CPUs
        self.room = Room(self.thread)
        self._rng = rng
        self._there, self._back = batch.pipe(mem.subject), batch.pipe(mem.subject)

    def _touching(self, touch: Operation) -> Batch:
        """What the other thread does."""
        thread = self.mem.subject.toucher(0)
        word, _ = Room(thread).take(1)
        turn = [batch.call("read", self._there[0], word, 1), touch]
        return Batch(thread, [*turn, batch.call("write", self._back[1], word, 1)] * TURNS)

    def _turn(self, away: Sequence[Operation], back: Sequence[Operation]) -> list[Operation]:
        word, moment = self.room.put(b"!"), self.room.put(struct.pack("QQ", 0, self._late()))
        sends = batch.call("write", self._there[1], word, 1)
        return [*away, sends, batch.call("nanosleep", moment, 0), *back]

    def _late(self) -> int:
        """In nanoseconds."""
        return int(10 ** self._rng.uniform(*_LATE))

    def _has_gone_on(self) -> Operation:
        word, _ = self.room.take(1)
        return batch.call("read", self._back[0], word, 1)

    def go_on(self, touch: Operation, away: Sequence[Operation], back: Sequence[Operation]) -> bool:
        """Whether the thread goes on after each turn, with nobody to wake it but what gives the
        page back. Raises SubjectStuck where it sleeps on."""
        gone_on = self._has_gone_on()
        turns = [op for _ in range(TURNS) for op in (*self._turn(away, back), gone_on)]
        touching = self._touching(touch)
        touched, done = touching.start(), Batch(self.thread, turns).start()
        return done.result().value == len(turns) and touched.result().value == len(touching)

    def come_to_raise(
        self,
        flag: FaultFlag,
        touch: Operation,
        away: Sequence[Operation],
        back: Sequence[Operation],
    ) -> bool:
        """The same, where what gives the page back protects it as well, so that the thread has to
        wait: whether its message comes to say so each time. Raises SubjectStuck where it doesn't.
        """
        gone_on, touched = self._has_gone_on(), self._touching(touch).start()
        for _ in range(_TOLD_TURNS):
            turn = Batch(self.thread, self._turn(away, back))
            if turn.start().result().value != len(turn):
                return False
            message = None
            while message is None or not message.flags & flag:
                if touched.wait(self.mem.uffd.pollable) is not None:
                    return False
                message = self.mem.uffd.read()
            self.mem.unprotect(self.mem.pages)
            Batch(self.thread, [gone_on]).start().result()
        return True


@dataclass
class Writer:
    """A thread that adds to its words of all pages; its tid tells its messages."""

    tid: int
    batch: Batch
    running: Pending


class Race:
    """Writers to some pages of a region, which has the feature THREAD_ID."""

    def __init__(self, mem: Region, pages: range, rng: Random) -> None:
        self.mem = mem
        self.pages = pages
        self._before = self.words()
        self._writers = [self._writer(rng, number) for number in range(WRITERS)]
        self._late: dict[int, Writer] = {}

    def _writer(self, rng: Random, number: int) -> Writer:
        mem = self.mem
        thread = batch.anywhere(mem.subject.toucher(number))
        order = rng.sample(self.pages, len(self.pages))
        adds = [batch.add(mem.address(page) + number * _WORD) for page in order]
        made = Batch(thread, adds)
        return Writer(thread.tid, made, made.start(forever=True))

    def words(self, mem: Region | None = None) -> list[tuple[int, ...]]:
        """Each page's words, read from outside; of this region, or of its like in a child."""
        seen = mem or self.mem
        return [
            tuple(memoryview(words).cast("Q"))
            for words in seen.peeks([seen.address(page) for page in self.pages], WRITERS * _WORD)
        ]

    # -- a freeze: all writers have met protected pages and wait

    def freeze(self) -> list[tuple[int, ...]]:
        """Protects the region; the words that no writer may change from now on."""
        self.mem.protect(self.mem.pages)
        self._late = {writer.tid: writer for writer in self._writers}
        return self.words()

    def meanwhile(self, running: Pending) -> None:
        """Lets something run to its end, and reads what messages come."""
        while running.wait(self.mem.uffd.pollable) is None:
            self._take(self.mem.uffd.read())

    def all_wait(self) -> bool:
        """Whether each writer has come to raise its message. Raises SubjectStuck."""
        while self._late:
            writer = next(iter(self._late.values()))
            if writer.running.wait(self.mem.uffd.pollable) is not None:
                return False
            self._take(self.mem.uffd.read())
        return True

    def _take(self, message: Message | None) -> None:
        if message is not None and message.event is Event.PAGEFAULT:
            self._late.pop(message.tid, None)

    def protected(self) -> bool:
        """Whether all the written pages carry the bit, where pagemap shows it. (PAGEMAP_SCAN would
        look at another moment.)"""
        start, size = self.mem.span(self.pages)
        return not self.mem.machine.pagemap_wp or all(
            word & Page.WP for word in pagemap.words(self.mem.subject, start, size // PAGESIZE)
        )

    # -- the end

    def lost(self) -> int:
        """Ends the writers, who must not be left waiting; how many of their writes are lost."""
        for writer in self._writers:
            writer.batch.stop()
        done = sum(map(self._done, self._writers))
        return done - (_total(self.words()) - _total(self._before))

    def _done(self, writer: Writer) -> int:
        """How often a writer has written; one who may still wait for a page of a file is served.

        Before a fault sleeps, the kernel looks whether its page is writable, not whether it is
        protected (userfaultfd_must_wait()). Unprotecting makes a page of private memory writable,
        but may leave one of shared memory read-only: a writer that met it protected then sleeps
        though it no longer is, and his message waits to be read.
        """
        while self.mem.kind.shared and writer.running.wait(self.mem.uffd.pollable) is None:
            self.mem.uffd.read()
            self.mem.unprotect(self.mem.pages)
        return writer.running.result().value


# -- what goes on beside


@dataclass(frozen=True)
class Partner:
    """Calls on the region that a thread makes over and over beside the writers."""

    name: str
    calls: Callable[[Race, Thread], list[Operation]]
    needs: tuple[Need, ...] = ()


def _advise(mem: Region, pages: range, advice: Advice) -> Operation:
    return batch.call("madvise", *mem.span(pages), advice)


def _remove_neighbours(race: Race, _: Thread) -> list[Operation]:
    """The pages beside the written ones come and go."""
    mem, first = race.mem, race.pages[0] - 1
    beside = range(first, first + 1)
    return [batch.store(mem.address(first), 1), _advise(mem, beside, Advice.DONTNEED)]


def _remove(race: Race, _: Thread) -> list[Operation]:
    """The written pages are unmapped; shared memory keeps what they hold."""
    return [_advise(race.mem, race.mem.pages, Advice.DONTNEED)]


def _mprotect(race: Race, _: Thread) -> list[Operation]:
    """Writers that meet PROT_READ get SIGSEGV, and don't count that write."""
    where = (race.mem.start, race.mem.size)
    return [batch.call("mprotect", *where, prot) for prot in (Prot.READ, Prot.RW)]


def _collapse(race: Race, _: Thread) -> list[Operation]:
    """A THP is made, and its PMD split by a change of one page that is not written."""
    mem, last = race.mem, race.mem.pmd[-1]
    one = mem.span(range(last, last + 1))
    splits = [batch.call("mprotect", *one, prot) for prot in (Prot.READ, Prot.RW)]
    return [_advise(mem, mem.pmd, Advice.COLLAPSE), *splits]


def _page_out(race: Race, _: Thread) -> list[Operation]:
    """The written pages go to swap, from where writers fetch them."""
    arrange.hold_swap(race.mem)
    return [_advise(race.mem, race.pages, Advice.PAGEOUT)]


def _migrate(race: Race, thread: Thread) -> list[Operation]:
    """The written pages go from node to node: move_pages(2)."""
    return moves(Room(thread), [race.mem.address(page) for page in race.pages])


REMOVE_NEIGHBOURS = Partner("removing_neighbours", _remove_neighbours)
REMOVE = Partner("removing", _remove)
MPROTECT = Partner("mprotect", _mprotect)
COLLAPSE = Partner("collapsing", _collapse, (machine.advice(Advice.COLLAPSE),))
PAGE_OUT = Partner("swapping_out", _page_out, (machine.SWAP,))
MIGRATE = Partner("migrating", _migrate, (machine.NUMA,))


def start(partner: Partner, race: Race, by: int) -> Batch:
    """Has toucher `by` make the partner's calls until it is stopped."""
    thread = batch.anywhere(race.mem.subject.toucher(by))
    made = Batch(thread, partner.calls(race, thread))
    made.start(forever=True)
    return made


def _total(words: list[tuple[int, ...]]) -> int:
    return sum(map(sum, words))
