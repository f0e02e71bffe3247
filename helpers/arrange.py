# SPDX-License-Identifier: GPL-2.0-only
"""Brings a region's page into its state, and proves that it is there before the act.

An arrangement is made before the region is registered and proven after it, so that a
registration that disturbs it can't go unseen.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers import axes, hugepages, pagemap, swap
from helpers.pagemap import Page
from helpers.region import Region, Unproven
from helpers.uapi import Advice, Map, Prot

_COLLAPSE_TRIES = 10  # MADV_COLLAPSE may say EAGAIN while pages are on their way to the LRU
_PAGEOUT_TRIES = 10  # MADV_PAGEOUT passes over pages that someone looks at
_FRAGMENTED = "memory may be fragmented: echo 1 > /proc/sys/vm/compact_memory"

_NO_HUGETLB = (
    f"no free hugetlb pages: run as root, or set vm.nr_hugepages to {hugepages.PAGES_PER_WORKER} "
    "for each worker"
)


@dataclass(frozen=True)
class Arrangement:
    """How to make a page state, and how to prove it."""

    make: Callable[[Region], None]
    prove: Callable[[Region], None]


def _require(met: bool, what: str) -> None:
    """What any machine can arrange must come about: if it doesn't, that is a failure."""
    if not met:
        raise AssertionError(f"the arrangement went wrong: {what}")


def _require_huge(met: bool, what: str) -> None:
    """A huge page may not be had: that is a reason to skip."""
    if not met:
        raise Unproven(f"{what}; {_FRAGMENTED}")


def huge_bytes(region: Region) -> int:
    """How much of the region is mapped by huge PMDs."""
    fields = region.smaps()
    names = ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")
    return sum(fields.get(name, 0) for name in names)


# -- none


def _make_none(region: Region) -> None:
    """With THP: the first PMD proves that this mapping gets huge pages; the second stays none."""
    if region.setup.thp:
        region.populate(range(1))


def _prove_none_pmd(region: Region) -> None:
    _require(region.look() == Page.NONE, f"the page isn't none but {region.look()}")
    if region.setup.thp:
        _require_huge(huge_bytes(region) > 0, "no THP was mapped")


def _make_none_pte(region: Region) -> None:
    """A neighbour is populated, so that the page table is there; with THP, a THP gets a hole."""
    if region.setup.thp:
        region.populate(region.pmd)
        _require_huge(huge_bytes(region) > 0, "no THP was mapped")
        region.advise(Advice.DONTNEED, region.page)
    else:
        region.populate(range(1))


def _prove_none_pte(region: Region) -> None:
    neighbour = region.look(region.pmd[0] if region.setup.thp else 0)
    _require(region.look() == Page.NONE, f"the page isn't none but {region.look()}")
    mapped = Page.PRESENT in neighbour and (Page.HUGE not in neighbour or region.kind.hugetlb)
    _require(mapped, f"no page table is proven by the neighbour {neighbour}")


# -- zero pages


def _make_zero(region: Region) -> None:
    region.load_all(region.pmd)
    if region.setup.thp:  # a hole in a huge zero page leaves small ones
        region.advise(Advice.DONTNEED, region.pmd[0])


def _prove_zero(region: Region) -> None:
    (word,) = pagemap.words(region.subject, region.address(), 1)
    present = Page.PRESENT in pagemap.decode(word)
    if region.machine.kpageflags:
        _require(present and pagemap.is_zero_page(word), "/proc/kpageflags shows no zero page")
    else:
        _require(Page.ZERO in region.look(), f"the page isn't a zero page but {region.look()}")


def _make_huge_zero(region: Region) -> None:
    region.load_all(range(region.page, region.page + 1))


def _prove_huge_zero(region: Region) -> None:
    looks = set(region.looks(region.pmd))
    wanted = {Page.PRESENT | Page.ZERO | Page.HUGE}
    _require_huge(Page.HUGE in region.look(), "the huge zero page is not mapped")
    _require(looks == wanted, f"the PMD doesn't map the huge zero page but {looks}")


# -- populated


def _make_populated(region: Region) -> None:
    region.populate(region.pages)


