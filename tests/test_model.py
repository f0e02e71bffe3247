# SPDX-License-Identifier: GPL-2.0-only
"""The model by itself: tables written by hand from SPEC.md, and what must hold in every state."""

from collections.abc import Iterator
from dataclasses import replace
from errno import EACCES, EEXIST, EFAULT, EINVAL, ENOENT
from signal import SIGBUS, SIGSEGV

import pytest

from helpers import model, spec
from helpers.model import (
    FLAGS,
    STEPS,
    WP_WRITE,
    Entry,
    Op,
    Outcome,
    State,
    World,
    look,
    sensible,
    step,
)
from helpers.pagemap import Page as Bits
from helpers.programs import WORLDS
from helpers.uapi import EHWPOISON, Event

# -- tables

Touched = tuple[str, int] | tuple[str, int, int]
Row = tuple[str, list[Touched], str, int, int, int, str]


def world(name: str, **fields: object) -> World:
    """A world of the programs, with two pages."""
    (found,) = [w for w in WORLDS if w.name == name]
    return replace(found, kinds=2 * found.kinds[:1])


def after(where: World, *ops: Touched) -> Outcome:
    """What the last of some operations on single pages comes to, where that is one thing."""
    state, outcome = State.fresh(where), None
    for name, page, *value in ops:
        (outcome,) = step(where, state, Op(name, page, 1, *value))
        state = outcome.state
    assert outcome is not None
    return outcome


def letters(where: World, outcome: Outcome, page: int = 0) -> str:
    bits, _ = look(outcome.state.pages[page], False, False, where.asynchronous)
    return Bits(bits & FLAGS).letters.rstrip("ZH").replace("-", "")


