# SPDX-License-Identifier: GPL-2.0-only
"""The list of kernels, and where a kernel's image, modules and configuration lie."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from helpers.build import BuildError
from vm import built, packages
from vm.built import LinuxSource
from vm.errors import VmError
from vm.packages import Package

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_FEATURE = re.compile(r"[A-Z][A-Z0-9_]*")
_GROUP = re.compile(r"\[([a-z][a-z0-9-]*)\]")
_IMAGE = "arch/x86/boot/bzImage"
_GRAMMAR = "the head of the file tells the grammar"


@dataclass(frozen=True)
class Running:
    """The kernel that runs here."""


Source = Package | LinuxSource | Path | Running


@dataclass(frozen=True)
class Kernel:
    """A kernel under test."""

    name: str
    source: Source
    features: tuple[str, ...] | None  # those it must announce; None: nothing is said of them
    group: str = ""  # it is run when it, or this, is asked for; "": always

    def files(self, *, fresh: bool = False) -> KernelFiles:
        """Its files; those of a package are fetched, or built. Raises VmError or OSError."""
        if isinstance(self.source, Package):
            return in_folder(self.source.folder(fresh=fresh))
        if isinstance(self.source, LinuxSource):
            return in_tree(_built(self.source, fresh=fresh))
        if isinstance(self.source, Running):
            return running()
        return at(self.source)


# -- the list


def parse(text: str, where: Path) -> list[Kernel]:
    """The kernels of a list; `where` is its file. Raises VmError, which names the line."""
    kernels: dict[str, Kernel] = {}
    group = ""
    for number, line in _logical_lines(text):
        if title := _GROUP.fullmatch(line):
            group = title[1]
            continue
        try:
            kernel = _kernel(line.split(), where.parent, kernels, group)
        except VmError as error:
            raise VmError(f"{where}:{number}: {error}") from None
        kernels[kernel.name] = kernel
    return list(kernels.values())


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """The lines without comments, continuations joined, with the number of the first."""
    lines: list[tuple[int, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).rstrip()
        if not line:
            continue
        if line[0].isspace() and lines:
            lines[-1] = (lines[-1][0], lines[-1][1] + line)
        else:
            lines.append((number, line))
    return lines


def _kernel(words: list[str], base: Path, known: dict[str, Kernel], group: str) -> Kernel:
    name, *rest = words
    if not _NAME.fullmatch(name):
        raise VmError(f"{name!r} is no name: letters, digits and . _ + - make one")
    if name in known:
        raise VmError(f"{name} is already named above")
    has = rest.index("has") if "has" in rest else len(rest)
    source = _source(rest[:has], base)
    features = _features(rest[has + 1 :], known) if has < len(rest) else None
    return Kernel(name, source, features, group)


def _source(words: list[str], base: Path) -> Source:
    match words:
        case ["package", suite, pattern]:
            return Package(suite, pattern)
        case ["build", suite, package]:
            return LinuxSource(suite, package)
        case ["path", path]:
            return base / Path(path).expanduser()
        case ["running"]:
            return Running()
    said = " ".join(words) or "nothing"
    raise VmError(
        "expected `package SUITE PATTERN`, `build SUITE PACKAGE`, `path PATH` or `running`, found "
        f"{said!r}; {_GRAMMAR}"
    )


def _features(words: list[str], known: dict[str, Kernel]) -> tuple[str, ...]:
    features: list[str] = []
    for word in words:
        if word.startswith("+"):
            if word[1:] not in known:
                raise VmError(f"{word}: no kernel of this name above")
            features += known[word[1:]].features or ()
        elif _FEATURE.fullmatch(word):
            features.append(word)
        else:
            raise VmError(f"{word!r} is no feature; {_GRAMMAR}")
    return tuple(dict.fromkeys(features))


def load(path: Path) -> list[Kernel]:
    """The kernels of a file. Raises VmError."""
    try:
        return parse(path.read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise VmError(f"can't read the list of kernels: {error}") from None


def choose(kernels: list[Kernel], wanted: Iterable[str]) -> list[Kernel]:
    """The kernels named: by name, shell pattern or group, or a path to one that isn't listed.

    Raises VmError where nothing answers.
    """
    chosen: dict[str, Kernel] = {}
    for word in wanted:
        found = [k for k in kernels if k.group == word or fnmatchcase(k.name, word)]
        if not found and (os.sep in word or Path(word).exists()):
            found = [_from_path(Path(word), chosen)]
        if not found:
            names = ", ".join(kernel.name for kernel in kernels) or "none"
            raise VmError(f"no such kernel: {word} (listed: {names}; a path names another)")
        chosen |= {kernel.name: kernel for kernel in found}
    return list(chosen.values())


def _from_path(path: Path, taken: Iterable[str]) -> Kernel:
    if not path.exists():
        raise VmError(f"no such kernel: {path} doesn't exist")
    path = path.resolve()
    tail = path.parts[-4:]
    stem = path.parents[3].name if "/".join(tail) == _IMAGE else path.name.removesuffix(".deb")
    stem = re.sub(r"[^A-Za-z0-9._+-]", "-", stem).lstrip(".-_+") or "kernel"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return Kernel(name, path, None)


# -- the files


@dataclass(frozen=True)
class KernelFiles:
    """What is booted, and what comes with it."""

    image: Path
    module_root: Path | None
    config: Path | None

    @cached_property
    def release(self) -> str:
        """The release that the image says it is. Raises VmError where it is no bzImage."""
        try:
            with self.image.open("rb") as file:
                head = file.read(1 << 16)
        except OSError as error:
            raise VmError(f"can't read the kernel image: {error}") from None
        start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
        text = head[start : start + 256].partition(b"\0")[0]
        if head[0x202:0x206] != b"HdrS" or not text:
            raise VmError(f"{self.image} is no x86 bzImage")
        return text.split()[0].decode(errors="replace")

    def modules(self) -> dict[str, Path]:
        """The files of the kernel's modules, by name."""
        if self.module_root is None:
            return {}
        files = self.module_root.rglob("*.ko*")
        suffixes = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
        return {
            file.name.partition(".")[0].replace("-", "_"): file
            for file in files
            if file.name.endswith(suffixes)
        }


