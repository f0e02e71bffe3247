# SPDX-License-Identifier: GPL-2.0-only
"""The planter on C of our own, the choice of cases, and the table."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from mutants import __main__ as command
from mutants import choose, plant, table
from mutants.choose import Reach
from mutants.plant import Fault, Operators, PlantError
from report import mutants

CONFIG = "CONFIG_THP=y\n# CONFIG_DEBUG is not set\n"
OPERATORS = Operators(
    {
        "conditions": [r"\w*uffd\w*"],
        "unrelated": ["uffd_other"],
        "plumbing": ["copy_from_user"],
        "whole": ["all_of_it"],
        "identities": ["mkuffd"],
        "statements": ["install"],
        "statements_with": [["set", "marker"]],
        "statements_in": [["flush", "with_flush"]],
        "flags": ["WP"],
        "arguments": ["DROP"],
        "spare": [],
    }
)


def made(text: str) -> list[tuple[str, str]]:
    """What would be planted in a file: kind and place."""
    found = plant.find("a.c", text, CONFIG, OPERATORS)
    return [(fault.kind, text[fault.start : fault.end]) for fault in found]


def body(statements: str, head: str = "static int f(int x)") -> str:
    return f"{head}\n{{\n{statements}\n}}\n"


@pytest.mark.parametrize(
    ("condition", "places"),
    [
        ("uffd_wp(x)", ["uffd_wp(x)"]),
        ("!uffd_wp(x)", ["uffd_wp(x)"]),
        ("unlikely(uffd_wp(x))", ["uffd_wp(x)"]),
        ("likely(!(uffd_wp(x)))", ["uffd_wp(x)"]),
        ("x && uffd_wp(x)", ["uffd_wp(x)"]),
        ("(x || uffd_a(x, (1))) &&\n    !uffd_b", ["uffd_a(x, (1))", "uffd_b"]),
        ("flags & uffd_flag", ["flags & uffd_flag"]),
        ("x /* uffd */", []),
        ('same(x, "uffd_wp")', []),
        ("copy_from_user(uffd)", []),
        ("uffd_other(x)", []),
    ],
)
def test_operands_of_a_condition_are_forced(condition: str, places: list[str]) -> None:
    found = made(body(f"\tif ({condition})\n\t\tx = 1;"))
    assert found == [(kind, place) for place in places for kind in ("false", "true")]


def test_a_bool_that_is_set_or_returned_is_a_condition() -> None:
    text = body("\tbool a = uffd_a(x);\n\treturn a || uffd_b(x);", "static bool f(int x)")
    assert {place for _, place in made(text)} == {"uffd_a(x)", "uffd_b(x)"}


def test_what_an_int_function_returns_is_no_condition() -> None:
    assert made(body("\treturn uffd_b(x);", "static int f(bool x)")) == []


def test_every_operand_counts_in_a_function_that_is_named() -> None:
    text = body("\tif (a && b)\n\t\tx = 1;", "static int all_of_it(int x)")
    assert {place for _, place in made(text)} == {"a", "b"}


@pytest.mark.parametrize(
    ("statement", "kind", "place"),
    [
        ("y = mkuffd(x);", "value", "mkuffd(x)"),
        ("install(x, f(y));", "drop", "install(x, f(y));"),
        ("set(x,\n\t    marker(y));", "drop", "set(x,\n\t    marker(y));"),
        ("flags |= WP | OTHER;", "drop", "flags |= WP | OTHER;"),
        ("unmap(x, DROP);", "value", "DROP"),
    ],
)
def test_values_and_statements(statement: str, kind: str, place: str) -> None:
    assert made(body(f"\tx++;\n\t{statement}")) == [(kind, place)]


@pytest.mark.parametrize("statement", ["set(x, y);", "y = install(x);", "flush(x);"])
def test_other_statements_stay(statement: str) -> None:
    assert made(body(f"\tx++;\n\t{statement}")) == []


def test_a_statement_that_one_condition_decides_on_is_not_left_out_again() -> None:
    text = body("\tif (uffd_wp(x))\n\t\ty = mkuffd(y);\n\tif (x)\n\t\ty = mkuffd(y);")
    assert [kind for kind, _ in made(text)] == ["false", "true", "value"]


def test_code_that_is_not_compiled_is_left_alone() -> None:
    text = (
        "#ifdef CONFIG_DEBUG\n" + body("\tif (uffd_a)\n\t\tx = 1;") + "#else\n"
        "#ifndef CONFIG_THP\n" + body("\tif (uffd_b)\n\t\tx = 1;") + "#endif\n"
        "#if defined(CONFIG_THP) || defined(CONFIG_DEBUG)\n"
        + body("\tif (uffd_c)\n\t\tx = 1;")
        + "#endif\n#endif\n"
    )
    assert {place for _, place in made(text)} == {"uffd_c"}


# -- by hand


ENTRY = {"id": "it", "file": "a.c", "function": "f", "find": "a( x )", "fault": "b(x)"}


def test_a_fault_made_by_hand_is_found_whatever_the_blanks() -> None:
    text = body("\ty = a(\n\t\tx);")
    (fault,), _ = plant.named("a.c", text, [ENTRY])
    assert text[fault.start : fault.end] == "a(\n\t\tx)"
    assert (fault.kind, fault.other) == ("instead", "b(x)")


@pytest.mark.parametrize(
    ("returned", "statement"),
    [("static void", "return;"), ("static inline bool", "return 0;"), ("void *", "return 0;")],
)
def test_a_function_that_does_nothing_returns_what_its_type_asks_for(
    returned: str, statement: str
) -> None:
    text = f"{returned} f(int x)\n{{\n\ta(x);\n}}\n"
    (fault,), _ = plant.named("a.c", text, [ENTRY | {"fault": "nothing"}])
    assert statement in plant.inserted(text, [fault])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"function": "g"}, "no such function"),
        ({"find": "c(x)"}, "is there 0 times"),
        ({"find": "x"}, "is there 2 times: say nth"),
    ],
)
def test_a_place_that_is_not_there_is_told(change: dict[str, str], complaint: str) -> None:
    faults, (missing,) = plant.named("a.c", body("\ty = a(x) + x;"), [ENTRY | change])
    assert not faults
    assert re.fullmatch(f"it: a.c: .*{complaint}", missing)


def test_another_source_than_they_are_made_for_may_lack_places(tmp_path: Path) -> None:
    handmade = tomllib.loads(plant.HANDMADE.read_text())
    for name in (handmade["source"], "another"):
        for entry in handmade["mutant"]:
            file = tmp_path / name / entry["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    with pytest.raises(PlantError, match="no such function"):
        plant.plan(tmp_path / handmade["source"], "")
    assert len(plant.plan(tmp_path / "another", "").missing) == len(handmade["mutant"])


# -- planted

RUNTIME = """
#include <stdio.h>
#include <stdlib.h>
static unsigned int active;
static char reached[64];
_Bool wp_mutant(unsigned int n) { reached[n] = 1; return n == active; }
"""
MAIN = """
int main(int count, char **words)
{
	active = atoi(words[1]);
	printf("%d", f(atoi(words[2])));
	for (int n = 1; n < 64; n++)
		if (reached[n])
			printf(" %d", n);
	return count != 3;
}
"""
SUBJECT = """
static int uffd_odd(int x)
{
	return x & 1;
}
static int mkuffd(int x)
{
	return x | 8;
}
static int f(int x)
{
	int y = 0;

	if (uffd_odd(x) && x != 3)
		y = 1;
	else
		y = mkuffd(x);
	return y;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with three faults: f's condition is false (1), true (2), its value is x (3)."""
    folder = tmp_path_factory.mktemp("planted")
    found = plant.find("a.c", SUBJECT, CONFIG, OPERATORS)
    numbered = list(plant._numbered(found))
    source = plant._HEADER + RUNTIME + plant.inserted(SUBJECT, numbered) + MAIN
    (folder / "a.c").write_text(source)
    subprocess.run(["cc", "-o", "a", "a.c"], cwd=folder, check=True)
    return folder / "a"


@pytest.mark.parametrize(
    ("active", "x", "result", "reached"),
    [
        (0, 1, 1, [1]),  # nothing acts, and what would make a difference is known
        (1, 1, 9, [1, 3]),
        (0, 4, 12, [2, 3]),
        (2, 4, 1, [1, 2]),  # what the one makes true the other would make false
        (3, 4, 4, [2, 3]),
        (0, 8, 8, [2]),  # the value is the same: the fault isn't reached
    ],
)
def test_a_planted_fault_acts_alone(
    program: Path, active: int, x: int, result: int, reached: list[int]
) -> None:
    command = [str(program), str(active), str(x)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split() == list(map(str, [result, *reached]))


def test_the_operators_and_the_faults_by_hand_can_be_read() -> None:
    operators = Operators.load()
    for key in ("conditions", "unrelated", "plumbing", "whole", "identities", "flags"):
        re.compile(operators.pattern(key))


# -- which cases are tried


def test_of_each_test_the_cheapest_case_comes_first() -> None:
    cases = [
        Reach("a.one.anon", "A-1", 2.0, frozenset({1})),
        Reach("a.one.shmem", "A-1", 1.0, frozenset({1})),
        Reach("programs.many", "A-1", 0.1, frozenset({1})),
        Reach("b.two", "A-1", 1.5, frozenset({1})),
        Reach("b.other", "A-1", 0.1, frozenset({2})),
    ]
    tests = choose.by_test(cases)
    assert choose.reaching(1, tests, 9) == ["a.one.shmem", "b.two", "a.one.anon", "programs.many"]
    assert choose.reaching(1, tests, 1) == ["a.one.shmem"]


def test_a_few_of_the_late_chapters_are_always_tried() -> None:
    cases = [Reach(f"a.t{number}", "A-1", 1.0, frozenset({1})) for number in range(20)]
    cases += [Reach(f"races.t{number}", "R-1", 1.0, frozenset({1})) for number in range(5)]
    chosen = choose.reaching(1, choose.by_test(cases), 16)
    assert [name.partition(".")[0] for name in chosen] == ["a"] * 14 + ["races"] * 2


def test_of_a_test_the_next_case_is_the_one_that_differs_most() -> None:
    names = ["anon-async-mask", "anon-wpu-mask", "anon-wpu-size", "shmem-wpu-mask"]
    cases = [Reach(f"a.b.{name}", "A-1", n, frozenset({1})) for n, name in enumerate(names, 1)]
    picked = [name.removeprefix("a.b.") for name in choose.reaching(1, choose.by_test(cases), 4)]
    assert picked == ["anon-async-mask", "anon-wpu-size", "shmem-wpu-mask", "anon-wpu-mask"]


def test_only_cases_that_passed_are_tried() -> None:
    events: list[dict[str, object]] = [
        {"event": "result", "id": "a", "state": "passed", "clause": "A-1", "seconds": 1.0},
        {"event": "reach", "id": "a", "faults": [3]},
        {"event": "result", "id": "b", "state": "xfailed", "clause": "A-1", "seconds": 1.0},
        {"event": "reach", "id": "b", "faults": [3]},
    ]
    assert list(choose.passed(events)) == [Reach("a", "A-1", 1.0, frozenset({3}))]


# -- the table


def fault(name: str, number: int = 1) -> Fault:
    return Fault("mm/a.c", "f", 0, 4, "true", text="uffd", line=7, number=number, id=name)


def result(name: str, killer: str = "", tried: tuple[str, ...] = ("c",)) -> dict[str, object]:
    return {
        "event": "result", "id": name, "state": "passed" if killer else "failed",
        "clause": "NONE-1", "reason": "it", "killer": killer, "tried": list(tried),
        "damage": "",
    }  # fmt: skip


def test_a_killed_fault_stays_killed_and_what_was_tried_adds_up() -> None:
    events = [result("a", "c"), result("b", "", ("c",)), result("a"), result("b", "", ("d",))]
    found = table.verdicts(events)
    assert found["a"].killer == "c"
    assert found["b"].tried == ("c", "d")


def test_a_timeout_that_comes_without_the_fault_too_is_no_kill() -> None:
    slow = result("a", "c") | {"reason": "timeout: no answer", "damage": "timeout: no answer"}
    spoilt = result("b", "c") | {"reason": "failed: it", "damage": "timeout: no answer"}
    found = table.verdicts([slow, spoilt])
    assert (found["a"].killer, found["b"].killer) == ("", "c")


def test_a_lost_guest_is_a_kill_by_the_case_in_flight_alone() -> None:
    lost = {"event": "result", "state": "crashed", "reason": "panic", "clause": ""}
    events = [{"event": "try", "id": "a", "case": "c"}, lost | {"id": "a"}, lost | {"id": "b"}]
    found = table.verdicts(events)
    assert found["a"].killer == "c"
    assert "b" not in found


def test_a_test_is_idle_that_kills_nothing_and_whose_clause_another_proves() -> None:
    cases = [
        Reach("a.killer.anon", "A-1", 1.0, frozenset()),
        Reach("a.idle.anon", "A-1", 1.0, frozenset()),
        Reach("a.alone.anon", "A-2", 1.0, frozenset()),
    ]
    killed = table.verdicts([result("a", "a.killer.anon")])
    assert table.Score("6.12", [fault("a")], killed, cases, []).idle() == ["a.idle"]


def test_what_is_wanted_is_what_lives_and_has_cases_untried() -> None:
    cases = [Reach(name, "A-1", 1.0, frozenset({1, 2, 3})) for name in ("a.b", "a.c")]
    events = [result("killed", "a.b"), result("new-case", "", ("a.b",))]
    events += [result("done", "", ("a.b", "a.c"))]
    faults = [fault("killed", 1), fault("new-case", 2), fault("done", 3), fault("unreached", 4)]
    (wanted,) = command._wanted(faults, cases, table.verdicts(events), 9)
    assert (wanted["id"], wanted["cases"]) == ("new-case", ["a.c"])


def test_a_share_of_the_faults_is_named_by_two_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert command._parse(["--shard", "2/3"]).shard == (2, 3)
    with pytest.raises(SystemExit):
        command._parse(["--shard", "4/3"])
    assert "invalid shard value: '4/3'" in capsys.readouterr().err


def test_the_score_leaves_out_what_no_case_could_kill() -> None:
    faults = [fault("a"), fault("b"), fault("c"), fault("d")]
    why = [table.Reason(("c",), "equivalent", "…"), table.Reason(("a", "x"), "race", "…")]
    score = table.Score(
        "6.12", faults, table.verdicts([result("a", "k"), result("b", "k")]), [], why
    )
    assert score.states() == {"killed": 2, "equivalent": 1, "open": 1}
    assert score.percent() == pytest.approx(100 * 2 / 3)
    assert score.stale() == ["a"]
    assert "open: d" in table.summary(score)
    assert "2 of 4 killed" in table.page(score)


def test_a_kill_by_a_timeout_is_taken_back_by_the_case_that_then_passes() -> None:
    late = result("a", "c.d") | {"reason": "timeout: no answer"}
    assert table.verdicts([late, result("a", "", ("c.e",))])["a"].killed
    assert not table.verdicts([late, result("a", "", ("c.d",))])["a"].killed
    assert table.verdicts([result("a", "c.d"), result("a", "", ("c.d",))])["a"].killed


def test_a_reason_counts_once_the_fault_has_met_a_case() -> None:
    why = [table.Reason(("a",), "equivalent", "…")]
    reaches = [Reach("c.d", "A-1", 1.0, frozenset({1}))]
    for events, state in ([], "unfinished"), ([result("a", "", ("c.d",))], "equivalent"):
        score = table.Score("6.12", [fault("a", 1)], table.verdicts(events), reaches, why)
        assert score.states() == {state: 1}


def test_selftests_that_have_not_run_are_not_told_of() -> None:
    score = table.Score("6.12", [fault("a")], {}, [], [])
    assert (score.of_selftests(fault("a")), score.comparison()) == ("", "")


def test_the_selftests_stand_beside_the_suite() -> None:
    unit = "selftests_guest.selftest.unit"
    reach = Reach(unit, "selftests", 1.0, frozenset({1, 2, 3}))
    faults = [fault(name, number) for number, name in enumerate("abcd", 1)]
    theirs = table.verdicts([result("a", unit), result("b")])
    found = table.Found(theirs, [reach])
    ours = table.verdicts([result("b", "k"), result("d", "k")])
    score = table.Score("6.12", faults, ours, [], [], found)
    made = [score.of_selftests(each) for each in faults]
    assert made == ["unit", "survived", "not tried", "not reached"]
    assert score.comparison() == (
        "The kernel's own selftests reach 3 of 4 faults. Of those, 2, taken at random, tried: "
        "they kill 1, the suite 1; 1 are killed by them alone."
    )


def test_the_report_reads_what_is_written(tmp_path: Path) -> None:
    faults = [fault(name) for name in "abc"]
    killed = table.verdicts([result("a", "k")])
    score = table.Score("6.12", faults, killed, [], [table.Reason(("b",), "equivalent", "…")])
    table.write(tmp_path, score)
    read = mutants.load(tmp_path / "table.json")
    assert read.percent == score.percent()
    assert {state: len(found) for state, found in read.states.items()} == score.states()
