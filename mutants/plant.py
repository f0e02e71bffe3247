# SPDX-License-Identifier: GPL-2.0-only
"""Plants switchable faults in the kernel's source.

A fault is a place in a function and what goes wrong there. The planter finds the places that
`operators.toml` describes and `handmade.toml` names, and puts a macro around each; the text between
stays as it is. Which fault acts is chosen at run time, in /sys/module/wp_mutant/parameters:

    active    the number of the fault that acts; 0: none. Writing clears `reached`.
    reached   a bitmap of the faults that would have made a difference: those whose condition was
              not what it is forced to, whose statement was run, whose value was another
    spare     the comm of processes for which those faults don't act that would end them

So the repository holds none of the kernel's code.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

OPERATORS = Path(__file__).with_name("operators.toml")
HANDMADE = Path(__file__).with_name("handmade.toml")
HEADER, SOURCE, MAKEFILE = "include/linux/wp_mutant.h", "mm/wp_mutant.c", "mm/Makefile"
_INCLUDE = "#include <linux/wp_mutant.h>\n"

_HEADER = """\
#ifndef _LINUX_WP_MUTANT_H
#define _LINUX_WP_MUTANT_H
/* whether fault `n`, which would make a difference here, acts */
extern _Bool wp_mutant(unsigned int n);
#define WP_FALSE(n, e) ({ _Bool __wp = (e); __wp && !wp_mutant(n); })
#define WP_TRUE(n, e) ({ _Bool __wp = (e); __wp || wp_mutant(n); })
#define WP_VALUE(n, e, other) ({ __auto_type __wp = (e); typeof(__wp) __wp_other = (other); \\
	__builtin_memcmp(&__wp, &__wp_other, sizeof(__wp)) && wp_mutant(n) ? __wp_other : __wp; })
#define WP_INSTEAD(n, e, other) (wp_mutant(n) ? (other) : (e))
#endif
"""

_SOURCE = """\
#include <linux/bitmap.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/wp_mutant.h>

#define FAULTS {count}

static unsigned int active;
static DECLARE_BITMAP(reached, FAULTS);
static const DECLARE_BITMAP(spares, FAULTS) = {{ {spares} }};
static char spare[TASK_COMM_LEN];

bool wp_mutant(unsigned int n)
{{
	if (test_bit(n, spares) && !strcmp(current->group_leader->comm, spare))
		return false;
	__set_bit(n, reached);
	return active == n;
}}

static int set_active(const char *text, const struct kernel_param *param)
{{
	bitmap_zero(reached, FAULTS);
	return param_set_uint(text, param);
}}

static int get_reached(char *text, const struct kernel_param *param)
{{
	return scnprintf(text, PAGE_SIZE, "%*pb\\n", FAULTS, reached);
}}

static const struct kernel_param_ops active_ops = {{ .set = set_active, .get = param_get_uint }};
static const struct kernel_param_ops reached_ops = {{ .get = get_reached }};

module_param_cb(active, &active_ops, &active, 0644);
module_param_cb(reached, &reached_ops, NULL, 0444);
module_param_string(spare, spare, sizeof(spare), 0644);
"""


class PlantError(Exception):
    """A fault can't be planted; the message says which and why."""


@dataclass(frozen=True)
class Fault:
    """A place and what goes wrong there."""

    file: str
    function: str
    start: int  # offsets in the file's text
    end: int
    kind: str  # false, true: a condition; drop: a statement; value, instead: an expression; first
    other: str = ""  # the expression, or the statement
    name: str = ""  # of one that is made by hand
    why: str = ""  # what it stands for
    text: str = ""  # what is there
    line: int = 0
    number: int = 0
    id: str = ""

    def around(self) -> tuple[str, str]:
        """What comes before and after the place in the source."""
        match self.kind:
            case "false" | "true":
                return f"WP_{self.kind.upper()}({self.number}, ", ")"
            case "value" | "instead":
                return f"WP_{self.kind.upper()}({self.number}, ", f", {self.other})"
            case "drop":
                return f"do {{ if (!wp_mutant({self.number})) {{ ", " } } while (0);"
            case "first":
                return f"\n\tif (wp_mutant({self.number})) {{ {self.other} }}\n", ""
        raise PlantError(f"{self.kind}: no such kind of fault")

    def told(self) -> str:
        """The fault in words, for a table."""
        match self.kind:
            case "false" | "true":
                return f"`{self.text}` is always {self.kind}"
            case "value" | "instead":
                return f"`{self.text}` is `{self.other}`"
            case "drop":
                return f"`{self.text}` is left out"
        return f"begins with `{self.other}`"


