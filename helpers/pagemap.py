# SPDX-License-Identifier: GPL-2.0-only
"""What a page looks like from user space: /proc/PID/pagemap and PAGEMAP_SCAN.

Source: Documentation/admin-guide/mm/pagemap.rst. Two witnesses tell of the same page
table, and `look` compares them: where they disagree the case fails.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntFlag
from mmap import PAGESIZE

from helpers.subject import Subject, ffi, lib
from helpers.uapi import Category, Ioctl, ScanFlag

_VECTOR_OFFSET = 4096  # of PAGEMAP_SCAN's result in the scratch slot
_VECTOR_LENGTH = 4096
_REGION_BYTES = 24
_KPF_ZERO_PAGE = 24  # bit of /proc/kpageflags
_LETTERS = "PSFGWXZH"
SOFT_DIRTY = 1 << 55
PFN_MASK = SOFT_DIRTY - 1
# what an operation on another page must not change; the PFN, soft-dirty and
# exclusiveness may change by the kernel's own doing
STABLE_BITS = (1 << 63) | (1 << 62) | (1 << 61) | (1 << 58) | (1 << 57)


class Page(IntFlag):
    """The state of a page: pagemap's bits 56 to 63, and two that PAGEMAP_SCAN adds.

    As letters: Present, Swap (or a marker), File or shared, Guard, Write-protected (uffd-wp),
    eXclusively mapped, Zero page, Huge (PMD-mapped).
    """

    NONE = 0
    PRESENT = 1 << 63
    SWAP = 1 << 62
    FILE = 1 << 61
    GUARD = 1 << 58
    WP = 1 << 57
    EXCLUSIVE = 1 << 56
    ZERO = 1 << 1
    HUGE = 1 << 0

    @property
    def letters(self) -> str:
        """PSFGWXZH, with - for each that is absent."""
        flags = (
            Page.PRESENT, Page.SWAP, Page.FILE, Page.GUARD,
            Page.WP, Page.EXCLUSIVE, Page.ZERO, Page.HUGE,
        )  # fmt: skip
        return "".join(
            letter if flag in self else "-" for letter, flag in zip(_LETTERS, flags, strict=True)
        )

    def __repr__(self) -> str:
        return f"[{self.letters}]"

    __str__ = __repr__
    __hash__ = int.__hash__  # enum's own is slow, and page maps are long


FLAG_BITS = STABLE_BITS | int(Page.EXCLUSIVE)  # a plain int: enum arithmetic is slow


class Word(int):
    """A pagemap word, shown in hexadecimal and as letters."""

    def __repr__(self) -> str:
        return f"{self:#018x} {decode(self)}"


def decode(word: int) -> Page:
    """The flags in a pagemap word."""
    return Page(word & FLAG_BITS)


def words(subject: Subject, start: int, count: int) -> list[int]:
    """The pagemap words of `count` pages from the address `start`."""
    thread = subject.main
    size = count * 8
    with subject.unrecorded():
        got = subject.syscall(
            "pread64", subject.pagemap, thread.scratch_address, size, start // PAGESIZE * 8
        )
    if got != size:
        raise OSError(f"pagemap gave {got} of {size} bytes")
    return thread.scratch(size).cast("Q").tolist()


def words_of(pid: int, start: int, count: int) -> list[int]:
    """The same, asked by this process of another: PFNs need CAP_SYS_ADMIN. Raises OSError."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        return list(memoryview(os.pread(file.fileno(), count * 8, start // PAGESIZE * 8)).cast("Q"))


def is_zero_page(word: int) -> bool:
    """Whether /proc/kpageflags calls the frame of a present page a zero page. Raises OSError.

    `word` is a pagemap word with its PFN, which takes root, as /proc/kpageflags does.
    """
    with open("/proc/kpageflags", "rb", buffering=0) as file:
        flags = int.from_bytes(os.pread(file.fileno(), 8, (word & PFN_MASK) * 8), "little")
    return bool(flags >> _KPF_ZERO_PAGE & 1)


