# SPDX-License-Identifier: GPL-2.0-only
"""The contract as a state machine: what must hold for every program, not only for the cases.

A `State` is what a few pages of one or two mappings are: what each page's entry holds, whether it
is protected, what it contains. A page is of 4 KiB, and of 2 MiB in hugetlb memory. `step` gives,
for one operation, every outcome that the contract allows: the next state, what the operation
returns, and the messages that it raises. Most have one outcome; where the kernel is free (a THP may
not be had, reclaim may pass a page over) there are several, or what a page looks like is left open
(`Entry.EITHER`). `look` gives what pagemap and PAGEMAP_SCAN must show.

Each transition names its clause of SPEC.md. A handler unprotects the page of every message, as
helpers/native/serve.c does, so that a store always ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from errno import EACCES, EAGAIN, EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM
from functools import cache
from itertools import pairwise
from signal import SIGBUS, SIGSEGV
from typing import Any, NamedTuple

from helpers.pagemap import Page as Bits
from helpers.uapi import EHWPOISON, Category, Event, FaultFlag

PER_TABLE = 512  # pages that one page table, or one THP, maps


class Kind(Enum):
    """A kind of memory: its name, whether it maps a file (or a shared object), and how."""

    ANON = ("anon", False)
    SHMEM = ("shmem", True, True)
    PRIVATE_SHMEM = ("private shmem", True)
    HUGETLB = ("hugetlb", True, True, True)
    PRIVATE_HUGETLB = ("private hugetlb", True, False, True)

    def __init__(self, text: str, file: bool, shared: bool = False, hugetlb: bool = False) -> None:
        self.text, self.file, self.shared, self.hugetlb = text, file, shared, hugetlb
        self.private = file and not shared  # a write copies what the file has

    __hash__ = object.__hash__  # enum's own is slow


class Entry(Enum):
    """What stands in a page's entry."""

    NONE = "none"
    MARKER = "marker"
    ZERO = "zero page"
    PAGE = "a page of its own"  # of shared memory, its file's
    FILE = "its file's page"  # in a private mapping, which a write copies
    POISON = "poison"  # UFFDIO_POISON's
    GUARD = "a guard"
    EITHER = "a page, mapped or not"  # swapped or not; in the page cache, mapped or not

    __hash__ = object.__hash__


class Page(NamedTuple):
    """One page: its entry, whether that is write-protected, what a load gives, whether its VMA is
    registered, its kind of memory, whether its file has the page, and, under a private mapping,
    what the file has there."""

    entry: Entry = Entry.NONE
    wp: bool = False
    value: int = 0
    registered: bool = True
    kind: Kind = Kind.ANON
    cached: bool | None = False  # None: reclaim may have dropped it, since it held zeros only
    beneath: int = 0


class Table(Enum):
    """What stands in the PMD of 512 pages, where that matters (in a world with THP)."""

    NONE = "none"
    TABLE = "a page table"
    HUGE = "a huge page"

    __hash__ = object.__hash__


@dataclass(frozen=True)
class World:
    """What does not change during a program."""

    name: str
    kinds: tuple[Kind, ...]  # of each page; where it changes, another mapping begins
    markers: bool = False  # WP_UNPOPULATED
    asynchronous: bool = False
    fork_event: bool = False
    remap_event: bool = False
    thp: bool = False
    reclaims: bool = False  # programs may ask for PAGEOUT, and so not for FREE
    # By kernel:
    spans: bool = True  # UFFDIO_WRITEPROTECT takes more VMAs than one (WP-3, WP-5)
    scans: bool = True  # there is PAGEMAP_SCAN
    without: frozenset[str] = frozenset()  # operations that it lacks or is known to do wrong

    @property
    def pages(self) -> int:
        return len(self.kinds)

    @property
    def hugetlb(self) -> bool:
        """Whether pages are 2 MiB, all of them."""
        return self.kinds[0].hugetlb

    @property
    def one_mapping(self) -> bool:
        return len(set(self.kinds)) == 1


def beneath(kind: Kind, number: int) -> int:
    """What the file under a private mapping has at a page: every fourth is a hole."""
    return number + 1 if kind.private and number % 4 < 3 else 0


@cache
def _fresh(kinds: tuple[Kind, ...]) -> tuple[Page, ...]:
    values = [beneath(kind, number) for number, kind in enumerate(kinds)]
    return tuple(
        Page(kind=kind, value=value, cached=value > 0, beneath=value)
        for kind, value in zip(kinds, values, strict=True)
    )


