# SPDX-License-Identifier: GPL-2.0-only
"""One kernel's way to its verdict: guests that take shares of the cases, and what becomes of them.

A guest that is lost is booted again and goes on with the cases that have no result; those that
were in flight are on record as crashed. All that guests stream, and what the host knows, comes
together in the kernel's `stream.jsonl`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from helpers.stream import Stream
from vm import init, initramfs, modules
from vm.errors import VmError
from vm.kernels import Kernel, KernelFiles
from vm.qemu import PANIC, Accelerator, Guest, command_line, make_disk
from vm.tail import Tail

# A share of the cases that loses more guests than this has made its point.
MOST_LOST = 12
_MOST_FRUITLESS = 2
# And a test that has lost so many of a share's guests: its other cases would lose the rest.
_MOST_LOST_TO_A_TEST = 2
_TAIL_LINES, _TAIL_CHARACTERS = 60, 12_000
_FAILURES = ("failed", "timeout", "crashed")
_LEAST_SPACE = 8 << 20
_USAGE_ERROR = 4  # pytest's exit code
_LINE = 200  # characters of a line that is told of a guest's output
_POLL_SECONDS = 0.1
# What pytest does for each test that a guest has no use for: faulthandler starts a thread each
# time, a fifth of a case's time under emulation, while the host watches the guest anyway.
_UNUSED = (
    "logging setuponly setupplan subtests threadexception tmpdir unittest unraisableexception "
    "warnings"
)
_TRIMMED = ["-o", "faulthandler_timeout=0", "-s", *(f"-pno:{name}" for name in _UNUSED.split())]


@dataclass(frozen=True)
class Patience:
    """How long is waited for what, in seconds: an emulated CPU is ten times slower and more."""

    boot: float  # from the start of QEMU to pytest's first event
    silence: float  # from one event to the next
    case: float  # for a subject's answer

    @classmethod
    def of(cls, accelerator: Accelerator, silence: float | None) -> Patience:
        """What suits an accelerator; `silence`, where it is given, is the user's own."""
        if accelerator.kvm:
            return cls(boot=60, silence=silence or 60, case=10)
        return cls(boot=180, silence=silence or 150, case=40)


@dataclass(frozen=True)
class Setting:
    """What all campaigns of a run have in common."""

    project: Path
    base: BinaryIO  # the archive that all guests share
    bytecode: Path
    arguments: list[str]  # pytest's
    accelerator: Accelerator
    seconds: float  # for each kernel
    silence: float | None  # of a guest, after which it is held to hang
    slots: asyncio.Semaphore  # as many as guests may run side by side
    files: Mapping[str, bytes] = field(default_factory=dict)  # what else a guest finds, by path
    most_lost: int = MOST_LOST  # of a share's guests, before it is given up


@dataclass
class Loss:
    """How a guest was lost."""

    reason: str  # panic, hang, lost, limit, no boot
    detail: str
    tail: str


