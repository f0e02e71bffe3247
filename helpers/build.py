# SPDX-License-Identifier: GPL-2.0-only
"""Builds the C side on demand: the cffi module and the subject's executable.

Both lie in a folder named by a hash of all that goes into them, so a changed source
is a new folder, a finished folder is never written again, and a read-only tree with
a finished folder in it needs no compiler.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

NATIVE = Path(__file__).parent / "native"
MODULE = "_channel"
EXECUTABLE = "subject"
CFLAGS = ["-O2", "-Wall", "-Wextra"]
_CDEF_HEADERS = ("wire.h", "uapi.h")
# cffi's own call wrappers, and functions that only Python calls, trip these two
_CFFI_CFLAGS = [*CFLAGS, "-Wno-unused-function", "-Wno-unused-parameter"]

# The system calls a subject is asked for by name.
SYSCALLS = (
    "brk", "clock_gettime", "close", "execve", "exit_group", "fallocate", "flock", "fstat",
    "fsync", "ftruncate", "futex", "getcwd", "io_setup", "ioctl", "kill", "madvise", "mbind",
    "memfd_create", "migrate_pages", "mincore", "mlock", "mlock2", "mmap", "move_pages",
    "mprotect", "mremap", "munlock", "munmap", "nanosleep", "openat", "pipe2", "pread64",
    "process_vm_readv", "process_vm_writev", "ptrace", "pwrite64", "read", "rt_sigaction",
    "sched_setaffinity", "sched_setscheduler", "set_tid_address", "setresuid", "shmat", "shmctl",
    "shmget", "sigaltstack", "swapoff", "tee", "tgkill", "userfaultfd", "vmsplice", "wait4",
    "write",
)  # fmt: skip

_CDEF_FUNCTIONS = """
static int channel_send(int socket, const struct request *request, int passed);
static int channel_wait(int first, int second, int timeout_ms);
static int channel_receive(int socket, struct reply *reply, int *passed);
"""


class BuildError(RuntimeError):
    """The C side can't be built here; the message is one line that says what to do."""


def _cdef() -> str:
    numbers = "".join(f"static const int SYS_{name};\n" for name in SYSCALLS)
    headers = "".join((NATIVE / name).read_text() for name in _CDEF_HEADERS)
    return headers + _CDEF_FUNCTIONS + numbers


def _key(sources: Iterable[Path]) -> str:
    """A hash of the sources, this file, and the interpreter and machine they are built for."""
    digest = hashlib.sha256()
    for source in [*sources, Path(__file__)]:
        digest.update(source.read_bytes())
    target = f"{platform.machine()} {sys.implementation.cache_tag}"
    digest.update(target.encode())
    return digest.hexdigest()[:16]


def _roots() -> Iterator[Path]:
    """Where builds may lie, most wanted first: the tree, the user's cache, a temporary folder."""
    yield NATIVE.parent.parent / "build"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uffd-wp" / "build"
    yield Path(tempfile.gettempdir()) / f"uffd-wp-build-{os.getuid()}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, so that of many workers that start at once one builds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what a compiler says into a BuildError."""
    import cffi

    try:
        yield
    except (OSError, subprocess.CalledProcessError, cffi.VerificationError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise BuildError(
            "cannot build the C helper: install a C compiler and Python's headers "
            f"(Debian: apt-get install gcc python3-dev); it said: {detail.strip()[-2000:]}"
        ) from error


def compile_program(source: Path, program: Path, *flags: str) -> None:
    """Compiles a C file into an executable. Raises BuildError."""
    command = [*shlex.split(os.environ.get("CC", "cc")), *CFLAGS, "-pthread", *flags]
    with _explained():
        subprocess.run(
            [*command, "-o", str(program), str(source)], check=True, capture_output=True, text=True
        )


def _compile(folder: Path) -> None:
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(_cdef())
    sources = ("wire.h", "uapi.h", "channel.c")
    ffi.set_source(
        MODULE,
        "#include <stdint.h>\n#include <sys/syscall.h>\n"
        + "".join(f'#include "{name}"\n' for name in sources),
        include_dirs=[str(NATIVE)],
        extra_compile_args=_CFFI_CFLAGS,
    )
    compile_program(NATIVE / "subject.c", folder / EXECUTABLE, str(NATIVE / "serve.c"))
    with _explained():
        ffi.compile(tmpdir=str(folder))


def _writable(root: Path) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(root, os.W_OK)


def finished(sources: Iterable[Path], compile_into: Callable[[Path], None]) -> Path:
    """The folder with what `compile_into` makes of the sources, made first where needed.

    Raises BuildError when there is no compiler, no Python header, or nowhere to write.
    """
    key = _key(sources)
    for root in _roots():
        if (root / key).is_dir():
            return root / key
    writable = [root for root in _roots() if _writable(root)]
    if not writable:
        raise BuildError("cannot build the C helper: no writable folder; set XDG_CACHE_HOME to one")
    root = writable[0]
    with locked(root):
        if not (root / key).is_dir():
            with tempfile.TemporaryDirectory(dir=root) as scratch:
                compile_into(Path(scratch))
                os.rename(scratch, root / key)
                os.mkdir(scratch)  # for the context's own removal
    return root / key


def built() -> Path:
    """The folder with the finished module and the subject. Raises BuildError."""
    return finished(sorted(NATIVE.iterdir()), _compile)


def load() -> tuple[ModuleType, Path]:
    """The cffi module (`ffi`, `lib`) and the path of the subject's executable."""
    folder = built()
    (extension,) = folder.glob(f"{MODULE}*.so")
    spec = importlib.util.spec_from_file_location(MODULE, extension)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, folder / EXECUTABLE
