# SPDX-License-Identifier: GPL-2.0-only
"""The wiring: options, axes, and the fixtures of which a case is made."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Generator, Iterator
from fcntl import LOCK_EX
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

import pytest

from helpers import build

try:
    build.built()
except build.BuildError as failure:
    pytest.exit(str(failure), returncode=pytest.ExitCode.USAGE_ERROR)

from helpers import arrange, hugepages, kernel_access, known_issues, lease, memcg, stream, swap
from helpers.axes import Setup
from helpers.cases import canonical_id, declared, setup_of, shard
from helpers.device_memory import Device
from helpers.io_uring import IO_URING, Ring
from helpers.machine import Machine, Need
from helpers.memcg import Memcg
from helpers.region import Region, Unproven, Unseen
from helpers.results import REGION, SUBJECT, Results
from helpers.run import Run
from helpers.subject import Subject, SubjectStuck

RUN = pytest.StashKey[Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("uffd-wp", "userfaultfd write-protect conformance")
    group.addoption(
        "--case",
        metavar="ID",
        action="append",
        default=[],
        help="only cases whose canonical id matches this shell pattern; repeatable",
    )
    group.addoption(
        "--stream", metavar="FILE", type=Path, help="append the result stream (JSON lines) to FILE"
    )
    group.addoption(
        "--skip-done",
        metavar="FILE",
        type=Path,
        help="leave out the cases that have a result in this stream",
    )
    group.addoption(
        "--shard",
        metavar="K/N",
        type=shard,
        default=(1, 1),
        help="only every Nth case, beginning with the Kth: one of N runs that share the work",
    )
    group.addoption("--strict-skips", action="store_true", help="a skipped case fails")
    group.addoption(
        "--case-timeout",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="how long a case may wait for its subject (default: 10)",
    )
    group.addoption(
        "--seed",
        metavar="N",
        type=int,
        help="the seed of what cases do at random (default: a new one)",
    )
    group.addoption(
        "--fuzz",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="run new random programs for so long in each world, instead of a few known ones",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = secrets.randbelow(1 << 32)  # which xdist hands on to its workers
    worker = getattr(config, "workerinput", {}).get("workerid", "main")
    run = Run(config.getoption("stream"), config.getoption("case_timeout"), worker)
    config.stash[RUN] = run
    config.add_cleanup(run.close)
    config.pluginmanager.register(Results(run, config))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Reserves hugetlb pages and swap, once for all workers."""
    config = session.config
    if hasattr(config, "workerinput") or config.getoption("collectonly"):
        return
    workers = max(1, len(config.getoption("tx", None) or ()))
    reservation = lease.Reservation(workers * hugepages.PAGES_PER_WORKER)
    config.add_cleanup(reservation.release)


# -- collection


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "setup" in metafunc.fixturenames:
        metafunc.parametrize("setup", declared(metafunc).setups, ids=lambda setup: setup.name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    patterns = config.getoption("case")
    done = stream.ended(stream.read(path)) if (path := config.getoption("skip_done")) else set()
    number, count = config.getoption("shard")

    def wanted(item: pytest.Item) -> bool:
        name = canonical_id(item.nodeid)
        chosen = not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
        return chosen and name not in done

    kept = [item for item in items[number - 1 :: count] if wanted(item)]
    config.hook.pytest_deselected(items=list(set(items) - set(kept)))
    items[:] = kept
    _mark_known_issues(items)


def _mark_known_issues(items: list[pytest.Item]) -> None:
    """A case that is known to fail on this kernel must fail: an unexpected pass is an error."""
    release = os.uname().release
    issues = [issue for issue in known_issues.load() if issue.here(release)]
    for item in items if issues else ():
        name = canonical_id(item.nodeid)
        for issue in issues:
            if issue.covers(name):
                reason = f"{issue.reason} ({issue.link})"
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True, run=issue.run))


# -- fixtures


