# SPDX-License-Identifier: GPL-2.0-only
"""Has a thread come in the middle of a long call of another's.

The worker moves pages to another NUMA node, makes a THP of them, or forks. The actor runs on the
same CPU, and as a real-time thread: when it wakes from a sleep of random length it takes that CPU
from the worker, in the middle of its work if it comes at the right moment, and the worker gets on
when the actor sleeps again. So what the actor sees before it acts is what it acts on.

Sources: man move_pages(2), sched_setscheduler(2). mm/migrate.c: migration entries are in the place
of a page's ptes while it is copied, and of a batch of small pages until the last of them is.
mm/khugepaged.c: __collapse_huge_page_swapin() has read what is in swap after the pages were looked
at, and before the lock is taken under which they are copied. retract_page_tables() has long copied
them when it comes to other mappings, one after another, of which it holds no lock.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from mmap import PAGESIZE
from random import Random

from helpers import batch, pagemap, procfs
from helpers.arrange import collapse, huge_bytes, swap_out
from helpers.batch import Batch, Operation, Room
from helpers.migration import moves
from helpers.pagemap import Page
from helpers.region import Region, Unproven
from helpers.subject import Answer, Pending, ffi
from helpers.uapi import (
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Advice,
    Category,
    Event,
    Ioctl,
    Map,
    Prot,
    ProtectMode,
    RegisterMode,
    ScanFlag,
)

_TRIALS = 3
_SECONDS = 4.0  # on a machine that is busy with other things
_WORKER, _ACTOR, _LOOKER = 0, 1, 2  # touchers
_NS = 1_000_000_000
_TIMESPEC = struct.Struct("QQ")
_ASKED = Category.PRESENT | Category.SWAPPED | Category.FILE
_FILLER_BYTES = 32 << 20  # which a fork copies in front of the region
_FILLER_DISTANCE = 1 << 32
_MAPPINGS = 100  # that have page tables to be taken
_STATUS_BYTES = 4096
_WORD = 8
_GIB = 1 << 30  # that a page table of huge pages maps
_PLACES = 64


class Glance:
    """A look at pages as part of a batch: pagemap's words and, where there is PAGEMAP_SCAN, their
    categories."""

    def __init__(self, room: Room, mem: Region, pages: range, *, registered: bool = True) -> None:
        self._mem, self._pages, self._registered = mem, pages, registered
        self._per_page = mem.page_bytes // PAGESIZE
        self._start, size = mem.span(pages)
        bytes_of_words = size // PAGESIZE * 8
        place, self._words = room.take(bytes_of_words)
        where = self._start // PAGESIZE * 8
        self.operations = [batch.call("pread64", mem.subject.pagemap, place, bytes_of_words, where)]
        self._regions: memoryview | None = None
        if mem.machine.pagemap_scan:
            vector, self._regions = room.take(ffi.sizeof("struct page_region") * len(pages))
            span = mem.span(pages)
            asked = _ASKED | self._unprotected
            self.operations.append(_scan(room, mem, span, vector, return_mask=asked))

    @property
    def _unprotected(self) -> Category:
        """What PAGEMAP_SCAN calls a page that carries no bit."""
        rwp = RegisterMode.RWP in self._mem.setup.mode
        return Category.ACCESSED if rwp else Category.WRITTEN

    def _pages_with(self, bits: int) -> set[int]:
        """The pages whose pagemap word has one of the bits. (Plain numbers: a THP has many.)"""
        words = self._words.cast("Q")[:: self._per_page]
        return {number for number, word in zip(self._pages, words, strict=True) if word & bits}

    def _pages_in(self, category: Category) -> set[int]:
        """The pages that PAGEMAP_SCAN counts in the category."""
        assert self._regions is not None
        found: set[int] = set()
        words = iter(self._regions.cast("Q"))
        for start, end, categories in zip(words, words, words, strict=True):
            if start == end:
                break
            if categories & category:
                first, last = (
                    (address - self._start) // self._mem.page_bytes for address in (start, end)
                )
                found.update(self._pages[first:last])
        return found

    @property
    def absent(self) -> set[int]:
        """The pages that are not present: there is none, or it is being moved."""
        return set(self._pages) - self._pages_with(Page.PRESENT)

    @property
    def protected(self) -> set[int]:
        """The pages that carry the uffd-wp bit.

        Raises WitnessError where pagemap and PAGEMAP_SCAN disagree on that, or on which pages are a
        file's, or one of them doesn't call a page either present or swapped. (pagemap calls hugetlb
        pages nothing.)
        """
        protected, pages = self._pages_with(Page.WP), set(self._pages)
        small = not self._mem.kind.hugetlb
        if small:
            _expect_all(pages, self._pages_with(Page.PRESENT), self._pages_with(Page.SWAP))
        if self._regions is not None:
            _expect_all(pages, self._pages_in(Category.PRESENT), self._pages_in(Category.SWAPPED))
            if self._registered:
                _expect_alike(protected, pages - self._pages_in(self._unprotected))
            if small:
                _expect_alike(self._pages_with(Page.FILE), self._pages_in(Category.FILE))
        return protected


def _expect_alike(one: set[int], other: set[int]) -> None:
    """pagemap and PAGEMAP_SCAN have to tell the same pages."""
    if unequal := one ^ other:
        raise pagemap.WitnessError(f"pagemap and PAGEMAP_SCAN disagree on {sorted(unequal)}")


def _expect_all(pages: set[int], present: set[int], swapped: set[int]) -> None:
    """Each page has to be the one or the other."""
    if wrong := pages - (present ^ swapped):
        raise pagemap.WitnessError(f"these are not either present or swapped: {sorted(wrong)}")


def _scan(room: Room, mem: Region, span: tuple[int, int], into: int, **asked: int) -> Operation:
    start, size = span
    fields = {
        "size": ffi.sizeof("struct pm_scan_arg"), "start": start, "end": start + size,
        "vec": into, "vec_len": size // mem.page_bytes, **asked,
    }  # fmt: skip
    return batch.ioctl(room, mem.subject.pagemap, Ioctl.PAGEMAP_SCAN, "pm_scan_arg", **fields)


class Meeting:
    """What the actor does in one go."""

    def __init__(self, midway: Midway) -> None:
        self._midway, self._mem = midway, midway.mem
        self._room = Room(midway.actor)
        self.before = self.glance()
        self.after = self.glance()

    def glance(
        self,
        pages: range | int | None = None,
        at: Region | None = None,
        *,
        registered: bool = True,
    ) -> Glance:
        """A look at pages, or all that the worker works on; here or in another view of them."""
        chosen = self._midway.pages if pages is None else pages
        several = range(chosen, chosen + 1) if isinstance(chosen, int) else chosen
        return Glance(self._room, at or self._mem, several, registered=registered)

    def happens(self, *acts: Operation, after: Glance | None = None) -> None:
        """Has the actor come and look, act, and look again: at the same pages, or as `after` does.
        Raises AssertionError where an act fails."""
        self.after = after or self.after
        requests = [*self.before.operations, *acts, *self.after.operations]
        answers = self._midway.act(self._room, requests)
        for request, answer in zip(requests, answers, strict=True):
            assert not answer.error and not answer.signal, f"{request} ended with {answer}"
        self._midway.met += self._midway.was_met(self)

    def tries(self, act: Operation) -> int:
        """Has the actor do nothing but this; its errno, or 0."""
        (answer,) = self._midway.act(self._room, [act])
        return answer.error

    # -- what the actor may do

    def mark(
        self, protected: bool, pages: range | int | None = None, at: Region | None = None
    ) -> Operation:
        """UFFDIO_WRITEPROTECT, or UFFDIO_RWPROTECT where that is the region's protection."""
        start, size = (at or self._mem).span(self._midway.pages if pages is None else pages)
        mode = ProtectMode.WP if protected else ProtectMode(0)
        rwp = RegisterMode.RWP in self._mem.setup.mode
        request = Ioctl.UFFDIO_RWPROTECT if rwp else Ioctl.UFFDIO_WRITEPROTECT
        fields = {"start": start, "len": size, "mode": mode}
        return self._ioctl(request, "uffdio_writeprotect", **fields)

    def register(self, at: Region | None = None) -> Operation:
        """UFFDIO_REGISTER of the whole region, or of another view of it."""
        mem = at or self._mem
        fields = {"start": mem.start, "len": mem.size, "mode": RegisterMode.WP}
        return self._ioctl(Ioctl.UFFDIO_REGISTER, "uffdio_register", **fields)

    def _ioctl(self, request: Ioctl, kind: str, **fields: int) -> Operation:
        return batch.ioctl(self._room, self._mem.uffd.descriptor, request, kind, **fields)

    def scan_to_protect(self) -> Operation:
        """PAGEMAP_SCAN with WP_MATCHING of the written pages."""
        pages = self._midway.pages
        vector, _ = self._room.take(ffi.sizeof("struct page_region") * len(pages))
        asked = {"category_mask": Category.WRITTEN, "return_mask": Category.WRITTEN}
        flags = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
        return _scan(self._room, self._mem, self._mem.span(pages), vector, flags=flags, **asked)

    def mprotect(self, prot: Prot) -> Operation:
        """mprotect(2)."""
        return batch.call("mprotect", *self._mem.span(self._midway.pages), prot)

    def drop(self, pages: range | int) -> Operation:
        """MADV_DONTNEED."""
        return batch.call("madvise", *self._mem.span(pages), Advice.DONTNEED)

    def mremap(self, target: int) -> Operation:
        """mremap(2) of the whole region."""
        size, flags = self._mem.size, MREMAP_MAYMOVE | MREMAP_FIXED
        return batch.call("mremap", self._mem.start, size, size, flags, target)

    def fork(self, look: Glance) -> list[Operation]:
        """fork(2), and the look of the child, which ends with it."""
        return _forking(self._mem, look)


