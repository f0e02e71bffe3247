# SPDX-License-Identifier: GPL-2.0-only
"""What consumers do with write protection, end to end, beside what they must come to see.

A live snapshot of memory that is being written to, as QEMU makes it; rounds in which a handler
notes what becomes dirty; and harvests by PAGEMAP_SCAN, as CRIU and Wine do. The programs are
random, what they must lead to is not: each scenario knows the exact outcome.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import islice
from random import Random

from helpers import batch, pagemap
from helpers.batch import Batch, Operation
from helpers.kernel_access import file_with
from helpers.region import Region
from helpers.subject import Pending
from helpers.uapi import Advice, Category, Event, ScanFlag
from helpers.uffd import Message

WRITTEN = 0xD00D  # what writers store
HARVEST = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
_SLICE = 8  # pages that a snapshot saves in the background after each message


def serve(mem: Region, running: Iterable[Pending], resolve: Callable[[Message], None]) -> None:
    """Resolves messages until all that is running has ended. Raises SubjectLost."""
    for pending in running:
        while pending.wait(mem.uffd.pollable) is None:
            if message := mem.uffd.read():
                resolve(message)


def page_of(mem: Region, address: int) -> int:
    """The page in which an address lies."""
    return (address - mem.start) // mem.page_bytes


class Act(Enum):
    """What a program does to a page."""

    LOAD = "load"
    STORE = "store"
    READ = "read(2)"  # into the page
    REMOVE = "MADV_DONTNEED"


WRITES = (Act.STORE, Act.READ)
Step = tuple[Act, int]  # and the page's number


class Programs:
    """Turns steps into operations on a region."""

    def __init__(self, mem: Region) -> None:
        self._mem = mem
        self._file = file_with(mem.subject, WRITTEN)

    def operations(self, steps: Iterable[Step]) -> list[Operation]:
        return [self._operation(act, self._mem.address(page)) for act, page in steps]

    def _operation(self, act: Act, address: int) -> Operation:
        if act is Act.LOAD:
            return batch.load(address)
        if act is Act.STORE:
            return batch.store(address, WRITTEN)
        if act is Act.READ:
            return batch.call("pread64", self._file, address, 8, 0)
        return batch.call("madvise", address, self._mem.page_bytes, Advice.DONTNEED)


def draw(rng: Random, acts: Sequence[Act], pages: range, count: int) -> list[Step]:
    """A random program."""
    return [(rng.choice(acts), rng.choice(pages)) for _ in range(count)]


# -- the live snapshot


@dataclass
class Snapshot:
    """A snapshot beside what the memory held when it was begun."""

    reference: dict[int, bytes]
    saved: dict[int, bytes] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    faulted: set[int] = field(default_factory=set)

    @property
    def wrong(self) -> set[int]:
        """The pages that were saved too late."""
        return {page for page, was in self.reference.items() if self.saved[page] != was}


class Held(Enum):
    """What a page holds before a snapshot."""

    DATA = "data"
    ZERO = "the zero page"
    NOTHING = "nothing"


def furnish(mem: Region, rng: Random) -> dict[int, Held]:
    """Fills a region that is none: half of it stays holes, the pages of the other half hold
    data, the zero page, or nothing. With THP that half is one, which has page 0's data already."""
    half = len(mem.pages) // 2
    held = {page: rng.choice(list(Held)) if page < half else Held.NOTHING for page in mem.pages}
    held[0] = Held.DATA
    operations = []
    for page, what in held.items():
        if what is Held.DATA:
            operations.append(batch.store(mem.address(page), mem.value(page)))
        elif what is Held.ZERO:
            operations.append(batch.load(mem.address(page)))
    Batch(mem.subject.toucher(), operations).start().result()
    return held


def snapshot(mem: Region, held: dict[int, Held], programs: Sequence[Sequence[Step]]) -> Snapshot:
    """Saves the region while each program runs in a thread of its own.

    A page is saved before its first write is let through, the rest in the background. Nothing
    looks at the pages before they are protected: the reference is what they were given.
    """
    data = [page for page, what in held.items() if what is Held.DATA]
    contents = {page: mem.value(page).to_bytes(mem.page_bytes, "little") for page in data}
    zeros = bytes(mem.page_bytes)
    made = Snapshot({page: contents.get(page, zeros) for page in mem.pages})
    background = iter(mem.pages)

    def save(pages: Iterable[int]) -> None:
        unsaved = [page for page in pages if page not in made.saved]
        raw = mem.peeks(map(mem.address, unsaved), mem.page_bytes)
        made.saved.update(zip(unsaved, raw, strict=True))

    def resolve(message: Message) -> None:
        made.messages.append(message)
        page = page_of(mem, message.address)
        made.faulted.add(page)
        save([page])
        mem.unprotect(page)
        save(islice(background, _SLICE))

    maker = Programs(mem)
    mem.protect(mem.pages)
    batches = [
        Batch(batch.anywhere(mem.subject.toucher(number)), maker.operations(steps))
        for number, steps in enumerate(programs)
    ]
    serve(mem, [running.start() for running in batches], resolve)
    save(mem.pages)
    return made


