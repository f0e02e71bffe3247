# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter REG: registering and unregistering ranges."""

import os
from errno import EBUSY, EINVAL, ENOENT, EPERM
from mmap import PAGESIZE

import pytest

from helpers.axes import (
    ANON,
    KINDS,
    POPULATED,
    STATES,
    SYNC,
    asynchronous,
    ext4_shared,
    hugetlb_shared,
    least,
    memfd_shared,
    none_pmd,
    none_pte,
    populated,
    swapped,
    wpu,
)
from helpers.cases import case, refuses
from helpers.machine import DISK, DISK_FILE, DROPPABLE, SECRET, UFFD, WP_SHMEM, feature
from helpers.pagemap import Page, decode, words
from helpers.uapi import FaultFlag, Feature, Map, Prot, RegisterMode
from helpers.uffd import Userfaultfd

WP, MISSING, MINOR = RegisterMode.WP, RegisterMode.MISSING, RegisterMode.MINOR
TOP = 1 << 64
WRITEPROTECT_IOCTL, ZEROPAGE_IOCTL, CONTINUE_IOCTL = 1 << 0x06, 1 << 0x04, 1 << 0x07
MINOR_KINDS = (memfd_shared, hugetlb_shared)
MINOR_FEATURES = Feature.MINOR_SHMEM | Feature.MINOR_HUGETLBFS


@pytest.fixture
def uffd_with(subject, machine):
    """Makes a userfaultfd with the given features."""

    def opened(features=Feature(0)):
        made = Userfaultfd.open(subject, machine.access)
        made.api(features)
        return made

    return opened


@pytest.fixture
def disk_mapping(subject):
    """A page of a file on an ordinary file system, mapped privately."""
    file = subject.open(str(DISK), os.O_RDONLY)
    return subject.mmap(PAGESIZE, Prot.READ, Map.PRIVATE, file)


@pytest.fixture
def sysv_mapping(subject):
    """A page of System V shared memory, whose segment ends with its subject."""
    segment = subject.syscall("shmget", 0, PAGESIZE, 0o600)
    start = subject.syscall("shmat", segment, subject.place(PAGESIZE), 0)
    subject.syscall("shmctl", segment, 0, 0)
    return start


@pytest.fixture
def secret_mapping(subject):
    """A page of memory that the kernel itself does not map."""
    file = subject.syscall("memfd_secret", 0)
    subject.syscall("ftruncate", file, PAGESIZE)
    return subject.mmap(PAGESIZE, Prot.RW, Map.SHARED, file)


@pytest.mark.parametrize("mode", [WP, MISSING, WP | MISSING], ids=["wp", "missing", "both"])
@case("REG-1", kinds=KINDS, states=(none_pmd,), thp=(False,))
def test_answer_names_the_ranges_ioctls(bare, mode):
    ioctls = bare.uffd.register(bare.start, bare.size, mode)
    assert bool(ioctls & WRITEPROTECT_IOCTL) == (WP in mode)
    assert bool(ioctls & ZEROPAGE_IOCTL) == (not bare.kind.hugetlb)


@pytest.mark.parametrize("mode", [WP, WP | MINOR], ids=["wp", "wp_and_minor"])
@case("REG-1", kinds=MINOR_KINDS, states=(none_pmd,), thp=(False,), also=MINOR_FEATURES)
def test_answer_names_continue_for_minor_faults_alone(bare, mode):
    ioctls = bare.uffd.register(bare.start, bare.size, mode)
    assert bool(ioctls & CONTINUE_IOCTL) == (MINOR in mode)


@pytest.mark.parametrize(
    ("start", "size", "mode"),
    [
        pytest.param(0, PAGESIZE, 0, id="no_mode"),
        pytest.param(0, PAGESIZE, WP | 1 << 62, id="unknown_mode"),
        pytest.param(0, PAGESIZE, RegisterMode.MINOR, id="minor_on_anon"),
        pytest.param(1, PAGESIZE, WP, id="misaligned_start"),
        pytest.param(0, PAGESIZE + 1, WP, id="misaligned_length"),
        pytest.param(0, 0, WP, id="no_length"),
        pytest.param(0, TOP - PAGESIZE, WP, id="wraps"),
        pytest.param(0, 1 << 62, WP, id="beyond_the_address_space"),
        pytest.param(1 << 29, PAGESIZE, WP, id="unmapped"),
    ],
)
@case("REG-2", kinds=ANON, states=(none_pmd,), thp=(False,))
def test_bad_range_or_mode_is_refused(bare, start, size, mode):
    with refuses(EINVAL):
        bare.uffd.register(bare.start + start, size, mode)