def _forking(mem: Region, look: Glance) -> list[Operation]:
    return [batch.child(look.operations, mem.subject.pagemap), *look.operations]


class Midway:
    """A worker, and an actor who comes in the middle of its work on some pages of a region."""

    most, enough = 40, 3  # rounds, and those of them in which the actor has come in the middle

    def __init__(self, mem: Region, rng: Random, pages: range) -> None:
        """Raises Unproven, OSError."""
        self.mem, self.pages, self._rng = mem, pages, rng
        self.met = 0  # how often the actor is known to have come in the middle
        self.actor = mem.subject.toucher(_ACTOR)
        if not batch.real_time(self.actor):
            raise Unproven("no thread of the subject can be made a real-time one: run as root")
        self._pipe = batch.pipe(mem.subject)
        self._took: list[int] = []

    def give(self, work: Callable[[Room], list[Operation]]) -> None:
        """Gives the worker its work: it waits for a word of the actor's, and takes the time."""
        room = Room(worker := self.mem.subject.toucher(_WORKER))
        word, _ = room.take(1)
        clock, self._times = room.take(2 * _TIMESPEC.size)
        begin, end = (
            batch.call("clock_gettime", time.CLOCK_MONOTONIC, clock + offset)
            for offset in (0, _TIMESPEC.size)
        )
        waits = batch.call("read", self._pipe[0], word, 1)
        self._work = Batch(worker, [waits, begin, *work(room), end])

    def learn(self, trials: int) -> None:
        """Has it work, to learn how long that takes: the actor sleeps so long at most."""
        for _ in range(trials):
            self.act(Room(self.actor), [])
            self.note_time()

    def note_time(self) -> None:
        """Notes how many nanoseconds the work has just taken: one of these times, drawn anew each
        time, is the longest that the actor sleeps."""
        begin, begin_ns, end, end_ns = self._times.cast("Q").tolist()
        self._took.append(_NS * (end - begin) + end_ns - begin_ns)

    @property
    def error(self) -> int:
        """The errno that the work's first call has failed with, or 0."""
        return self._work.answers()[2].error

    def act(self, room: Room, requests: Sequence[Operation]) -> list[Answer]:
        """What comes of the requests of an actor who does them while the worker works. The event
        of a fork is read; the child keeps what it brings until all is done."""
        late = self._late() if requests else 0
        word, moment = room.put(b"!"), room.put(_TIMESPEC.pack(*divmod(late, _NS)))
        tells = batch.call("write", self._pipe[1], word, 1)
        acting = Batch(self.actor, [tells, batch.call("nanosleep", moment, 0), *requests])
        working, running = self._work.start(), acting.start()
        born = [*self._events(running), *self._events(working)]
        for descriptor in born:
            os.close(descriptor)
        return acting.answers()[2:]

    def _late(self) -> int:
        """How many nanoseconds the actor sleeps."""
        return self._rng.randrange(self._rng.choice(self._took or [_NS]))

    def _events(self, running: Pending) -> Iterator[int]:
        """Reads messages until it has ended; the userfaultfds that came with them."""
        while running.wait(self.mem.uffd.pollable) is None:
            message = self.mem.uffd.read()
            if message is not None and message.event is Event.FORK:
                yield message.descriptor

    def was_met(self, meeting: Meeting) -> bool:
        """Whether the actor is seen to have come in the middle."""
        raise NotImplementedError

    def rounds(self) -> Iterator[Meeting]:
        """Meetings, each to be had, until the actor has come in the middle often enough, or they
        have taken too long. Raises Unproven where it never has."""
        end = time.monotonic() + _SECONDS
        for _ in range(self.most):
            yield Meeting(self)
            if self.met == self.enough or time.monotonic() > end:
                break
        if not self.met:
            raise Unproven(
                "no thread came in the midst of the other's call: run it again, or boot a kernel "
                "that preempts its calls (preempt=full)"
            )

    def mark(self, protected: bool) -> set[int]:
        """Protects the pages, or unprotects them; those that carry the bit then."""
        (self.mem.protect if protected else self.mem.unprotect)(self.pages)
        return self.pages_if(protected)

    def pages_if(self, protected: bool) -> set[int]:
        """All of the pages, or none."""
        return set(self.pages) if protected else set()


