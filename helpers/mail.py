# SPDX-License-Identifier: GPL-2.0-only
"""What a failed case says of itself, ready to be mailed; and the head of a run."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from enum import Enum
from typing import Any

from helpers import procfs
from helpers.axes import Setup
from helpers.machine import Machine, uffd_remedy
from helpers.pagemap import Page
from helpers.region import Region, Unseen
from helpers.spec import Clause
from helpers.subject import Mapping, Step, Subject, SubjectLost
from helpers.uffd import Message

_CONFIG_FACTS = (
    "USERFAULTFD", "PTE_MARKER_UFFD_WP", "TRANSPARENT_HUGEPAGE", "HUGETLBFS", "SHMEM", "KSM",
    "SWAP", "MIGRATION", "MEM_SOFT_DIRTY", "DEBUG_VM", "KASAN",
)  # fmt: skip
_NEIGHBOURS = 2


def kernel_facts(machine: Machine) -> dict[str, Any]:
    """The run's header: what a reader needs to know of the kernel under test."""
    config = procfs.kernel_config()
    return {
        "release": machine.release,
        "version": platform.version(),
        "machine": platform.machine(),
        "features": machine.feature_names(),
        "access": machine.access.value if machine.access else None,
        "privileged": machine.privileged,
        "pagemap_scan": machine.pagemap_scan,
        "thp": {
            name: procfs.read(procfs.THP_KNOBS / name)
            for name in ("enabled", "defrag", "shmem_enabled", "use_zero_page")
        },
        "config": {name: _config(config, name) for name in _CONFIG_FACTS} if config else {},
        "taint": procfs.read("/proc/sys/kernel/tainted"),
        "cmdline": procfs.read("/proc/cmdline"),
    }


def _config(config: str, name: str) -> str:
    for line in config.splitlines():
        if line.startswith(f"CONFIG_{name}="):
            return line.partition("=")[2]
    return "n"


def headline(machine: Machine) -> list[str]:
    """The run's first lines for people."""
    access = machine.access.value if machine.access else "no way"
    lines = [
        f"kernel: {machine.release}, userfaultfd by {access}",
        f"features: {' '.join(machine.feature_names()) or 'none'}",
    ]
    remedy = uffd_remedy(machine)
    return lines + ([f"missing: {remedy}"] if remedy else [])


def axes(setup: Setup | None) -> dict[str, str]:
    """A setup as names, for the result stream."""
    if setup is None:
        return {}
    named = {"kind": setup.kind.name, "state": setup.state.name, "features": setup.features.name}
    if not setup.kind.hugetlb:
        named["thp"] = "on" if setup.thp else "off"
    if setup.advice is not None:
        named["advice"] = setup.advice.name.lower()
    return named


# -- the trace


def _place(value: int, mappings: Iterable[Mapping]) -> str:
    """mem[3]+0x8 for an address of tested memory, else the number."""
    for mapping in mappings:
        offset = value - mapping.start
        if 0 <= offset < mapping.size:
            page, rest = divmod(offset, mapping.page_bytes)
            return f"{mapping.name}[{page}]" + (f"+{rest:#x}" if rest else "")
    return hex(value) if abs(value) >= 4096 else str(value)


def _argument(value: object, mappings: Iterable[Mapping]) -> str:
    if isinstance(value, Enum):
        return str(value.name or value.value)
    return _place(value, mappings) if isinstance(value, int) else str(value)


def trace_line(step: Step, mappings: list[Mapping]) -> str:
    """One operation as a line: who, what, and what came of it."""
    arguments = ", ".join(_argument(argument, mappings) for argument in step.arguments)
    result = str(step.answer) if step.answer else "… (no answer yet)"
    if step.answer and not step.answer.error and not step.answer.signal:
        result = _place(step.answer.value, mappings)
    return f"{step.thread}: {step.name}({arguments}) = {result}"


def message_line(message: Message, mappings: list[Mapping]) -> str:
    """A message as a line."""
    details = [message.event.name]
    if message.event.name == "PAGEFAULT":
        details += [message.flags.name or "READ", _place(message.address, mappings)]
    details += [_place(address, mappings) for address in message.range]
    return " ".join(details)


# -- the page map


def page_map(region: Region) -> str:
    """The tested page and its neighbours, as runs of equal letters."""
    first = max(0, region.page - _NEIGHBOURS)
    chosen = range(first, min(len(region.pages), region.page + _NEIGHBOURS + 1))
    looks = [
        f"{number}{'*' if number == region.page else ''} {page}"
        for number, page in zip(chosen, _looks(region, chosen), strict=True)
    ]
    protected = sum(Page.WP in page for page in _looks(region, region.pages))
    return "  ".join(looks) + f"   ({protected} of {len(region.pages)} pages write-protected)"


def _looks(region: Region, pages: range) -> list[Page]:
    registered, region.registered = region.registered, False  # no second opinion here
    try:
        return region.looks(pages)
    finally:
        region.registered = registered


def heading(name: str, clause: Clause | None, machine: Machine, region: Region | None) -> list[str]:
    """What a failure is about."""
    lines = [f"case:    {name}", f"kernel:  {machine.release} {platform.machine()}"]
    if clause is not None:
        lines += [f"clause:  {clause.id} {clause.text}", f"source:  {clause.source}"]
    if region is not None:
        lines += [f"axes:    {', '.join(f'{k} {v}' for k, v in axes(region.setup).items())}"]
    return lines


def failure(
    about: list[str],
    name: str,
    subject: Subject | None,
    region: Region | None,
    reproducer: str,
    seed: int | None,
) -> str:
    """All that a reader on a mailing list needs beside the assertion itself; `about` is the
    heading, `reproducer` tells of the C file."""
    lines = list(about)
    if region is not None:
        try:
            lines += [
                f"pages:   {page_map(region)}",
                "         letters: PSFGWXZH (helpers/pagemap.py)",
            ]
        except (SubjectLost, OSError, AssertionError, AttributeError, Unseen) as error:
            lines += [f"pages:   can't be read any more ({type(error).__name__})"]
    if subject is not None:
        lines += _subject_lines("subject", subject)
    lines += [f"in C:    {reproducer}"]
    replay = "" if seed is None else f" --seed {seed}"
    return "\n".join([*lines, f"again:   pytest --case '{name}'{replay}"])


def _subject_lines(title: str, subject: Subject) -> list[str]:
    lines = [f"messages of the {title}:"]
    for messenger in subject.all_messengers:
        lines += [f"  {message_line(message, subject.mappings)}" for message in messenger.seen]
    if len(lines) == 1:
        lines = [f"messages of the {title}: none"]
    lines += [f"trace of the {title}:"]
    lines += [f"  {trace_line(step, subject.mappings)}" for step in subject.trace]
    for number, child in enumerate(subject.children):
        lines += _subject_lines(f"{title}'s child {number}", child)
    return lines