@dataclass(frozen=True)
class Scan:
    """The result of PAGEMAP_SCAN: regions (start, end, categories) and where the walk ended."""

    regions: tuple[tuple[int, int, Category], ...]
    walk_end: int
    pages: int  # the ioctl's own value: the number of regions it filled in

    def categories(self, start: int, count: int, step: int = PAGESIZE) -> list[int]:
        """What was reported of `count` pages of `step` bytes; 0 for what was not reported."""
        found = [0] * count
        for first, end, seen in self.regions:
            pages = range(max(0, first - start) // step, min(count, -(-(end - start) // step)))
            found[pages.start : pages.stop] = [int(seen)] * len(pages)
        return found

    def addresses(self) -> list[int]:
        """The address of every reported page."""
        return [page for start, end, _ in self.regions for page in range(start, end, PAGESIZE)]


ALL_CATEGORIES = Category((1 << 9) - 1)
_OLD_CATEGORIES = ALL_CATEGORIES & ~Category.GUARD  # 6.7 to 6.15 refuse a mask with GUARD


def scan(
    subject: Subject,
    start: int,
    end: int,
    *,
    returned: Category,
    required: Category = Category(0),
    inverted: Category = Category(0),
    anyof: Category = Category(0),
    flags: ScanFlag = ScanFlag(0),
    vec_len: int = _VECTOR_LENGTH,
    max_pages: int = 0,
    pagemap: int | None = None,
    **wrong: int,
) -> Scan:
    """PAGEMAP_SCAN (6.7) over [start, end), up to `vec_len` regions. Raises OSError.

    `pagemap` is the subject's descriptor of another process' pagemap; `wrong` are fields of the
    structure that are to differ from what the rest makes of them.
    """
    thread = subject.main
    # opened before the structure takes its place
    descriptor = subject.pagemap if pagemap is None else pagemap
    argument = thread.struct(
        "pm_scan_arg",
        size=96, flags=flags, start=start, end=end, max_pages=max_pages,
        vec=thread.scratch_address + _VECTOR_OFFSET if vec_len else 0, vec_len=vec_len,
        category_mask=required, category_inverted=inverted,
        category_anyof_mask=anyof, return_mask=returned,
    )  # fmt: skip
    for name, value in wrong.items():
        setattr(argument, name, value)
    step = subject.record(thread, "PAGEMAP_SCAN", (start, end, flags, required, inverted, anyof))
    arguments = (lib.SYS_ioctl, descriptor, Ioctl.PAGEMAP_SCAN, thread.scratch_address)
    answer = thread.start(lib.OP_SYSCALL, arguments, step).result()
    if answer.error:
        raise OSError(answer.error, os.strerror(answer.error), "PAGEMAP_SCAN")
    vector = ffi.from_buffer(
        "struct page_region[]", thread.scratch(answer.value * _REGION_BYTES, _VECTOR_OFFSET)
    )
    found = tuple((r.start, r.end, Category(r.categories)) for r in vector) if vec_len else ()
    return Scan(found, argument.walk_end, answer.value)


class WitnessError(AssertionError):
    """pagemap and PAGEMAP_SCAN tell different things of one page."""


def categories(subject: Subject, start: int, end: int) -> Scan:
    """All categories of all pages of a range, by PAGEMAP_SCAN. Raises OSError without it."""
    with subject.unrecorded():
        try:
            return scan(subject, start, end, returned=ALL_CATEGORIES)
        except OSError:
            return scan(subject, start, end, returned=_OLD_CATEGORIES)


def compare(page: Page, seen: Category, *, hugetlb: bool, registered: bool) -> Page:
    """`page`, as pagemap tells it, with what PAGEMAP_SCAN adds (ZERO; HUGE where present).

    Raises WitnessError where the two disagree. Three differences are the kernel's ways: a
    hugetlb marker is SWAPPED for PAGEMAP_SCAN alone, the huge zero page has pagemap's file
    bit alone, and outside of a VMA registered for write-protect kernels differ in whether a
    page counts as WRITTEN (7.3: it doesn't).
    """
    swap = Page.SWAP
    if hugetlb and page & (Page.PRESENT | Page.WP) == Page.WP:
        swap = Page.WP
    pairs = [(Page.PRESENT, Category.PRESENT), (swap, Category.SWAPPED)]
    if Category.PFNZERO not in seen:
        pairs.append((Page.FILE, Category.FILE))
    agree = all((flag in page) == (category in seen) for flag, category in pairs)
    if page & (Page.PRESENT | Page.SWAP):
        protected, written = Page.WP in page, Category.WRITTEN in seen
        agree = agree and (protected != written if registered else not (protected and written))
    if not agree:
        raise WitnessError(f"pagemap says {page}, PAGEMAP_SCAN says {seen!r}")
    if Category.PFNZERO in seen:
        page = page & ~Page.FILE | Page.ZERO
    return page | Page.HUGE if Category.HUGE in seen and Page.PRESENT in page else page