class State(NamedTuple):
    """What the pages are."""

    pages: tuple[Page, ...]
    tables: tuple[Table, ...] = ()  # in a world with THP
    writable: bool = True
    forked: bool = False  # pages may be shared with what is left of a child

    @classmethod
    def fresh(cls, world: World) -> State:
        """Mapped, registered, never touched."""
        tables = (Table.NONE,) * (world.pages // PER_TABLE if world.thp else 0)
        return cls(_fresh(world.kinds), tables)


class Op(NamedTuple):
    """An operation on some pages, of which some need only the first; `value` is what it writes."""

    name: str
    first: int = 0
    length: int = 1
    value: int = 0

    @property
    def pages(self) -> range:
        return range(self.first, self.first + self.length)


class Told(NamedTuple):
    """A message: the event, its flags, the page, and how that looked before it was resolved."""

    event: Event
    flags: FaultFlag = FaultFlag(0)
    page: int = 0
    look: tuple[int, int] = (0, 0)  # bits and mask, as `look` gives them


class Reply(NamedTuple):
    """What an operation comes to."""

    value: int = 0
    error: int = 0
    signal: int = 0
    messages: tuple[Told, ...] = ()
    pages: frozenset[int] | None = None  # those that PAGEMAP_SCAN reports
    child: tuple[tuple[int, int], ...] = ()  # how a forked child's pages look


class Outcome(NamedTuple):
    """One way for an operation to go, and the clauses that say so."""

    state: State
    reply: Reply
    clauses: str


WP_WRITE = FaultFlag.WRITE | FaultFlag.WP
OK = Reply()


# -- looks

# plain ints: enum arithmetic is slow
FLAGS = int(Bits.PRESENT | Bits.SWAP | Bits.FILE | Bits.GUARD | Bits.WP)
_CATEGORIES = Category.PRESENT | Category.SWAPPED | Category.PFNZERO | Category.HUGE
CATEGORIES = int(_CATEGORIES | Category.WRITTEN | Category.WPALLOWED)
SHIFT = 8  # PAGEMAP_SCAN's categories go where pagemap has no flag


def look(page: Page, huge: bool, thp: bool, asynchronous: bool) -> tuple[int, int]:
    """The bits that a page shows, and the mask of those that are certain.

    MAP-1, MAP-2, NONE-2, SHM-1, SCAN-1, SCAN-3, SCAN-4, SCAN-8, SCAN-9, SCAN-12, SCAN-13. Kernels
    differ on WRITTEN of a page outside of a registration, and of a none pte where it is not async.
    """
    bits, seen, unsure = 0, Category(0), Category(0)
    mask = FLAGS
    match page.entry:
        case Entry.MARKER:
            bits, seen = 0 if page.kind.hugetlb else int(Bits.SWAP), Category.SWAPPED
        case Entry.POISON | Entry.GUARD:
            bits, seen = 0 if page.kind.hugetlb else int(Bits.SWAP), Category.SWAPPED
            if page.entry is Entry.GUARD:
                mask &= ~Bits.GUARD  # shown since 6.15
            if not page.registered:
                mask &= ~Bits.WP  # which WP_MATCHING may have set, and nothing takes away
                unsure |= Category.WRITTEN
        case Entry.ZERO:
            bits, seen = int(Bits.PRESENT), Category.PRESENT | Category.PFNZERO
            mask &= ~Bits.FILE  # of the huge zero page, pagemap says that it is a file's
        case Entry.PAGE:
            bits, seen = int(Bits.PRESENT), Category.PRESENT
            if page.kind.shared:
                bits |= Bits.FILE
            if thp and not huge and not page.value:  # THP-12: one that holds zeros may become it
                unsure |= Category.PFNZERO
        case Entry.FILE:
            bits, seen = int(Bits.PRESENT | Bits.FILE), Category.PRESENT
        case Entry.EITHER:
            unsure |= Category.PRESENT | Category.SWAPPED | Category.HUGE
            mask &= ~(Bits.PRESENT | Bits.SWAP | Bits.FILE)
            if not page.wp and page.kind.file:
                unsure |= Category.WRITTEN
    none = page.entry is Entry.NONE
    if page.wp:
        bits |= Bits.WP
    elif not page.registered:
        unsure |= Category.WRITTEN
    elif none and page.kind.hugetlb:
        pass
    elif asynchronous or not none:
        seen |= Category.WRITTEN
    else:
        unsure |= Category.WRITTEN
    if huge:
        seen |= Category.HUGE
    elif page.kind.hugetlb and none:  # which is HUGE where its page table is there
        unsure |= Category.HUGE
    elif page.kind.hugetlb:
        seen |= Category.HUGE
    if asynchronous and page.registered:
        seen |= Category.WPALLOWED
    return int(bits) | int(seen) << SHIFT, int(mask) | (CATEGORIES & ~int(unsure)) << SHIFT


class _Looks(dict[Page, tuple[int, int]]):
    """`look` of every page that there is in one kind of table: programs ask for it all the time."""

    def __init__(self, huge: bool, thp: bool, asynchronous: bool) -> None:
        super().__init__()
        self.of = (huge, thp, asynchronous)

    def __missing__(self, page: Page) -> tuple[int, int]:
        found = self[page] = look(page, *self.of)
        return found


_looks = cache(_Looks)


def looks(world: World, state: State) -> list[tuple[int, int]]:
    """`look` of every page; without PAGEMAP_SCAN, of pagemap alone."""
    shown: list[tuple[int, int]] = []
    for number, table in enumerate(state.tables or (None,)):
        known = _looks(table is Table.HUGE, bool(state.tables), world.asynchronous)
        first, count = number * PER_TABLE, PER_TABLE if state.tables else len(state.pages)
        shown += map(known.__getitem__, state.pages[first : first + count])
    return shown if world.scans else [(bits & FLAGS, mask & FLAGS) for bits, mask in shown]


# -- helpers of the transitions


class _Draft:
    """A state that is being changed."""

    def __init__(self, world: World, state: State) -> None:
        self.world = world
        self.before = state
        self.pages = list(state.pages)
        self.tables = list(state.tables)
        self.messages: list[Told] = []
        self.forked = state.forked

    def done(self, clauses: str, **reply: Any) -> Outcome:
        state = self.before._replace(
            pages=tuple(self.pages), tables=tuple(self.tables), forked=self.forked
        )
        return Outcome(state, Reply(messages=tuple(self.messages))._replace(**reply), clauses)

    def change(self, number: int, **fields: Any) -> None:
        self.pages[number] = self.pages[number]._replace(**fields)

    def change_all(self, pages: Sequence[int], change: Callable[[World, Page], Page]) -> None:
        """The same change for many pages, of which most are alike."""
        changed: dict[Page, Page] = {}
        for number in pages:
            page = self.pages[number]
            if page not in changed:
                changed[page] = change(self.world, page)
            self.pages[number] = changed[page]

    def huge(self, number: int) -> bool:
        return bool(self.tables) and self.tables[number // PER_TABLE] is Table.HUGE

    def look(self, number: int) -> tuple[int, int]:
        known = _looks(self.huge(number), bool(self.tables), self.world.asynchronous)
        bits, mask = known[self.pages[number]]
        return bits & FLAGS, mask & FLAGS

    def split(self, number: int) -> None:
        """A huge page becomes small ones, each as it was: ZERO-5, THP-2, THP-3."""
        if self.huge(number):
            self.tables[number // PER_TABLE] = Table.TABLE

    def split_partly(self, pages: range) -> None:
        """Splits the huge pages that a range only partly covers."""
        if self.tables and len(pages):
            for number in {pages.start, pages.stop - 1}:
                first = number // PER_TABLE * PER_TABLE
                if first < pages.start or first + PER_TABLE > pages.stop:
                    self.split(number)

    def split_at_edges(self) -> None:
        """Registered and not registered are two VMAs; a huge page that the edge cuts is split."""
        for number in range(len(self.tables)):
            first = number * PER_TABLE
            if len({page.registered for page in self.pages[first : first + PER_TABLE]}) > 1:
                self.split(first)

    def table(self, number: int) -> None:
        """There is a page table from now on."""
        if self.tables and self.tables[number // PER_TABLE] is Table.NONE:
            self.tables[number // PER_TABLE] = Table.TABLE

    def may_be_huge(self, number: int) -> bool:
        """Whether a fault here may map a huge page: THP-5, THP-6."""
        if not self.tables or self.tables[number // PER_TABLE] is not Table.NONE:
            return False
        first = number // PER_TABLE * PER_TABLE
        return len({page.registered for page in self.pages[first : first + PER_TABLE]}) == 1

    def fill_huge(self, number: int, entry: Entry) -> None:
        first = number // PER_TABLE * PER_TABLE
        self.tables[number // PER_TABLE] = Table.HUGE
        whole = range(first, first + PER_TABLE)
        self.change_all(whole, lambda _, page: page._replace(entry=entry, value=0))

    def moves_whole(self, source: range, target: range) -> bool:
        """Whether a huge page goes as a whole to where there is no page table."""
        if not self.tables or len(source) < PER_TABLE or source.start % PER_TABLE:
            return False
        old, new = source.start // PER_TABLE, target.start // PER_TABLE
        return self.tables[old] is Table.HUGE and self.tables[new] is Table.NONE

    def move_whole(self, source: range, target: range) -> None:
        for old, new in zip(source, target, strict=True):
            moved = self.pages[old]
            self.change(old, entry=Entry.NONE, wp=False, value=0)
            self.change(new, entry=moved.entry, value=moved.value)
        self.tables[source.start // PER_TABLE] = Table.NONE
        self.tables[target.start // PER_TABLE] = Table.HUGE

    def prepare_move(self, old: int, new: int, error: int) -> None:
        """What is left of a move that fails: a huge page is split before, if that isn't what fails,
        and a page table made."""
        if not self.tables or self.huge(new) or (self.huge(old) and error == EBUSY):
            return
        self.split(old)
        if self.tables[old // PER_TABLE] is not Table.NONE:
            self.table(new)

    def copy(self) -> _Draft:
        made = _Draft(self.world, self.before)
        made.pages, made.tables = list(self.pages), list(self.tables)
        made.messages, made.forked = list(self.messages), self.forked
        return made


Step = Callable[[World, State, Op], Iterator[Outcome]]
STEPS: dict[str, Step] = {}


def _step(function: Step) -> Step:
    STEPS[function.__name__.strip("_")] = function
    return function


def _refused(state: State, error: int, clauses: str) -> Outcome:
    return Outcome(state, Reply(-1, error), clauses)


# -- UFFDIO_WRITEPROTECT


def _vmas(state: State, pages: range) -> int:
    """How many VMAs a range lies in, at least."""
    kinds = [state.pages[n][3:5] for n in pages]
    return 1 + sum(a != b for a, b in pairwise(kinds))


def _writeprotect(
    world: World, state: State, op: Op, change: Callable[[_Draft, range], None]
) -> Outcome | _Draft:
    """WP-2, WP-3: up to the first page that is not registered. WP-10: and nothing beyond it."""
    registered = [state.pages[n].registered for n in op.pages]
    if not world.spans and (_vmas(state, op.pages) > 1 or not all(registered)):
        return _refused(state, ENOENT, "WP-2")
    draft = _Draft(world, state)
    count = registered.index(False) if False in registered else op.length
    pages = range(op.first, op.first + count)
    draft.split_partly(pages)
    change(draft, pages)
    if count < op.length:
        return draft.done("WP-2 WP-3", value=-1, error=ENOENT)
    return draft


@_step
def _protect(world: World, state: State, op: Op) -> Iterator[Outcome]:
    made = _writeprotect(world, state, op, _protect_pages)
    clauses = "WP-10 WP-11 NONE-1 NONE-2 SHM-1 FILL-11"
    yield made if isinstance(made, Outcome) else made.done(clauses)


def _protect_pages(draft: _Draft, pages: Sequence[int]) -> None:
    draft.change_all(pages, _protected)
    for number in pages if draft.tables else ():
        if draft.pages[number].entry is Entry.MARKER:
            draft.table(number)


def _protected(world: World, page: Page) -> Page:
    if page.entry in _DEADLY:  # FILL-11
        return page
    if page.entry is not Entry.NONE:
        return page._replace(wp=True)
    if page.kind.file or world.markers or world.asynchronous:  # API-7
        return page._replace(entry=Entry.MARKER, wp=True)
    return page


@_step
def _unprotect(world: World, state: State, op: Op) -> Iterator[Outcome]:
    made = _writeprotect(
        world, state, op, lambda draft, pages: draft.change_all(pages, _unprotected)
    )
    clauses = "WP-10 NONE-7 SHM-4 POP-2 ZERO-3 FILL-11"
    yield made if isinstance(made, Outcome) else made.done(clauses)


def _unprotected(_: World, page: Page) -> Page:
    if page.entry in _DEADLY:
        return page
    none = page.entry is Entry.MARKER
    return page._replace(wp=False, entry=Entry.NONE if none else page.entry)


# -- faults


class Death(NamedTuple):
    """What access to an entry comes to: a signal, or in madvise(2) an errno."""

    signal: int
    error: int
    clauses: str


_DEADLY = {
    Entry.POISON: Death(SIGBUS, EHWPOISON, "FILL-21"),
    Entry.GUARD: Death(SIGSEGV, EFAULT, "ADV-13"),
}


def _read(draft: _Draft, number: int) -> Iterator[_Draft]:
    """What a read leaves: FAULT-2, NONE-8, SHM-2, HTLB-1."""
    page = draft.pages[number]
    if page.entry in (Entry.ZERO, Entry.PAGE, Entry.FILE):
        yield draft
    elif page.kind.file:
        if not page.registered and not page.kind.hugetlb:  # what lies around may be mapped, too
            for near, other in enumerate(draft.pages):
                there = other.cached is not False
                if there and other.entry is Entry.NONE and not other.registered:
                    draft.change(near, entry=Entry.EITHER)
        draft.change(number, **_mapped(page))
        yield draft
    elif page.entry is Entry.EITHER:
        draft.change(number, entry=Entry.PAGE)
        yield draft
    else:
        if page.entry is Entry.NONE and draft.may_be_huge(number):
            huge = draft.copy()
            huge.fill_huge(number, Entry.ZERO)
            yield huge
        draft.table(number)
        draft.change(number, entry=Entry.ZERO)
        yield draft


def _mapped(page: Page) -> dict[str, Any]:
    """What a read has mapped of a page that was not."""
    cached = _cached(page)
    return {"entry": Entry.FILE if page.kind.private and cached else Entry.PAGE, "cached": cached}


def _cached(page: Page) -> bool | None:
    """Whether the page's file has it after a fault. Private hugetlb leaves a hole in its file."""
    if page.kind is Kind.PRIVATE_SHMEM and page.entry not in (Entry.PAGE, Entry.ZERO):
        return True
    return page.kind.shared or page.cached


def _write(draft: _Draft, number: int, value: int | None) -> Iterator[_Draft]:
    """What a write leaves; None writes nothing but faults as a write: FAULT-1, FAULT-3."""
    page = draft.pages[number]
    if page.wp and page.registered:
        if not draft.world.asynchronous:
            # NONE-9: the page of a marker is there, filled with zeros, before the message
            copied = page.kind is Kind.PRIVATE_SHMEM  # where the page is a copy already
            if page.entry is Entry.MARKER and copied:
                draft.change(number, entry=Entry.PAGE, cached=True)
            elif page.entry in (Entry.MARKER, Entry.EITHER) and not copied:
                draft.change(number, **_mapped(page))
            told = Told(Event.PAGEFAULT, WP_WRITE, number, draft.look(number))
            draft.messages.append(told)
        # resolved by the handler, or let through: FAULT-14, ZERO-7, ZERO-8, THP-7
        draft.split(number)
        draft.change(number, wp=False)
    yield from _write_unprotected(draft, number, value)


def _write_unprotected(draft: _Draft, number: int, value: int | None) -> Iterator[_Draft]:
    page = draft.pages[number]
    fresh = page.entry is Entry.NONE and draft.may_be_huge(number)
    if fresh or (draft.huge(number) and page.entry is Entry.ZERO):
        huge = draft.copy()
        huge.fill_huge(number, Entry.PAGE)
        huge.change(number, value=value or 0)
        yield huge
    if draft.huge(number) and page.entry is Entry.PAGE:
        whole = draft.copy()
        whole.change(number, value=page.value if value is None else value)
        yield whole
        if not draft.forked:
            return
    draft.split(number)
    draft.table(number)
    kept = page.value if value is None else value
    draft.change(number, entry=Entry.PAGE, value=kept, cached=_cached(page))
    yield draft


@_step
def _load(world: World, state: State, op: Op) -> Iterator[Outcome]:
    if death := _DEADLY.get(state.pages[op.first].entry):
        yield Outcome(state, Reply(signal=death.signal), death.clauses)
        return
    for draft in _read(_Draft(world, state), op.first):
        yield draft.done(
            "FAULT-2 NONE-8 SHM-2 HTLB-1 THP-5 THP-6", value=state.pages[op.first].value
        )


@_step
def _store(world: World, state: State, op: Op) -> Iterator[Outcome]:
    if not state.writable:
        yield Outcome(state, Reply(signal=SIGSEGV), "SPACE-1")
        return
    if death := _DEADLY.get(state.pages[op.first].entry):
        yield Outcome(state, Reply(signal=death.signal), death.clauses)
        return
    for draft in _write(_Draft(world, state), op.first, op.value):
        yield draft.done("FAULT-1 FAULT-3 FAULT-14 FAULT-16 NONE-9 ZERO-8 THP-7")


@_step
def _kernel_write(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """read(2) of a word into a page."""
    if not state.writable:
        yield _refused(state, EFAULT, "SPACE-1")
        return
    if death := _DEADLY.get(state.pages[op.first].entry):
        yield _refused(state, EFAULT, death.clauses)
        return
    for draft in _write(_Draft(world, state), op.first, op.value):
        yield draft.done("FAULT-13", value=8)


@_step
def _kernel_read(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """write(2) of a word from a page."""
    if death := _DEADLY.get(state.pages[op.first].entry):
        yield _refused(state, EFAULT, death.clauses)
        return
    for draft in _read(_Draft(world, state), op.first):
        yield draft.done("FAULT-13", value=8)


def _populated(
    world: World,
    state: State,
    op: Op,
    act: Callable[[_Draft, int], Iterator[_Draft]],
    clauses: str,
) -> Iterator[Outcome]:
    """A fault in page after page, up to a deadly one."""
    drafts = [_Draft(world, state)]
    for number in op.pages:
        if death := _DEADLY.get(state.pages[number].entry):
            for draft in drafts:
                yield draft.done(death.clauses, value=-1, error=death.error)
            return
        drafts = [after for draft in drafts for after in act(draft, number)]
    for draft in drafts:
        yield draft.done(clauses)


@_step
def _populate_read(world: World, state: State, op: Op) -> Iterator[Outcome]:
    yield from _populated(world, state, op, _read, "ADV-7")


@_step
def _populate_write(world: World, state: State, op: Op) -> Iterator[Outcome]:
    if not state.writable:
        yield _refused(state, EINVAL, "SPACE-1")
        return
    yield from _populated(world, state, op, lambda d, n: _write(d, n, None), "ADV-8 ADV-9")


# -- filling


_REPLACED = (Entry.NONE, Entry.MARKER, Entry.POISON)


def _there(page: Page, replaced: Sequence[Entry] = _REPLACED) -> bool | None:
    """Whether a page's entry has what a filling does not replace; None: it may."""
    if page.entry is Entry.EITHER and page.kind.file:
        mapped_or_marker = page.wp and Entry.MARKER not in replaced
        return mapped_or_marker or None
    return page.entry not in replaced


def _fill(
    world: World, state: State, op: Op, clauses: str, taken: bool | None, **fields: Any
) -> Iterator[Outcome]:
    """A page is filled unless it is there already; None: it may be."""
    if taken is not False:
        yield _refused(state, EEXIST, "FILL-3 FILL-12 FILL-13")
    if not taken:
        draft = _Draft(world, state)
        draft.table(op.first)
        draft.change(op.first, **fields)
        yield draft.done(clauses)


def _copied(world: World, state: State, op: Op, wp: bool) -> Iterator[Outcome]:
    page = state.pages[op.first]
    if not page.registered:
        yield _refused(state, ENOENT, "REG-12")
        return
    taken, cached = (page.cached, True) if page.kind.shared else (_there(page), page.cached)
    if page.entry is Entry.GUARD:  # up to 6.18 COPY takes it for a marker, and replaces it
        taken = None
    filled = {"entry": Entry.PAGE, "wp": wp, "value": op.value, "cached": cached}
    yield from _fill(world, state, op, "FILL-1 FILL-2 FILL-21", taken, **filled)


@_step
def _copy(world: World, state: State, op: Op) -> Iterator[Outcome]:
    yield from _copied(world, state, op, wp=False)


@_step
def _copy_protected(world: World, state: State, op: Op) -> Iterator[Outcome]:
    yield from _copied(world, state, op, wp=True)


@_step
def _zeropage(world: World, state: State, op: Op) -> Iterator[Outcome]:
    page = state.pages[op.first]
    if not page.registered:
        yield _refused(state, ENOENT, "REG-12")
    elif page.kind.hugetlb:
        yield _refused(state, EINVAL, "REG-1")
    elif page.kind.shared:
        filled = {"entry": Entry.PAGE, "wp": False, "value": 0, "cached": True}
        yield from _fill(world, state, op, "FILL-4 FILL-21", page.cached, **filled)
    else:
        filled = {"entry": Entry.ZERO, "wp": False, "value": 0}
        yield from _fill(world, state, op, "FILL-3", _there(page, (Entry.NONE,)), **filled)


def _continued(world: World, state: State, op: Op, wp: bool) -> Iterator[Outcome]:
    """FILL-10, FILL-22: what the file has is mapped."""
    page = state.pages[op.first]
    if not page.registered:
        yield _refused(state, ENOENT, "REG-12")
        return
    if not page.kind.file:
        yield _refused(state, EINVAL, "FILL-22")
        return
    if not page.cached:
        yield _refused(state, EFAULT, "FILL-22")
    if page.cached is not False:
        value = page.value if page.kind.shared else page.beneath
        entry = Entry.PAGE if page.kind.shared else Entry.FILE
        filled = {"entry": entry, "wp": wp, "value": value, "cached": True}
        yield from _fill(world, state, op, "FILL-10 FILL-21", _there(page), **filled)


@_step
def _continue(world: World, state: State, op: Op) -> Iterator[Outcome]:
    yield from _continued(world, state, op, wp=False)


@_step
def _continue_protected(world: World, state: State, op: Op) -> Iterator[Outcome]:
    yield from _continued(world, state, op, wp=True)


@_step
def _poison(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """FILL-3, FILL-13: it replaces none ptes alone, whatever their file has."""
    page = state.pages[op.first]
    if not page.registered:
        yield _refused(state, ENOENT, "REG-12")
        return
    taken = _there(page, (Entry.NONE,))
    yield from _fill(world, state, op, "FILL-21", taken, entry=Entry.POISON)


@_step
def _move(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """UFFDIO_MOVE of pages to those that follow them."""
    source, target = op.pages, range(op.first + op.length, op.first + 2 * op.length)
    pages = [state.pages[n] for n in (*source, *target)]
    if (
        not state.writable
        or any(page.kind is not Kind.ANON for page in pages)
        or len({page.registered for page in pages[: op.length]}) > 1
        or not all(page.registered for page in pages[op.length :])
    ):
        yield _refused(state, EINVAL, "FILL-23")
        return
    draft = _Draft(world, state)
    if draft.moves_whole(source, target):
        draft.move_whole(source, target)
        yield draft.done("FILL-6")
        if state.forked:
            yield _refused(state, EBUSY, "FILL-24")
        return
    for done, (old, new) in enumerate(zip(source, target, strict=True)):
        for error in _not_moved(draft, old, new):
            refused = draft.copy()
            refused.prepare_move(old, new, error)
            clauses = "FILL-5 FILL-13 FILL-16 FILL-24"
            yield refused.done(clauses, value=-1, error=EAGAIN if done else error)
        if draft.pages[new].entry is not Entry.NONE or draft.pages[old].entry not in _MOVABLE:
            return
        draft.split(old)
        draft.table(new)
        moved = draft.pages[old]
        draft.change(old, entry=Entry.NONE, wp=False, value=0)
        draft.change(new, entry=moved.entry, value=moved.value)
    yield draft.done("FILL-6")


_MOVABLE = (Entry.ZERO, Entry.PAGE)


def _not_moved(draft: _Draft, old: int, new: int) -> Iterator[int]:
    """The errors with which a page may stay. Which of two reasons is met with first is open. Pages
    may be shared still with what was a child."""
    if draft.pages[new].entry is not Entry.NONE:
        yield EEXIST
    match draft.pages[old].entry:
        case Entry.NONE:
            yield ENOENT
        case Entry.MARKER | Entry.POISON | Entry.GUARD:
            yield EFAULT
        case Entry.PAGE if draft.forked:
            yield EBUSY


# -- madvise(2)


@_step
def _dontneed(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """ADV-2, ADV-3, FILL-20. An emptied page table may go, or stay and keep THPs away."""
    draft = _Draft(world, state)
    draft.split_partly(op.pages)
    draft.change_all(op.pages, _zapped)
    emptied = []
    for number, table in enumerate(draft.tables):
        first = number * PER_TABLE
        if op.first <= first and first + PER_TABLE <= op.first + op.length:
            if any(page.entry is Entry.GUARD for page in draft.pages[first : first + PER_TABLE]):
                continue
            if table is Table.TABLE:
                emptied.append(number)
            draft.tables[number] = Table.NONE
    clauses = "ADV-2 ADV-3 FILL-20"
    yield draft.done(clauses)
    for number in emptied:
        draft.tables[number] = Table.TABLE
    if emptied:
        yield draft.done(clauses)


def _zapped(_: World, page: Page) -> Page:
    if page.entry is Entry.GUARD:
        return page
    value = page.value if page.kind.shared else page.beneath
    if page.kind.file and page.wp and page.registered:
        return page._replace(entry=Entry.MARKER, value=value)
    return page._replace(entry=Entry.NONE, wp=False, value=value)


@_step
def _pageout(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """ADV-1: it may take pages away, and never a protection. Hugetlb refuses: ADV-12."""
    if world.hugetlb:
        yield _refused(state, EINVAL, "ADV-12")
        return
    draft = _Draft(world, state)
    for number in op.pages:
        page = draft.pages[number]
        if page.entry in (Entry.PAGE, Entry.EITHER):
            dropped = page.kind.shared and not page.value
            draft.change(number, entry=Entry.EITHER, cached=None if dropped else page.cached)
    yield draft.done("ADV-1")


@_step
def _cold(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """ADV-1, THP-12: it may split a huge page that it covers in part. Hugetlb refuses: ADV-12."""
    if world.hugetlb:
        yield _refused(state, EINVAL, "ADV-12")
        return
    found = {state.tables}
    for number in (op.first, op.pages.stop - 1) if state.tables else ():
        first = number // PER_TABLE * PER_TABLE
        if first < op.first or first + PER_TABLE > op.pages.stop:
            for tables in list(found):
                draft = _Draft(world, state._replace(tables=tables))
                draft.split(number)
                found.add(tuple(draft.tables))
    for tables in found:
        yield Outcome(state._replace(tables=tables), OK, "ADV-1 THP-12" if tables else "ADV-1")


@_step
def _free(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """ADV-1, ADV-12. It is refused where a file begins. The contents stay until reclaim, but poison
    goes: FILL-20."""
    draft = _Draft(world, state)
    for number in op.pages:
        page = draft.pages[number]
        if page.kind.file:
            yield draft.done("ADV-12", value=-1, error=EINVAL)
            return
        if page.entry is Entry.POISON:
            draft.change(number, entry=Entry.NONE, wp=False)
    yield draft.done("ADV-1 FILL-20")


@_step
def _remove(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """ADV-4: the contents go, markers stay. ADV-12: private memory refuses, where it begins."""
    draft = _Draft(world, state)
    for number in op.pages:
        page = draft.pages[number]
        if not page.kind.shared:
            error = EACCES if page.kind.file else EINVAL
            yield draft.done("ADV-12", value=-1, error=error)
            return
        entry = Entry.MARKER if page.wp else Entry.NONE
        if page.entry is Entry.POISON and not page.kind.hugetlb:
            entry = Entry.POISON  # it is no page of the file's that goes
        draft.change(number, entry=entry, value=0, cached=False)
    yield draft.done("ADV-4")


@_step
def _guard(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """MADV_GUARD_INSTALL: ADV-13. Hugetlb refuses: ADV-12."""
    if world.hugetlb:
        yield _refused(state, EINVAL, "ADV-12")
        return
    draft = _Draft(world, state)
    draft.split_partly(op.pages)
    for number in op.pages:
        draft.split(number)
        draft.table(number)
        if draft.pages[number].entry is not Entry.GUARD:
            draft.change(number, entry=Entry.GUARD, wp=False, value=0)
    yield draft.done("ADV-13")


@_step
def _unguard(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """MADV_GUARD_REMOVE: ADV-13, and of anything else ADV-1. Hugetlb refuses: ADV-12."""
    if world.hugetlb:
        yield _refused(state, EINVAL, "ADV-12")
        return
    draft = _Draft(world, state)
    draft.change_all(op.pages, _unguarded)
    yield draft.done("ADV-1 ADV-13")


def _unguarded(_: World, page: Page) -> Page:
    return page._replace(entry=Entry.NONE, wp=False) if page.entry is Entry.GUARD else page


@_step
def _collapse(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """MADV_COLLAPSE of a PMD: THP-8, THP-9, THP-11, THP-13."""
    table, first = state.tables[op.first // PER_TABLE], op.first // PER_TABLE * PER_TABLE
    pages = state.pages[first : first + PER_TABLE]
    if table is Table.HUGE:
        yield Outcome(state, OK, "THP-13")
        return
    protected = any(page.wp for page in pages)
    hole = any(page.registered and page.entry is Entry.NONE for page in pages)
    hole = hole or any(page.entry in _DEADLY for page in pages)
    one_vma = len({page.registered for page in pages}) == 1
    if one_vma and not protected and not hole and table is Table.TABLE:
        draft = _Draft(world, state)
        draft.tables[op.first // PER_TABLE] = Table.HUGE
        whole = range(first, first + PER_TABLE)
        draft.change_all(whole, lambda _, page: page._replace(entry=Entry.PAGE))
        yield draft.done("THP-9")
    # which of the reasons to refuse is met with first, the pages' order and their folios decide
    for error in (EINVAL, EBUSY, EAGAIN, ENOMEM):
        yield _refused(state, error, "THP-8 THP-11")


# -- the mapping as a whole


@_step
def _read_only(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """mprotect(2) to PROT_READ: SPACE-1."""
    yield Outcome(state._replace(writable=False), OK, "SPACE-1")


@_step
def _read_write(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """mprotect(2) to PROT_READ and PROT_WRITE."""
    yield Outcome(state._replace(writable=True), OK, "SPACE-1")


def _forget(draft: _Draft, pages: range) -> None:
    draft.change_all(pages, _forgotten)


def _forgotten(world: World, page: Page) -> Page:
    return _unprotected(world, page)._replace(registered=False) if page.registered else page


def _registered(_: World, page: Page) -> Page:
    return page._replace(registered=True)


@_step
def _unregister(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """REG-13: of the whole range or of a part, and exactly there."""
    draft = _Draft(world, state)
    _forget(draft, op.pages)
    draft.split_at_edges()
    yield draft.done("REG-13")


@_step
def _register(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """REG-10, REG-12: the same mode once more changes nothing."""
    draft = _Draft(world, state)
    draft.change_all(op.pages, _registered)
    draft.split_at_edges()
    yield draft.done("REG-10 REG-12")


@_step
def _reopen(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """Closing the userfaultfd and registering all with another: REG-14."""
    draft = _Draft(world, state)
    everything = range(len(draft.pages))
    _forget(draft, everything)
    draft.change_all(everything, _registered)
    yield draft.done("REG-14")


@_step
def _mremap(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """mremap(2) to another place: SPACE-4, SPACE-5."""
    draft = _Draft(world, state)
    if world.remap_event and state.pages[0].registered:
        draft.messages.append(Told(Event.REMAP))
        yield draft.done("SPACE-5")
        return
    everything = range(len(draft.pages))
    _forget(draft, everything)
    draft.change_all(everything, lambda _, page: page._replace(wp=False))  # of poison, too
    yield draft.done("SPACE-4")


@_step
def _fork(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """A child that looks at all pages and stores to one: FORK-1, FORK-2, FORK-12."""
    draft = _Draft(world, state)
    draft.forked = True
    child = _Draft(world, state)
    child.forked = True
    if world.fork_event and any(page.registered for page in state.pages):
        draft.messages.append(Told(Event.FORK))
    child.change_all(range(len(child.pages)), _inherited)
    after = child.done("").state
    seen = tuple(map(_in_child, after.pages, looks(world, after)))
    written = child.pages[op.first]
    store = OK
    if not state.writable:
        store = Reply(signal=SIGSEGV)
    elif death := _DEADLY.get(written.entry):
        store = Reply(signal=death.signal)
    else:
        told = next(_write(child, op.first, op.value)).messages
        draft.messages += [message._replace(look=(0, 0)) for message in told]
        draft.change(op.first, cached=_cached(written))
        if written.kind.shared:
            draft.change(op.first, value=op.value)
    yield draft.done("FORK-1 FORK-2 FORK-12", child=seen, signal=store.signal)


def _inherited(world: World, page: Page) -> Page:
    if page.entry in _DEADLY:
        page = page._replace(wp=False)
    if world.fork_event and page.registered:
        return page
    if page.kind.shared:
        return page._replace(entry=Entry.NONE, wp=False, registered=False)
    return _unprotected(world, page)._replace(registered=False)


def _in_child(page: Page, shown: tuple[int, int]) -> tuple[int, int]:
    """A child is looked at through pagemap alone. Without the event, the page tables of a VMA that
    has no page of its own, and never had one filled, are not copied: zero pages that were read, and
    a file's, are none in the child."""
    bits, mask = shown
    if page.entry in (Entry.ZERO, Entry.FILE) and not page.registered:
        mask &= ~int(Bits.PRESENT | Bits.FILE)
    return bits & FLAGS, mask & FLAGS


# -- PAGEMAP_SCAN


@_step
def _scan(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """PAGEMAP_SCAN with WP_MATCHING of what is WRITTEN: SCAN-5, SCAN-10, SCAN-12, SCAN-14.

    It passes over what is not registered with async. Poison and guards stay, SCAN-24, but those of
    small pages have the bit then, and are reported no more.
    """
    draft = _Draft(world, state)
    found = [n for n in op.pages if world.asynchronous and _is_written(draft.pages[n])]
    for number in found:
        first = number // PER_TABLE * PER_TABLE
        if first < op.pages.start or first + PER_TABLE > op.pages.stop:
            draft.split(number)
    _protect_pages(draft, found)
    for number in found:
        if draft.pages[number].entry in _DEADLY and not world.hugetlb:
            draft.change(number, wp=True)
    yield draft.done("SCAN-5 SCAN-10 SCAN-12 SCAN-14 SCAN-24", pages=frozenset(found))


def _is_written(page: Page) -> bool:
    hole = page.kind.hugetlb and page.entry is Entry.NONE
    return page.registered and not page.wp and not hole


def step(world: World, state: State, op: Op) -> list[Outcome]:
    """Every outcome that the contract allows."""
    return list(STEPS[op.name](world, state, op))


_ON_ONE = (
    "load", "store", "kernel_write", "kernel_read", "copy", "copy_protected", "zeropage",
    "continue", "continue_protected", "poison",
)  # fmt: skip
_ON_ALL = ("read_only", "read_write", "reopen", "mremap", "fork")


def transitions(state: State, op: Op) -> set[tuple[str, Entry, bool]]:
    """What an operation tries: itself, on each kind of page that it meets, protected or not."""
    chosen = state.pages[op.first : op.first + op.length]
    if op.name in _ON_ONE:
        chosen = chosen[:1]
    elif op.name in _ON_ALL:
        chosen = state.pages
    elif op.name == "collapse":
        chosen = state.pages[op.first // PER_TABLE * PER_TABLE :][:PER_TABLE]
    return {
        (op.name, Entry.PAGE if page.entry is Entry.EITHER else page.entry, _tells(page))
        for page in set(chosen)
    }


def _tells(page: Page) -> bool:
    return page.wp and page.entry not in _DEADLY


TRANSITIONS = {
    (name, entry, wp)
    for name in STEPS
    for entry, wp in (
        (Entry.NONE, False), (Entry.MARKER, True),
        (Entry.ZERO, False), (Entry.ZERO, True), (Entry.PAGE, False), (Entry.PAGE, True),
        (Entry.FILE, False), (Entry.FILE, True), (Entry.POISON, False), (Entry.GUARD, False),
    )
}  # fmt: skip

RARELY = {  # transitions that few programs may not take, and why that does no harm
    ("remove", Entry.ZERO, True): "anonymous memory refuses MADV_REMOVE, whatever its pages are",
    ("collapse", Entry.FILE, False): "no world has THPs in a private mapping of a file",
    ("collapse", Entry.FILE, True): "no world has THPs in a private mapping of a file",
}


def sensible(world: World, program: Iterable[Op]) -> list[Op]:
    """A program without the operations that the model has no word on.

    It moves a single VMA only, or what lies in one, and a mapping that was registered in part need
    not be one again; there is one userfaultfd to open in the place of the first; MADV_FREE and
    reclaim together may lose contents, and reclaim may split a THP; what UFFDIO_MOVE does to a swap
    entry is a known issue (SWAP-13).
    """
    kept, writable, whole, first = [], True, True, True
    one_mapping, file = world.one_mapping, any(kind.file for kind in set(world.kinds))
    for op in program:
        if op.name in world.without:
            continue
        match op.name:
            case "read_only" | "read_write":
                writable = op.name == "read_write"
            case "register" | "unregister":
                if op.length < world.pages and not world.spans:
                    continue  # a range may then lie in more VMAs than one for good
                whole = whole and op.length == world.pages
            case "reopen":
                if not first:
                    continue
                first = False
        possible = {
            "free": not world.reclaims and not world.thp,
            "pageout": world.reclaims or world.hugetlb,
            "collapse": world.thp,
            "remove": file and writable,
            "move": op.first + 2 * op.length <= world.pages
            and (whole or op.length == 1)
            and not world.reclaims,
            "mremap": one_mapping and whole,
            "scan": world.asynchronous,
            # on protected pages of shmem it is known never to end: HIST-1
            "guard": world.hugetlb or not (file and any(world.kinds[n].file for n in op.pages)),
        }
        if possible.get(op.name, True):
            kept.append(op)
    return kept
