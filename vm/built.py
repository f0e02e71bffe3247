# SPDX-License-Identifier: GPL-2.0-only
"""Small kernels, built from Debian's linux-source: as it is, with faults planted, or with gcov.

The source is fetched and unpacked once into the user's cache; each flavour of it is built in a
tree of its own, whose unchanged files are hard links. A second build of a flavour compiles only
what has changed, and does nothing where nothing has.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers.build import BuildError, locked
from vm import packages

CONFIG = Path(__file__).with_name("kernel.config")
IMAGE = Path("arch/x86/boot/bzImage")
STAMP, _LAID = ".uffd-wp-built", ".uffd-wp-laid"
_TOOLS = {
    "make": "make", "gcc": "gcc", "ld": "binutils", "flex": "flex", "bison": "bison",
    "bc": "bc", "perl": "perl", "xz": "xz-utils",
}  # fmt: skip

Files = Mapping[str, str]  # the texts of files, by their path in the tree


@dataclass(frozen=True)
class LinuxSource:
    """A package with the source of Linux, in a suite of Debian's."""

    suite: str = "trixie"
    package: str = "linux-source-6.12"

    def tree(self, *, fresh: bool = False) -> Path:
        """The unpacked source, fetched where the cache has none, or when `fresh`; nothing is ever
        built in it.

        Raises VmError, BuildError, OSError.
        """
        folder = _cache() / "source" / self.package
        if fresh or not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            apt = packages.Apt(self.suite)
            apt.update()
            with tempfile.TemporaryDirectory(dir=folder.parent) as name:
                scratch = Path(name)
                (deb,) = apt.download([apt.newest(self.package)], scratch)
                unpacked = _unpack(deb, scratch)
                if folder.exists():
                    folder.rename(scratch / "old")
                unpacked.rename(folder)
        return folder


@dataclass(frozen=True)
class Flavour:
    """A way to build a kernel: what it has beyond `kernel.config`, and what is changed in it."""

    name: str
    config: tuple[Path, ...] = ()  # further fragments
    change: Callable[[Path, str], Files] = field(default=lambda _tree, _config: {})
    """Given the unpacked source and the text of .config, the files that differ from it."""


def _cache() -> Path:
    return packages.cache().parent


def _run(what: str, command: Iterable[str], folder: Path, **environment: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["nice", *command], cwd=folder, env=kept | environment, check=False,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = [line for line in lines if "error" in line.lower()] or lines[-1:]
        raise BuildError(f"{what} failed: {said[0] if said else 'it gave no reason'}")


def _unpack(deb: Path, scratch: Path) -> Path:
    """Unpacks the source in a linux-source package; returns its folder."""
    packages.extract(deb, scratch, re.compile(r"usr/src/linux-source-[^/]+\.tar\.xz$"))
    (archive,) = scratch.glob("usr/src/*")
    _run("unpacking the kernel's source", ["tar", "-xf", str(archive)], scratch)
    (folder,) = scratch.glob("linux-source-*/")
    return folder


def _require_tools() -> None:
    missing = [package for tool, package in _TOOLS.items() if not shutil.which(tool)]
    if missing:
        raise BuildError(f"a kernel can't be built here: apt-get install {' '.join(missing)}")


def options(text: str) -> list[str]:
    """The options of a fragment, each as a line of .config, without comments."""
    lines = (line.partition("#")[0].rstrip() for line in text.splitlines())
    return [line for line in lines if line]


def _has_option(tree: Path, line: str) -> bool:
    """Whether the source has that option; some end as what all kernels have (PROC_SYSCTL, 7.3)."""
    name = line.removeprefix("CONFIG_").partition("=")[0]
    option = re.compile(rf"^(menu)?config {name}$", re.MULTILINE)
    return any(option.search(file.read_text(errors="replace")) for file in tree.rglob("Kconfig*"))


def _configure(tree: Path, fragments: Iterable[Path]) -> str:
    """Makes .config; raises BuildError where the source doesn't take a line of a fragment."""
    wanted = [line for fragment in fragments for line in options(fragment.read_text())]
    with tempfile.NamedTemporaryFile("w", suffix=".config") as file:
        file.write("\n".join(wanted) + "\n")
        file.flush()
        _run("configuring the kernel", ["make", "-s", "allnoconfig"], tree,
             KCONFIG_ALLCONFIG=file.name)  # fmt: skip
    text = (tree / ".config").read_text()
    missing = sorted(set(wanted) - set(text.splitlines()))
    if refused := [line for line in missing if _has_option(tree, line)]:
        raise BuildError(f"the kernel's configuration doesn't take {' '.join(refused)}")
    return text


def _lay(source: Path, tree: Path, files: Files) -> None:
    """Has the tree differ from the source in just these files, touching none without need."""
    laid = tree / _LAID
    before = laid.read_text().split() if laid.exists() else []
    laid.write_text("\n".join({*before, *files}))
    for path in {*before, *files}:
        file, origin = tree / path, source / path
        if path in files:
            text: str | None = files[path]
        else:
            text = origin.read_text() if origin.exists() else None
        if text == (file.read_text() if file.exists() else None):
            continue
        file.unlink(missing_ok=True)  # it may be a link to the source's
        if text is not None:
            file.write_text(text)
    laid.write_text("\n".join(files))


def build(flavour: Flavour, source: LinuxSource | None = None, *, fresh: bool = False) -> Path:
    """The tree of a built flavour, as `vm.kernels.at` and run-in-vm.sh take it; when `fresh`, of
    the newest source and wholly anew, as its other flavours are then when they are asked for.

    That, or a first build, takes some eight minutes of two CPUs. Raises BuildError, VmError,
    OSError.
    """
    origin = (source or LinuxSource()).tree(fresh=fresh)
    tree = _cache() / "built" / f"{origin.name}-{flavour.name}"
    tree.parent.mkdir(parents=True, exist_ok=True)
    with locked(tree.parent):
        if fresh:  # the other flavours' trees have links to files of the source that was
            for old in tree.parent.glob(f"{origin.name}-*"):
                shutil.rmtree(old)
        if not tree.is_dir():
            _require_tools()
            with tempfile.TemporaryDirectory(dir=tree.parent) as name:
                shutil.copytree(origin, Path(name) / "tree", symlinks=True, copy_function=os.link)
                (Path(name) / "tree").rename(tree)
        fragments = (CONFIG, *flavour.config)
        config = _configure(tree, fragments)
        files = flavour.change(origin, config)
        key = _key(config, files)
        stamp = tree / STAMP
        if (tree / IMAGE).exists() and stamp.exists() and stamp.read_text() == key:
            return tree
        stamp.unlink(missing_ok=True)
        _lay(origin, tree, files)
        make = ["make", "-s", f"-j{len(os.sched_getaffinity(0)) + 1}", "bzImage"]
        _run(f"building the kernel in {tree}", make, tree)
        stamp.write_text(key)
    return tree


def _key(config: str, files: Files) -> str:
    digest = hashlib.sha256(repr((config, sorted(files.items()))).encode())
    return digest.hexdigest()
