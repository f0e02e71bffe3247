# SPDX-License-Identifier: GPL-2.0-only
"""The guest's root file system: an initramfs with Python, pytest and the project in it.

It is mapped memory once the kernel has unpacked it, so an import costs no round trip to the
host, and a kernel needs neither a block device nor a file system of its own to boot from it.
What a guest finds lies at the path it has on the host.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from vm.errors import VmError

# The distributions that the suite itself needs; what they require comes along.
_DISTRIBUTIONS = ("pytest", "pytest-xdist", "cffi", "hypothesis")
# Parts of the standard library that are large and that no case can need.
_UNUSED = {
    "__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages",
    "dist-packages", "test", "tests", "tkinter", "turtledemo",
}  # fmt: skip
_UNUSED_MODULE = re.compile(r"_(curses|dbm|gdbm|sqlite3|ssl|test|tkinter|xx)|readline|xx|nis\.")
_PROJECT_UNUSED = {"__pycache__", "build", "results"}


class Archive:
    """A cpio archive in the "newc" form that the kernel unpacks; each path is added once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._known: set[str] = set()

    def _write(self, name: str, mode: int, data: bytes, mtime: int, device: int = 0) -> None:
        encoded = name.encode() + b"\0"
        number = len(self._known)
        fields = (
            number, mode, 0, 0, 1, mtime, len(data), 0, 0,
            os.major(device), os.minor(device), len(encoded), 0,
        )  # fmt: skip
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._file.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    def _entry(
        self, path: Path, mode: int, data: bytes = b"", mtime: int = 0, device: int = 0
    ) -> None:
        self._known.add(str(path))
        self._write(str(path).lstrip("/"), mode, data, mtime, device)

    def folder(self, path: Path) -> None:
        """Adds a folder and those above it; links on the way are kept as links."""
        if str(path) in self._known or path == path.parent:
            return
        self.folder(path.parent)
        if path.is_symlink():
            self._link(path)
        else:
            self._entry(path, stat.S_IFDIR | 0o755)

    def _link(self, path: Path) -> None:
        target = os.readlink(path)
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())
        self.add(Path(os.path.normpath(path.parent / target)))

    def add(self, path: Path) -> None:
        """Adds a file of the host, or a folder without what is in it."""
        if str(path) in self._known:
            return
        if path.is_dir():
            self.folder(path)
            return
        self.folder(path.parent)
        if (there := path.parent.resolve() / path.name) != path:
            self.add(there)
        elif path.is_symlink():
            self._link(path)
        else:
            found = path.stat()
            mode = stat.S_IFREG | (0o755 if found.st_mode & 0o111 else 0o644)
            self._entry(path, mode, path.read_bytes(), int(found.st_mtime))

    def text(self, path: str, data: bytes) -> None:
        """Adds a file with the given content; a program can be run."""
        self.folder(Path(path).parent)
        mode = 0o755 if data.startswith(b"\x7fELF") else 0o644
        self._entry(Path(path), stat.S_IFREG | mode, data)

    def device(self, path: str, number: int) -> None:
        """Adds a character device."""
        self.folder(Path(path).parent)
        self._entry(Path(path), stat.S_IFCHR | 0o600, device=number)

    def close(self) -> None:
        """Writes the trailer; further archives may follow in the same file."""
        self._write("TRAILER!!!", 0, b"", 0)
        self._file.write(bytes(-self._file.tell() % 512))


# -- what goes in


def _tree(root: Path, unused: set[str], wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """The files of a folder, without the folders named in `unused` and hidden ones."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in unused and name[0] != "."]
        yield from (path for name in files if wanted(path := Path(folder) / name))


def _standard_library() -> Iterator[Path]:
    paths = sysconfig.get_paths()
    for root in {paths["stdlib"], paths["platstdlib"]}:
        yield from _tree(Path(root), _UNUSED, _is_needed)


def _is_needed(path: Path) -> bool:
    return path.suffix == ".py" or (path.suffix == ".so" and not _UNUSED_MODULE.match(path.name))


def _interpreter() -> Iterator[Path]:
    """The interpreter by the name it was called by, and what makes it one of an environment."""
    yield Path(sys.executable)
    marker = Path(sys.prefix) / "pyvenv.cfg"
    if marker.exists():
        yield marker


def _distributions() -> Iterator[Path]:
    """The files of the distributions that the suite needs."""
    pending, seen = list(_DISTRIBUTIONS), set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # required on other systems only
        needed = (line for line in found.requires or () if "extra ==" not in line)
        pending += [match[0] for line in needed if (match := re.match(r"[\w.-]+", line))]
        for file in found.files or ():
            path = Path(str(found.locate_file(file)))
            if path.suffix != ".pyc" and path.exists():
                yield path


def project_files(project: Path, native: Iterable[Path]) -> Iterator[Path]:
    """The project's own files and its finished C side, in folders."""
    yield from _tree(project, _PROJECT_UNUSED, lambda path: path.suffix != ".pyc")
    for folder in native:
        yield from (path for path in folder.iterdir() if path.suffix not in (".c", ".o"))


def _libraries(files: Iterable[Path]) -> set[Path]:
    """The shared libraries, and the loader, that some programs and modules need."""
    command = ["ldd", *map(str, files)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE)
    if not found:
        raise VmError("ldd names no library of Python's: is it installed?")
    return {Path(path) for path in found}


def write_base(file: BinaryIO, project: Path, native: Iterable[Path], bytecode: Path) -> None:
    """Writes what all guests have in common: Python, pytest, the project, and their bytecode."""
    archive = Archive(file)
    for name in ("proc", "sys", "dev/shm", "tmp", "run", "root", "etc", "boot"):
        archive.folder(Path("/") / name)
    archive.device("/dev/console", os.makedev(5, 1))
    archive.device("/dev/null", os.makedev(1, 3))
    archive.text("/etc/passwd", b"root:x:0:0::/root:\nnobody:x:65534:65534::/:\n")
    archive.text("/etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    files = [
        *_interpreter(),
        *_standard_library(),
        *_distributions(),
        *project_files(project, native),
        *bytecode.rglob("*.pyc"),
    ]
    binary = [path for path in files if path.suffix == ".so" or path.name == "subject"]
    for path in [*files, *_libraries([Path(sys.executable), *binary])]:
        archive.add(path)
    archive.close()


def compile_bytecode(project: Path, bytecode: Path) -> None:
    """Has Python and pytest write the bytecode of all that a run imports. Raises VmError.

    pytest rewrites the assertions of each test file at its first import, which costs an
    emulated CPU many seconds.
    """
    command = [sys.executable, "-X", f"pycache_prefix={bytecode}", "-m", "pytest"]
    command += ["-p", "no:cacheprovider", "--collect-only", "-q", "uffd_tests"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command, cwd=project, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise VmError(f"the cases can't be collected on this machine: {lines[-1]}")