# -- dirty tracking by messages


@dataclass(frozen=True)
class Dirt:
    """What became dirty in a round, and of that what messages told."""

    dirty: frozenset[int]
    told: frozenset[int]


class Oracle:
    """What rounds of dirty tracking must see of a region whose pages are none at first.

    Removing a page of anonymous memory changes its contents and takes its protection along;
    only `events` tell of it. Elsewhere the contents and the protection stay.
    """

    def __init__(self, mem: Region, *, events: bool = False) -> None:
        self._drops = mem.kind.anonymous
        self._events = events
        self._holes_too = mem.setup.features.markers or not mem.kind.anonymous
        self._pages = mem.pages
        self._there: set[int] = set()

    def round(self, steps: Iterable[Step]) -> Dirt:
        """Protects all pages, follows the steps, and says what becomes dirty and what is told."""
        armed = set(self._pages) if self._holes_too else set(self._there)
        dirty, told = set(), set()
        for act, page in steps:
            if act is Act.REMOVE and self._drops:
                self._there.discard(page)
                armed.discard(page)
                dirty.add(page)
                told |= {page} if self._events else set()
            elif act is not Act.REMOVE:
                self._there.add(page)
            if act in WRITES:
                dirty.add(page)
                told |= armed & {page}
                armed.discard(page)
        return Dirt(frozenset(dirty), frozenset(told))


def track(mem: Region, programs: Iterable[Sequence[Step]]) -> list[frozenset[int]]:
    """Protects all pages before each program, and notes the pages that messages tell of."""
    rounds = []
    maker = Programs(mem)
    for steps in programs:
        told: set[int] = set()
        mem.protect(mem.pages)
        running = Batch(mem.subject.toucher(), maker.operations(steps)).start()
        serve(mem, [running], partial(_note, mem, told))
        rounds.append(frozenset(told))
    return rounds


def _note(mem: Region, told: set[int], message: Message) -> None:
    if message.event is Event.REMOVE:
        start, end = message.range
        told.update(range(page_of(mem, start), page_of(mem, end)))
    else:
        page = page_of(mem, message.address)
        told.add(page)
        mem.unprotect(page)


# -- dirty tracking by PAGEMAP_SCAN


def play(mem: Region, steps: Sequence[Step]) -> None:
    """Runs a program that raises no message."""
    Batch(mem.subject.toucher(), Programs(mem).operations(steps)).start().result()


@dataclass(frozen=True)
class Harvest:
    """How a harvest asks for the written pages."""

    name: str
    masks: dict[str, Category]
    vec_len: int = 4096

    def take(self, mem: Region, flags: ScanFlag = HARVEST) -> set[int]:
        """The pages written since the last harvest, which are protected again."""
        found: set[int] = set()
        start, end = mem.start, mem.start + mem.size
        while start < end:
            seen = pagemap.scan(
                mem.subject, start, end, flags=flags, vec_len=self.vec_len, **self.masks
            )
            found.update(page_of(mem, address) for address in seen.addresses())
            start = seen.walk_end
        return found


_ALL = Category.WRITTEN | Category.PRESENT | Category.SWAPPED | Category.PFNZERO | Category.HUGE
FAST = Harvest("fast", {"required": Category.WRITTEN, "returned": Category.WRITTEN})
GENERIC = Harvest("generic", {"anyof": Category.WRITTEN, "returned": _ALL})
RESUMED = Harvest("resumed", FAST.masks, vec_len=2)


@dataclass
class Copy:
    """Counters that were copied while a thread counted in them, and what they came to."""

    copied: dict[int, int]
    counters: dict[int, int]
    counted: set[int]  # what was added to each
    rounds: int  # in which the thread added one to each


def copy_counters(mem: Region, pages: range, rng: Random, scans: int) -> Copy:
    """Copies what a harvest reports, `scans` times while a thread adds one to the first word of
    each page, over and over, and once more when it has ended."""
    order = rng.sample(pages, len(pages))
    counting = Batch(
        batch.anywhere(mem.subject.toucher()), [batch.add(mem.address(page)) for page in order]
    )
    with open(f"/proc/{mem.subject.pid}/mem", "rb", buffering=0) as memory:

        def words(of: Iterable[int]) -> dict[int, int]:
            raw = {page: os.pread(memory.fileno(), 8, mem.address(page)) for page in of}
            return {page: int.from_bytes(word, "little") for page, word in raw.items()}

        before = copied = words(pages)
        FAST.take(mem)
        running = counting.start(forever=True)
        for _ in range(scans):
            copied = copied | words(FAST.take(mem))
        counting.stop()
        rounds = running.result().value // len(pages)
        copied = copied | words(FAST.take(mem))
        counters = words(pages)
    counted = {counters[page] - before[page] for page in pages}
    return Copy({page: copied[page] for page in pages}, counters, counted, rounds)
