# SPDX-License-Identifier: GPL-2.0-only
"""A device that takes pages into memory of its own, or maps them for itself alone: the kernel's
test driver, which behaves as a GPU's does.

Source: Documentation/mm/hmm.rst, lib/test_hmm_uapi.h.
"""

from __future__ import annotations

import os
from contextlib import suppress
from fcntl import LOCK_EX
from pathlib import Path

from helpers.machine import Need
from helpers.region import Region, Unproven
from helpers.subject import SLOT_BYTES
from helpers.uapi import Ioctl

_NODE = Path("/dev/hmm_dmirror0")
# Any file, which the device's user locks: one that is closed gives back all it holds, of all.
_ONE_AT_A_TIME = Path("/proc/sys/kernel/ostype")
_IN_DEVICE, _WHERE = 0x20, 0xF0  # HMM_DMIRROR_PROT_*: the upper half tells where a page is
_BUFFER = SLOT_BYTES // 2  # in the main thread's slot, for what the device reads of each page

DEVICE_MEMORY = Need(
    lambda _: os.access(_NODE, os.R_OK | os.W_OK),
    f"there is no {_NODE}: ./run-in-vm.sh built, or boot a kernel with CONFIG_DEVICE_PRIVATE=y and "
    "CONFIG_TEST_HMM=y",
)


class Device:
    """The device, as a region's process has it open."""

    def __init__(self, region: Region) -> None:
        """Raises OSError."""
        self._region, self._subject = region, region.subject
        self._descriptor = self._subject.open(str(_NODE), os.O_RDWR)
        self._subject.lock(_ONE_AT_A_TIME, LOCK_EX)  # and it is closed after the device

    def _call(self, request: Ioctl, pages: range) -> None:
        """Raises OSError."""
        start, _ = self._region.span(pages)
        main = self._subject.main
        buffer = main.scratch_address + _BUFFER
        main.struct("hmm_dmirror_cmd", addr=start, ptr=buffer, npages=len(pages))
        self._subject.syscall("ioctl", self._descriptor, request, main.scratch_address)

    def _has(self) -> int:
        """How many pages of the region's unit lie in its memory. Raises OSError."""
        self._call(Ioctl.HMM_DMIRROR_SNAPSHOT, self._region.unit)
        found = self._subject.main.scratch(len(self._region.unit), _BUFFER)
        return sum(byte & _WHERE == _IN_DEVICE for byte in found)

    def take(self) -> None:
        """Moves the region's unit to the device. Raises OSError, Unproven."""
        self._call(Ioctl.HMM_DMIRROR_MIGRATE_TO_DEV, self._region.unit)
        if (taken := self._has()) != len(self._region.unit):
            raise Unproven(f"the device has taken {taken} pages of {len(self._region.unit)}")

    def ask(self) -> None:
        """Has it ask for the tested page, of which it may get none. Raises OSError."""
        page = self._region.page
        with suppress(FileNotFoundError):
            self._call(Ioctl.HMM_DMIRROR_MIGRATE_TO_DEV, range(page, page + 1))

    def give_back(self) -> None:
        """Moves the region's unit back to memory. Raises OSError, Unproven."""
        self._call(Ioctl.HMM_DMIRROR_MIGRATE_TO_SYS, self._region.unit)
        if kept := self._has():
            raise Unproven(f"the device has kept {kept} pages")

    def hold(self) -> None:
        """Maps the region's unit for the device alone: any access of a CPU takes it back.
        Raises OSError, Unproven; EBUSY where it may not write to a page."""
        self._call(Ioctl.HMM_DMIRROR_EXCLUSIVE, self._region.unit)
        try:
            self._call(Ioctl.HMM_DMIRROR_CHECK_EXCLUSIVE, self._region.unit)
        except PermissionError:  # which says that it has them
            return
        raise Unproven("the device has given the pages back at once")