# -- reading C, as far as kernel style makes that easy


def masked(text: str) -> str:
    """The text with comments, strings and preprocessor lines blanked, offsets kept."""

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", found[0])

    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^#(?:\\\n|[^\n])*'
    return re.sub(pattern, blank, text, flags=re.DOTALL | re.MULTILINE)


def closing(text: str, start: int) -> int:
    """The offset of the parenthesis that closes the one at `start`."""
    depth = 0
    for offset in range(start, len(text)):
        depth += (text[offset] in "([{") - (text[offset] in ")]}")
        if depth == 0:
            return offset
    raise PlantError("a parenthesis is not closed")


def excluded(text: str, config: str) -> list[tuple[int, int]]:
    """The ranges that the preprocessor leaves out, as far as options of the configuration tell."""
    enabled = set(re.findall(r"^(CONFIG_\w+)=[ym]", config, re.MULTILINE))
    out: list[tuple[int, int]] = []
    stack: list[tuple[bool | None, int]] = []  # whether the branch is compiled, and its start

    def leave(end: int) -> bool | None:
        taken, start = stack.pop()
        if taken is False:
            out.append((start, end))
        return taken

    for found in re.finditer(r"^#\s*(if\w*|elif|else|endif)\b((?:\\\n|[^\n])*)", text, re.M):
        word, rest = found[1], found[2].strip()
        if word == "endif" and stack:
            leave(found.start())
        elif word in ("else", "elif") and stack:
            taken = leave(found.start())
            known = word == "else" and taken is not None
            stack.append((not taken if known else None, found.end()))
        elif word.startswith("if"):
            value: bool | None = None
            names = re.findall(r"CONFIG_\w+", rest)
            if word in ("ifdef", "ifndef") and names:
                value = (names[0] in enabled) == (word == "ifdef")
            elif re.fullmatch(r"(defined\(CONFIG_\w+\)\s*(\|\|\s*)?)+", rest):
                value = any(name in enabled for name in names)
            stack.append((value, found.end()))
    return out


@dataclass(frozen=True)
class Function:
    """A function's definition."""

    name: str
    type: str  # what it returns
    start: int  # of its body, after the brace
    end: int

    @property
    def nothing(self) -> str:
        """The statement that has it do nothing, and tell of no success."""
        void = "void" in self.type.split() and "*" not in self.type
        return "return;" if void else "return 0;"


def functions(code: str) -> Iterator[Function]:
    """The functions that masked code defines: their bodies' braces stand in the first column."""
    before = 0
    for opening in re.finditer(r"^\{$", code, re.MULTILINE):
        start = opening.end()
        found = re.compile(r"^\}", re.MULTILINE).search(code, start)
        if found is None:
            return
        head = re.split(r"[;}]", code[before : opening.start()])[-1]
        if name := re.search(r"(\w+)\s*\(", head):
            yield Function(name[1], head[: name.start()], start, found.start())
        before = found.end()


