# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel keeps which clause and which promise, and what changed."""

from pathlib import Path

import pytest

from helpers import spec
from helpers.spec import Clause
from report import diff, matrix
from report.diff import Kind
from report.matrix import Promise, Standing
from report.merge import NEVER_REACHED, Kernel, Outcome, Run, State, load

GOLDEN = Path(__file__).parent / "golden" / "streams"
CLAUSES = {name: Clause(name, "text", "source", "5.7") for name in ("NONE-1", "NONE-2", "WP-1")}


def case(clause: str, state: State, number: int = 1, reason: str = "") -> Outcome:
    return Outcome(f"chapter.case{number}.{clause}", state, reason=reason, clause=clause)


LACKS = "the kernel lacks UFFD_FEATURE_WP_ASYNC: boot Linux 6.7 or later"
UNSEEN = "pagemap doesn't show uffd-wp (bit 57): boot Linux 5.14 or later"


def kernel(name: str, *cases: Outcome) -> Kernel:
    return Kernel(name, {}, None, (), cases)


def standing(*cases: Outcome) -> Standing:
    (row, *_) = matrix.rows(Run((kernel("6.12", *cases),)), CLAUSES)
    return row.cells[0].standing


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([State.PASSED, State.PASSED], Standing.KEPT),
        ([State.PASSED, State.SKIPPED], Standing.KEPT),
        ([State.SKIPPED, State.SKIPPED], Standing.NOT_OFFERED),
        ([State.PASSED, State.XFAILED], Standing.KNOWN),
        ([State.XFAILED, State.FAILED], Standing.BROKEN),
        ([State.PASSED, State.TIMEOUT], Standing.BROKEN),
        ([State.PASSED, State.CRASHED], Standing.BROKEN),
        ([], Standing.NOT_RUN),
    ],
)
def test_a_kernel_stands_to_a_clause_as_its_cases_ended(
    states: list[State], expected: Standing
) -> None:
    cases = [case("NONE-1", state, number, LACKS) for number, state in enumerate(states)]
    assert standing(*cases) is expected


def test_what_the_machine_can_not_show_is_not_what_the_kernel_does_not_offer() -> None:
    lacks, unseen = (
        case("NONE-1", State.SKIPPED, number, reason)
        for number, reason in enumerate((LACKS, UNSEEN))
    )
    assert standing(lacks) is Standing.NOT_OFFERED
    assert standing(lacks, unseen) is Standing.NOT_RUN


def test_a_case_that_was_never_reached_keeps_nothing() -> None:
    unreached = case("NONE-1", State.SKIPPED, 2, NEVER_REACHED)
    assert standing(case("NONE-1", State.PASSED), unreached) is Standing.NOT_RUN


def test_a_case_of_an_unknown_clause_has_a_row() -> None:
    rows = matrix.rows(Run((kernel("6.12", case("NEW-1", State.FAILED)),)), CLAUSES)
    assert [row.clause.id for row in rows] == [*CLAUSES, "NEW-1"]
    assert rows[-1].cells[0].standing is Standing.BROKEN


def test_a_promise_is_as_good_as_its_worst_clause_and_has_its_first_kernel() -> None:
    def made(name: str, first: State, second: State) -> Kernel:
        return kernel(name, case("NONE-1", first), case("NONE-2", second, reason=LACKS))

    kernels = (
        made("5.10", State.PASSED, State.PASSED),
        made("6.1", State.PASSED, State.SKIPPED),
        made("6.12", State.PASSED, State.XFAILED),
        made("7.3", State.PASSED, State.PASSED),
    )
    rows = matrix.rows(Run(kernels), CLAUSES)
    answer = matrix.answer(Promise("asks", "who", ("NONE-1", "NONE-2")), rows, kernels)
    assert answer.standings == (
        Standing.KEPT,
        Standing.NOT_OFFERED,
        Standing.KNOWN,
        Standing.KEPT,
    )
    assert answer.since == "6.12"


def test_the_shipped_promises_cite_clauses_that_there_are() -> None:
    assert matrix.promises(spec.load())
    with pytest.raises(ValueError, match="no such clause: "):
        matrix.promises([])


# -- changes


def outcomes(**states: State) -> Run:
    return Run((kernel("6.12", *(Outcome(f"a.{name}", s) for name, s in states.items())),))


def test_what_became_of_each_case() -> None:
    before = outcomes(
        same=State.PASSED,
        broken=State.FAILED,
        worse=State.PASSED,
        better=State.CRASHED,
        skipped=State.PASSED,
        gone=State.XFAILED,
        found=State.SKIPPED,
    )
    after = outcomes(
        same=State.PASSED,
        broken=State.TIMEOUT,
        worse=State.FAILED,
        better=State.PASSED,
        skipped=State.SKIPPED,
        found=State.PASSED,
        fresh=State.PASSED,
        bad=State.FAILED,
    )
    changes = diff.changes(before, after)
    assert [(change.kind, change.id) for change in changes] == [
        (Kind.REGRESSED, "a.worse"),
        (Kind.NEW_FAILURE, "a.bad"),
        (Kind.LOST, "a.gone"),
        (Kind.LOST, "a.skipped"),
        (Kind.FIXED, "a.better"),
        (Kind.NEW, "a.fresh"),
        (Kind.FOUND, "a.found"),
    ]
    assert list(diff.lines(changes))[-1].startswith("1 regressed, 1 new and failing, 2 no longer")
    assert next(diff.mail(changes)) == "new failures: 2"


def test_kernels_are_compared_by_name_and_two_single_ones_anyway() -> None:
    old, new = outcomes(a=State.PASSED), Run((kernel("6.18", Outcome("a.a", State.FAILED)),))
    assert [change.kind for change in diff.changes(old, new)] == [Kind.REGRESSED]
    more = Run((*new.kernels, kernel("7.3")))
    assert diff.changes(old, more) == []


def test_nothing_changes_between_a_run_and_itself() -> None:
    run = load(GOLDEN / "failures")
    assert diff.changes(run, run) == []
