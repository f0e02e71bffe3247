# SPDX-License-Identifier: GPL-2.0-only
"""The region: the mapping under test, arranged, registered and proven, as a case holds it.

Pages are numbered from 0 in the kind's own unit (4 KiB, or 2 MiB for hugetlb). `page` is the
tested one; every method acts on it unless it is told another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from copy import copy
from mmap import PAGESIZE
from typing import Any

from helpers import pagemap, procfs
from helpers.axes import Setup
from helpers.machine import PAGEMAP_WP, Machine
from helpers.pagemap import Page
from helpers.subject import SLOT_BYTES, Answer, Mapping, Pending, Subject
from helpers.uapi import (
    MFD_CLOEXEC,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Advice,
    Category,
    CopyMode,
    Event,
    FaultFlag,
    ProtectMode,
    RegisterMode,
    ScanFlag,
)
from helpers.uffd import Message, Userfaultfd

SMALL_PAGES = 8  # of a region without huge pages
HUGETLB_PAGES = 3
HUGE_AREAS = 2  # PMDs of a region with THP
_RUNS = ((0, 3), (5, 6), (8, 16), (17, 40), (-2, None))  # of a PMD's pages
_COPY_OFFSET = SLOT_BYTES // 2  # of the page to copy, in the main thread's scratch slot
_REARM = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
_FOR_WRITTEN = {"required": Category.WRITTEN, "returned": Category.WRITTEN}
MARKER = Page.SWAP | Page.WP
HUGETLB_MARKER = Page.WP


class Unproven(Exception):
    """The machine could not give what the arrangement needs (huge pages), and what to do."""

    def __str__(self) -> str:
        return f"not arranged: {super().__str__()}"


class Unseen(Exception):
    """The kernel doesn't show what a case looks at; and what to do."""


class Touch:
    """A load, store or addition: it completes, or blocks with a message, or ends by a signal."""

    def __init__(self, pending: Pending, uffd: Userfaultfd) -> None:
        self._pending = pending
        self._uffd = uffd
        self.message: Message | None = None
        self.settle()

    def settle(self) -> Touch:
        """Waits until the touch has ended or has raised a message; the message is then read."""
        __tracebackhide__ = True
        self.message = None
        if self._pending.wait(self._uffd.pollable) is None:
            self.message = self._uffd.read()
        return self

    @property
    def answer(self) -> Answer | None:
        return self._pending.answer

    @property
    def silent(self) -> bool:
        """Whether it completed at once, without a message left behind and without a signal."""
        return self.completed and self._uffd.read() is None

    @property
    def completed(self) -> bool:
        return self.answer is not None and not self.answer.signal and not self.answer.error

    def completes(self) -> bool:
        """Whether it now runs to its end without another message."""
        __tracebackhide__ = True
        return self.settle().completed

    @property
    def error(self) -> int:
        """The errno of a system call that failed, else 0."""
        return self.answer.error if self.answer else 0

    @property
    def signal(self) -> int:
        """The signal that ended it, else 0."""
        return self.answer.signal if self.answer else 0

    @property
    def blocked(self) -> bool:
        """Whether the thread still sleeps in its fault."""
        thread = self._pending.thread
        return self.answer is None and thread.subject.blocked_in_fault(thread)

    @property
    def tid(self) -> int:
        return self._pending.thread.tid

    @property
    def value(self) -> int:
        """The value that was loaded, or is the result of the additions."""
        __tracebackhide__ = True
        if self.answer is None or not self.completed:
            raise AssertionError(f"expected the touch to complete: {self!r}")
        return self.answer.value

    def __repr__(self) -> str:
        if self.answer is not None:
            return f"<{self._pending.step.name}: {self.answer}>"
        return f"<{self._pending.step.name}: blocked, {self.message}>"


