# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter MAP: what /proc/PID/pagemap shows of the protection."""

from mmap import PAGESIZE

import pytest

from helpers import pagemap
from helpers.axes import DISTINCT, KINDS, STATES, SYNC, asynchronous, least, protectable
from helpers.cases import case
from helpers.pagemap import Page

PATTERNS = {(-1, 1): "both_sides", (0, 1): "pair"}


@case("MAP-1", kinds=KINDS, states=STATES)
def test_unregistered_range_shows_no_protection(bare):
    assert bare.protected() == set()


@pytest.mark.parametrize("offsets", PATTERNS, ids=PATTERNS.get)
@case("MAP-2", kinds=KINDS, states=STATES, features=SYNC, where=protectable)
def test_each_page_shows_its_own_protection(mem, offsets):
    chosen = {mem.page + offset for offset in offsets}
    for page in chosen:
        mem.protect(page)
    assert mem.protected() == chosen


@case("MAP-3", kinds=KINDS, states=STATES, features=(asynchronous,))
def test_async_write_takes_the_bit_away(mem):
    mem.protect(mem.near)
    assert Page.WP in mem.look()
    mem.store()
    assert Page.WP not in mem.look()
    assert mem.protected() == set(mem.near) - {mem.page}


@case("MAP-4", kinds=DISTINCT, states=STATES, features=SYNC, where=least)
def test_another_process_sees_the_same(mem):
    mem.protect()
    own = pagemap.words(mem.subject, mem.start, mem.size // PAGESIZE)
    assert pagemap.words_of(mem.subject.pid, mem.start, mem.size // PAGESIZE) == own