@case("REG-3", kinds=KINDS, states=(populated,))
def test_range_of_another_is_refused(mem, uffd_with):
    with refuses(EBUSY):
        uffd_with().register(mem.start, mem.size)


@case("REG-4", needs=(UFFD, WP_SHMEM))
def test_read_only_shared_file_is_refused(subject, uffd_with):
    file = memfd_shared.open_file(subject)
    subject.syscall("ftruncate", file, PAGESIZE)
    again = subject.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    start = subject.mmap(PAGESIZE, Prot.READ, Map.SHARED, again)
    with refuses(EPERM):
        uffd_with().register(start, PAGESIZE)


@pytest.mark.parametrize("prot", [Prot.READ, Prot.NONE], ids=["read", "none"])
@case("REG-5", kinds=ANON, states=(none_pte, none_pmd), features=(wpu,), thp=(False,))
def test_inaccessible_anon_takes_markers(bare, prot):
    bare.subject.mprotect(bare.start, bare.size, prot)
    bare.register()
    bare.protect()
    assert bare.look() == bare.marker
    assert bare.changed() == {bare.page}


@pytest.mark.parametrize(
    ("features", "mode", "accepted"),
    [(0, WP, False), (Feature.WP_ASYNC, WP, True), (Feature.WP_ASYNC, WP | MISSING, False)],
    ids=["sync", "async", "async_missing"],
)
@case("REG-6", needs=(UFFD, DISK_FILE, feature(Feature.WP_ASYNC)))
def test_file_on_disk_is_for_async_alone(
    subject, uffd_with, disk_mapping, features, mode, accepted
):
    uffd = uffd_with(features)
    if accepted:
        assert uffd.register(disk_mapping, PAGESIZE, mode) & WRITEPROTECT_IOCTL
    else:
        with refuses(EINVAL):
            uffd.register(disk_mapping, PAGESIZE, mode)