WRITE, PROTECT = ("store", 0, 5), ("protect", 0)
TABLE: list[Row] = [
    # world, operations, how the page looks, what a load gives, messages, errno or signal
    ("plain", [PROTECT], "", 0, 0, 0, "NONE-1"),
    ("wpu", [PROTECT], "SW", 0, 0, 0, "NONE-2"),
    ("async", [PROTECT], "SW", 0, 0, 0, "NONE-2"),
    ("wpu", [PROTECT, ("unprotect", 0)], "", 0, 0, 0, "NONE-7"),
    ("wpu", [PROTECT, ("load", 0)], "PW", 0, 0, 0, "NONE-8"),
    ("wpu", [PROTECT, WRITE], "P", 5, 1, 0, "NONE-9"),
    ("wpu", [PROTECT, ("dontneed", 0)], "", 0, 0, 0, "ADV-2"),
    ("wpu", [PROTECT, ("populate_read", 0)], "PW", 0, 0, 0, "ADV-7"),
    ("wpu", [PROTECT, ("read_only", 0), ("read_write", 0)], "SW", 0, 0, 0, "SPACE-1"),
    ("plain", [("load", 0), PROTECT], "PW", 0, 0, 0, "ZERO-1"),
    ("plain", [WRITE, PROTECT], "PW", 5, 0, 0, "POP-1"),
    ("plain", [WRITE, PROTECT, ("store", 0, 6)], "P", 6, 1, 0, "FAULT-3"),
    ("plain", [WRITE, PROTECT, ("kernel_write", 0, 6)], "P", 6, 1, 0, "FAULT-13"),
    ("async", [WRITE, PROTECT, ("store", 0, 6)], "P", 6, 0, 0, "FAULT-14"),
    ("plain", [WRITE, PROTECT, ("read_only", 0), WRITE], "PW", 5, 0, SIGSEGV, "SPACE-1"),
    ("plain", [WRITE, PROTECT, ("dontneed", 0)], "", 0, 0, 0, "ADV-2"),
    ("wpu", [PROTECT, ("copy", 0, 3)], "P", 3, 0, 0, "FILL-1"),
    ("wpu", [PROTECT, ("copy_protected", 0, 3)], "PW", 3, 0, 0, "FILL-1"),
    ("wpu", [PROTECT, ("zeropage", 0)], "SW", 0, 0, EEXIST, "FILL-3"),
    ("shmem", [PROTECT, ("zeropage", 0)], "PF", 0, 0, 0, "FILL-4"),
    ("shmem", [WRITE, ("dontneed", 0), ("continue_protected", 0)], "PFW", 5, 0, 0, "FILL-10"),
    ("shmem", [("continue", 0)], "", 0, 0, EFAULT, "FILL-22"),
    ("plain", [WRITE, ("continue", 0)], "P", 5, 0, EINVAL, "FILL-22"),
    ("shmem", [("poison", 0), PROTECT], "S", 0, 0, 0, "FILL-11"),
    ("shmem", [PROTECT, ("poison", 0)], "SW", 0, 0, EEXIST, "FILL-3"),
    ("plain", [("poison", 0), WRITE], "S", 0, 0, SIGBUS, "FILL-21"),
    ("plain", [("poison", 0), ("kernel_read", 0)], "S", 0, 0, EFAULT, "FILL-21"),
    ("plain", [("poison", 0), ("populate_read", 0)], "S", 0, 0, EHWPOISON, "FILL-21"),
    ("plain", [("poison", 0), ("copy_protected", 0, 3)], "PW", 3, 0, 0, "FILL-21"),
    ("plain", [("poison", 0), ("dontneed", 0)], "", 0, 0, 0, "FILL-20"),
    ("plain", [("move", 0)], "", 0, 0, ENOENT, "FILL-16"),
    ("wpu", [WRITE, PROTECT, ("guard", 0)], "S", 0, 0, 0, "ADV-13"),
    ("wpu", [PROTECT, ("guard", 0), WRITE], "S", 0, 0, SIGSEGV, "ADV-13"),
    ("wpu", [PROTECT, ("guard", 0), ("dontneed", 0), ("unguard", 0)], "", 0, 0, 0, "ADV-13"),
    ("wpu", [PROTECT, ("unguard", 0)], "SW", 0, 0, 0, "ADV-1"),
    ("plain", [WRITE, PROTECT, ("move", 0)], "", 0, 0, 0, "FILL-6"),
    ("wpu", [PROTECT, ("move", 0)], "SW", 0, 0, EFAULT, "FILL-5"),
    ("shmem", [("move", 0)], "", 0, 0, EINVAL, "FILL-23"),
    ("plain", [("unregister", 0), PROTECT], "", 0, 0, ENOENT, "REG-12"),
    ("wpu", [PROTECT, ("unregister", 0)], "", 0, 0, 0, "REG-13"),
    ("wpu", [PROTECT, ("reopen", 0)], "", 0, 0, 0, "REG-14"),
    ("async", [("scan", 0)], "SW", 0, 0, 0, "SCAN-10"),
    ("shmem", [PROTECT], "SW", 0, 0, 0, "SHM-1"),
    ("shmem", [WRITE, PROTECT, ("dontneed", 0), ("load", 0)], "PFW", 5, 0, 0, "SHM-2"),
    ("shmem", [WRITE, PROTECT, ("dontneed", 0)], "SW", 5, 0, 0, "ADV-3"),
    ("shmem", [WRITE, PROTECT, ("remove", 0)], "SW", 0, 0, 0, "ADV-4"),
    ("memfd_private", [PROTECT, ("load", 0)], "PFW", 1, 0, 0, "SHM-2"),
    ("memfd_private", [PROTECT, WRITE], "P", 5, 1, 0, "FAULT-3"),
    ("memfd_private", [WRITE, PROTECT, ("dontneed", 0)], "SW", 1, 0, 0, "ADV-3"),
    ("memfd_private", [WRITE, ("remove", 0)], "P", 5, 0, EACCES, "ADV-12"),
    ("hugetlb", [PROTECT], "W", 0, 0, 0, "SHM-1"),
    ("hugetlb", [WRITE, PROTECT, ("dontneed", 0), ("load", 0)], "PFW", 5, 0, 0, "HTLB-1"),
    ("hugetlb", [PROTECT, ("zeropage", 0)], "W", 0, 0, EINVAL, "REG-1"),
    ("hugetlb", [PROTECT, ("cold", 0)], "W", 0, 0, EINVAL, "ADV-12"),
    ("hugetlb_private", [PROTECT, ("load", 0)], "PFW", 1, 0, 0, "HTLB-1"),
    ("hugetlb_private", [PROTECT, WRITE], "P", 5, 1, 0, "FAULT-3"),
    ("hugetlb_async", [("scan", 0)], "", 0, 0, 0, "SCAN-12"),
    ("plain", [("remove", 0)], "", 0, 0, EINVAL, "ADV-12"),
    ("wpu", [PROTECT, ("mremap", 0)], "", 0, 0, 0, "SPACE-4"),
    ("wpu_events", [PROTECT, ("mremap", 0)], "SW", 0, 1, 0, "SPACE-5"),
]


@pytest.mark.parametrize(
    ("name", "ops", "shown", "value", "messages", "failure"),
    [row[:-1] for row in TABLE],
    ids=[f"{row[-1]}-{row[0]}-{'-'.join(op[0] for op in row[1])}" for row in TABLE],
)
def test_what_the_clauses_say(
    name: str,
    ops: list[Touched],
    shown: str,
    value: int,
    messages: int,
    failure: int,
) -> None:
    where = world(name)
    outcome = after(where, *ops)
    assert letters(where, outcome) == shown
    assert outcome.state.pages[0].value == value
    assert len(outcome.reply.messages) == messages
    assert outcome.reply.error + outcome.reply.signal == failure


def test_the_table_cites_clauses_that_there_are() -> None:
    assert {row[-1] for row in TABLE} <= spec.load().keys()


