# SPDX-License-Identifier: GPL-2.0-only
"""The modules that a guest loads, in an order in which each finds what it depends on."""

from __future__ import annotations

import gzip
import lzma
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from vm.errors import VmError

SWAP = ("lzo_rle", "zram")
# The results' file system, swap, and disks: what isn't a module is built in, or not there.
WANTED = (
    "virtio_pci", "9pnet_virtio", "9p",
    *SWAP,
    "virtio_blk", "crc32c_generic", "ext4", "xfs",
)  # fmt: skip


def content(file: Path) -> bytes:
    """A module's ELF image. Raises OSError, VmError."""
    data = file.read_bytes()
    match file.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case ".zst":
            command = ["zstd", "-dcq", str(file)]
            try:
                return subprocess.run(command, capture_output=True, check=True).stdout
            except (FileNotFoundError, subprocess.CalledProcessError) as error:
                raise VmError(f"can't unpack {file}: is zstd installed? ({error})") from None
    return data


def dependencies(module: bytes) -> list[str]:
    """The names that a module's modinfo says it depends on."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    names = found[1].decode().split(",") if found else []
    return [name.replace("-", "_") for name in names if name]


def ordered(files: Mapping[str, Path], wanted: Iterable[str] = WANTED) -> dict[str, bytes]:
    """The wanted modules and those they need, as they are to be loaded."""
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        if name not in loaded and name in files:
            module = content(files[name])
            for dependency in dependencies(module):
                load(dependency)
            loaded[name] = module

    for name in wanted:
        load(name)
    return loaded