@pytest.mark.parametrize("features", [0, Feature.WP_ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize("name", ["[vdso]", "/[aio]"], ids=["vdso", "aio_ring"])
@case("REG-7", needs=(UFFD, feature(Feature.WP_ASYNC)))
def test_special_mapping_is_refused(subject, uffd_with, name, features):
    subject.main.struct("reply")  # io_setup(2) wants a zeroed word for the ring's handle
    subject.syscall("io_setup", 1, subject.main.scratch_address)
    with refuses(EINVAL):
        uffd_with(features).register(start_of(subject, name), PAGESIZE)


@case("REG-8", needs=(UFFD, DROPPABLE))
def test_droppable_is_refused(subject, uffd_with):
    start = subject.mmap(PAGESIZE, Prot.RW, Map.DROPPABLE | Map.ANONYMOUS)
    with refuses(EINVAL):
        uffd_with().register(start, PAGESIZE)


@case("REG-9", needs=(UFFD, feature(Feature.WP_ASYNC)))
def test_sysv_shared_memory_is_for_async_alone(uffd_with, sysv_mapping):
    with refuses(EINVAL):
        uffd_with().register(sysv_mapping, PAGESIZE)
    uffd_with(Feature.WP_ASYNC).register(sysv_mapping, PAGESIZE)


@case("REG-10", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_registering_again_keeps_the_protection(mem):
    mem.protect()
    mem.register()
    assert mem.protected() == {mem.page}
    assert mem.store().message == mem.wp_fault()


@case(
    "REG-10",
    kinds=ANON,
    states=(none_pte, none_pmd),
    features=SYNC,
    thp=(False,),
    mode=WP | MISSING,
)
def test_registering_again_with_less_keeps_missing(mem):
    mem.uffd.register(mem.start, mem.size, WP)
    assert mem.load().message == mem.fault(FaultFlag(0))


@case("REG-11", kinds=KINDS, states=(populated,), mode=WP | MISSING)
def test_dropping_wp_from_a_protected_range_is_refused(mem):
    mem.protect()
    with refuses(EBUSY):
        mem.uffd.register(mem.start, mem.size, MISSING)


@case("REG-12", kinds=KINDS, states=(populated,))
def test_rest_of_the_mapping_stays_unregistered(bare):
    bare.uffd.register(*bare.span(bare.page))
    bare.protect()
    with refuses(ENOENT):
        bare.protect(bare.page + 1)
    assert bare.changed() == {bare.page}


@case("REG-13", kinds=KINDS, states=(*STATES, swapped), features=SYNC, where=least)
def test_unregister_clears_the_protection(mem):
    mem.protect(mem.pages)
    mem.unregister(mem.pages)
    assert mem.protected() == set()
    assert mem.store().silent


@case("REG-13", kinds=KINDS, states=(none_pte, *POPULATED), features=SYNC, where=least)
def test_unregistering_a_part_clears_just_that(mem):
    mem.protect(mem.pages)
    protected = mem.protected()
    mem.unregister(mem.page)
    assert mem.protected() == protected - {mem.page}
    assert mem.store(mem.page).silent
    assert mem.store(mem.page + 1).message == mem.wp_fault(mem.page + 1)


@case("REG-14", kinds=KINDS, states=(*STATES, swapped), features=SYNC, where=least)
def test_close_clears_the_protection(mem):
    mem.protect(mem.pages)
    mem.uffd.close()
    mem.open_uffd()
    mem.register()
    assert mem.protected() == set()
    assert mem.store().silent


@case("REG-15", needs=(UFFD, SECRET, feature(Feature.WP_ASYNC)))
def test_secret_memory_is_for_async_alone(uffd_with, secret_mapping):
    with refuses(EINVAL):
        uffd_with().register(secret_mapping, PAGESIZE)
    uffd_with(Feature.WP_ASYNC).register(secret_mapping, PAGESIZE)


@case("REG-19", needs=(UFFD, feature(Feature.WP_ASYNC)))
def test_sysv_shared_memory_is_tracked(subject, uffd_with, sysv_mapping):
    check_tracked(subject, uffd_with(Feature.WP_ASYNC), sysv_mapping)


@case("REG-19", needs=(UFFD, SECRET, feature(Feature.WP_ASYNC)))
def test_secret_memory_is_tracked(subject, uffd_with, secret_mapping):
    check_tracked(subject, uffd_with(Feature.WP_ASYNC), secret_mapping)


@case("REG-16", kinds=KINDS, states=(populated,))
def test_range_of_another_is_not_unregistered(mem, uffd_with):
    with refuses(EINVAL):
        uffd_with().unregister(mem.start, mem.size)
    mem.protect()
    assert mem.store().message == mem.wp_fault()


@case("REG-17", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_close_wakes_the_writers(mem):
    mem.protect()
    write = mem.store()
    mem.uffd.close()
    assert write.completes()


@case("REG-18", kinds=KINDS, states=STATES, features=SYNC, where=least)
def test_unregister_leaves_the_writers_asleep(mem):
    mem.protect()
    write = mem.store()
    mem.unregister(mem.pages)
    assert write.blocked
    mem.uffd.close()
    assert write.completes()


@case("REG-20", needs=(UFFD, DISK_FILE))
def test_memory_that_can_not_be_registered_can_not_be_unregistered(disk_mapping, uffd_with):
    with refuses(EINVAL):
        uffd_with().unregister(disk_mapping, PAGESIZE)


@case("REG-20", kinds=(ext4_shared,), states=(populated,), features=(asynchronous,))
def test_file_that_async_alone_can_watch_is_not_unregistered_without(mem, uffd_with):
    mem.protect()
    with refuses(EINVAL):
        uffd_with().unregister(*mem.span(mem.pages))
    assert mem.protected() == {mem.page}


@case("REG-21", kinds=KINDS, states=(none_pte,), features=SYNC, mode=MISSING | WP)
def test_unregister_wakes_who_waits_for_a_missing_page(mem):
    read = mem.load()
    assert read.blocked
    mem.unregister(mem.pages)
    assert read.completes()


def start_of(subject, name):
    """Where the mapping of that name in /proc/self/maps starts."""
    maps = [line.split() for line in subject.read_file("/proc/self/maps").splitlines()]
    return next(int(fields[0].partition("-")[0], 16) for fields in maps if name in fields)


def check_tracked(subject, uffd, start):
    """A hole and a page that is there are protected; a read keeps that, a write takes it away."""
    uffd.register(start, PAGESIZE)
    for touch, kept in ((subject.main.load, True), (subject.main.store, False)):
        uffd.writeprotect(start, PAGESIZE)
        assert Page.WP in look(subject, start)
        touch(start, 0).result()
        assert (Page.WP in look(subject, start)) == kept
    assert uffd.read() is None


def look(subject, address):
    """What pagemap shows of a page."""
    return decode(words(subject, address, 1)[0])