class Region:
    """A mapping under test in a subject, with its userfaultfd."""

    def __init__(
        self, subject: Subject, machine: Machine, setup: Setup, boundary: int = 0, count: int = 0
    ) -> None:
        """With a `boundary` in bytes, the middle of the mapping lies on a multiple of it; with a
        `count`, so many pages are mapped."""
        self.subject = subject
        self.machine = machine
        self.setup = setup
        self.kind = setup.kind
        self.page_bytes = setup.kind.page_bytes
        usual, self.page = self._shape()
        count = count or usual
        self.size = count * self.page_bytes
        self._boundary = boundary
        self.pages = range(count)
        self.registered = False  # for write-protect
        self._before: list[int] = []

    def __repr__(self) -> str:
        return f"<region {self.setup.name}>"

    def _shape(self) -> tuple[int, int]:
        """The number of pages, and the tested one: in the second PMD, off its boundary."""
        if self.kind.hugetlb:
            return HUGETLB_PAGES, 1
        if self.setup.thp:
            per_pmd = self.machine.pmd_bytes // PAGESIZE
            return HUGE_AREAS * per_pmd, per_pmd + 5
        return SMALL_PAGES, 3

    # -- arrangement

    def map(self) -> None:
        """Makes the mapping, with its THP advice."""
        at = (
            self.subject.place(self.size, self._boundary, lead=self.size // 2)
            if self._boundary
            else 0
        )
        backing = self.kind.map(self.subject, self.size, at)
        self.start, self.file = backing.start, backing.file
        self.subject.mappings.append(Mapping("mem", self.start, self.size, self.page_bytes))
        if self.machine.thp and not self.kind.hugetlb:
            advice = Advice.HUGEPAGE if self.setup.thp else Advice.NOHUGEPAGE
            self.subject.madvise(self.start, self.size, advice)

    def open_uffd(self) -> None:
        """Opens the userfaultfd, with the setup's features."""
        access = self.setup.access or self.machine.access
        assert access is not None
        self.uffd = Userfaultfd.open(self.subject, access)
        self.uffd.api(self.setup.asked)

    def register(self) -> None:
        """Registers the whole mapping, in the setup's mode."""
        self.ioctls = self.uffd.register(self.start, self.size, self.setup.mode)
        self.registered = RegisterMode.WP in self.setup.mode

    def unregister(self, pages: range | int) -> None:
        """Unregisters pages; how PAGEMAP_SCAN tells of what isn't registered differs."""
        self.uffd.unregister(*self.span(pages))
        self.registered = False

    def remember(self) -> None:
        """Takes the present state as the one that `changed` compares with."""
        self._before = self._words()

    # -- places

    def address(self, page: int | None = None) -> int:
        """The address of a page, in bytes."""
        return self.start + (self.page if page is None else page) * self.page_bytes

    def value(self, page: int | None = None) -> int:
        """The word that an arrangement stores at the start of a page."""
        return 0x1000 + (self.page if page is None else page)

    @property
    def pmd(self) -> range:
        """The pages of the tested page's PMD-sized area."""
        per_pmd = max(1, self.machine.pmd_bytes // self.page_bytes)
        first = self.page // per_pmd * per_pmd
        return range(first, min(first + per_pmd, len(self.pages)))

    @property
    def near(self) -> range:
        """The tested page and its two neighbours, which are in the same state."""
        return range(self.page - 1, self.page + 2)

    @property
    def unit(self) -> range:
        """The pages to protect so that no huge page is split: the PMD with THP, else `near`."""
        return self.pmd if self.setup.thp else self.near

    def span(self, pages: range | int | None) -> tuple[int, int]:
        """Start address and length in bytes of pages: a range, one, or the tested one."""
        if isinstance(pages, range):
            return self.address(pages.start), len(pages) * self.page_bytes
        return self.address(pages), self.page_bytes

    # -- acts

    def protect(self, pages: range | int | None = None) -> None:
        """Protects pages: from writes with UFFDIO_WRITEPROTECT or, where that is the setup's mode,
        from reads too with UFFDIO_RWPROTECT. Raises OSError."""
        self._protection(*self.span(pages), ProtectMode.WP)

    def protect_some(self) -> set[int]:
        """Protects runs of the PMD's pages with gaps between them; those pages."""
        chosen = [self.pmd[first:end] for first, end in _RUNS]
        for pages in chosen:
            self.protect(pages)
        return {page for pages in chosen for page in pages}

    def unprotect(
        self, pages: range | int | None = None, mode: ProtectMode = ProtectMode(0)
    ) -> None:
        """Takes the protection away and, without DONTWAKE, wakes the waiters. Raises OSError."""
        self._protection(*self.span(pages), mode)

    @property
    def _protection(self) -> Callable[[int, int, ProtectMode], None]:
        """The ioctl that protects and unprotects."""
        rwp = RegisterMode.RWP in self.setup.mode
        return self.uffd.rwprotect if rwp else self.uffd.writeprotect

    def load(self, page: int | None = None, by: int = 0, offset: int = 0) -> Touch:
        """Loads a word from a page, in toucher number `by`."""
        return self._touch(self.subject.toucher(by).load(self.address(page) + offset))

    def store(self, page: int | None = None, value: int = 7, by: int = 0, offset: int = 0) -> Touch:
        """Stores a word to a page, in toucher number `by`."""
        return self._touch(self.subject.toucher(by).store(self.address(page) + offset, value))

    def add(self, page: int | None = None, delta: int = 1, by: int = 0) -> Touch:
        """Reads, adds to and writes back a word of a page, in toucher number `by`."""
        return self._touch(self.subject.toucher(by).add(self.address(page), delta))

    def vfork(self, value: int = 7, by: int = 0) -> Touch:
        """Has a vfork(2) child of toucher number `by` store a word to the tested page."""
        return self._touch(self.subject.toucher(by).vfork(self.address(), value))

    def call(self, name: str, *arguments: int, by: int = 0) -> Touch:
        """A system call that touches the region, in toucher number `by`."""
        return self._touch(self.subject.toucher(by).begin(name, *arguments))

    def copy_in(
        self, value: int, mode: CopyMode = CopyMode(0), pages: range | int | None = None
    ) -> None:
        """UFFDIO_COPY of pages, 2 MiB at most, that each start with the word `value`, else zeros.
        Raises OSError."""
        start, size = self.span(pages)
        main = self.subject.main
        content = value.to_bytes(self.page_bytes, "little")
        main.scratch(size, _COPY_OFFSET)[:] = content * (size // self.page_bytes)
        self.uffd.copy(start, main.scratch_address + _COPY_OFFSET, size, mode)

    def kernel_write(self, page: int | None = None, value: int = 7, by: int = 0) -> Touch:
        """Has the kernel write a word to a page: pread(2) from a file into it."""
        return self._touch(self._file_call("pread64", page, value, by))

    def kernel_read(self, page: int | None = None, by: int = 0) -> Touch:
        """Has the kernel read a word from a page: pwrite(2) from it to a file."""
        return self._touch(self._file_call("pwrite64", page, 0, by))

    def _file_call(self, name: str, page: int | None, value: int, by: int) -> Pending:
        """A call between a page and a memfd that holds `value`."""
        subject, thread = self.subject, self.subject.toucher(by)
        file = subject.syscall("memfd_create", subject.text("other end"), MFD_CLOEXEC)
        subject.main.scratch(8)[:] = value.to_bytes(8, "little")
        subject.syscall("pwrite64", file, subject.main.scratch_address, 8, 0)
        return thread.begin(name, file, self.address(page), 8, 0)

    def peeks(self, addresses: Iterable[int], count: int) -> list[bytes]:
        """`count` bytes of the subject's memory at each address, read from outside by
        /proc/PID/mem. Raises OSError."""
        with open(f"/proc/{self.subject.pid}/mem", "rb", buffering=0) as file:
            return [os.pread(file.fileno(), count, address) for address in addresses]

    def peek(self, address: int, count: int) -> bytes:
        """The same of one address."""
        return self.peeks((address,), count)[0]

    def fork(self) -> Region:
        """The region in a forked child; its userfaultfd is the one that EVENT_FORK brought, if
        that event was asked for, else the parent's."""
        fork = self.subject.begin_fork()
        message = self.uffd.read() if fork.wait(self.uffd.pollable) is None else None
        child = copy(self)
        child.subject = self.subject.forked(fork)
        child.registered = self.registered and message is not None
        if message is not None:
            child.uffd = self.uffd.child(child.subject, message)
        return child

    def view(self, start: int, count: int, page: int = 0, name: str = "view") -> Region:
        """`count` pages at another address, of which `page` is the tested one; the trace calls
        them `name`."""
        seen = copy(self)
        seen.start, seen.page, seen.pages = start, page, range(count)
        seen.size = count * self.page_bytes
        self.subject.mappings.append(Mapping(name, start, seen.size, self.page_bytes))
        return seen

    def move(
        self, pages: range | None = None, *, to: int = 0, count: int = 0, flags: int = 0
    ) -> tuple[Region, Message | None]:
        """`pages`, or all, moved by mremap(2) to the address `to` or where the arena has room, and
        the EVENT_REMAP message if there was one; there they are `count` pages, if that is told.

        Raises OSError.
        """
        chosen = pages or self.pages
        start, size = self.span(chosen)
        new_size = count * self.page_bytes or size
        target = to or self.subject.place(new_size)
        flags |= MREMAP_MAYMOVE | MREMAP_FIXED
        remap = self.call("mremap", start, size, new_size, flags, target)
        message = remap.message
        if not remap.completes():
            raise OSError(remap.error, os.strerror(remap.error), "mremap")
        page = self.page - chosen.start if self.page in chosen else 0
        moved = self.view(target, count or len(chosen), page, "moved")
        moved.registered = self.registered and message is not None
        return moved, message

    def _touch(self, pending: Pending) -> Touch:
        return Touch(pending, self.uffd)

    def advise(self, advice: Advice, pages: range | int | None = None) -> None:
        """madvise(2) on pages. Raises OSError."""
        self.subject.madvise(*self.span(pages), advice)

    def populate(self, pages: range) -> None:
        """Stores `value(page)` to every page of the range."""
        count, main = len(pages), self.subject.main
        pending = main.store(self.address(pages[0]), self.value(pages[0]), self.page_bytes, count)
        self._expect_completed(pending)

    def write_file(self, page: int, value: int) -> None:
        """Writes the word at the start of a page to the file behind the mapping."""
        self.subject.main.scratch(8)[:] = value.to_bytes(8, "little")
        self._file_word("pwrite64", page)

    def read_file(self, page: int) -> int:
        """The word at the start of a page in the file behind the mapping."""
        self._file_word("pread64", page)
        return int.from_bytes(self.subject.main.scratch(8), "little")

    def _file_word(self, name: str, page: int) -> None:
        address = self.subject.main.scratch_address
        self.subject.syscall(name, self.file, address, 8, page * self.page_bytes)

    def zero_fill(self, pages: range) -> None:
        """Overwrites pages, 2 MiB at most, with zeros."""
        main, size = self.subject.main, len(pages) * self.page_bytes
        main.scratch(size, _COPY_OFFSET)[:] = bytes(size)
        source = main.scratch_address + _COPY_OFFSET
        self._expect_completed(main.copy(self.address(pages[0]), source, size))

    def load_all(self, pages: range) -> None:
        """Loads one word from every page of the range."""
        main = self.subject.main
        self._expect_completed(main.load(self.address(pages[0]), self.page_bytes, len(pages)))

    @staticmethod
    def _expect_completed(pending: Pending) -> None:
        answer = pending.result()
        if answer.signal or answer.error:
            raise AssertionError(f"the arrangement's {pending.step.name} ended with {answer}")

    # -- looks

    def _words(self) -> list[int]:
        return pagemap.words(self.subject, self.start, self.size // PAGESIZE)

    def word(self, page: int | None = None) -> pagemap.Word:
        """The pagemap word of a page (of a hugetlb page: of its first 4 KiB), without the
        soft-dirty bit, which new VMAs have where the kernel tracks it."""
        (word,) = pagemap.words(self.subject, self.address(page), 1)
        return pagemap.Word(word & ~pagemap.SOFT_DIRTY)

    def look(self, page: int | None = None) -> Page:
        """A page as pagemap and, where there is one, PAGEMAP_SCAN tell it.

        Raises WitnessError where they, or the parts of a hugetlb page, disagree.
        """
        return self.looks(
            range(self.page, self.page + 1) if page is None else range(page, page + 1)
        )[0]

    def looks(self, pages: range | None = None) -> list[Page]:
        """`look` for a range of pages, or all."""
        self._expect_bit()
        chosen = self.pages if pages is None else pages
        start, size = self.span(chosen)
        count, per_page = size // PAGESIZE, self.page_bytes // PAGESIZE
        words = pagemap.words(self.subject, start, count)
        parts = [word & pagemap.FLAG_BITS for word in words]
        wholes = range(0, count, per_page) if per_page > 1 else ()
        if any(set(parts[i : i + per_page]) != {parts[i]} for i in wholes):
            raise pagemap.WitnessError("the parts of one hugetlb page differ in pagemap")
        if not self.machine.pagemap_scan:
            return [self._without_scan(word) for word in words[::per_page]]
        scan = pagemap.categories(self.subject, start, start + size)
        categories = scan.categories(start, len(chosen), self.page_bytes)
        pairs = list(zip(parts[::per_page], categories, strict=True))
        judged = {pair: self._judge(*pair) for pair in set(pairs)}
        return [judged[pair] for pair in pairs]

    def _expect_bit(self) -> None:
        """Without pagemap's uffd-wp bit (before 5.14) a case is judged by its messages, and ends
        where it looks for the bit: that it isn't there would say nothing. Raises Unseen."""
        if self._before and not self.machine.pagemap_wp:
            raise Unseen(PAGEMAP_WP.remedy)

    def _judge(self, word: int, categories: int) -> Page:
        return pagemap.compare(
            pagemap.decode(word),
            Category(categories),
            hugetlb=self.kind.hugetlb,
            registered=self.registered,
        )

    def _without_scan(self, word: int) -> Page:
        """The page as pagemap alone tells it; whether it is HUGE then stays unknown."""
        page = pagemap.decode(word)
        zero = Page.PRESENT in page and self.machine.kpageflags and pagemap.is_zero_page(word)
        return page | Page.ZERO if zero else page

    def frames(self, pages: range | None = None) -> list[int]:
        """The page frame numbers, of 4 KiB each, of pages, or of all. Only root sees them."""
        start, size = self.span(self.pages if pages is None else pages)
        found = pagemap.words(self.subject, start, size // PAGESIZE)
        return [word & pagemap.PFN_MASK for word in found]

    def protected(self, pages: range | None = None) -> set[int]:
        """The pages that carry the uffd-wp bit."""
        chosen = self.pages if pages is None else pages
        looks = self.looks(chosen)
        carrying = {page for page in set(looks) if Page.WP in page}
        return {number for number, page in zip(chosen, looks, strict=True) if page in carrying}

    def changed(self) -> set[int]:
        """The pages whose pagemap bits P, S, F, G or W differ from the remembered state."""
        self._expect_bit()
        per_page = self.page_bytes // PAGESIZE
        return {
            number // per_page
            for number, (old, new) in enumerate(zip(self._before, self._words(), strict=True))
            if old != new and (old ^ new) & pagemap.STABLE_BITS
        }

    @property
    def marker(self) -> Page:
        """What a pte marker of this kind looks like."""
        return HUGETLB_MARKER if self.kind.hugetlb else MARKER

    def categories(self) -> Category:
        """What PAGEMAP_SCAN reports of the tested page. Raises OSError."""
        start = self.address()
        scan = pagemap.categories(self.subject, start, start + self.page_bytes)
        return Category(scan.categories(start, 1, self.page_bytes)[0])

    def scan(self, pages: range | None = None, **asked: Any) -> pagemap.Scan:
        """PAGEMAP_SCAN of pages, or all: for the written ones unless `pagemap.scan` is asked for
        something else. Raises OSError."""
        start, size = self.span(self.pages if pages is None else pages)
        return pagemap.scan(self.subject, start, start + size, **(_FOR_WRITTEN | asked))

    def reported(self, scan: pagemap.Scan) -> set[int]:
        """The pages that a scan reports."""
        return {(address - self.start) // self.page_bytes for address in scan.addresses()}

    def written(self, pages: range | None = None, **asked: Any) -> set[int]:
        """The pages that a scan for the written ones reports. Raises OSError."""
        return self.reported(self.scan(pages, **asked))

    def rearm(self, pages: range | None = None, **asked: Any) -> set[int]:
        """The written pages, which the scan protects again. Raises OSError."""
        return self.written(pages, flags=_REARM, **asked)

    def smaps(self) -> dict[str, int]:
        """The region's smaps fields, in bytes."""
        text = self.subject.read_file("/proc/self/smaps")
        return procfs.smaps_range(text, self.start, self.start + self.size)

    def page_tables(self) -> int:
        """The subject's VmPTE, in bytes."""
        self.subject.read_file("/proc/self/status")  # the reading itself may need a page table
        return procfs.status_bytes(self.subject.read_file("/proc/self/status"), "VmPTE")

    def resident(self, page: int | None = None) -> bool:
        """Whether mincore(2) calls a page (the first 4 KiB of it) resident. Raises OSError."""
        thread = self.subject.main
        self.subject.syscall("mincore", self.address(page), PAGESIZE, thread.scratch_address)
        return bool(thread.scratch(1)[0] & 1)

    # -- messages to expect

    def fault(
        self, flags: FaultFlag, page: int | None = None, tid: int = 0, offset: int = 0
    ) -> Message:
        """The page-fault message with these flags, at a page."""
        return Message(Event.PAGEFAULT, flags, self.address(page) + offset, tid)

    def wp_fault(self, page: int | None = None, tid: int = 0, offset: int = 0) -> Message:
        """The message that a write to a protected page must raise."""
        return self.fault(FaultFlag.WRITE | FaultFlag.WP, page, tid, offset)
