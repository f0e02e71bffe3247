# SPDX-License-Identifier: GPL-2.0-only
"""QEMU: how a guest is started, and whether KVM can be used.

QEMU is driven directly, not through virtme-ng: that one needs a terminal, and has the guest
import Python over 9p, which under emulation costs six seconds a boot where an initramfs costs
one. 9p carries only the results. A guest ends with the process that started it, whatever ends
that one, by PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vm import init
from vm.errors import VmError
from vm.kernels import KernelFiles

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 2048  # a guest's, on two nodes
PANIC = "Kernel panic - not syncing"
# What makes each of a guest's file systems, in an image of so many bytes, which is sparse.
_MAKERS = {
    "ext4": (64 << 20, "mke2fs -q -t ext4 -b 4096 -N 64 -E lazy_itable_init=0"),
    "xfs": (300 << 20, "mkfs.xfs -q"),  # the least that mkfs.xfs takes
}
_KVM = Path("/dev/kvm")
_PROBE_SECONDS = 20.0
# mke2fs and mkfs.xfs lie where only root's shell looks
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


@dataclass(frozen=True)
class Accelerator:
    """What runs the guest's CPU, and why it isn't something better."""

    name: str  # kvm or tcg
    why: str

    @property
    def kvm(self) -> bool:
        return self.name == "kvm"

    def arguments(self) -> list[str]:
        """QEMU's arguments.

        The emulator has one thread: with several, guests of Linux 6.12 had an oops at times. It
        performs `rep stosb`, by which kernels clear pages on CPUs that are fast at it (ERMS,
        FSRM), byte by byte: a CPU without these is many times faster at it. Five-level page
        tables (LA57) cost a level in each walk, and what keeps a kernel from user memory (SMAP,
        SMEP, UMIP, PKU) an eighth of the time. The rest stays, for a C library that needs it.
        """
        if self.kvm:
            return ["-accel", "kvm", "-cpu", "host"]
        lacks = ("la57", "erms", "fsrm", "smap", "smep", "umip", "pku")
        cpu = ",".join(["max", *(f"{feature}=off" for feature in lacks)])
        return ["-accel", "tcg,thread=single", "-cpu", cpu]


def command_line(accelerator: Accelerator, folder: Path, *, verbose: bool) -> str:
    """The kernel's command line.

    An oops is a panic and a panic ends QEMU, so that a broken guest is seen at once; a non-
    maskable interrupt, which a guest that hangs is given, is a panic too and shows where it hangs.
    A warning fails its case (helpers/kernel_log.py).
    """
    words = [
        "console=ttyS0",
        "ignore_loglevel earlyprintk=ttyS0" if verbose else "loglevel=5",
        "oops=panic panic=-1 unknown_nmi_panic",
        "mitigations=off random.trust_cpu=on tsc=reliable no_timer_check",
        "init_on_alloc=0",  # a page would be cleared twice
        "transparent_hugepage=madvise",
        "rootfstype=ramfs",  # for a file that isn't on a tmpfs: shmem has abilities of its own
        "" if accelerator.kvm else "rcupdate.rcu_cpu_stall_timeout=60 watchdog_thresh=60",
        f"rdinit={sys.executable} --",
        f"-B -X pycache_prefix={folder}",
        str(Path(init.__file__)),
    ]
    return " ".join(filter(None, words))


def check() -> None:
    """Raises VmError where guests can't be started."""
    for tool, package in (
        (QEMU, "qemu-system-x86"),
        ("setpriv", "util-linux"),
        ("ldd", "libc-bin"),
        ("mke2fs", "e2fsprogs"),
        ("mkfs.xfs", "xfsprogs"),
    ):
        if not shutil.which(tool, path=_PATH):
            raise VmError(f"no {tool} here: apt-get install {package}")
    if any(character.isspace() for character in sys.executable + init.__file__):
        raise VmError("the project's path has a blank in it, which a kernel's command line can't")


def make_disk(image: BinaryIO, kind: str) -> None:
    """Makes an empty disk with a file system for a guest: files on it are written back, other
    than those of an initramfs. Raises VmError."""
    number = image.fileno()
    size, maker = _MAKERS[kind]
    image.truncate(size)
    command = [*maker.split(), f"/proc/self/fd/{number}"]
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": _PATH},
        capture_output=True,
        text=True,
        check=False,
        pass_fds=[number],
    )
    if done.returncode:
        raise VmError(f"can't make a disk for the guests: {command[0]}: {done.stderr.strip()}")


