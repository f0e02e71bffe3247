# SPDX-License-Identifier: GPL-2.0-only
"""Batches, in a subject of their own."""

from collections.abc import Iterator
from errno import EINVAL
from mmap import PAGESIZE
from signal import SIGSEGV

import pytest

from helpers import batch
from helpers.batch import Batch, Room
from helpers.subject import SLOT_BYTES, Subject
from helpers.uapi import Map, Prot

UNMAPPED = 0x1000


@pytest.fixture
def subject() -> Iterator[Subject]:
    made = Subject.spawn()
    yield made
    made.close()


def test_each_operation_is_answered_and_the_value_counts_successes(subject: Subject) -> None:
    address = subject.mmap(PAGESIZE, Prot.RW, Map.PRIVATE | Map.ANONYMOUS)
    operations = [
        batch.store(address, 5),
        batch.add(address, 2),
        batch.load(UNMAPPED),
        batch.call("munmap", 1, PAGESIZE),
        batch.load(address),
    ]
    made = Batch(subject.toucher(), operations)
    assert made.start().result().value == 3
    answers = made.answers()
    assert [a.value for a in answers] == [0, 7, 0, -1, 7]
    assert (answers[2].signal, answers[2].address) == (SIGSEGV, UNMAPPED)
    assert answers[3].error == EINVAL


def test_a_batch_without_end_counts_until_it_is_stopped(subject: Subject) -> None:
    address = subject.mmap(PAGESIZE, Prot.RW, Map.PRIVATE | Map.ANONYMOUS)
    made = Batch(subject.toucher(), [batch.add(address), batch.add(address + 8)])
    running = made.start(forever=True)
    while not subject.main.load(address).result().value:
        pass
    made.stop()
    count = running.result().value
    words = [subject.main.load(address + offset).result().value for offset in (0, 8)]
    assert words == [count // 2, count // 2]


def test_calls_find_what_they_point_to_in_the_room(subject: Subject) -> None:
    room = Room(thread := subject.toucher())
    numbers, seen = room.put(bytes([*range(11)])), room.take(8)
    words = Batch(thread, [batch.load(numbers), batch.load(numbers + 8), batch.load(seen[0])])
    seen[1][0] = 7
    assert words.start().result().value == 3
    got = [answer.value for answer in words.answers()]
    assert got == [int.from_bytes(range(8), "little"), 0x0A0908, 7]


def test_a_room_is_finite(subject: Subject) -> None:
    with pytest.raises(ValueError, match="no room"):
        Room(subject.main).take(SLOT_BYTES)


def test_a_forked_child_does_what_it_is_told_and_ends(subject: Subject) -> None:
    address = subject.mmap(PAGESIZE, Prot.RW, Map.PRIVATE | Map.ANONYMOUS)
    done = [batch.store(address, 5), batch.load(address)]
    made = Batch(subject.main, [batch.child(done, subject.pagemap), *done, batch.load(address)])
    made.start().result()
    assert [answer.value for answer in made.answers()] == [0, 0, 5, 0]