def operands(code: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges of what && and || join, without negations, parentheses and branch hints."""
    start, end = _trimmed(code, start, end)
    if start >= end:
        return
    if hint := re.compile(r"!+\s*|(?:un)?likely\s*(?=\()").match(code, start, end):
        yield from operands(code, hint.end(), end)
        return
    if code[start] == "(" and closing(code, start) == end - 1:
        yield from operands(code, start + 1, end - 1)
        return
    depth, begun, parts = 0, start, []
    for offset in range(start, end):
        depth += (code[offset] in "([{") - (code[offset] in ")]}")
        if depth == 0 and code[offset : offset + 2] in ("&&", "||"):
            parts.append((begun, offset))
            begun = offset + 2
    if not parts:
        yield start, end
        return
    for part in [*parts, (begun, end)]:
        yield from operands(code, *part)


def _trimmed(code: str, start: int, end: int) -> tuple[int, int]:
    while start < end and code[start].isspace():
        start += 1
    while start < end and code[end - 1].isspace():
        end -= 1
    return start, end


# -- finding places


@dataclass(frozen=True)
class Operators:
    """`operators.toml`."""

    table: dict[str, Any]

    @classmethod
    def load(cls, path: Path = OPERATORS) -> Operators:
        return cls(tomllib.loads(path.read_text()))

    def pattern(self, key: str) -> str:
        """A pattern for one of the identifiers under a key."""
        return _identifiers(self.table[key])

    def spares(self, file: str) -> bool:
        return any(fnmatchcase(file, pattern) for pattern in self.table["spare"])


def _identifiers(names: Iterable[str]) -> str:
    return r"(?<!\w)(?:" + "|".join(names) + r")(?!\w)"


def find(file: str, text: str, config: str, operators: Operators) -> list[Fault]:
    """The faults that the operators make in a file."""
    code, out = masked(text), excluded(text, config)
    found = []
    for function in functions(code):
        for start, end, kind, other in _places(code, text, function, operators):
            if not any(first <= start < last for first, last in out):
                found.append(Fault(file, function.name, start, end, kind, other))
    ends = [fault.end for fault in found if fault.kind == "false"]
    return [fault for fault in dict.fromkeys(found) if not _decided(fault, code, ends)]


def _decided(fault: Fault, code: str, ends: Iterable[int]) -> bool:
    """Whether a condition directly before, forced, does the same to a statement or a value."""
    alone = re.compile(r"\)+\s*(?:[\w>.-]+ = )?")
    return fault.kind in ("drop", "value") and any(
        alone.fullmatch(code, end, fault.start) for end in ends if end < fault.start
    )


_Place = tuple[int, int, str, str]


def _places(code: str, text: str, function: Function, operators: Operators) -> Iterator[_Place]:
    for start, end in _conditions(code, function):
        if _relevant(code[start:end], function.name, operators):
            yield start, end, "false", ""
            yield start, end, "true", ""
    body = function.start, function.end
    for call in re.compile(operators.pattern("identities") + r"\s*\(").finditer(code, *body):
        end = closing(code, call.end() - 1)
        yield call.start(), end + 1, "value", text[call.end() : end].strip()
    for start, end in _calls(code, function, operators):
        yield start, end, "drop", ""
    adds = r"[\w.>-]+\s*\|=[^;]*?" + operators.pattern("flags") + r"[^;]*;"
    for found in re.compile(adds).finditer(code, *body):
        yield found.start(), found.end(), "drop", ""
    arguments = r"(?<=[,|=] )" + operators.pattern("arguments") + r"(?=\s*[,|)])"
    for found in re.compile(arguments).finditer(code, *body):
        yield found.start(), found.end(), "value", "0"


def _relevant(operand: str, function: str, operators: Operators) -> bool:
    if re.fullmatch(r"[A-Z_0-9]+|true|false|\w+ = .*", operand):
        return False
    if re.search(operators.pattern("plumbing"), operand):
        return False
    if re.fullmatch(operators.pattern("whole"), function):
        return True
    rest = re.sub(operators.pattern("unrelated"), "", operand)
    return bool(re.search(operators.pattern("conditions"), rest))


def _conditions(code: str, function: Function) -> Iterator[tuple[int, int]]:
    """The operands of what decides: conditions, what a bool is set to, what is returned as one."""
    body = function.start, function.end
    for found in re.compile(r"\b(?:if|while)\s*\(").finditer(code, *body):
        yield from operands(code, found.end(), closing(code, found.end() - 1))
    decided = [
        r"\bbool\s+\w+\s*=(?!=)",
        r"\b(?:mode_wp|mode_dontwake|uffd_wp|need_wakeup)\s*=(?!=)",
    ]
    if re.search(r"\bbool\b", function.type):
        decided.append(r"\breturn\b")
    for found in re.compile("|".join(decided)).finditer(code, *body):
        end = code.index(";", found.end())
        if not re.search(r"[,{]", re.sub(r"\([^;]*\)", "", code[found.end() : end])):
            yield from operands(code, found.end(), end)


def _calls(code: str, function: Function, operators: Operators) -> Iterator[tuple[int, int]]:
    """The statements, each a call, that may be left out."""
    wanted = [(operators.pattern("statements"), "")]
    wanted += [(_identifiers([name]), words) for name, words in operators.table["statements_with"]]
    wanted += [
        (_identifiers([name]), "")
        for name, where in operators.table["statements_in"]
        if re.fullmatch(where, function.name)
    ]
    for name, words in wanted:
        statement = re.compile(r"(?<=[;{})])\s*(?:else\b\s*)?(" + name + r"\s*\()")
        for found in statement.finditer(code, function.start - 1, function.end):
            start, end = found.start(1), closing(code, found.end() - 1) + 1
            after = re.compile(r"\s*;").match(code, end)
            if after and re.search(words, code[found.end() : end]):
                yield start, after.end()


# -- those made by hand


def named(file: str, text: str, entries: Iterable[dict[str, Any]]) -> tuple[list[Fault], list[str]]:
    """The faults that `handmade.toml` names in a file, and a word for each place that isn't
    there."""
    code = masked(text)
    known = {function.name: function for function in functions(code)}
    faults, missing = [], []
    for entry in entries:
        if entry["file"] == file:
            try:
                faults.append(_named(file, code, known, entry))
            except PlantError as error:
                missing.append(str(error))
    return faults, missing


def _spelled(word: str) -> str:
    """A pattern for a word in both generations of names, *_uffd_wp and *_uffd (7.3)."""
    return re.escape(word).replace("uffd_wp", "uffd(?:_wp)?")


def _named(file: str, code: str, known: dict[str, Function], entry: dict[str, Any]) -> Fault:
    where = f"{entry['id']}: {file}: {entry['function']}"
    name = re.compile(_spelled(entry["function"]))
    function = next((known[each] for each in known if name.fullmatch(each)), None)
    if function is None:
        raise PlantError(f"{where}: there is no such function")
    about = {"name": entry["id"], "why": entry.get("why", "")}
    if entry["fault"] == "nothing":
        top = function.start
        return Fault(file, function.name, top, top, "first", function.nothing, **about)
    words = re.findall(r"\w+|[^\w\s]", entry["find"])
    spaced = re.compile(r"\s*".join(map(_spelled, words)))
    found = list(spaced.finditer(code, function.start, function.end))
    number = entry.get("nth", 1)
    if len(found) < number:
        raise PlantError(f"{where}: `{entry['find']}` is there {len(found)} times")
    if len(found) > 1 and "nth" not in entry:
        raise PlantError(f"{where}: `{entry['find']}` is there {len(found)} times: say nth")
    start, end = found[number - 1].span()
    if entry["fault"] == "drop":
        end = code.index(";", end - 1) + 1
    kind = entry["fault"] if entry["fault"] in ("true", "false", "drop") else "instead"
    other = entry["fault"] if kind == "instead" else ""
    return Fault(file, function.name, start, end, kind, other, **about)


# -- planting


@dataclass(frozen=True)
class Plan:
    """What is planted in a source."""

    faults: list[Fault]  # numbered, by file and place
    missing: list[str]  # a word for each place of `handmade.toml` that it doesn't have


def plan(source: Path, config: str) -> Plan:
    """All faults for a source. Raises OSError, and PlantError where `handmade.toml` names a place
    that the source which it is for doesn't have."""
    operators = Operators.load()
    handmade = tomllib.loads(HANDMADE.read_text())
    entries = handmade["mutant"]
    table = operators.table
    files = sorted(
        str(path.relative_to(source))
        for pattern in table["files"]
        for path in source.glob(pattern)
        if str(path.relative_to(source)) not in table["except"]
    )
    faults: list[Fault] = []
    missing: list[str] = []
    for file in files:
        text = (source / file).read_text()
        by_hand, lacking = named(file, text, entries)
        missing += lacking
        taken = {(f.start, f.end, f.kind, f.other) for f in by_hand}
        found = [
            fault
            for fault in find(file, text, config, operators)
            if (fault.start, fault.end, fault.kind, fault.other) not in taken
        ]
        for fault in sorted([*found, *by_hand], key=lambda f: (f.start, f.end)):
            there = re.sub(r"\s+", " ", text[fault.start : fault.end])
            line = text.count("\n", 0, fault.start) + 1
            faults.append(replace(fault, text=there, line=line))
    if lost := {entry["file"] for entry in entries} - set(files):
        raise PlantError(f"handmade.toml: no such file: {' '.join(sorted(lost))}")
    if missing and source.name == handmade["source"]:
        raise PlantError(f"handmade.toml: {missing[0]}")
    return Plan(list(_numbered(faults)), missing)


def _numbered(faults: Iterable[Fault]) -> Iterator[Fault]:
    """Gives each its number and an id that holds across versions of the kernel."""
    seen: Counter[str] = Counter()
    for number, fault in enumerate(faults, 1):
        text = re.sub(r"\W+", "-", fault.text)[:40].strip("-")
        name = f"{fault.file}:{fault.function}:{fault.name or f'{fault.kind}-{text}'}"
        seen[name] += 1
        yield replace(fault, number=number, id=name + (f"-{seen[name]}" if seen[name] > 1 else ""))


def planted(source: Path, faults: Iterable[Fault]) -> dict[str, str]:
    """The files that differ from the source once the faults are planted."""
    operators = Operators.load()
    by_file: dict[str, list[Fault]] = {}
    for fault in faults:
        by_file.setdefault(fault.file, []).append(fault)
    files = {
        file: _INCLUDE + inserted((source / file).read_text(), found)
        for file, found in by_file.items()
    }
    every = [fault for found in by_file.values() for fault in found]
    count = max((fault.number for fault in every), default=0) + 1
    words = [0] * (count // 64 + 1)
    for fault in every:
        if operators.spares(fault.file):
            words[fault.number // 64] |= 1 << fault.number % 64
    files[HEADER] = _HEADER
    spares = ", ".join(f"{word:#x}UL" for word in words)
    files[SOURCE] = _SOURCE.format(count=count, spares=spares)
    files[MAKEFILE] = (source / MAKEFILE).read_text() + "\nobj-y += wp_mutant.o\n"
    return files


def inserted(text: str, faults: Iterable[Fault]) -> str:
    """The text with the faults' macros around their places; what lies inside stays inside.

    Raises PlantError where two places overlap.
    """
    ordered = sorted(faults, key=lambda f: (f.start, -f.end))
    pieces: list[tuple[int, str]] = []
    stack: list[tuple[int, str]] = []  # ends, with what comes after

    def close(until: int) -> None:
        while stack and stack[-1][0] <= until:
            pieces.append(stack.pop())

    for fault in ordered:
        close(fault.start)
        if stack and fault.end > stack[-1][0]:
            raise PlantError(f"{fault.file}:{fault.line}: two faults overlap")
        before, after = fault.around()
        pieces.append((fault.start, before))
        stack.append((fault.end, after))
    close(len(text))
    made, done = [], 0
    for offset, piece in pieces:
        made += [text[done:offset], piece]
        done = offset
    return "".join([*made, text[done:]])
