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
_SOME = 256  # bytes: a path, a structure or a vector of them
_LENGTH_AFTER = ("copy", "pwrite64")  # the pointer's length is the argument after it
REGION_WORDS = 3  # of struct page_region
VECTOR_WORD = 5  # of struct pm_scan_arg: vec


def inputs(name: str, arguments: Sequence[int], peek: Peek) -> tuple[tuple[int, bytes], ...]:
    """What the named system call or touch may read: (address, contents) of each piece."""
    if name in _ONLY_WRITES:
        return ()
    return tuple(_inputs(name, arguments, peek))


def _inputs(name: str, arguments: Sequence[int], peek: Peek) -> Iterator[tuple[int, bytes]]:
    for number, argument in enumerate(arguments):
        long = name in _LENGTH_AFTER and number == 1
        if contents := peek(argument, arguments[2] if long else _SOME):
            yield argument, contents
            if not long:  # a structure may point to more: UFFDIO_COPY's page, an iovec's buffer
                for word in words(contents):
                    if inner := peek(word, _SOME):
                        yield word, inner


def output(name: str, arguments: Sequence[int], value: int, peek: Peek) -> bytes:
    """What a system call that returned `value` has written, as far as a case may look at it."""
    if name in ("pread64", "read"):
        return peek(arguments[1], max(value, 0))
    if name == "mincore":
        return peek(arguments[2], 1)
    if name != "ioctl":
        return b""
    made = peek(arguments[2], arguments[1] >> 16 & 0x3FFF)
    if made and arguments[1] == Ioctl.PAGEMAP_SCAN and value > 0:
        made += peek(words(made)[VECTOR_WORD], value * REGION_WORDS * 8)
    return made


def words(contents: bytes) -> tuple[int, ...]:
    """The 8-byte words of a structure."""
    return struct.unpack(f"<{len(contents) // 8}Q", contents[: len(contents) // 8 * 8])
