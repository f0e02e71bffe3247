# SPDX-License-Identifier: GPL-2.0-only
"""usage: ./run-in-vm.sh [OPTION...] [KERNEL...] [-- PYTEST-ARGUMENT...]

Boots kernels and runs the suite in each. KERNEL is a name of kernels.txt, a shell pattern of
such names, a group of kernels.txt, or the path of a bzImage, a kernel build tree, a .deb, or a
folder with an unpacked kernel package; without one, all of kernels.txt that are in no group.
What follows -- goes to pytest: -k, -x, files.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from helpers import build
from vm import guests, kernels, packages, qemu
from vm.built import LinuxSource
from vm.campaign import Campaign
from vm.errors import VmError, first
from vm.guests import PROJECT, Terms
from vm.kernels import Kernel, KernelFiles

_USAGE, _INTERRUPTED = 2, 130


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    kernels: list[Kernel]
    arguments: list[str]
    results: Path
    minutes: float
    silence: float | None
    fresh: bool
    quiet: bool

    def tell(self, text: str) -> None:
        """Says what only those want to know who watch."""
        if not self.quiet:
            _say(text)


class _Parser(argparse.ArgumentParser):
    """Complains in one line, as all else does."""

    def error(self, message: str) -> NoReturn:
        raise VmError(f"{message} (--help tells more)")


def _request(words: list[str]) -> Request:
    split = words.index("--") if "--" in words else len(words)
    parser = _Parser(
        prog="run-in-vm.sh",
        usage=(__doc__ or "").removeprefix("usage: "),
        allow_abbrev=False,
    )
    parser.add_argument("wanted", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument(
        "--kernels",
        type=Path,
        metavar="FILE",
        default=PROJECT / "kernels.txt",
        help="another list of kernels",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        default=PROJECT / "results",
        help="where the run's folder is made (default: results)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        metavar="MINUTES",
        default=60.0,
        help="for each kernel (default: 60)",
    )
    parser.add_argument(
        "--silence",
        type=float,
        metavar="SECONDS",
        help="a guest hangs that has said nothing for so long (default: 60 with KVM, else 150)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="fetch the newest packages, though the cache has some, and build anew",
    )
    parser.add_argument("--quiet", action="store_true", help="tell only what went wrong")
    options = parser.parse_args(words[:split])
    listed = kernels.load(options.kernels)
    usual = [kernel for kernel in listed if not kernel.group]
    chosen = kernels.choose(listed, options.wanted) if options.wanted else usual
    if not chosen:
        raise VmError(f"{options.kernels} lists no kernel")
    return Request(
        kernels=chosen,
        arguments=words[split + 1 :],
        results=options.results,
        minutes=options.limit,
        silence=options.silence,
        fresh=options.fresh,
        quiet=options.quiet,
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _files(campaign: Campaign, request: Request) -> KernelFiles | None:
    """A kernel's files; that there are none is its result."""
    kernel = campaign.kernel
    try:
        if isinstance(kernel.source, packages.Package) and (
            request.fresh or not kernel.source.cached.is_dir()
        ):
            request.tell(
                f"{kernel.name}: fetching {kernel.source.pattern} of {kernel.source.suite}"
            )
        if isinstance(kernel.source, LinuxSource):
            request.tell(f"{kernel.name}: built of {kernel.source.package}, at first in minutes")
        files = kernel.files(fresh=request.fresh)
        request.tell(f"{kernel.name}: {files.release}, {files.image}")
    except VmError as error:
        _say(f"{kernel.name}: {error}")
        campaign.unbootable(str(error))
        return None
    return files


async def _run(request: Request, folder: Path, present: Mapping[str, bytes]) -> None:
    """Runs the suite in guests of all kernels."""
    campaigns = [Campaign(kernel, folder / kernel.name) for kernel in request.kernels]
    found = [(c, files) for c in campaigns if (files := _files(c, request))]
    if found:
        terms = Terms(
            arguments=request.arguments,
            seconds=request.minutes * 60,
            silence=request.silence,
            files=present,
            quiet=request.quiet,
        )
        await guests.run(found, terms)


def _make_folder(results: Path) -> Path:
    folder = results / f"vm-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True)
    return folder.resolve()


def _report(folder: Path, *, quiet: bool) -> int:
    """Merges the streams of all kernels; the run's exit code is the report's."""
    command = [sys.executable, "-m", "report", str(folder), *(["--quiet"] if quiet else [])]
    return subprocess.run(command, cwd=PROJECT, check=False).returncode


def main(words: list[str], present: Mapping[str, bytes] | None = None) -> int:
    """Does what the command line says; `present` is what else a guest finds, by path."""
    guests.interruptible()
    folder = None
    try:
        request = _request(words)
        request.results.mkdir(parents=True, exist_ok=True)
        qemu.check()
        folder = _make_folder(request.results)
        request.tell(f"results: {folder}")
        asyncio.run(_run(request, folder, present or {}))
        return _report(folder, quiet=request.quiet)
    except KeyboardInterrupt:
        kept = f"; what was done is in {folder}" if folder else ""
        _say(f"run-in-vm.sh: interrupted{kept}")
        return _INTERRUPTED
    except Exception as caught:
        error = first(caught)
        if not isinstance(error, (VmError, OSError, build.BuildError)):
            raise
        _say(f"run-in-vm.sh: {error}")
        return _USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
