# SPDX-License-Identifier: GPL-2.0-only
"""Writes a case's tape as one C file that needs neither Python nor this project.

A case is a function of what it sees: its verdict follows from the results, messages and looks on
its tape. So the C file does the same operations in the same order, and compares. Written from a
failed case, it exits 1 when all is seen again as it was, so that the case would fail again, and 0
as soon as something is otherwise. Results and messages are compared from the beginning, for they
steer what comes next; looks, and what a call has written, where they prove the arrangement and from
its end on (of a random program: from where the operation begins that failed). Frame numbers and
what a kernel chooses are not compared; descriptors get the numbers that they had. Where the
arrangement, or an opening or a registration, doesn't go as recorded, the machine can't show the
bug: exit 2. Written from a case that passed, it exits 0 when all is as recorded, and 1 when
something is otherwise.

Not on a tape, and so not compared: what Python itself looks up, such as /proc/kpageflags. Not
written: threads that race, since what a race fails on is a relation between numbers that no two
runs share; and what Python changes beside a subject, such as the limit of a memory cgroup.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from mmap import PAGESIZE
from pathlib import Path

from helpers import mail, pagemap, tape
from helpers.procfs import HUGETLB_BYTES
from helpers.subject import (
    SCRATCH_ADDRESS,
    SCRATCH_BYTES,
    Event,
    Mapping,
    Step,
    Subject,
    Thread,
    lib,
    system_call,
)
from helpers.uapi import NEW_SYSCALLS, Advice, Ioctl, ScanFlag
from helpers.uapi import Event as MessageEvent
from helpers.uffd import Message

RUNTIME = Path(__file__).with_suffix(".c")
_WORD = (1 << 64) - 1
_HEAP_BYTES = 1 << 20
_MAP_FIELDS = ("Rss", "Swap", "Anonymous", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")
_COLUMNS = 90
_FAILED = (1, "all as in the failed run: the bug shows", 0, "the bug does not show")
_PASSED = (0, "all as recorded", 1, "not as recorded")
_TOUCHES = {
    lib.OP_LOAD: "LOAD",
    lib.OP_STORE: "STORE",
    lib.OP_ADD: "ADD",
    lib.OP_COPY: "COPY",
    lib.OP_VFORK: "VFORK",
}
# Which arguments of a system call are a process, a thread, or a System V id.
_CHOSEN = {
    "kill": "p", "migrate_pages": "p", "move_pages": "p", "pidfd_open": "p",
    "process_vm_readv": "p",
    "process_vm_writev": "p", "ptrace": ".t", "shmat": "i", "shmctl": "i", "tgkill": "pt",
    "wait4": "t",
}  # fmt: skip
_OPEN = ("io_uring_setup", "memfd_create", "memfd_secret", "openat", "pidfd_open", "userfaultfd")
_UNLIKE_IOCTLS = ("UFFDIO_API", "UFFDIO_REGISTER")  # that write what kernels differ in
STATUS, SMAPS = "/proc/self/status", "/proc/self/smaps"
_TEXTS = ("memfd_create", "openat", "swapoff")
_WAKING = {Ioctl.UFFDIO_WAKE, Ioctl.UFFDIO_COPY, Ioctl.UFFDIO_ZEROPAGE, Ioctl.UFFDIO_WRITEPROTECT}


class Unwritable(Exception):
    """The tape holds something that no C is written for."""


@dataclass
class Actor:
    """A thread of a subject, as the C file numbers it."""

    number: int
    thread: Thread


class Program:
    """The C statements of a tape."""

    def __init__(self, events: list[Event], mappings: list[Mapping]) -> None:
        self.events = events
        self.mappings = mappings
        self.actors: dict[Thread, Actor] = {}
        self.ours: dict[int, str] = {}  # a descriptor of this process: its name in C
        self.ids: dict[int, str] = {}  # of System V
        self.chosen: list[
            tuple[int, int, str]
        ] = []  # an address of the kernel's choice, size, name
        self.lines: list[str] = []
        self.tables: list[str] = []  # of batches
        self.calls: set[str] = set()
        self.ioctls: set[str] = set()
        self.swaps = False
        self.variables = 0
        self.number = 0
        self.page_tables = 0  # VmPTE, in kB
        self.free: Thread | None = None  # a thread that runs a batch and waits for nobody
        arranged = [index for index, event in enumerate(events) if event.what == "arranged"]
        self.required = bool(arranged)
        self.tested = max(arranged, default=-1)  # from here on looks are compared
        acts = [index for index, event in enumerate(events) if not self._is_look(event)]
        self.last_act = max(acts, default=-1)
        arranging = (index for index in acts if arranged and index < arranged[0])
        self.proofs = range(max(arranging, default=0) + 1, arranged[0] if arranged else 0)
        if self.last_act < 0:
            raise Unwritable("the case has done nothing to its subject")
        for index, event in enumerate(events):
            getattr(self, f"_{event.what}")(index, event)

    # -- what is a look

    def _is_look(self, event: Event) -> bool:
        if event.what in ("text", "asleep", "arranged"):
            return True
        return event.what in ("begin", "end") and self._looks(event.about)

    @staticmethod
    def _looks(step: Step) -> bool:
        """Whether an operation changes nothing that is tested."""
        if step.answer is None:
            return False
        if step.call == "ioctl" and step.operands[1] == Ioctl.PAGEMAP_SCAN:
            only = not step.answer.error and not _scan_argument(step)[1] & ScanFlag.WP_MATCHING
            return only and _of_own_pagemap(step)
        return step.call == "mincore" or (step.call == "pread64" and _of_own_pagemap(step))

    def _counts(self, index: int) -> bool:
        """Whether a look is compared: it proves the arrangement, or comes where it is tested."""
        return index in self.proofs or index > self.tested

    # -- names

    def _actor(self, thread: Thread) -> Actor:
        found = self.actors.get(thread)
        if found is None:
            found = self.actors[thread] = Actor(len(self.actors), thread)
            if found.number and not any(e.what == "born" and e.seen is thread for e in self.events):
                self._say(f"spawn({found.number});")  # another subject
        return found

    def _say(self, text: str) -> None:
        self.lines.append(f"\t{text}")

    def _place(self, value: int) -> str:
        """An address or number in C."""
        for start, size, name in self.chosen:
            if 0 <= (offset := value - start) < size:
                return name + (f" + {offset:#x}" if offset else "")
        for mapping in self.mappings:
            if 0 <= (offset := value - mapping.start) <= mapping.size:
                return f"{mapping.name.upper()}" + (f" + {offset:#x}" if offset else "")
        if 0 <= (offset := value - SCRATCH_ADDRESS) < SCRATCH_BYTES:
            return "SCRATCH" + (f" + {offset:#x}" if offset else "")
        return f"{value & _WORD:#x}UL" if not -4096 <= value <= 4096 else str(value)

    def _process(self, value: int, kind: str) -> str:
        """A pid ("p") or tid ("t") in C."""
        for other in self.actors.values():
            if value == (other.thread.tid if kind == "t" else other.thread.subject.pid):
                return f"actors[{other.number}].{'tid' if kind == 't' else 'pid'}"
        return str(value)

    def _variable(self) -> str:
        self.variables += 1
        return f"v[{self.variables - 1}]"

    # -- events

    def _begin(self, index: int, event: Event) -> None:
        step: Step = event.about
        if step.by is None:
            return
        if self.free not in (None, step.by):
            raise Unwritable("a race, whose outcome is another one in each run")
        if self._looks(step):
            return
        following = next((e for e in self.events[index + 1 :]), None)
        together = following is not None and following.what == "end" and following.about is step
        actor = self._actor(step.by)
        if step.request[0] == lib.OP_SHARE:
            return
        self._heading(step, index)
        words = self._request(actor, step)
        self._say(f"{'RUN' if together else 'BEGIN'}({actor.number}, {', '.join(words)});")
        if step.request[0] == lib.OP_BATCH:
            self.free = step.by
        if step.answer is None and following is None:
            self._say(f"never_answers({actor.number});")

    def _heading(self, step: Step, index: int) -> None:
        self.number += 1
        line = mail.trace_line(step, self.mappings).replace("*/", "* /")
        self._say(f"/* {self.number} {line} */")
        self._at(index, step)

    def _at(self, index: int, step: Step | None = None) -> None:
        opens = step is not None and self._must_succeed(step)
        required = self.required or (opens and index < self.last_act - 1)
        self._say(f"at({self.number}, {int(required)});")

    def _must_succeed(self, step: Step) -> bool:
        if step.answer is None or step.answer.error or step.answer.signal:
            return False
        named = step.name in ("UFFDIO_API", "UFFDIO_REGISTER")
        return named or self._opens(step) or step.call == "mmap"

    def _request(self, actor: Actor, step: Step) -> list[str]:
        operation = step.request[0]
        if operation == lib.OP_SYSCALL:
            self._provide(step)
            return self._system_call(step.call, step.operands)
        if operation in _TOUCHES:
            self._provide(step)
            return [_TOUCHES[operation], *map(self._place, step.operands)]
        if operation in (lib.OP_THREAD, lib.OP_FORK):
            made = next((e.seen for e in self.events if e.what == "born" and e.about is step), None)
            number = self._actor(made).number if made else len(self.actors)
            return ["THREAD" if operation == lib.OP_THREAD else "FORK", str(number)]
        if operation == lib.OP_ADOPT:
            return ["ADOPT", self.ours[step.passed]]
        if operation == lib.OP_BATCH:
            return self._batch(step)
        raise Unwritable(step.name)

    def _system_call(self, name: str, operands: Sequence[int]) -> list[str]:
        if not name:
            raise Unwritable("a system call that has no name")
        if name == "getcwd":
            raise Unwritable("the working directory, which is another one elsewhere")
        if name == "rt_sigaction" and operands[1]:
            raise Unwritable("a signal handler, whose address is another one in each program")
        kinds = _CHOSEN.get(name, "")
        self.calls.add(name)
        self.swaps |= name == "swapoff" or (name == "madvise" and operands[2] == Advice.PAGEOUT)
        words = ["SYSCALL", f"SYS_{name}"]
        for number, operand in enumerate(operands):
            kind = kinds[number : number + 1]
            if kind in ("p", "t"):
                words.append(self._process(operand, kind))
            elif kind == "i":
                words.append(self.ids.get(operand, str(operand)))
            elif name == "ioctl" and number == 1:
                words.append(self._ioctl(operand))
            else:
                words.append(self._place(operand))
        return words

    def _batch(self, step: Step) -> list[str]:
        """A table of operations, each with what it came to."""
        if step.operands[3] or step.answer is None:
            raise Unwritable("a batch that runs free: what it fails on is another one in each run")
        table, replies = step.inputs[0][1], tape.words(step.output)
        rows = []
        for number, request in enumerate(tape.requests(table)):
            if request[0] == lib.OP_SYSCALL:
                call = self._system_call(system_call(request[1]), request[2:])
            elif request[0] in _TOUCHES:
                call = [_TOUCHES[request[0]], *map(self._place, request[1:])]
            else:
                raise Unwritable("a batch that forks")
            value, fate = replies[number * tape.REPLY_WORDS :][:2]
            rows.append(
                f"\t{{ {{ {', '.join(call)} }}, {self._place(_signed(value))}, {fate:#x} }},"
            )
        self._provide(step)
        name, listed = f"batch_{len(self.tables)}", "\n".join(rows)
        self.tables.append(f"static const struct entry {name}[] = {{\n{listed}\n}};")
        return ["BATCH", f"(uintptr_t){name}", str(len(rows))]

    def _ioctl(self, request: int) -> str:
        try:
            name = Ioctl(request).name
        except ValueError:
            return hex(request)
        self.ioctls.add(name)
        return name

    def _provide(self, step: Step) -> None:
        """The scratch memory that an operation reads."""
        inputs = step.inputs[1:] if step.request[0] == lib.OP_BATCH else step.inputs
        for address, contents in inputs:
            if step.call in _TEXTS:
                self._say(f"text({self._place(address)}, {self._path(step, contents)});")
                continue
            size = len(contents)
            if step.call == "ioctl" and address == step.operands[2]:
                size = step.operands[1] >> 16 & 0x3FFF
            first, *others = tape.runs(contents[:size])
            for offset, words in (first, *others):
                listed = ", ".join(map(self._place, words))
                room = len(words) * 8 if offset else size
                self._say(f"WORDS({self._place(address + offset)}, {room}, {listed});")

    def _path(self, step: Step, contents: bytes) -> str:
        """A path in C; one that names another process names it by its actor."""
        text = contents.partition(b"\0")[0].decode()
        if step.call == "swapoff":
            return '"%s", swap_device'
        if named := re.fullmatch(r"/proc/(\d+)(/.*)", text):
            return f'"/proc/%d{named[2]}", {self._process(int(named[1]), "p")}'
        return f'"{text}"'

    def _end(self, index: int, event: Event) -> None:
        step: Step = event.about
        if step.by is None or step.answer is None:
            return
        if self._looks(step):
            if self._counts(index):
                self._look(step)
            return
        actor = self._actor(step.by)
        if step.request[0] == lib.OP_SHARE:
            name = self.ours[step.passed] = self._variable()
            self._say(f"{name} = shared({actor.number}, {step.operands[0]});")
            return
        if self.events[index - 1].about is not step:
            self._say(f"/* {mail.trace_line(step, self.mappings)} */")
            self._at(index)
            self._say(f"end({actor.number});")
        if step.by is self.free:
            self.free = None
        elif self._wakes(step):
            self.free = self._waiting_batch(index)
        self._expect(index, actor, step)

    @staticmethod
    def _wakes(step: Step) -> bool:
        """Whether whoever waits in a fault may go on."""
        return step.call == "ioctl" and step.operands[1] in _WAKING

    def _waiting_batch(self, index: int) -> Thread | None:
        """The thread whose batch has begun before this event, and has not ended."""
        begun: dict[Thread, None] = {}
        for event in self.events[:index]:
            if event.what in ("begin", "end") and event.about.request[0] == lib.OP_BATCH:
                if event.what == "begin":
                    begun[event.about.by] = None
                else:
                    del begun[event.about.by]
        return next(iter(begun), None)

    def _expect(self, index: int, actor: Actor, step: Step) -> None:
        answer = step.answer
        assert answer is not None
        if step.request[0] == lib.OP_BATCH:
            self._say("ran();")
        elif self._opens(step):
            self._say(f"opened({actor.number}, {answer.value});")
        elif step.request[0] == lib.OP_FORK and not answer.error:
            self._say("made();")
        elif step.call == "shmget" and not answer.error:
            name = self.ids[answer.value] = self._variable()
            self._say(f"{name} = made();")
        elif step.call in ("brk", "mmap") and not step.operands[0] and not answer.error:
            name = self._variable()
            size = step.operands[1] if step.call == "mmap" else _HEAP_BYTES
            self.chosen.append((answer.value, size, name))
            self._say(f"{name} = made();")
        else:
            value = self._place(answer.value)
            if step.call in ("set_tid_address", "wait4"):
                value = self._process(answer.value, "t")
            self._say(f"gave({value}, {answer.error}, {answer.signal}, {answer.code});")
        if step.call == "pipe2" and not answer.error:
            (ends,) = tape.words(step.output)
            place = self._place(step.operands[0])
            self._say(f"opened_pipe({actor.number}, {place}, {ends & 0xFFFFFFFF}, {ends >> 32});")
        elif step.call == "io_setup" and not answer.error:
            name = self._variable()
            self.chosen.append((tape.words(step.output)[0], PAGESIZE, name))
            self._say(f"{name} = *(int64_t *)({self._place(step.operands[1])});")
        elif index > self.tested and step.call in ("ioctl", "pread64", "read"):
            self._written(index, step)

    def _written(self, index: int, step: Step) -> None:
        """What a call has written."""
        if step.name in _UNLIKE_IOCTLS and index < len(self.events) - 1:
            return
        written = step.output
        if step.call == "ioctl":
            size = step.operands[1] >> 16 & 0x3FFF
            written, regions = written[:size], written[size:]
            if regions:  # of PAGEMAP_SCAN
                self._compare(tape.words(written)[tape.VECTOR_WORD], regions)
        self._compare(step.operands[2 if step.call == "ioctl" else 1], written)

    def _compare(self, address: int, contents: bytes) -> None:
        if words := tape.words(contents):
            listed = ", ".join(map(self._place, words))
            self._say(f"WRITTEN({self._place(address)}, {listed});")

    @staticmethod
    def _opens(step: Step) -> bool:
        """Whether an operation gave a new descriptor."""
        if step.answer is None or step.answer.error:
            return False
        new = step.call == "ioctl" and step.operands[1] == Ioctl.USERFAULTFD_IOC_NEW
        return new or step.request[0] == lib.OP_ADOPT or step.call in _OPEN

    def _born(self, index: int, event: Event) -> None:
        self._actor(event.seen)

    def _readable(self, index: int, event: Event) -> None:
        """A message that came and was not read next."""
        after = [e for e in self.events[index + 1 : index + 2] if e.what == "message"]
        if not after and event.about in self.ours:
            self._say(f"readable({self.ours[event.about]});")

    def _message(self, index: int, event: Event) -> None:
        descriptor = self.ours[event.about]
        self.number += 1
        if event.seen is None:
            self._say(f"/* {self.number} no message */")
            self._at(index)
            self._say(f"no_message({descriptor});")
            return
        message = Message.decode(event.seen)
        self._say(f"/* {self.number} {mail.message_line(message, self.mappings)} */")
        self._at(index)
        words = [hex(message.event), "0", "0", "0"]
        if message.event is MessageEvent.PAGEFAULT:
            self.free = None
            tid = self._process(message.tid, "t")
            words[1:] = [str(int(message.flags)), self._place(message.address), tid]
        elif message.range:
            places = [self._place(word) for word in message.range]
            words[1:] = [*places, "0"][:3]
        call = f"message({descriptor}, {', '.join(words)});"
        if message.event is MessageEvent.FORK:
            name = self.ours[message.descriptor] = self._variable()
            call = f"{name} = {call}"
        self._say(call)

    def _drop(self, index: int, event: Event) -> None:
        if name := self.ours.pop(event.about, None):
            self._say(f"close({name});")

    def _kill(self, index: int, event: Event) -> None:
        self.number += 1
        self._at(index)
        self._say(f"killed({self._actor(event.about).number});")

    def _gone(self, index: int, event: Event) -> None:
        self.number += 1
        self._at(index)
        self._say(f"gone({self._actor(event.about).number});")

    def _beyond(self, index: int, event: Event) -> None:
        raise Unwritable(event.about)

    def _arranged(self, index: int, event: Event) -> None:
        self.required = False

    # -- looks

    def _look(self, step: Step) -> None:
        assert step.by is not None
        who = self._actor(step.by.subject.main).number
        self._say(f"at({self.number + 1}, {int(self.required)});")
        if step.call == "ioctl":
            self._scan(who, step)
        elif step.call == "mincore":
            actor = self._actor(step.by)
            words = self._request(actor, step)
            self._say(f"RUN({actor.number}, {', '.join(words)});")
            self._say(f"if ((*(char *)({words[4]}) & 1) != {step.output[0] & 1})")
            self._say('\tdiffers("mincore");')
        else:
            page = step.operands[3] // 8 * PAGESIZE
            looks = [word & pagemap.FLAG_BITS for word in tape.words(step.output)]
            for look, run in groupby(looks):
                count = len(list(run))
                self._say(
                    f"pages({who}, {self._place(page)}, {count}, {look:#x}UL);"
                    f" /* {pagemap.decode(look)} */"
                )
                page += count * PAGESIZE

    def _scan(self, who: int, step: Step) -> None:
        argument = _scan_argument(step)
        size = step.operands[1] >> 16 & 0x3FFF
        regions = tape.words(step.output[size:])
        listed = "".join(f"{self._place(word)}, " for word in regions)
        walk_end = tape.words(step.output)[tape.WALK_END_WORD]
        words = ", ".join(map(self._place, (*argument[:4], walk_end, 0, *argument[6:])))
        self._say(f"SCAN({who}, ((const uint64_t[]){{ {words} }}), {listed});".replace(", )", ",)"))

    def _text(self, index: int, event: Event) -> None:
        path, text = event.seen
        who = self._actor(event.about).number
        if path == STATUS:
            self._tables(index, who, text)
        elif path == SMAPS and self._counts(index):
            self._say(f"at({self.number + 1}, {int(self.required)});")
            for mapping in event.about.subject.mappings:
                name = mapping.name.upper()
                place = f"{name}, {name} + {mapping.size:#x}"
                for field in _MAP_FIELDS:
                    kb = _kilobytes(text, mapping, field)
                    self._say(f'smaps({who}, {place}, "{field}", {kb});')

    def _tables(self, index: int, who: int, text: str) -> None:
        """VmPTE is compared with what it was when it was last read before the last operation."""
        found = re.search(r"^VmPTE:\s+(\d+)", text, re.MULTILINE)
        if found is None:
            return
        if index <= self.last_act:
            self._say(f"tables = page_tables({who});")
            self.page_tables = int(found[1])
        elif not any(e.what == "text" and e.seen[0] == STATUS for e in self.events[index + 1 :]):
            self._say(f"at({self.number + 1}, {int(self.required)});")
            self._say(f"page_tables({who});")  # the reading itself may need a page table
            grown = f"page_tables({who}) - tables"
            self._say(f"page_tables_grew({grown}, {int(found[1]) - self.page_tables});")

    def _asleep(self, index: int, event: Event) -> None:
        if self._counts(index):
            self._say(f"at({self.number + 1}, {int(self.required)});")
            self._say(f"asleep({self._actor(event.about).number}, {int(event.seen)});")


def _scan_argument(step: Step) -> tuple[int, ...]:
    return tape.words(step.inputs[0][1])[:12] if step.inputs else (0,) * 12


def _of_own_pagemap(step: Step) -> bool:
    return step.by is not None and step.operands[0] == step.by.subject.pagemap_descriptor


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _kilobytes(smaps: str, mapping: Mapping, name: str) -> int:
    """The sum of a field, in kB, over the VMAs inside a mapping."""
    total, inside = 0, False
    for line in smaps.splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            start, end = int(head[1], 16), int(head[2], 16)
            inside = start >= mapping.start and end <= mapping.start + mapping.size
        elif inside and line.startswith(f"{name}:"):
            total += int(line.split()[1])
    return total


def source(events: list[Event], mappings: list[Mapping], about: str, *, failed: bool) -> str:
    """The C file of a case that failed or passed; `about` becomes its head comment.

    Raises Unwritable.
    """
    program = Program(events, mappings)
    lines = [wrapped for line in about.splitlines() for wrapped in textwrap.wrap(line, _COLUMNS)]
    head = "\n".join(f" * {line}" for line in lines).replace("*/", "* /")
    body = [f"\tint64_t v[{max(1, program.variables)}] = {{ 0 }};\t/* what the kernel chose */"]
    body += ["\tlong tables = 0;", "\t(void)v, (void)tables;"]
    if program.swaps:
        body += [f"\tneed_swap({int('swapoff' in program.calls)});"]
    if huge := [mapping.size for mapping in mappings if mapping.page_bytes > PAGESIZE]:
        body += [f"\tneed_hugepages({2 * sum(huge) // HUGETLB_BYTES});"]  # a file and a copy
    parts = [
        f"// SPDX-License-Identifier: GPL-2.0-only\n/*\n{head}\n */",
        *_defines(program, _FAILED if failed else _PASSED),
        f"\n{RUNTIME.read_text()}",
        *program.tables,
        "\nstatic void program(void)\n{",
        *body,
        "",
        *program.lines,
        "}\n",
    ]
    return "\n".join(parts)


def write(path: Path, subject: Subject, about: str) -> None:
    """Writes the C file of a case that has failed on `subject`, before anything else looks at
    it. Raises Unwritable, OSError."""
    text = source(list(subject.tape or ()), subject.mappings, about, failed=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _defines(program: Program, verdicts: tuple[int, str, int, str]) -> list[str]:
    same, same_text, otherwise, otherwise_text = verdicts
    numbers: dict[str, object] = {
        "ACTORS": max(1, len(program.actors)),
        "SAME": same,
        "SAME_TEXT": f'"{same_text}"',
        "OTHERWISE": otherwise,
        "OTHERWISE_TEXT": f'"{otherwise_text}"',
    }
    numbers |= {m.name.upper(): f"{m.start:#x}UL" for m in reversed(program.mappings)}
    numbers |= {name: hex(Ioctl[name]) for name in sorted(program.ioctls)}
    lines = [f"#define {name} {number}" for name, number in numbers.items()]
    for name in sorted(program.calls & NEW_SYSCALLS.keys()):
        lines += [f"#ifndef SYS_{name}", f"#define SYS_{name} {NEW_SYSCALLS[name]}", "#endif"]
    return lines