class Transit(Midway):
    """All pages of a region, or one THP, are sent to another NUMA node and back."""

    def __init__(self, mem: Region, rng: Random) -> None:
        """Raises Unproven, OSError."""
        super().__init__(mem, rng, mem.pmd if mem.setup.thp else mem.pages)
        firsts = self.pages[:1] if mem.setup.thp else self.pages
        self.give(lambda room: moves(room, [mem.address(page) for page in firsts]))
        self.learn(_TRIALS)

    def was_met(self, meeting: Meeting) -> bool:
        """No page is absent but on its way."""
        return bool(meeting.before.absent)

    def renew(self) -> None:
        """New pages, which no other process has ever mapped, and a THP that is whole."""
        self.mem.unprotect(self.pages)
        self.mem.advise(Advice.DONTNEED, self.pages)
        self.mem.populate(self.pages)
        if self.mem.setup.thp:
            collapse(self.mem)


class Collapsing(Midway):
    """MADV_COLLAPSE makes a THP of a PMD's pages, of which half have to come from swap first.

    A kernel that preempts none of its calls (PREEMPT_NONE) hardly lets an actor come then."""

    most = 15

    def __init__(self, mem: Region, rng: Random) -> None:
        """Raises Unproven, OSError."""
        super().__init__(mem, rng, mem.pmd)
        self._half = mem.pmd[len(mem.pmd) // 2 :]
        self.give(lambda _: [batch.call("madvise", *mem.span(mem.pmd), Advice.COLLAPSE)])
        self.swap_out()
        self.learn(1)

    def swap_out(self) -> None:
        """Sends half of the pages to swap, and has the other half be there. Raises Unproven."""
        self.mem.load_all(self.pages)
        swap_out(self.mem, self._half)

    def note_time(self) -> None:
        """If it was not refused."""
        if not self.error:
            super().note_time()

    def was_met(self, _: Meeting) -> bool:
        """It was refused, when the pages had come from swap."""
        self.note_time()
        return bool(self.error) and Page.PRESENT in pagemap.decode(self.mem.word(self._half[-1]))


class Forking(Midway):
    """A fork(2) that has much to copy before it comes to the region; its event is not read before
    the actor is done."""

    enough = 8  # some of them come when all is copied, and can't be told from the others

    def __init__(self, mem: Region, rng: Random) -> None:
        """Raises Unproven, OSError."""
        super().__init__(mem, rng, mem.pages)
        place, flags = mem.start - _FILLER_DISTANCE, Map.PRIVATE | Map.ANONYMOUS
        filler = mem.subject.mmap(_FILLER_BYTES, Prot.RW, flags, at=place)
        mem.subject.madvise(filler, _FILLER_BYTES, Advice.NOHUGEPAGE)
        mem.subject.main.store(filler, 1, PAGESIZE, _FILLER_BYTES // PAGESIZE).result()
        self.give(self._forks)
        self.learn(_TRIALS)

    def _forks(self, room: Room) -> list[Operation]:
        self.child = Glance(room, self.mem, self.pages)
        return _forking(self.mem, self.child)

    def _events(self, running: Pending) -> Iterator[int]:
        if running.thread is self.actor:
            running.result()
        return super()._events(running)


class Scanning(Midway):
    """PAGEMAP_SCAN protects a hugetlb page where it is mapped many times without a page table yet,
    each in a GiB of its own; the actor writes to all of these in the middle, and again when that is
    done."""

    def __init__(self, mem: Region, rng: Random) -> None:
        """Raises Unproven, OSError."""
        super().__init__(mem, rng, mem.pages)
        self._done = batch.pipe(mem.subject)
        self.places = [mem.start + number * _GIB for number in range(1, 1 + _PLACES)]
        self._span = self.places[0], self.places[-1] + mem.page_bytes - self.places[0]
        self.give(self._scans)
        for _ in range(_TRIALS):
            self._renew()
            self.learn(1)
            mem.subject.syscall("read", self._done[0], mem.subject.main.scratch_address, 1)

    def _scans(self, room: Room) -> list[Operation]:
        vector, _ = room.take(ffi.sizeof("struct page_region") * len(self.places))
        # for holes alone: protecting what is there flushes, and in an emulator more than just that
        present, places = Category.PRESENT, len(self.places)
        asked = {"category_mask": present, "category_inverted": present, "vec_len": places}
        asked |= {"return_mask": Category.WPALLOWED, "flags": ScanFlag.WP_MATCHING}
        scan = _scan(room, self.mem, self._span, vector, **asked)
        return [scan, batch.call("write", self._done[1], room.put(b"!"), 1)]

    def _renew(self) -> None:
        """Maps it anew."""
        mem, main = self.mem, self.mem.subject.main
        how = (mem.page_bytes, Prot.RW, Map.SHARED | Map.FIXED, mem.file, 0)
        maps = [batch.call("mmap", place, *how) for place in self.places]
        anew = Batch(main, [batch.call("munmap", *self._span), *maps])
        assert anew.start().result().value == len(anew)
        mem.uffd.register(*self._span)

    def written_again(self) -> list[int]:
        """Where it counts as written when that is done."""
        self._renew()
        room = Room(self.actor)
        word, _ = room.take(1)
        # not GiBs apart: such addresses push each other out of an emulator's TLB
        writes = [batch.store(place + n * PAGESIZE, 1) for n, place in enumerate(self.places)]
        waits = batch.call("read", self._done[0], word, 1)
        for answer in self.act(room, [*writes, waits, *writes]):
            assert not answer.error and not answer.signal, answer
        assert not self.error, procfs.errno_name(self.error)
        start, size = self._span
        written = Category.WRITTEN
        scan = pagemap.scan(
            self.mem.subject, start, start + size, required=written, returned=written
        )
        return [start for start, _, _ in scan.regions]


class Remapping(Midway):
    """MADV_COLLAPSE maps by a PMD the THP of a file that a private mapping has page by page, all
    but one: that is what the actor fills, with a page of the mapping's own.

    What wakes the actor while the kernel holds the page table's lock is heard when it lets go of
    it: so he mostly comes between two of its steps."""

    def __init__(self, mem: Region, rng: Random) -> None:
        """Raises Unproven, OSError."""
        super().__init__(mem, rng, mem.pmd)
        self.give(lambda _: [batch.call("madvise", *mem.span(mem.pmd), Advice.COLLAPSE)])
        for _ in range(_TRIALS):
            self._renew()
            self.learn(1)
            if not huge_bytes(mem):
                raise Unproven(f"the THP was not mapped: {procfs.errno_name(self.error)}")

    def _renew(self) -> None:
        """Has it mapped page by page, but for the tested one."""
        mem = self.mem
        mem.advise(Advice.DONTNEED, mem.pmd)
        mem.advise(Advice.NOHUGEPAGE, mem.pmd)
        mem.load_all(mem.pmd)
        mem.advise(Advice.DONTNEED)
        mem.advise(Advice.HUGEPAGE, mem.pmd)

    def fill(self, value: int) -> tuple[int, int]:
        """The errno of filling the page with a word, and the word that it holds in the end."""
        self._renew()
        mem, room = self.mem, Room(self.actor)
        source = room.put(value.to_bytes(_WORD, "little").ljust(mem.page_bytes, b"\0"))
        fields = {"dst": mem.address(), "src": source, "len": mem.page_bytes}
        uffd, request = mem.uffd.descriptor, Ioctl.UFFDIO_COPY
        (answer,) = self.act(room, [batch.ioctl(room, uffd, request, "uffdio_copy", **fields)])
        return answer.error, mem.load().value


class Retracting(Midway):
    """MADV_COLLAPSE makes a THP of a file's pages, and takes from all other mappings of the file,
    one after another, the page tables that they have for them.

    A kernel that preempts none of its calls (PREEMPT_NONE) lets no actor come then."""

    most, enough = 40, 12  # what is at stake is only the mapping whose turn it is

    def __init__(self, mem: Region, rng: Random) -> None:
        """Raises Unproven, OSError."""
        super().__init__(mem, rng, mem.pmd)
        self._start, self._bytes = mem.span(mem.pmd)
        self._others = self._map_others()
        self._look = self._looking()
        self._status = mem.subject.open("/proc/self/status", os.O_RDONLY)
        self.give(lambda _: [batch.call("madvise", self._start, self._bytes, Advice.COLLAPSE)])
        self._aim = 0.0
        self.renew()
        self.learn(1)
        self._learn_aim()

    def _map_others(self) -> Region:
        """Maps the same pages again and again, side by side."""
        mem, size = self.mem, _MAPPINGS * self._bytes
        start = mem.subject.place(size)
        flags, offset = Map.SHARED | Map.FIXED_NOREPLACE, self._start - mem.start
        maps = [
            batch.call("mmap", place, self._bytes, Prot.RW, flags, mem.file, offset)
            for place in range(start, start + size, self._bytes)
        ]
        assert Batch(self.actor, maps).start().result().value == _MAPPINGS
        return mem.view(start, _MAPPINGS * len(mem.pmd), name="others")

    def protects(self, meeting: Meeting) -> list[Operation]:
        """Registers and protects all the others."""
        others = self._others
        return [meeting.register(others), meeting.mark(True, others.pages, others)]

    @property
    def _firsts(self) -> range:
        """The first page of each of the others."""
        return self._others.pages[:: len(self.pages)]

    def renew(self) -> None:
        """Has one small page in the file, that all map, and none of the others registered."""
        mem = self.mem
        mem.uffd.unregister(self._others.start, self._others.size)
        mem.advise(Advice.REMOVE, mem.pmd)
        mem.populate(mem.pmd[:1])
        mem.subject.main.load(self._others.start, self._bytes, _MAPPINGS).result()
        self._before = mem.page_tables()

    def act(self, room: Room, requests: Sequence[Operation]) -> list[Answer]:
        """The same, after a look at how many page tables are left."""
        place, self._seen = room.take(_STATUS_BYTES)
        look = batch.call("pread64", self._status, place, _STATUS_BYTES, 0)
        return super().act(room, [look, *requests])[1:]

    def _late(self) -> int:
        return int(self._aim * self._rng.uniform(0.8, 1.2))

    def was_met(self, _: Meeting) -> bool:
        """Some page tables had been taken, and others not. Else it comes later the next time, or
        sooner than what the work has just taken."""
        left = procfs.status_bytes(bytes(self._seen).decode(), "VmPTE")
        taken = (self._before - left) // PAGESIZE
        if taken <= 0:
            self._aim *= 1.1
        elif taken >= _MAPPINGS:
            self._learn_aim()
        return 0 < taken < _MAPPINGS

    def _learn_aim(self) -> None:
        """Most of what the work takes is over before the first page table is."""
        self.note_time()
        self._aim = 0.8 * self._took[-1]

    def _looking(self) -> Batch:
        """Reads the pagemap words of the protected pages."""
        room = Room(looker := self.mem.subject.toucher(_LOOKER))
        place, self._words = room.take(_WORD * _MAPPINGS)
        places = range(place, place + _WORD * _MAPPINGS, _WORD)
        wheres = [self._others.address(page) // PAGESIZE * _WORD for page in self._firsts]
        return Batch(
            looker,
            [
                batch.call("pread64", self.mem.subject.pagemap, at, _WORD, where)
                for at, where in zip(places, wheres, strict=True)
            ],
        )

    def unprotected(self) -> set[int]:
        """Those of the protected pages that are no longer. (By pagemap: where there is no page
        table PAGEMAP_SCAN finds nothing that is written.)"""
        assert self._look.start().result().value == _MAPPINGS
        found = zip(self._firsts, self._words.cast("Q").tolist(), strict=True)
        return {page for page, word in found if not word & Page.WP.value}