def _qemu(accelerator: Accelerator, image: Path, console: Path, arguments: str) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "KILL", QEMU),
        *accelerator.arguments(),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "pc", "-kernel", str(image), "-append", arguments),
        *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
        *("-monitor", "stdio"),
    ]


class Guest:
    """A QEMU process."""

    def __init__(self, process: Process, console: Path) -> None:
        self._process = process
        self.console = console
        assert process.stderr is not None
        self._said = asyncio.create_task(process.stderr.read())

    @classmethod
    async def start(cls, command: list[str], console: Path, *handed_on: int) -> Guest:
        """Starts QEMU, with some of our descriptors. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=DEVNULL,
            stderr=PIPE,
            start_new_session=True,
            pass_fds=handed_on,
        )
        return cls(process, console)

    @classmethod
    async def boot(
        cls,
        files: KernelFiles,
        accelerator: Accelerator,
        initrd: BinaryIO,
        arguments: str,
        share: Path,
        disks: Sequence[BinaryIO],
        console: Path,
        cpus: int,
    ) -> Guest:
        """Boots a guest that shares the folder `share` with the host, and writes to the images
        `disks`. Raises OSError."""
        half = MEMORY_MIB // 2
        command = [
            *_qemu(accelerator, files.image, console, arguments),
            *(
                "-initrd",
                f"/proc/self/fd/{initrd.fileno()}",
                "-m",
                str(MEMORY_MIB),
                "-smp",
                str(cpus),
            ),
            *("-object", f"memory-backend-ram,id=near,size={half}M"),
            *("-object", f"memory-backend-ram,id=far,size={half}M"),
            *("-numa", f"node,nodeid=0,cpus=0-{cpus - 1},memdev=near"),
            *("-numa", "node,nodeid=1,memdev=far"),
            *("-fsdev", f"local,id=share,path={share},security_model=none,multidevs=remap"),
            *("-device", f"virtio-9p-pci,fsdev=share,mount_tag={init.TAG}"),
        ]
        for disk in disks:
            command += ["-drive", f"file=/proc/self/fd/{disk.fileno()},format=raw,if=virtio"]
        handed_on = [file.fileno() for file in (initrd, *disks)]
        return await cls.start(command, console, *handed_on)

    @classmethod
    async def alone(
        cls,
        files: KernelFiles,
        accelerator: Accelerator,
        initrd: BinaryIO,
        program: Path,
        console: Path,
    ) -> Guest:
        """Boots a guest in which `program`, of the initramfs, is all there is. Raises OSError."""
        words = "console=ttyS0 loglevel=5 panic=-1 oops=panic transparent_hugepage=madvise"
        command = _qemu(accelerator, files.image, console, f"{words} rdinit={program}")
        memory = ["-m", str(MEMORY_MIB), "-initrd", f"/proc/self/fd/{initrd.fileno()}"]
        return await cls.start([*command, *memory], console, initrd.fileno())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def gone(self) -> bool:
        return self._process.returncode is not None

    def log(self) -> str:
        """What the guest's kernel has said so far."""
        try:
            return self.console.read_bytes().decode(errors="replace").replace("\r", "")
        except FileNotFoundError:
            return ""

    async def interrupt(self) -> None:
        """Sends a non-maskable interrupt to all CPUs."""
        if self._process.stdin and not self.gone:
            self._process.stdin.write(b"nmi\n")

    async def end(self) -> str:
        """Ends QEMU where it still runs; returns what it said on standard error."""
        if not self.gone:
            self._process.kill()
        await self._process.wait()
        return (await self._said).decode(errors="replace").strip()


async def choose(files: KernelFiles) -> Accelerator:
    """KVM where it really boots the kernel, else TCG, and why. Raises OSError.

    A kernel without a root file system panics when it has booted: that is the probe.
    """
    if not _KVM.exists():
        return Accelerator("tcg", f"there is no {_KVM}")
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"{_KVM} is closed to this user")
    with tempfile.TemporaryDirectory() as scratch:
        begun, console = time.monotonic(), Path(scratch) / "console"
        kvm = Accelerator("kvm", "")
        command = _qemu(kvm, files.image, console, "console=ttyS0 panic=-1")
        guest = await Guest.start(command, console)
        try:
            while not guest.gone and time.monotonic() - begun < _PROBE_SECONDS:
                await asyncio.sleep(0.05)
                if PANIC in guest.log():
                    seconds = time.monotonic() - begun
                    return Accelerator("kvm", f"it booted {files.release} in {seconds:.1f} s")
            late = "it doesn't boot a kernel" if guest.gone else "it hangs at boot"
        finally:
            said = await guest.end()
        return Accelerator("tcg", f"KVM can't be used: {said.splitlines()[0] if said else late}")
