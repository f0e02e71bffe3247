# SPDX-License-Identifier: GPL-2.0-only
"""Moves the tested page to other memory, and proves that it has gone there.

Sources: man move_pages(2), mbind(2), migrate_pages(2); Documentation/admin-guide/sysctl/vm.rst.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from helpers import batch, knobs, procfs
from helpers.batch import Batch, Operation, Room
from helpers.machine import Need
from helpers.region import Region, Unproven
from helpers.uapi import MPOL_BIND, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL, MPOL_MF_STRICT

_COMPACT = Path("/proc/sys/vm/compact_memory")
_BALANCING = Path("/proc/sys/kernel/numa_balancing")
_BALANCING_SECONDS = 8.0  # it waits for a second of CPU time, and for another for each mapping
_LOADS = 1000  # at a time
_MASK_BITS = 64

NUMA_BALANCING = Need(
    lambda _: procfs.read(_BALANCING) == "1",
    "NUMA balancing is absent or off: echo 1 > /proc/sys/kernel/numa_balancing, on a machine with "
    "several NUMA nodes",
)


def _pass(region: Region, *words: int) -> int:
    """Writes words to the main thread's scratch slot; their address there."""
    main = region.subject.main
    main.scratch(8 * len(words))[:] = b"".join(word.to_bytes(8, "little") for word in words)
    return main.scratch_address


def node_of(region: Region, page: int | None = None) -> int:
    """The NUMA node that a page lies on. Raises OSError, also when it isn't present."""
    subject = region.subject
    at = _pass(region, region.address(page), 0)
    subject.syscall("move_pages", 0, 1, at, 0, at + 8, 0)
    node = int.from_bytes(subject.main.scratch(4, 8), "little", signed=True)
    if node < 0:
        raise OSError(-node, "move_pages(2) knows no node of the page")
    return node


def _is_on(region: Region, node: int) -> bool:
    """Whether the tested page lies on the node, and is not on its way."""
    with suppress(OSError):
        return node_of(region) == node
    return False


def by_move_pages(region: Region, node: int, flags: int = MPOL_MF_MOVE) -> None:
    """The tested page alone, or the huge page that it is part of. Raises OSError."""
    at = _pass(region, region.address(), node, 0)
    region.subject.syscall("move_pages", 0, 1, at, at + 8, at + 16, flags)


def by_move_pages_of_all(region: Region, node: int) -> None:
    """The same, though other processes map it, too. Raises OSError."""
    by_move_pages(region, node, MPOL_MF_MOVE_ALL)


def by_mbind(region: Region, node: int) -> None:
    """The whole region, and what is to come of it. Raises OSError."""
    at = _pass(region, 1 << node)
    span, flags = (region.start, region.size), MPOL_MF_MOVE | MPOL_MF_STRICT
    region.subject.syscall("mbind", *span, MPOL_BIND, at, _MASK_BITS, flags)


def by_migrate_pages(region: Region, node: int) -> None:
    """All memory that the subject has on the page's node. Raises OSError."""
    here = node_of(region)
    at = _pass(region, 1 << here, 1 << node)
    region.subject.syscall("migrate_pages", 0, _MASK_BITS, at, at + 8)


def moves(room: Room, addresses: Sequence[int]) -> list[Operation]:
    """move_pages(2) of these pages to a second NUMA node and back, for a batch of the thread
    whose room that is."""
    count = len(addresses)
    where = room.put(array("Q", addresses).tobytes())
    status, _ = room.take(4 * count)
    home, other = procfs.numa_nodes()[:2]
    return [
        batch.call(
            "move_pages", 0, count, where, room.put(array("i", [node] * count).tobytes()), status,
            MPOL_MF_MOVE,
        )
        for node in (other, home)
    ]  # fmt: skip


WAYS = (by_move_pages, by_mbind, by_migrate_pages)


def migrate(
    region: Region, way: Callable[[Region, int], None] = by_move_pages, page: int | None = None
) -> None:
    """Moves a page, by default the tested one, to another node. Raises Unproven when it stays
    where it is."""
    here = node_of(region, page)
    there = next(node for node in procfs.numa_nodes() if node != here)
    way(region, there)
    if node_of(region, page) != there:
        raise Unproven(f"the page stays on NUMA node {here}: is node {there} full?")


def balance(region: Region) -> None:
    """Moves the tested page to another node, and loads from it until NUMA balancing has brought it
    back: its scan has taken the page's permissions away, and a fault told where it is wanted.
    Raises Unproven when it doesn't come back."""
    home = node_of(region)
    migrate(region)
    thread = region.subject.toucher(1)
    loads = Batch(thread, [batch.load(region.address())] * _LOADS)
    running = loads.start(forever=True)
    try:
        complaint = "NUMA balancing has not moved the page"
        knobs.await_that(lambda: _is_on(region, home), complaint, _BALANCING_SECONDS)
    finally:
        loads.stop()
        running.result()


def compact(region: Region) -> None:
    """Has the kernel compact all memory. Raises Unproven when pages stay where they are."""
    before = region.frames(region.near)
    _COMPACT.write_text("1")
    if set(before) & set(region.frames(region.near)):
        raise Unproven("compaction has not moved the pages")