@dataclass
class Campaign:
    """A kernel's run."""

    kernel: Kernel
    folder: Path
    stage: str = "waits"
    states: Counter[str] = field(default_factory=Counter)
    found: list[str] | None = None
    planned: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    losses: list[Loss] = field(default_factory=list)
    began: float | None = None
    first_result: float | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    _attempts: int = 0
    _deadline: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self._stream = Stream(self.folder / "stream.jsonl")

    def record(self, event: str, *, sync: bool = True, **fields: Any) -> None:
        """Writes an event to the kernel's stream. Raises VmError where it can't be kept."""
        with self._keeping():
            self._stream.write(event, sync=sync, **fields)

    def keep_console(self, title: str, text: str) -> None:
        """Adds a guest's console to the kernel's. Raises VmError where it can't be kept."""
        with self._keeping(), (self.folder / "console.log").open("a") as log:
            log.write(f"--- {title}\n{text}")

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = f"can't keep results in {self.folder}: {error.strerror}"
            raise VmError(why) from None

    def check_space(self) -> None:
        """Raises VmError where a guest could not keep its results: it can't tell us itself."""
        found = os.statvfs(self.folder)
        if found.f_bavail * found.f_frsize < _LEAST_SPACE:
            raise VmError(
                f"can't keep results in {self.folder}: the disk is full, "
                f"free {_LEAST_SPACE >> 20} MiB of it"
            )

    @property
    def failures(self) -> int:
        return sum(self.states[state] for state in _FAILURES)

    @property
    def missing(self) -> list[str]:
        """The features that the list says the kernel has, and that it hasn't."""
        return [name for name in self.kernel.features or () if name not in (self.found or ())]

    # -- the way

    async def run(self, files: KernelFiles, setting: Setting, shards: int) -> None:
        """Runs all cases on the kernel. Raises VmError, or OSError where results can't be kept."""
        async with asyncio.TaskGroup() as group:
            for number in range(shards):
                group.create_task(self._shard(files, setting, f"{number + 1}/{shards}"))
        self.verdict()

    def unbootable(self, why: str) -> None:
        """Records a kernel that there is nothing to boot of."""
        self.lost(Loss("no boot", why, ""), [])
        self.verdict()

    def verdict(self) -> None:
        expected, found = self.kernel.features, self.found or []
        extra = [name for name in found if name not in expected] if expected is not None else []
        self.record(
            "verdict",
            kernel=self.kernel.name,
            expected_features=list(expected or ()),
            found_features=found,
            missing=self.missing,
            extra=extra,
        )
        self.stage = "done"
        self.seconds = time.monotonic() - self.began if self.began else 0.0
        if self.missing and self.found is not None:
            self.notes.append(f"lacks {' '.join(self.missing)}, which its line names")
        if extra:
            self.notes.append(f"has more than its line names: {' '.join(extra)}")

    async def _shard(self, files: KernelFiles, setting: Setting, shard: str) -> None:
        """Boots guests until the shard's cases all have ended."""
        async with setting.slots:
            if self.began is None:
                self.began = time.monotonic()
                self._deadline = self.began + setting.seconds
            planned: set[str] = set()
            lost_to: Counter[str] = Counter()  # guests, by the test whose case was in flight
            fruitless = 0  # guests lost in succession without a single case ended by them
            for _ in range(setting.most_lost):
                boot = Boot(self, files, setting, shard, self._next(), verbose=fruitless > 0)
                loss = await boot.run()
                planned.update(boot.planned)
                if loss is None:
                    return
                self.lost(loss, boot.in_flight, boot.attempt)
                for test in map(_test_of, boot.in_flight):
                    lost_to[test] += 1
                    if lost_to[test] == _MOST_LOST_TO_A_TEST:
                        self._set_aside(test, planned - self.ended)
                if planned and planned <= self.ended:
                    return
                fruitless = 0 if boot.ended or boot.in_flight else fruitless + 1
                if loss.reason == "limit" or fruitless == _MOST_FRUITLESS:
                    break
            self._abandon(planned - self.ended)

    def _next(self) -> int:
        self._attempts += 1
        return self._attempts

    def take(self, event: dict[str, Any]) -> None:
        """Takes over an event of a guest."""
        match event:
            case {"event": "plan", "ids": list(ids)}:
                self.planned.update(ids)
                self.stage = "runs"
            case {"event": "run", "kernel": {"features": list(features)}}:
                self.found = features
            case {"event": "result", "id": str(name), "state": str(state)}:
                self.first_result = self.first_result or time.monotonic()
                if name not in self.ended:
                    self.states[state] += 1
                self.ended.add(name)
        fields = {key: value for key, value in event.items() if key not in ("event", "sync")}
        self.record(event["event"], sync=False, **fields)

    def lost(self, loss: Loss, in_flight: list[str], attempt: int = 0) -> None:
        """Records that a guest was lost, and which cases were in flight."""
        self.losses.append(loss)
        self.record(
            "lost",
            kernel=self.kernel.name,
            attempt=attempt,
            reason=loss.reason,
            detail=loss.detail,
            in_flight=in_flight,
            console=loss.tail,
        )
        what = f" during {', '.join(in_flight)}" if in_flight else ""
        self.notes.append(f"{loss.reason}{what}: {loss.detail}")
        for name in in_flight:
            self._crashed(name, f"the guest was lost ({loss.reason}): {loss.detail}", loss.tail)

    def _set_aside(self, test: str, unrun: set[str]) -> None:
        reason = f"never ran: {_MOST_LOST_TO_A_TEST} guests were lost to other cases of {test}"
        for name in sorted(unrun):
            if _test_of(name) == test:
                self._crashed(name, reason, "")

    def _abandon(self, unrun: set[str]) -> None:
        for name in sorted(unrun):
            reason = f"never ran: {self.losses[-1].reason}, {len(self.losses)} guests lost in all"
            self._crashed(name, reason, "")

    def _crashed(self, name: str, reason: str, evidence: str) -> None:
        event = {"event": "result", "id": name, "state": "crashed", "reason": reason}
        self.take({**event, "clause": "", "axes": {}, "seconds": 0.0, "evidence": evidence})


