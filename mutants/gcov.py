# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin for a guest whose kernel counts: leaves what it counted beside the stream."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = "gcov"
_COUNTED = Path("/sys/kernel/debug/gcov")


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = Path(config.getoption("stream")).with_name(FOLDER)
    for file in _COUNTED.rglob("*.gcda"):
        kept = folder / file.relative_to(_COUNTED)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(file.read_bytes())
