# SPDX-License-Identifier: GPL-2.0-only
"""The guest's first process: loads modules, mounts, and runs pytest on the project.

The kernel starts it as `python init.py`, so that no shell and no tools are needed in a guest.
It does what the host has written into PLAN; results go to the folder that the host shares, and
pytest's exit code, as the last of them, into the file `status` there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import shutil
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypedDict

PLAN = Path("/uffd-wp/plan.json")
MODULES = Path("/uffd-wp/modules")
STATUS = "status"
OUTPUT = "output.log"
DISKS = ("ext4", "xfs")  # the file systems on the guest's disks, in their order
TAG = "results"
# The word with which the host tells its reports of a guest's setup from the kernel's messages.
COMPLAINT = "uffd-wp guest: "

_SYS_INIT_MODULE = 175
_MS_RDONLY, _MS_REMOUNT, _MS_BIND = 1, 32, 4096
_RB_AUTOBOOT = 0x01234567
# A dot for each case would cost a round trip to the host each; what counts is in the stream.
_OUTPUT = Path("/uffd-wp/output.log")

_libc = ctypes.CDLL(None, use_errno=True)


class Plan(TypedDict):
    """What the host wants of the guest."""

    project: str
    results: str  # the folder that is shared with the host
    bytecode: str  # the folder of compiled modules
    arguments: list[str]  # pytest's
    modules: list[str]  # in the order in which they are loaded


def _call(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError."""
    os.makedirs(target, exist_ok=True)
    encoded = (source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _call(_libc.mount(*encoded), f"can't mount {kind or source} on {target}")


def _complain(text: str) -> None:
    os.write(1, f"{COMPLAINT}{text}\n".encode())


def _load_modules(names: list[str]) -> None:
    for name in names:
        image = (MODULES / name).read_bytes()
        if _libc.syscall(_SYS_INIT_MODULE, image, len(image), b"") < 0:
            _complain(f"module {name}: {os.strerror(ctypes.get_errno())}")


def _mount_all(plan: Plan) -> None:
    """Raises OSError where the run can't do without."""
    _mount("devtmpfs", "/dev", "devtmpfs")
    _mount("proc", "/proc", "proc")
    _mount("sysfs", "/sys", "sysfs")
    _mount("tmpfs", "/dev/shm", "tmpfs")
    with suppress(OSError):  # what looks into the kernel says so
        _mount("debugfs", "/sys/kernel/debug", "debugfs")
    with suppress(OSError):  # the cases that need memory cgroups say so
        _mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
        Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    _load_modules(plan["modules"])
    os.makedirs(plan["results"])  # it may lie in the project
    project = plan["project"]
    _mount(project, project, "", _MS_BIND)
    _mount(project, project, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    # cache=none: each write reaches the host before write(2) returns
    options = "trans=virtio,version=9p2000.L,msize=262144,cache=none"
    try:
        _mount(TAG, plan["results"], "9p", options=options)
    except OSError as error:
        needs = "CONFIG_9P_FS, CONFIG_NET_9P_VIRTIO and CONFIG_VIRTIO_PCI"
        raise OSError(error.errno, f"{error.strerror}: it needs {needs}") from None


def _run_pytest(plan: Plan) -> NoReturn:
    """Becomes pytest; the import of this interpreter is not paid for twice."""
    os.setsid()
    os.chdir(plan["project"])
    output = os.open(_OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    # the cyclic garbage collector would look through all collected cases time and again
    gc.set_threshold(100_000, 50, 1000)
    sys.argv = ["pytest", *plan["arguments"]]
    sys.path[0] = plan["project"]
    code = 1
    try:
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 3
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _reap(child: int) -> int:
    """Waits for the child, and for whatever orphans come; returns the child's exit code."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def main() -> None:
    plan: Plan = json.loads(PLAN.read_text())
    try:
        _mount_all(plan)
    except OSError as error:
        _complain(error.strerror or str(error))
        return
    for number, kind in enumerate(DISKS):
        try:
            _mount(f"/dev/vd{chr(ord('a') + number)}", f"/mnt/{kind}", kind)
        except OSError as error:  # a run can go without
            _complain(error.strerror or str(error))
    os.environ |= {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": plan["bytecode"],
        "UFFD_WP_DISPOSABLE": "1",  # this kernel may be hung: helpers/machine.py
    }
    child = os.fork()
    if not child:
        _run_pytest(plan)
    status = _reap(child)
    shutil.copyfile(_OUTPUT, Path(plan["results"]) / OUTPUT)
    (Path(plan["results"]) / STATUS).write_text(f"{status}\n")
    os.sync()


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:
        _complain(f"{type(error).__name__}: {error}")
    finally:
        _libc.reboot(_RB_AUTOBOOT)
