# SPDX-License-Identifier: GPL-2.0-only
"""The machine's swap devices, and one of our own where it has none: a zram that is hot-added.

Our device bears a label in its header (as by `mkswap -L`), and so is known whoever made it. One
that the machine has is used and never touched.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from mmap import PAGESIZE
from pathlib import Path

from helpers import procfs

_CONTROL = Path("/sys/class/zram-control")
_BYTES = 256 << 20  # the device's size; its memory is taken as pages come
_LABEL = b"uffd-wp tests"
_LABEL_AT, _MAGIC_AT = 1052, PAGESIZE - 10
_REMOVAL_SECONDS = 30.0

_libc = ctypes.CDLL(None, use_errno=True)


def devices() -> list[str]:
    """The paths of all swap devices and files that are in use."""
    return [line.split()[0] for line in procfs.read("/proc/swaps").splitlines()[1:]]


def ours() -> Path | None:
    """The device that was made for runs of this suite, in use or not; only root can tell."""
    return next(_ours(), None)


def _ours() -> Iterator[Path]:
    for path in sorted(Path("/dev").glob("zram*")):
        try:
            with path.open("rb") as device:
                header = device.read(PAGESIZE)
        except OSError:
            continue
        if header[_LABEL_AT : _LABEL_AT + len(_LABEL)] == _LABEL:
            yield path


def offered() -> bool:
    """Whether pages can be swapped out: a case may just have turned our device off."""
    return bool(devices() or ours())


def exclusive() -> bool:
    """Whether pages are swapped to our device and to no other."""
    return bool(ours()) and devices() in ([], [str(ours())])


def provide() -> None:
    """Sees to it that there is a swap device. Raises OSError where none can be made."""
    device = ours()
    if device is None and not devices():
        device = _add()
    if device is not None:
        turn_on(device)


def turn_on(device: Path) -> None:
    """swapon(2), if need be. Raises OSError."""
    if str(device) not in devices():
        _check(_libc.swapon(str(device).encode(), 0), "swapon")


def _add() -> Path:
    """A new device, formatted. Raises OSError."""
    number = (_CONTROL / "hot_add").read_text().strip()
    device = Path(f"/dev/zram{number}")
    try:
        Path(f"/sys/block/{device.name}/disksize").write_text(str(_BYTES))
        with device.open("r+b") as file:
            file.write(_header())
    except OSError:
        _hot_remove(device)
        raise
    return device


def _header() -> bytes:
    """The first page of a swap device, as mkswap(8) writes it."""
    header = bytearray(PAGESIZE)
    # version, last page, number of bad pages
    for offset, value in ((1024, 1), (1028, _BYTES // PAGESIZE - 1), (1032, 0)):
        header[offset : offset + 4] = value.to_bytes(4, "little")
    header[_LABEL_AT : _LABEL_AT + len(_LABEL)] = _LABEL
    header[_MAGIC_AT:] = b"SWAPSPACE2"
    return bytes(header)


def remove() -> None:
    """Takes our device away, if there is one. Raises OSError."""
    if device := ours():
        if str(device) in devices():
            _check(_libc.swapoff(str(device).encode()), "swapoff")
        _hot_remove(device)


def _hot_remove(device: Path) -> None:
    """Raises OSError: EBUSY when others (udev looks at what is new) keep it open for 30 s."""
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while True:
        try:
            (_CONTROL / "hot_remove").write_text(device.name.removeprefix("zram"))
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)  # nothing tells when the last one closes it


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
