# SPDX-License-Identifier: GPL-2.0-only
"""Which scratch memory an operation reads and writes: what a replay of it must provide and compare.

Addresses are the subject's; `peek(address, count)` gives the bytes there, none outside of scratch
memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from helpers.uapi import Ioctl

Peek = Callable[[int, int], bytes]

_ONLY_WRITES = ("mincore", "pread64", "read", "wait4")
_GAP = 8  # zero words between two pieces of memory, at least
_SOME = 256  # bytes: a path, a structure or a vector of them
_LENGTH_AFTER = ("copy", "pwrite64")  # the pointer's length is the argument after it
_REQUEST_WORDS = 8  # of wire.h's struct request
REPLY_WORDS = 4  # of its struct reply
REGION_WORDS = 3  # of struct page_region
WALK_END_WORD, VECTOR_WORD = 4, 5  # of struct pm_scan_arg


def inputs(name: str, arguments: Sequence[int], peek: Peek) -> tuple[tuple[int, bytes], ...]:
    """What the named system call, touch or batch may read: (address, contents) of each piece.

    Of a batch that is done once, the first piece is its table; of one that runs free, nothing.
    """
    if name == "batch":
        return tuple(_batch_inputs(arguments, peek))
    return () if name in _ONLY_WRITES else tuple(_inputs(name, arguments, peek))


def _inputs(name: str, arguments: Sequence[int], peek: Peek) -> Iterator[tuple[int, bytes]]:
    for number, argument in enumerate(arguments):
        long = name in _LENGTH_AFTER and number == 1
        if contents := peek(argument, arguments[2] if long else _SOME):
            yield argument, contents
            if not long:  # a structure may point to more: UFFDIO_COPY's page, an iovec's buffer
                copies = name == "ioctl" and arguments[1] == Ioctl.UFFDIO_COPY
                size = words(contents)[2] if copies else _SOME
                for word in words(contents):
                    if inner := peek(word, size):
                        yield word, inner


def _batch_inputs(arguments: Sequence[int], peek: Peek) -> Iterator[tuple[int, bytes]]:
    place, count, _, stop = arguments
    if stop:
        return
    table = peek(place, count * _REQUEST_WORDS * 8)
    yield place, table
    for _, *operands in requests(table):  # a system call's begin with its number, a plain one
        yield from _inputs("", operands, peek)


def requests(table: bytes) -> Iterator[tuple[int, ...]]:
    """The requests of a batch's table."""
    listed = words(table)
    return (listed[n : n + _REQUEST_WORDS] for n in range(0, len(listed), _REQUEST_WORDS))


def output(name: str, arguments: Sequence[int], value: int, peek: Peek) -> bytes:
    """What a system call that returned `value` has written, as far as a case may look at it."""
    if name in ("pread64", "read"):
        return peek(arguments[1], max(value, 0))
    if name == "mincore":
        return peek(arguments[2], 1)
    if name in ("io_setup", "pipe2"):
        return peek(arguments[name == "io_setup"], 8)
    if name == "batch" and not arguments[3]:
        return peek(arguments[2], arguments[1] * REPLY_WORDS * 8)
    if name != "ioctl":
        return b""
    made = peek(arguments[2], arguments[1] >> 16 & 0x3FFF)
    if made and arguments[1] == Ioctl.PAGEMAP_SCAN and value > 0:
        made += peek(words(made)[VECTOR_WORD], value * REGION_WORDS * 8)
    return made


def words(contents: bytes) -> tuple[int, ...]:
    """The 8-byte words of a structure."""
    return struct.unpack(f"<{len(contents) // 8}Q", contents[: len(contents) // 8 * 8])


def runs(contents: bytes) -> list[tuple[int, tuple[int, ...]]]:
    """The pieces of some memory that hold more than zeros: offset, and 8-byte words. The first
    piece begins the memory."""
    listed = words(contents + bytes(-len(contents) % 8))
    ends = [[0, 1]]
    for number, word in enumerate(listed):
        if word and number < ends[-1][1] + _GAP:
            ends[-1][1] = number + 1
        elif word:
            ends.append([number, number + 1])
    return [(first * 8, listed[first:end]) for first, end in ends]
