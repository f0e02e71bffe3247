# SPDX-License-Identifier: GPL-2.0-only
"""usage: python -m vm.alone KERNEL PROGRAM

Boots a kernel with one program in place of a system, for `git bisect run`: a reproducer, built
with `cc -static`. KERNEL is what run-in-vm.sh takes; the modules that zram takes lie in /modules,
from where the reproducer loads them. The exit status is the program's: 0 good, 1 bad; and 125,
which git skips, where it can't be told: the program says 2, or the guest is lost.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from vm import initramfs, kernels, modules, qemu
from vm.errors import VmError
from vm.guests import PROJECT
from vm.kernels import KernelFiles

SKIP = 125
_SECONDS = 300.0
_POLL_SECONDS = 0.1
_STATUS = re.compile(r"^reproducer: exit status (\d+)$", re.MULTILINE)


async def _run(files: KernelFiles, program: Path) -> int:
    """The program's exit status, or SKIP. Raises VmError, OSError."""
    accelerator = await qemu.choose(files)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as initrd:
        archive = initramfs.Archive(initrd)
        for folder in ("proc", "sys", "tmp", "dev/shm"):
            archive.folder(Path("/") / folder)
        archive.device("/dev/console", os.makedev(5, 1))
        archive.add(program)
        for number, image in enumerate(modules.ordered(files.modules(), modules.SWAP).values()):
            archive.text(f"/modules/{number:02}", image)
        archive.close()
        initrd.flush()
        console = Path(scratch) / "console"
        guest = await qemu.Guest.alone(files, accelerator, initrd, program, console)
        end = time.monotonic() + _SECONDS
        while not guest.gone and time.monotonic() < end:
            await asyncio.sleep(_POLL_SECONDS)
        await guest.end()
        log = guest.log()
    print(log)
    status = _STATUS.search(log)
    return int(status[1]) if status and status[1] in "01" else SKIP


def main(words: list[str]) -> int:
    if len(words) != 2:
        print(__doc__, file=sys.stderr)
        return SKIP
    try:
        qemu.check()
        (kernel,) = kernels.choose(kernels.load(PROJECT / "kernels.txt"), words[:1])
        return asyncio.run(_run(kernel.files(fresh=False), Path(words[1]).resolve()))
    except (VmError, OSError, ValueError) as error:
        print(f"vm.alone: {error}", file=sys.stderr)
        return SKIP


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