def _prove_populated(region: Region) -> None:
    seen = region.look()
    small = Page.HUGE not in seen or region.kind.hugetlb
    _require(
        Page.PRESENT in seen and Page.ZERO not in seen and small,
        f"the page isn't populated by a page of its own but {seen}",
    )


def collapse(region: Region) -> None:
    """Makes a THP of the tested page's PMD: of shared memory, too, whatever shmem_enabled says.
    Raises Unproven."""
    for _ in range(_COLLAPSE_TRIES):
        try:
            region.advise(Advice.COLLAPSE, region.pmd)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBUSY):
                raise Unproven(f"MADV_COLLAPSE: {error.strerror}; {_FRAGMENTED}") from error
    raise Unproven("MADV_COLLAPSE says EAGAIN again and again")


def _make_pmd_mapped(region: Region) -> None:
    """The tested page's PMD alone: a 2 MiB page takes time to fill."""
    region.populate(region.pmd)
    if not region.kind.anonymous:
        collapse(region)


def _prove_pmd_mapped(region: Region) -> None:
    huge = huge_bytes(region)
    wanted = region.machine.pmd_bytes
    _require_huge(huge == wanted, f"{huge} and not {wanted} bytes are PMD-mapped")


def _make_pte_mapped(region: Region) -> None:
    _make_pmd_mapped(region)
    _prove_pmd_mapped(region)
    if region.kind.anonymous:  # a change of one page's permission splits the PMD, not the folio
        first = region.span(region.pmd[0])
        region.subject.mprotect(*first, Prot.READ)
        region.subject.mprotect(*first, Prot.RW)
    else:  # without the advice the cached folio is mapped again page by page
        region.advise(Advice.NOHUGEPAGE, region.pages)
        region.advise(Advice.DONTNEED, region.pmd)
        region.load_all(region.pmd)


def _prove_pte_mapped(region: Region) -> None:
    looks = region.looks(region.pmd)
    _require_huge(huge_bytes(region) == 0, "the PMD is mapped huge again")  # shmem up to 6.1
    by_pte = all(Page.PRESENT in page and Page.HUGE not in page for page in looks)
    _require(by_pte, f"the PMD isn't mapped by ptes but {set(looks)}")
    if region.machine.privileged:
        frames = region.frames(region.pmd)
        _require(frames == list(range(frames[0], frames[0] + len(frames))), "the THP is no more")


# -- cached


def _make_cached(region: Region) -> None:
    if region.setup.thp:
        _make_pmd_mapped(region)
        _prove_pmd_mapped(region)
    elif region.kind.shared:
        region.populate(region.pages)
    elif region.kind.hugetlb:
        region.subject.syscall("fallocate", region.file, 0, 0, region.size)
    else:
        for page in region.pages:
            region.write_file(page, region.value(page))
    if region.kind.shared:
        region.advise(Advice.DONTNEED, region.pages)


def _make_file_mapped(region: Region) -> None:
    """Pages of the page cache, mapped into a private mapping: a write to them copies."""
    _make_cached(region)
    region.load_all(region.pages)


def _make_file_pmd_mapped(region: Region) -> None:
    """The same by a PMD: of another, shared mapping of the file a THP is made."""
    start = region.subject.mmap(region.size, Prot.RW, Map.SHARED, region.file)
    shared = region.view(start, len(region.pages), region.page, "shared")
    region.subject.madvise(start, region.size, Advice.HUGEPAGE)
    shared.populate(region.pmd)
    collapse(shared)
    region.load_all(region.pmd)


def _prove_file_mapped(region: Region) -> None:
    seen = region.look()
    _require(Page.PRESENT | Page.FILE in seen, f"the page isn't one of the file but {seen}")


def _prove_cached(region: Region) -> None:
    looks = set(region.looks())
    _require(looks == {Page.NONE}, f"the pages aren't unmapped but {looks}")
    if region.kind.hugetlb:
        held = os.stat(f"/proc/{region.subject.pid}/fd/{region.file}").st_blocks * 512
        _require(held >= region.size, f"the file holds {held} of {region.size} bytes")
    else:
        _require(region.resident(), "mincore says the page isn't in the page cache")


# -- swapped


