# SPDX-License-Identifier: GPL-2.0-only
"""Our UAPI numbers and layouts are those of the kernel's headers, as far as these know them."""

import subprocess
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest

from helpers import uapi
from helpers.subject import ffi

PREFIXES: dict[type[IntFlag] | type[IntEnum], str] = {
    uapi.Feature: "UFFD_FEATURE_",
    uapi.RegisterMode: "UFFDIO_REGISTER_MODE_",
    uapi.ProtectMode: "UFFDIO_WRITEPROTECT_MODE_",
    uapi.CopyMode: "UFFDIO_COPY_MODE_",
    uapi.FaultFlag: "UFFD_PAGEFAULT_FLAG_",
    uapi.Event: "UFFD_EVENT_",
    uapi.Ioctl: "",
    uapi.Advice: "MADV_",
    uapi.Category: "PAGE_IS_",
    uapi.ScanFlag: "PM_SCAN_",
}
STRUCTS = {
    "uffdio_api": "uffdio_api",
    "uffdio_range": "uffdio_range",
    "uffdio_register": "uffdio_register",
    "uffdio_writeprotect": "uffdio_writeprotect",
    "uffdio_copy": "uffdio_copy",
    "uffdio_fill": "uffdio_zeropage",
    "uffd_message": "uffd_msg",
    "io_uring_setup_params": "io_uring_params",
    "io_uring_entry": "io_uring_sqe",
    "io_uring_completion": "io_uring_cqe",
}


def from_headers(names: list[str], tmp_path: Path) -> dict[str, int]:
    """The values that the build machine's headers give to names; those they lack are absent."""
    body = "".join(
        f'#ifdef {name}\nprintf("{name} %lld\\n", (long long)({name}));\n#endif\n' for name in names
    )
    sizes = "".join(
        f'printf("{ours} %zu\\n", sizeof(struct {theirs}));\n' for ours, theirs in STRUCTS.items()
    )
    source = tmp_path / "numbers.c"
    source.write_text(
        "#include <stdio.h>\n#include <stddef.h>\n#include <sys/ioctl.h>\n"
        "#include <linux/userfaultfd.h>\n#include <linux/mman.h>\n#include <linux/fs.h>\n"
        "#include <linux/io_uring.h>\n"
        f"int main(void) {{\n{body}{sizes}return 0; }}\n"
    )
    program = tmp_path / "numbers"
    subprocess.run(["cc", "-w", "-o", program, source], check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(lines[::2], map(int, lines[1::2]), strict=True))


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    names = [prefix + (member.name or "") for kind, prefix in PREFIXES.items() for member in kind]
    return from_headers(names, tmp_path_factory.mktemp("headers"))


@pytest.mark.parametrize("kind", PREFIXES, ids=lambda kind: kind.__name__)
def test_numbers(kind: type[IntFlag] | type[IntEnum], headers: dict[str, int]) -> None:
    ours = {PREFIXES[kind] + (member.name or ""): int(member) for member in kind}
    known = {name: value & 0xFFFF_FFFF for name, value in headers.items() if name in ours}
    assert known == {name: ours[name] for name in known}


def test_headers_knew_something(headers: dict[str, int]) -> None:
    assert {"UFFDIO_WRITEPROTECT", "UFFD_FEATURE_SIGBUS", "UFFD_EVENT_FORK"} <= headers.keys()


@pytest.mark.parametrize("struct", STRUCTS)
def test_sizes(struct: str, headers: dict[str, int]) -> None:
    assert ffi.sizeof(f"struct {struct}") == headers[struct]


def test_scan_argument_size() -> None:
    assert ffi.sizeof("struct pm_scan_arg") == uapi.Ioctl.PAGEMAP_SCAN >> 16 & 0x3FFF