# -- every state of a small world

LINES = 2  # pages of a page table, here
DEADLY = (Entry.POISON, Entry.GUARD)
# which may have done a part when they fail
PARTLY = ("protect", "unprotect", "remove", "free", "populate_read", "populate_write", "move")
OWN = (Entry.PAGE, Entry.ZERO, Entry.EITHER)  # where a page is not what its file has


@pytest.fixture(scope="module", autouse=True)
def _small_tables() -> Iterator[None]:
    before, model.PER_TABLE = model.PER_TABLE, LINES
    yield
    model.PER_TABLE = before


def small(where: World) -> World:
    kinds = dict.fromkeys(where.kinds)
    return replace(where, kinds=where.kinds[: 2 * LINES] if where.thp else (*kinds, *kinds)[:2])


def operations(where: World) -> list[Op]:
    ranges = [(n, 1) for n in range(where.pages)] + [(0, where.pages)]
    if where.thp:
        ranges = [(0, 1), (0, LINES), (1, LINES), (0, where.pages)]
    every = [Op(name, *place, value) for name in STEPS for place in ranges for value in (0, 1)]
    return [op for op in every if op.value == 0 or op.name in ("store", "copy", "fork")]


def explored(where: World) -> Iterator[tuple[State, Op, list[Outcome]]]:
    """Every operation in every state that programs can reach, up to MOST states."""
    pending, known = [State.fresh(where)], {State.fresh(where)}
    every = operations(where)
    while pending:
        state = pending.pop()
        for op in every:
            prior = [] if state.writable else [Op("read_only")]
            if op not in sensible(where, [*prior, op]):
                continue
            outcomes = step(where, state, op)
            yield state, op, outcomes
            fresh = {o.state for o in outcomes} - known
            if len(known) < MOST:
                known |= fresh
                pending += fresh


MOST = 200


@pytest.mark.parametrize("where", [small(w) for w in WORLDS], ids=[w.name for w in WORLDS])
def test_what_holds_in_every_state(where: World) -> None:
    clauses = spec.load()
    for state, op, outcomes in explored(where):
        assert outcomes, f"{op} has no outcome in {state}"
        for outcome in outcomes:
            assert set(outcome.clauses.split()) <= clauses.keys()
            _holds_in_a_state(where, outcome.state)
            _holds_of_a_step(where, state, op, outcome)


def _holds_in_a_state(where: World, state: State) -> None:
    for number, page in enumerate(state.pages):
        deadly = page.entry in DEADLY
        assert page.wp or page.entry is not Entry.MARKER
        assert not page.wp or (page.entry is not Entry.NONE and page.registered) or deadly
        assert page.value == page.beneath or page.kind.shared or page.entry in OWN
        assert page.value == 0 or page.kind.file or page.entry in OWN
        assert (
            page.entry is not Entry.MARKER or page.kind.file or where.markers or where.asynchronous
        )
        huge = bool(state.tables) and state.tables[number // LINES] is model.Table.HUGE
        bits, mask = look(page, huge, where.thp, where.asynchronous)
        assert bool(bits & Bits.WP) == page.wp
        assert mask & Bits.WP or deadly
    for number, table in enumerate(state.tables):
        pages = state.pages[number * LINES : (number + 1) * LINES]
        if table is model.Table.HUGE:
            assert len({(page.entry, page.wp, page.registered) for page in pages}) == 1
        if table is model.Table.NONE:
            assert {page.entry for page in pages} == {Entry.NONE}


def _holds_of_a_step(where: World, state: State, op: Op, outcome: Outcome) -> None:
    pages, now, told = state.pages, outcome.state.pages, outcome.reply.messages
    faults = [message for message in told if message.event is Event.PAGEFAULT]
    assert all(message.flags == WP_WRITE and pages[message.page].wp for message in faults)
    assert not (faults and where.asynchronous)
    if outcome.reply.error and op.name not in PARTLY:
        assert outcome.state == state
    everywhere = op.name in ("reopen", "mremap", "collapse") or op.name.startswith("read_")
    concerned = op.length * (2 if op.name == "move" else 1)
    for number in set(range(len(pages))) - set(range(op.first, op.first + concerned)):
        if not everywhere:  # WP-10, REG-13, FAULT-14, SCAN-5: no neighbour's protection changes
            assert now[number].wp == pages[number].wp
            assert now[number].value == pages[number].value
    if op.name == "unprotect" and not outcome.reply.error:
        assert not any(now[n].wp for n in op.pages if now[n].entry not in DEADLY)
    if op.name in ("load", "kernel_read", "populate_read", "cold", "pageout", "free"):
        alive = [n for n, page in enumerate(pages) if page.entry not in DEADLY]
        assert all(now[n].wp == pages[n].wp for n in alive)  # FAULT-2, ADV-1
        assert all(now[n].value == pages[n].value for n in alive)
