# SPDX-License-Identifier: GPL-2.0-only
"""The declaration of a case: the clause it proves, the axes it runs over, what it needs.

    @case("NONE-3", kinds=ANON, states=NONE, features=(wpu,))
    def test_read_of_a_marker_maps_the_zero_page(mem): ...

A case's canonical id is CHAPTER.NAME.SETUP, dotted and without brackets:
`none_pte.read_of_a_marker_maps_the_zero_page.anon-none_pte-thp_off-wpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from helpers import procfs
from helpers.axes import Features, Kind, Setup, State, plain, setups
from helpers.machine import Need
from helpers.uapi import Advice, Feature, RegisterMode
from helpers.uffd import Access

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Case:
    """What a test function declares."""

    clause: str
    setups: tuple[Setup, ...]
    needs: tuple[Need, ...]


def case(
    clause: str,
    *,
    kinds: tuple[Kind, ...] = (),
    states: tuple[State, ...] = (),
    features: tuple[Features, ...] = (plain,),
    thp: tuple[bool, ...] = (False, True),
    also: Feature = Feature(0),
    mode: RegisterMode = RegisterMode.WP,
    access: Access | None = None,
    advices: tuple[Advice | None, ...] = (None,),
    needs: tuple[Need, ...] = (),
    where: Callable[[Setup], bool] = lambda _: True,
) -> Callable[[_Function], _Function]:
    """Declares a test function as a case of `clause`, once for each sensible combination that
    meets `where`. A test without kinds runs once, on a bare subject."""
    every = setups(kinds, states, features, thp, also, mode, access, advices)
    points = tuple(filter(where, every))

    def declare(function: _Function) -> _Function:
        marked: _Function = pytest.mark.case(Case(clause, points, needs))(function)
        return marked

    return declare


def declared(item: pytest.Item | pytest.Metafunc) -> Case:
    """A collected test's declaration. Raises pytest.UsageError where it has none."""
    definition = item.definition if isinstance(item, pytest.Metafunc) else item
    marker = definition.get_closest_marker("case")
    if marker is None:
        raise pytest.UsageError(f"{definition.nodeid} declares no clause: add @case(…)")
    found: Case = marker.args[0]
    return found


def setup_of(item: pytest.Item) -> Setup | None:
    """The point of the axes that a collected test runs at, if it has axes."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    found: Setup | None = params.get("setup")
    return found


def canonical_id(nodeid: str) -> str:
    """The id under which every report knows the case, from pytest's."""
    path, _, function = nodeid.partition("::")
    chapter = path.rpartition("/")[2].removeprefix("test_").removesuffix(".py")
    name, _, parameters = function.removeprefix("test_").partition("[")
    return ".".join(filter(None, (chapter, name, parameters.removesuffix("]").replace(".", "_"))))


def shard(text: str) -> tuple[int, int]:
    """The share `K/N` of a run: every Nth of what there is, from the Kth on. Raises ValueError."""
    number, _, count = text.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(text)
    return int(number), int(count)


@contextmanager
def refuses(*errors: int) -> Iterator[None]:
    """The calls inside must fail with one of these errnos."""
    __tracebackhide__ = True
    wanted = " or ".join(map(procfs.errno_name, errors))
    try:
        yield
    except OSError as error:
        seen = procfs.errno_name(error.errno or 0)
        assert error.errno in errors, f"expected {wanted}, seen {seen} from {error.filename}"
    else:
        raise AssertionError(f"expected {wanted}, but the call succeeded")