def _skip(config: pytest.Config, reason: str) -> NoReturn:
    if config.getoption("strict_skips"):
        pytest.fail(f"skipped, which --strict-skips forbids: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(name="machine")
def _machine(pytestconfig: pytest.Config) -> Machine:
    """The running kernel's facts."""
    return pytestconfig.stash[RUN].machine


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A fresh subject, once the machine is seen to offer what the case and its setup need."""
    item, run = request.node, request.config.stash[RUN]
    setup = setup_of(item)
    for need in (*declared(item).needs, *(setup.needs if setup else ())):
        if not need.met(run.machine):
            _skip(request.config, need.remedy)
    run.watch_log()
    made = item.stash[SUBJECT] = run.subject()
    if item.get_closest_marker("xfail"):
        made.hurry(known_issues.SECONDS)
    yield made
    try:
        made.close()
    except SubjectStuck:
        if not made.given_up:  # else the case has told it
            raise
    if splats := run.log.news():
        pytest.fail("the kernel complained during this case:\n" + "\n".join(splats), pytrace=False)


@pytest.fixture
def subjects(request: pytest.FixtureRequest) -> Callable[[], Subject]:
    """Makes subjects, which the case has to close."""
    return request.config.stash[RUN].subject


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """The case's own random numbers: the same again with the seed that its failure tells."""
    return random.Random(f"{request.config.option.seed} {request.node.name}")


@pytest.fixture
def other(request: pytest.FixtureRequest, subject: Subject) -> Iterator[Subject]:
    """A second subject, which shares nothing with the first."""
    made = request.config.stash[RUN].subject()
    made.tape = subject.tape
    yield made
    made.close()


@pytest.fixture
def alone(subject: Subject) -> Iterator[Path]:
    """Our swap device (machine.SWAPOFF), which no other case uses while this one runs."""
    device = swap.ours()
    assert device is not None
    subject.lock(device, LOCK_EX)
    yield device
    swap.turn_on(device)


@pytest.fixture
def group(subject: Subject) -> Iterator[Memcg]:
    """The subject's own memory cgroup; what is mapped after it is charged to it."""
    with memcg.group(subject) as made:
        yield made


@pytest.fixture
def boundary() -> int:
    """The boundary that the region's middle lies on, in bytes; 0 for none in particular."""
    return 0


@pytest.fixture
def count() -> int:
    """How many pages the region has; 0 for as many as its setup takes."""
    return 0


@pytest.fixture
def region(
    request: pytest.FixtureRequest, subject: Subject, setup: Setup, boundary: int, count: int
) -> Region:
    """The region of the case's setup, not yet mapped."""
    machine = request.config.stash[RUN].machine
    made = request.node.stash[REGION] = Region(subject, machine, setup, boundary, count)
    return made


def _prepare(config: pytest.Config, region: Region, *, register: bool) -> Region:
    try:
        return arrange.prepare(region, register=register)
    except Unproven as unproven:
        _skip(config, str(unproven))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """What a case's body arranges and can't prove, or looks at and can't see, skips it, too."""
    try:
        return (yield)
    except (Unproven, Unseen) as reason:
        _skip(pyfuncitem.config, str(reason))


@pytest.fixture
def mem(pytestconfig: pytest.Config, region: Region) -> Region:
    """The region, arranged, registered and proven."""
    return _prepare(pytestconfig, region, register=True)


@pytest.fixture
def ring(mem: Region, require: Callable[[Need], None]) -> Iterator[Ring]:
    """An io_uring of the region's subject, which can pin pages."""
    require(IO_URING)
    made = Ring(mem.subject)
    yield made
    made.unregister()


@pytest.fixture
def bare(pytestconfig: pytest.Config, region: Region) -> Region:
    """The same, with a userfaultfd but not registered with it."""
    return _prepare(pytestconfig, region, register=False)


@pytest.fixture
def device(mem: Region) -> Device:
    """The device, open in the region's process."""
    return Device(mem)


@pytest.fixture
def act(
    request: pytest.FixtureRequest, mem: Region, require: Callable[[Need], None]
) -> kernel_access.Act:
    """The parameter's call (kernel_access.of), prepared on the region."""
    call: kernel_access.Call = request.param
    for need in call.needs:
        require(need)
    actor = request.getfixturevalue("other") if call.foreign else mem.subject
    return kernel_access.Act(call, mem, actor)


@pytest.fixture
def require(pytestconfig: pytest.Config, machine: Machine) -> Callable[[Need], None]:
    """Skips the case where a need of one of its parameters is not met."""

    def checked(need: Need) -> None:
        if not need.met(machine):
            _skip(pytestconfig, need.remedy)

    return checked
