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
from signal import SIGSEGV
from typing import Any, NamedTuple

from helpers.pagemap import Page as Bits
from helpers.uapi import Category, Event, FaultFlag

PER_TABLE = 512  # pages that one page table, or one THP, maps


class Kind(Enum):
    """A kind of memory: its name, whether it maps a file (or a shared object), and how."""

    ANON = ("anon", False)
    SHMEM = ("shmem", True, True)
    HUGETLB = ("hugetlb", True, True, True)
    PRIVATE_HUGETLB = ("private hugetlb", True, False, True)

    def __init__(self, text: str, file: bool, shared: bool = False, hugetlb: bool = False) -> None:
        self.text, self.file, self.shared, self.hugetlb = text, file, shared, hugetlb

    __hash__ = object.__hash__  # enum's own is slow


class Entry(Enum):
    """What stands in a page's entry."""

    NONE = "none"
    MARKER = "marker"
    ZERO = "zero page"
    PAGE = "a page of its own"  # of shared memory, its file's
    FILE = "its file's page"  # in a private mapping, which a write copies
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
    without: frozenset[str] = frozenset()  # operations that the kernel is known to do wrong

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
    private = kind.file and not kind.shared
    return number + 1 if private and number % 4 < 3 else 0


def _fresh(kind: Kind, number: int) -> Page:
    value = beneath(kind, number)
    return Page(kind=kind, value=value, cached=value > 0, beneath=value)


