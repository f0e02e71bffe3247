# SPDX-License-Identifier: GPL-2.0-only
"""Runs the benchmark where there is nothing but pytest: in a guest of run-in-vm.sh.

    ./run-in-vm.sh --silence 1200 debian-7.3 -- bench/guest.py
    python -m bench --from results/vm-…/debian-7.3/guest-1/bench.json

The guest has no matplotlib; the second line draws the plot and writes the page.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import main
from helpers.cases import case


@case("bench")
def test_the_benchmark(request: pytest.FixtureRequest) -> None:
    stream = request.config.getoption("--stream")
    figures = Path(stream or "results/bench/stream.jsonl").with_name("bench.json")
    assert main(["--size", "256M", "--runs", "3", "--json", str(figures)]) == 0
