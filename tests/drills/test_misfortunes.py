# SPDX-License-Identifier: GPL-2.0-only
"""Cases that meet with misfortune on purpose; tests/test_drills.py looks what becomes of them.

They stand in the order in which one worker runs them: each is followed by one that passes.
"""

import os
import signal

import pytest

from helpers.axes import ANON, none_pte, populated, wpu
from helpers.cases import case
from helpers.machine import UFFD

FOR_EVER = 1 << 62  # additions


@case("FAULT-3", kinds=ANON, states=(populated,), thp=(False,))
def test_store_blocked_for_ever(mem):
    mem.protect()
    write = mem.store()
    assert write.message == mem.wp_fault()
    assert write.completes()  # nobody unprotects the page


@case("NONE-2", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,))
def test_after_the_blocked_store(mem):
    mem.protect()
    assert mem.look() == mem.marker


@case("API-1", needs=(UFFD,))
def test_subject_killed_by_a_signal(subject):
    subject.syscall("kill", subject.pid, signal.SIGKILL)


@case("API-1", needs=(UFFD,))
def test_subject_aborts(subject):
    subject.syscall("kill", subject.pid, signal.SIGABRT)


@case("API-1", needs=(UFFD,))
def test_root_subject_dies(subject):
    subject.parent.kill()
    subject.syscall("brk", 0)


@case("NONE-2", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,))
def test_after_the_death_of_the_root(mem):
    mem.protect()
    assert mem.look() == mem.marker


@case("FAULT-5", kinds=ANON, states=(populated,), thp=(False,))
def test_livelock(mem):
    mem.subject.toucher().add(mem.address(), 1, FOR_EVER).result()


@case("NONE-1", kinds=ANON, states=(populated,), thp=(False,))
def test_wrong_expectation(mem):
    mem.protect()
    assert mem.word() == 0


@pytest.mark.xfail(reason="protection leaves a trace (the mail that tells of it)", strict=True)
@case("NONE-1", kinds=ANON, states=(populated,), thp=(False,))
def test_known_issue(mem):
    mem.protect()
    assert mem.word() == 0


@case("API-1", needs=(UFFD,))
def test_bad_luck(subject, rng):
    assert rng.random() > 1


@case("API-1", needs=(UFFD,))
def test_worker_aborts():
    os.abort()


@case("NONE-2", kinds=ANON, states=(none_pte,), features=(wpu,), thp=(False,))
def test_after_the_abort(mem):
    mem.protect()
    assert mem.look() == mem.marker