def _present(*paths: Path) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def at(path: Path) -> KernelFiles:
    """The kernel at a path: a bzImage, a build tree, a .deb, or a folder of unpacked packages.

    Raises VmError.
    """
    path = path.resolve()
    if not path.exists():
        raise VmError(f"no such kernel: {path} doesn't exist")
    if path.name.endswith(".deb"):
        stat = path.stat()
        folder = packages.cache() / f"{path.stem}-{stat.st_mtime_ns:x}-{stat.st_size:x}"
        if not folder.is_dir():
            packages.unpack([path], folder)
        return in_folder(folder)
    if path.is_dir():
        return in_tree(path) if (path / _IMAGE).exists() else in_folder(path)
    if "/".join(path.parts[-4:]) == _IMAGE:
        return in_tree(path.parents[3])
    return _image(path)


def _built(source: LinuxSource, *, fresh: bool) -> Path:
    """The build tree of a small kernel from that source, with all that the cases ask for.
    Raises VmError, OSError."""
    try:
        return built.build(built.Flavour("plain"), source, fresh=fresh)
    except BuildError as error:
        raise VmError(str(error)) from None


def in_tree(tree: Path) -> KernelFiles:
    """The kernel of a build tree."""
    return KernelFiles(tree / _IMAGE, tree, _present(tree / ".config"))


def in_folder(folder: Path) -> KernelFiles:
    """The kernel of a folder of unpacked packages. Raises VmError unless there is one."""
    patterns = ("boot/vmlinuz-*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz")
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if len(found) != 1:
        what = f"{len(found)} kernels" if found else "no kernel"
        raise VmError(f"{folder} holds {what}: neither a build tree nor one unpacked kernel")
    return _image(found[0])


def _image(image: Path) -> KernelFiles:
    """An image with the modules and the configuration that lie where a package puts them."""
    release = KernelFiles(image, None, None).release
    root = image.parents[3] if image.parent.name == release else image.parent.parent
    if root.name == "usr":
        root = root.parent
    modules = _present(root / "lib/modules" / release, root / "usr/lib/modules" / release)
    beside = image.with_name(image.name.replace("vmlinuz", "config"))
    return KernelFiles(image, modules, _present(beside, root / "boot" / f"config-{release}"))


def running() -> KernelFiles:
    """The running kernel. Raises VmError where its image isn't on this machine."""
    release = os.uname().release
    image = _present(Path(f"/boot/vmlinuz-{release}"), Path(f"/lib/modules/{release}/vmlinuz"))
    if image is None:
        raise VmError(
            f"the image of the running kernel {release} isn't on this machine "
            "(`make check` runs the suite on it as it runs)"
        )
    return _image(image.resolve())
