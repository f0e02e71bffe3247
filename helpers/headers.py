# SPDX-License-Identifier: GPL-2.0-only
"""Sees to it that Python's C headers are there, as the cffi module needs them.

usage: python -m helpers.headers
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def missing() -> bool:
    """Whether this interpreter's Python.h is absent."""
    return not (Path(sysconfig.get_path("include")) / "Python.h").exists()


def main() -> str | None:
    """Installs the headers where we may; else the one line that says what to do."""
    if not missing():
        return None
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {package} for Python.h", flush=True)
        subprocess.run(["apt-get", "-qq", "update"], check=False)
        subprocess.run(["apt-get", "-qqy", "install", package], check=False)
    return (
        f"Python.h is missing: apt-get install {package}, or your system's like"
        if missing()
        else None
    )


if __name__ == "__main__":
    sys.exit(main())