def _test_of(name: str) -> str:
    """Of which test a case is one, by its canonical id."""
    return ".".join(name.split(".")[:2])


class Boot:
    """One guest: from its initramfs to its end."""

    def __init__(
        self,
        campaign: Campaign,
        files: KernelFiles,
        setting: Setting,
        shard: str,
        attempt: int,
        *,
        verbose: bool,
    ) -> None:
        self.campaign = campaign
        self.files = files
        self.setting = setting
        self.shard = shard
        self.attempt = attempt
        self.ended: set[str] = set()
        self.in_flight: list[str] = []
        self._verbose = verbose
        self.planned: list[str] = []  # what the guest was to run
        self._running = False  # pytest has said something
        self._over = False
        self._share = campaign.folder / f"guest-{attempt}"
        self._tail = Tail(self._share / "stream.jsonl")
        self._patience = Patience.of(setting.accelerator, setting.silence)

    async def run(self) -> Loss | None:
        """Boots the guest and waits for its end; None when it has done all it was to do."""
        campaign, setting = self.campaign, self.setting
        campaign.check_space()
        self._share.mkdir()
        done = self._share / "done.jsonl"
        if campaign.ended:
            shutil.copyfile(campaign.folder / "stream.jsonl", done)
        if not campaign.planned:
            campaign.stage = "boots"
        campaign.record(
            "boot",
            kernel=campaign.kernel.name,
            attempt=self.attempt,
            accelerator=setting.accelerator.name,
            why=setting.accelerator.why,
        )
        # nameless files, which no end of ours leaves behind
        with ExitStack() as files:
            initrd = files.enter_context(tempfile.TemporaryFile())
            disks = [files.enter_context(tempfile.TemporaryFile()) for _ in init.DISKS]
            self._write_initrd(initrd, done)
            for disk, kind in zip(disks, init.DISKS, strict=True):
                make_disk(disk, kind)
            guest = await Guest.boot(
                self.files,
                setting.accelerator,
                initrd,
                command_line(setting.accelerator, setting.bytecode, verbose=self._verbose),
                self._share,
                disks,
                self._share / "console.log",
                cpus=2 if setting.accelerator.kvm else 1,
            )
        try:
            return await self._watch(guest)
        finally:
            await guest.end()
            campaign.keep_console(f"guest {self.attempt}", guest.log())

    def _write_initrd(self, file: BinaryIO, done: Path) -> None:
        patience, setting = self._patience, self.setting
        setting.base.seek(0)
        shutil.copyfileobj(setting.base, file)
        images = modules.ordered(self.files.modules())
        arguments = ["-p", "no:cacheprovider", "-q", f"--stream={self._share}/stream.jsonl"]
        arguments += [f"--case-timeout={patience.case:g}", f"--shard={self.shard}"]
        arguments += _TRIMMED
        arguments += [f"--skip-done={done}"] if done.exists() else []
        plan = init.Plan(
            project=str(setting.project),
            results=str(self._share),
            bytecode=str(setting.bytecode),
            arguments=arguments + setting.arguments,
            modules=list(images),
        )
        archive = initramfs.Archive(file)
        archive.text(str(init.PLAN), json.dumps(plan).encode())
        for path, content in setting.files.items():
            archive.text(path, content)
        for name, image in images.items():
            archive.text(str(init.MODULES / name), image)
        if self.files.config:
            config = f"/boot/config-{self.files.release}"
            archive.text(config, self.files.config.read_bytes())
        archive.close()
        file.flush()

    async def _watch(self, guest: Guest) -> Loss | None:
        """Follows the guest to its end."""
        begun = heard = time.monotonic()
        while True:
            gone = guest.gone
            status = self._status()
            if self._take_news():
                heard = time.monotonic()
            if status is not None:
                return self._judge(status, guest)
            now = time.monotonic()
            if gone:
                return self._loss(guest, *self._why_gone(guest, await guest.end()))
            if now > self.campaign._deadline:
                limit = f"the limit of {self.setting.seconds / 60:g} minutes for a kernel"
                return self._loss(guest, "limit", limit)
            patience = self._patience.silence if self._running else self._patience.boot
            if now - (heard if self._running else begun) > patience:
                await guest.interrupt()
                await self._last_words(guest)
                reason = "hang" if self._running else "no boot"
                return self._loss(guest, reason, f"nothing was heard of it for {patience:g} s")
            await asyncio.sleep(_POLL_SECONDS)

    async def _last_words(self, guest: Guest) -> None:
        """Gives a kernel that was interrupted the time to say where it was."""
        for _ in range(50):
            if guest.gone:
                break
            await asyncio.sleep(_POLL_SECONDS)
        self._take_news()

    def _take_news(self, *, over: bool = False) -> bool:
        news = self._tail.news(over=over)
        self._running = self._running or bool(news)
        for event in news:
            match event:
                case {"event": "plan", "ids": list(ids)}:
                    self.planned = ids
                case {"event": "start", "id": str(name)}:
                    self.in_flight.append(name)
                case {"event": "result", "id": str(name)}:
                    self.ended.add(name)
                    self.in_flight = [other for other in self.in_flight if other != name]
                case {"event": "end"}:
                    self._over = True
            self.campaign.take(event)
        return bool(news)

    def _status(self) -> int | None:
        try:
            return int((self._share / init.STATUS).read_text())
        except (FileNotFoundError, ValueError):
            return None  # not yet, or not wholly written

    def _judge(self, status: int, guest: Guest) -> Loss | None:
        """What pytest's end means."""
        if self._over:
            return None
        lines = self._output().splitlines() or ["no output"]
        if status == _USAGE_ERROR:
            said = next((line for line in lines if "rror" in line), lines[-1])
            raise VmError(f"pytest doesn't take its arguments: {said}")
        last = " / ".join(line[:_LINE] for line in lines[-3:])
        return self._loss(guest, "lost", f"pytest ended with exit code {status}: {last}")

    def _output(self) -> str:
        try:
            return (self._share / init.OUTPUT).read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def _why_gone(self, guest: Guest, said: str) -> tuple[str, str]:
        """Reason and detail for a guest whose QEMU has ended."""
        lines = guest.log().splitlines()
        panic = next((line for line in lines if PANIC in line), None)
        complaint = next((line for line in lines if init.COMPLAINT in line), None)
        if complaint and not self._running:
            return "no boot", complaint.partition(init.COMPLAINT)[2]
        if not self._running:
            last = said.splitlines()[:1] or ([panic] if panic else lines[-1:])
            return "no boot", last[0] if last else "QEMU ended without a word"
        if panic:
            return "panic", panic.partition(PANIC)[2].lstrip(": ") or panic
        return "lost", said or "QEMU ended"

    def _loss(self, guest: Guest, reason: str, detail: str) -> Loss:
        self._take_news(over=True)
        self.campaign.check_space()
        tail = "\n".join(guest.log().splitlines()[-_TAIL_LINES:])
        return Loss(reason, detail, tail[-_TAIL_CHARACTERS:])
