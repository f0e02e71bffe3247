# SPDX-License-Identifier: GPL-2.0-only
"""Runs the kernel's selftests where there is nothing but pytest: in a guest (mutants.selftests).

A unit is a case, which fails if one of its tests does. selftests.jsonl beside the stream has the
outcome of each test:

    {"event": "selftest", "unit": ..., "outcomes": {...}, "end": ..., "seconds": ...}
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bench.selftests import knobs_restored, reserve_huge_pages
from helpers.cases import case
from helpers.kernel_log import KernelLog
from helpers.stream import Stream
from mutants import units
from mutants.units import Unit


@pytest.fixture(scope="module")
def record(pytestconfig: pytest.Config) -> Iterator[Stream]:
    record = Stream(pytestconfig.getoption("stream").with_name("selftests.jsonl"))
    yield record
    record.close()


@pytest.fixture(autouse=True)
def _huge_pages() -> Iterator[None]:
    """The huge pages that run_vmtests.sh reserves; a unit that is killed leaves its knobs."""
    with knobs_restored():
        reserve_huge_pages()
        yield


@case("selftests")
@pytest.mark.parametrize("unit", units.units(), ids=lambda unit: unit.name)
def test_selftest(record: Stream, unit: Unit) -> None:
    log, begun = KernelLog(), time.monotonic()
    ran = units.run(unit, units.SECONDS)
    seconds = round(time.monotonic() - begun, 3)
    record.write("selftest", unit=unit.name, outcomes=ran.outcomes, end=ran.end, seconds=seconds)
    assert ran.well, ran.told()
    assert not log.news()