def swapped_bytes(region: Region) -> int:
    """How much of the region is in swap: of shmem, of its file. Markers don't count (smaps)."""
    return region.smaps()["Swap"]


def hold_swap(region: Region) -> None:
    """Sees to it that nobody swaps our device off until the subject ends. Raises OSError."""
    if device := swap.ours():
        region.subject.lock(device)


def swap_out(
    region: Region, pages: range | None = None, by: Callable[[], None] | None = None
) -> None:
    """Swaps out pages, or all of `region.unit`, of a region that has none in swap yet: by
    MADV_PAGEOUT, which goes by the page table, or by what is given.

    Until the subject ends nobody swaps our device off. Raises Unproven.
    """
    chosen = region.unit if pages is None else pages
    hold_swap(region)
    held, wanted = 0, len(chosen) * region.page_bytes
    for _ in range(_PAGEOUT_TRIES):
        if by:
            by()
        else:
            region.advise(Advice.PAGEOUT, chosen)
        if (held := swapped_bytes(region)) == wanted:
            return
    raise Unproven(f"{held} and not {wanted} bytes are in swap: this kernel keeps such pages back")


def swap_off(region: Region, device: Path) -> None:
    """Turns swap off, so that all pages come back; none of the region is left there.
    Raises OSError."""
    region.subject.syscall("swapoff", region.subject.text(str(device)))
    _require(swapped_bytes(region) == 0, "swapoff(2) has left pages in swap")


def _make_swapped(region: Region) -> None:
    if region.setup.thp:
        _make_pmd_mapped(region)
        _prove_pmd_mapped(region)
        swap_out(region, region.pmd)
    else:
        region.populate(region.pages)
        swap_out(region, region.pages)


def _prove_swapped(region: Region) -> None:
    """An anon page leaves a swap entry in the page table, one of shmem nothing. (Nobody has
    protected anything yet, so bit 62 is no marker.)"""
    pages = region.pmd if region.setup.thp else region.pages
    looks, wanted = set(region.looks(pages)), Page.NONE if region.kind.shared else Page.SWAP
    _require(looks == {wanted}, f"the pages aren't swapped but {looks}")
    if region.kind.shared:
        held, size = swapped_bytes(region), len(pages) * region.page_bytes
        _require(held == size, f"{held} and not {size} bytes are in swap")


ARRANGEMENTS = {
    axes.none_pmd: Arrangement(_make_none, _prove_none_pmd),
    axes.none_pte: Arrangement(_make_none_pte, _prove_none_pte),
    axes.zero_page: Arrangement(_make_zero, _prove_zero),
    axes.huge_zero_page: Arrangement(_make_huge_zero, _prove_huge_zero),
    axes.populated: Arrangement(_make_populated, _prove_populated),
    axes.pmd_mapped: Arrangement(_make_pmd_mapped, _prove_pmd_mapped),
    axes.pte_mapped: Arrangement(_make_pte_mapped, _prove_pte_mapped),
    axes.file_mapped: Arrangement(_make_file_mapped, _prove_file_mapped),
    axes.file_pmd_mapped: Arrangement(_make_file_pmd_mapped, _prove_pmd_mapped),
    axes.cached: Arrangement(_make_cached, _prove_cached),
    axes.swapped: Arrangement(_make_swapped, _prove_swapped),
}


def prepare(region: Region, *, register: bool = True) -> Region:
    """Maps, arranges, registers and proves a region. Raises Unproven, OSError, SubjectLost."""
    arrangement = ARRANGEMENTS[region.setup.state]
    try:
        region.map()
    except OSError as error:
        if region.kind.hugetlb and error.errno == errno.ENOMEM:
            raise Unproven(_NO_HUGETLB) from error
        raise
    arrangement.make(region)
    region.open_uffd()
    if register:
        region.register()
    arrangement.prove(region)
    region.remember()
    region.subject.note("arranged")
    return region


def content(region: Region, page: int | None = None) -> int:
    """The word that a load of the arranged page must give."""
    from_file = region.setup.state in (axes.cached, axes.file_mapped, axes.file_pmd_mapped)
    zero_filled = region.kind is axes.hugetlb_private and from_file
    return region.value(page) if region.setup.state.populated and not zero_filled else 0