class State(NamedTuple):
    """What the pages are."""

    pages: tuple[Page, ...]
    tables: tuple[Table, ...] = ()  # in a world with THP
    writable: bool = True
    forked: bool = False  # pages may be shared with what is left of a child

    @classmethod
    def fresh(cls, world: World) -> State:
        """Mapped, registered, never touched."""
        pages = tuple(_fresh(kind, number) for number, kind in enumerate(world.kinds))
        return cls(pages, (Table.NONE,) * (world.pages // PER_TABLE if world.thp else 0))


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
            if not page.wp and page.kind.shared:
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
    yield made if isinstance(made, Outcome) else made.done("WP-10 WP-11 NONE-1 NONE-2 SHM-1")


def _protect_pages(draft: _Draft, pages: Sequence[int]) -> None:
    draft.change_all(pages, _protected)
    for number in pages if draft.tables else ():
        if draft.pages[number].entry is Entry.MARKER:
            draft.table(number)


def _protected(world: World, page: Page) -> Page:
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
    yield made if isinstance(made, Outcome) else made.done("WP-10 NONE-7 SHM-4 POP-2 ZERO-3")


def _unprotected(_: World, page: Page) -> Page:
    none = page.entry is Entry.MARKER
    return page._replace(wp=False, entry=Entry.NONE if none else page.entry)


# -- faults


def _read(draft: _Draft, number: int) -> Iterator[_Draft]:
    """What a read leaves: FAULT-2, NONE-8, SHM-2, HTLB-1."""
    page = draft.pages[number]
    if page.entry in (Entry.ZERO, Entry.PAGE, Entry.FILE):
        yield draft
    elif page.kind.hugetlb:
        draft.change(number, **_mapped(page))
        yield draft
    elif page.kind.shared:
        if not page.registered:  # the kernel may map what lies around, too
            for near, other in enumerate(draft.pages):
                there = other.cached is not False
                if there and other.entry is Entry.NONE and not other.registered:
                    draft.change(near, entry=Entry.EITHER)
        draft.change(number, entry=Entry.PAGE, cached=True)
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
    """What a fault has mapped of a page that was not, before a private page is copied."""
    if page.kind.shared:
        return {"entry": Entry.PAGE, "cached": True}
    return {"entry": Entry.FILE if page.cached else Entry.PAGE}


def _write(draft: _Draft, number: int, value: int | None) -> Iterator[_Draft]:
    """What a write leaves; None writes nothing but faults as a write: FAULT-1, FAULT-3."""
    page = draft.pages[number]
    if page.wp and page.registered:
        if not draft.world.asynchronous:
            # NONE-9: the page of a marker is there, filled with zeros, before the message
            if page.entry in (Entry.MARKER, Entry.EITHER):
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
    draft.change(number, entry=Entry.PAGE, value=kept, cached=page.kind.shared or page.cached)
    yield draft


@_step
def _load(world: World, state: State, op: Op) -> Iterator[Outcome]:
    for draft in _read(_Draft(world, state), op.first):
        yield draft.done(
            "FAULT-2 NONE-8 SHM-2 HTLB-1 THP-5 THP-6", value=state.pages[op.first].value
        )


@_step
def _store(world: World, state: State, op: Op) -> Iterator[Outcome]:
    if not state.writable:
        yield Outcome(state, Reply(signal=SIGSEGV), "SPACE-1")
        return
    for draft in _write(_Draft(world, state), op.first, op.value):
        yield draft.done("FAULT-1 FAULT-3 FAULT-14 FAULT-16 NONE-9 ZERO-8 THP-7")


@_step
def _kernel_write(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """read(2) of a word into a page."""
    if not state.writable:
        yield _refused(state, EFAULT, "SPACE-1")
        return
    for draft in _write(_Draft(world, state), op.first, op.value):
        yield draft.done("FAULT-13", value=8)


@_step
def _kernel_read(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """write(2) of a word from a page."""
    for draft in _read(_Draft(world, state), op.first):
        yield draft.done("FAULT-13", value=8)


def _each(
    drafts: list[_Draft], pages: range, act: Callable[[_Draft, int], Iterator[_Draft]]
) -> list[_Draft]:
    for number in pages:
        drafts = [after for draft in drafts for after in act(draft, number)]
    return drafts


@_step
def _populate_read(world: World, state: State, op: Op) -> Iterator[Outcome]:
    for draft in _each([_Draft(world, state)], op.pages, _read):
        yield draft.done("ADV-7")


@_step
def _populate_write(world: World, state: State, op: Op) -> Iterator[Outcome]:
    if not state.writable:
        yield _refused(state, EINVAL, "SPACE-1")
        return
    for draft in _each([_Draft(world, state)], op.pages, lambda d, n: _write(d, n, None)):
        yield draft.done("ADV-8 ADV-9")


# -- filling


def _fill(world: World, state: State, op: Op, clauses: str, **fields: Any) -> Iterator[Outcome]:
    page = state.pages[op.first]
    if not page.registered:
        yield _refused(state, ENOENT, "REG-12")
        return
    taken = page.cached if page.kind.shared else page.entry not in (Entry.NONE, Entry.MARKER)
    if taken is not False:
        yield _refused(state, EEXIST, "FILL-1 FILL-3")
    if not taken:
        draft = _Draft(world, state)
        draft.table(op.first)
        draft.change(op.first, cached=page.kind.shared or page.cached, **fields)
        yield draft.done(clauses)


@_step
def _copy(world: World, state: State, op: Op) -> Iterator[Outcome]:
    filled = {"entry": Entry.PAGE, "wp": False, "value": op.value}
    yield from _fill(world, state, op, "FILL-1 FILL-2", **filled)


@_step
def _copy_protected(world: World, state: State, op: Op) -> Iterator[Outcome]:
    filled = {"entry": Entry.PAGE, "wp": True, "value": op.value}
    yield from _fill(world, state, op, "FILL-1 FILL-2", **filled)


@_step
def _zeropage(world: World, state: State, op: Op) -> Iterator[Outcome]:
    page = state.pages[op.first]
    if page.registered and page.kind.hugetlb:
        yield _refused(state, EINVAL, "REG-1")
        return
    if page.registered and not page.kind.file and page.entry is Entry.MARKER:
        yield _refused(state, EEXIST, "FILL-3")
        return
    filled = {"entry": Entry.PAGE if page.kind.shared else Entry.ZERO, "wp": False, "value": 0}
    yield from _fill(world, state, op, "FILL-3 FILL-4", **filled)


# -- madvise(2)


@_step
def _dontneed(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """ADV-2, ADV-3. An emptied page table may go, or stay and keep THPs away."""
    draft = _Draft(world, state)
    draft.split_partly(op.pages)
    draft.change_all(op.pages, _zapped)
    emptied = []
    for number, table in enumerate(draft.tables):
        first = number * PER_TABLE
        if op.first <= first and first + PER_TABLE <= op.first + op.length:
            if table is Table.TABLE:
                emptied.append(number)
            draft.tables[number] = Table.NONE
    clauses = "ADV-2 ADV-3"
    yield draft.done(clauses)
    for number in emptied:
        draft.tables[number] = Table.TABLE
    if emptied:
        yield draft.done(clauses)


def _zapped(_: World, page: Page) -> Page:
    value = page.value if page.kind.shared else page.beneath
    if page.kind.file and page.wp:
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
    """ADV-1, ADV-12. It is refused where a file begins. The contents stay until reclaim."""
    file = any(state.pages[n].kind.file for n in op.pages)
    yield _refused(state, EINVAL, "ADV-12") if file else Outcome(state, OK, "ADV-1")


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
        draft.change(number, entry=entry, value=0, cached=False)
    yield draft.done("ADV-4")


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
def _move(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """mremap(2) to another place: SPACE-4, SPACE-5."""
    draft = _Draft(world, state)
    if world.remap_event and state.pages[0].registered:
        draft.messages.append(Told(Event.REMAP))
        yield draft.done("SPACE-5")
        return
    _forget(draft, range(len(draft.pages)))
    yield draft.done("SPACE-4")


@_step
def _fork(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """A child that looks at all pages and stores to one: FORK-1, FORK-2."""
    draft = _Draft(world, state)
    draft.forked = True
    child = _Draft(world, state)
    child.forked = True
    if world.fork_event and any(page.registered for page in state.pages):
        draft.messages.append(Told(Event.FORK))
    child.change_all(range(len(child.pages)), _inherited)
    after = child.done("").state
    seen = tuple(map(_in_child, after.pages, looks(world, after)))
    store = Reply(signal=SIGSEGV)
    if state.writable:
        written = next(_write(child, op.first, op.value))
        draft.messages += [told._replace(look=(0, 0)) for told in written.messages]
        store = OK
        if draft.pages[op.first].kind.shared:
            draft.change(op.first, value=op.value, cached=True)
    yield draft.done("FORK-1 FORK-2", child=seen, signal=store.signal)


def _inherited(world: World, page: Page) -> Page:
    if world.fork_event and page.registered:
        return page
    if page.kind.shared:
        return page._replace(entry=Entry.NONE, wp=False, registered=False)
    return _unprotected(world, page)._replace(registered=False)


def _in_child(page: Page, shown: tuple[int, int]) -> tuple[int, int]:
    """A child is looked at through pagemap alone. Without the event, the page tables of a VMA that
    has no page of its own are not copied, and so zero pages and a file's are none in the child."""
    bits, mask = shown
    if page.entry in (Entry.ZERO, Entry.FILE) and not page.registered:
        mask &= ~int(Bits.PRESENT | Bits.FILE)
    return bits & FLAGS, mask & FLAGS


# -- PAGEMAP_SCAN


@_step
def _scan(world: World, state: State, op: Op) -> Iterator[Outcome]:
    """PAGEMAP_SCAN with WP_MATCHING of what is WRITTEN: SCAN-5, SCAN-10, SCAN-12, SCAN-14.

    It passes over what is not registered with async.
    """
    draft = _Draft(world, state)
    found = [n for n in op.pages if world.asynchronous and _is_written(draft.pages[n])]
    for number in found:
        first = number // PER_TABLE * PER_TABLE
        if first < op.pages.start or first + PER_TABLE > op.pages.stop:
            draft.split(number)
    _protect_pages(draft, found)
    yield draft.done("SCAN-5 SCAN-10 SCAN-12 SCAN-14", pages=frozenset(found))


def _is_written(page: Page) -> bool:
    hole = page.kind.hugetlb and page.entry is Entry.NONE
    return page.registered and not page.wp and not hole


def step(world: World, state: State, op: Op) -> list[Outcome]:
    """Every outcome that the contract allows."""
    return list(STEPS[op.name](world, state, op))


_ON_ONE = ("load", "store", "kernel_write", "kernel_read", "copy", "copy_protected", "zeropage")
_PAGES = (Entry.PAGE, Entry.FILE, Entry.EITHER)
_ON_ALL = ("read_only", "read_write", "reopen", "move", "fork")


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
        (op.name, Entry.PAGE if page.entry in _PAGES else page.entry, page.wp)
        for page in set(chosen)
    }


TRANSITIONS = {
    (name, entry, wp)
    for name in STEPS
    for entry, wp in (
        (Entry.NONE, False), (Entry.MARKER, True),
        (Entry.ZERO, False), (Entry.ZERO, True), (Entry.PAGE, False), (Entry.PAGE, True),
    )
}  # fmt: skip

RARELY = {  # transitions that few programs may not take, and why that does no harm
    ("remove", Entry.ZERO, True): "anonymous memory refuses MADV_REMOVE, whatever its pages are",
}


def sensible(world: World, program: Iterable[Op]) -> list[Op]:
    """A program without the operations that the model has no word on.

    It moves a single VMA only, and a mapping that was registered in part need not be one again;
    there is one userfaultfd to open in the place of the first; MADV_FREE and reclaim together may
    lose contents, and reclaim may split a THP.
    """
    kept, writable, one_vma, first = [], True, world.one_mapping, True
    for op in program:
        if op.name in world.without:
            continue
        match op.name:
            case "read_only" | "read_write":
                writable = op.name == "read_write"
            case "register" | "unregister":
                if op.length < world.pages and not world.spans:
                    continue  # a range may then lie in more VMAs than one for good
                one_vma = one_vma and op.length == world.pages
            case "reopen":
                if not first:
                    continue
                first = False
        possible = {
            "free": not world.reclaims and not world.thp,
            "pageout": world.reclaims or world.hugetlb,
            "collapse": world.thp,
            "remove": any(kind.file for kind in world.kinds) and writable,
            "move": one_vma,
            "scan": world.asynchronous,
        }
        if possible.get(op.name, True):
            kept.append(op)
    return kept
