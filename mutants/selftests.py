# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own selftests for userfaultfd write-protect, in guests.

    python -m mutants.selftests debian-6.12        # and what else run-in-vm.sh takes

They are those that bench.selftests measures, of the newest source that Debian unstable has, and
run one process at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.selftests import SELFTEST_DIR, SELFTESTS, BenchError, selftest_tree
from helpers.cases import canonical_id
from mutants import units
from vm import __main__ as vm

GUEST = "mutants/selftests_guest.py"
_USAGE = 2


def cases(folder: Path) -> set[str]:
    """The ids of the units as cases."""
    return {canonical_id(f"{GUEST}::test_selftest[{unit.name}]") for unit in units.units(folder)}


def files(folder: Path) -> dict[str, bytes]:
    """What guests need of the folder in which the programs were built."""
    return {str(units.FOLDER / name): (folder / name).read_bytes() for name in SELFTESTS}


def in_guests(options: list[str], arguments: list[str]) -> int:
    """Runs all units as run-in-vm.sh runs the suite, with options of its and arguments of
    pytest's; returns the exit code. Raises BenchError, OSError."""
    with selftest_tree(None) as tree:
        return vm.main([*options, "--", GUEST, *arguments], files(tree / SELFTEST_DIR))


def main(words: list[str]) -> int:
    if not words:
        print(__doc__, file=sys.stderr)
        return _USAGE
    try:
        return in_guests(words, [])
    except (BenchError, OSError) as error:
        print(f"mutants.selftests: {error}", file=sys.stderr)
        return _USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
