# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter API: the handshake, and the ways to a userfaultfd."""

import os
import select
from errno import EACCES, EFAULT, EINVAL, EPERM

import pytest

from helpers.axes import KINDS, SYNC, anon, asynchronous, none_pte, plain, populated, protectable
from helpers.cases import case, refuses
from helpers.machine import DEVICE_OPEN, ROOT, UFFD, USER_MODE, feature
from helpers.uapi import UFFD_API, UFFD_USER_MODE_ONLY, Feature, Ioctl
from helpers.uffd import DEVICE, Access, Userfaultfd

NOBODY = 65534
USER_MODE_ONLY = Access.USER_MODE_ONLY
BASIC_IOCTLS = 1 << 0x3F | 1 << 0x00 | 1 << 0x01  # API, REGISTER, UNREGISTER
UNKNOWN_FEATURE = 1 << 63


@pytest.fixture
def uffd(subject, machine):
    """A userfaultfd before its handshake."""
    return Userfaultfd.open(subject, machine.access)


@pytest.fixture
def nobody(subject):
    """The subject, with the privileges of nobody."""
    subject.syscall("setresuid", NOBODY, NOBODY, NOBODY)
    return subject


@case("API-1", needs=(UFFD,))
def test_asking_for_nothing_answers_all(uffd, machine):
    _, struct = uffd.try_ioctl(Ioctl.UFFDIO_API, "uffdio_api", api=UFFD_API)
    assert struct.features == machine.features != 0
    assert struct.ioctls & BASIC_IOCTLS == BASIC_IOCTLS


@pytest.mark.parametrize("bit", Feature, ids=lambda bit: bit.name.lower())
@case("API-2", needs=(UFFD, ROOT))
def test_announced_is_what_can_be_asked_for(uffd, machine, bit):
    asked = bit | Feature.RWP if bit is Feature.RWP_ASYNC else bit
    if bit in machine.features:
        assert bit in uffd.api(asked)
    else:
        with refuses(EINVAL):
            uffd.api(asked)


@case("API-3", needs=(UFFD,))
def test_unknown_feature_is_refused_and_may_be_asked_again(uffd):
    assert refused(uffd, UFFD_API, UNKNOWN_FEATURE)
    assert uffd.api()


@case("API-4", needs=(UFFD,))
def test_wrong_version_is_refused_and_may_be_asked_again(uffd):
    assert refused(uffd, UFFD_API + 1, 0)
    assert uffd.api()


@pytest.mark.parametrize("first", [Feature(0), Feature.WP_UNPOPULATED], ids=["nothing", "wpu"])
@case("API-5", needs=(UFFD, feature(Feature.WP_UNPOPULATED)))
def test_second_handshake_is_refused(uffd, first):
    uffd.api(first)
    with refuses(EINVAL):
        uffd.api(Feature.WP_UNPOPULATED)


@case("API-6", needs=(UFFD,))
def test_asking_for_one_answers_all(uffd, machine):
    assert uffd.api(Feature.PAGEFAULT_FLAG_WP) == machine.features


@case("API-7", needs=(UFFD, feature(Feature.WP_ASYNC)))
def test_async_brings_wp_unpopulated(uffd, subject):
    uffd.api(Feature.WP_ASYNC)
    info = subject.read_file(f"/proc/self/fdinfo/{uffd.descriptor}")
    (line,) = [line for line in info.splitlines() if line.startswith("API:")]
    enabled = Feature(int(line.split(":")[2], 16))
    assert Feature.WP_ASYNC | Feature.WP_UNPOPULATED in enabled


@case("API-8", needs=(UFFD,))
def test_nothing_works_before_the_handshake(uffd):
    with refuses(EINVAL):
        uffd.register(0x1000, 0x1000)
    with refuses(EINVAL):
        uffd.writeprotect(0x1000, 0x1000)
    with refuses(EINVAL):
        uffd.read()
    assert poll(uffd) == select.POLLERR


@case("API-9", needs=(UFFD,))
def test_blocking_descriptor_polls_error(subject, machine):
    uffd = Userfaultfd.open(subject, machine.access, flags=os.O_CLOEXEC)
    uffd.api()
    assert poll(uffd) == select.POLLERR


@case("API-10", needs=(ROOT, USER_MODE))
def test_event_fork_needs_ptrace_capability(nobody):
    uffd = Userfaultfd.open(nobody, Access.USER_MODE_ONLY)
    with refuses(EPERM):
        uffd.api(Feature.EVENT_FORK)


@case("API-11", needs=(ROOT, USER_MODE))
def test_unprivileged_gets_user_mode_only(nobody, machine):
    Userfaultfd.open(nobody, Access.USER_MODE_ONLY).api()
    if machine.open_to_all:
        Userfaultfd.open(nobody, Access.SYSCALL).api()
    else:
        with refuses(EPERM):
            Userfaultfd.open(nobody, Access.SYSCALL)


@case("API-12", needs=(DEVICE_OPEN,))
def test_device_gives_the_same_features(subject, machine):
    assert Userfaultfd.open(subject, Access.DEVICE).api() == machine.features


@pytest.mark.parametrize(
    ("command", "flags"),
    [(Ioctl.USERFAULTFD_IOC_NEW, 1 << 30), (Ioctl.UFFDIO_API, 0)],
    ids=["flag", "command"],
)
@case("API-12", needs=(DEVICE_OPEN,))
def test_device_refuses_what_it_does_not_know(subject, command, flags):
    device = subject.open(DEVICE, os.O_RDWR)
    with refuses(EINVAL):
        subject.syscall("ioctl", device, command, flags)


@case("API-12", needs=(DEVICE_OPEN, ROOT))
def test_device_is_closed_to_others(nobody):
    if os.stat(DEVICE).st_mode & 0o006:
        pytest.skip(f"{DEVICE} was opened to others: chmod 600 {DEVICE}")
    with refuses(EACCES):
        nobody.open(DEVICE, os.O_RDWR)


@case("API-13", needs=(UFFD,))
def test_unknown_flag_is_refused(subject):
    with refuses(EINVAL):
        subject.syscall("userfaultfd", UFFD_USER_MODE_ONLY | 1 << 30)


@case(
    "API-14",
    kinds=(anon,),
    states=(none_pte, populated),
    features=SYNC,
    where=protectable,
    thp=(False,),
    access=USER_MODE_ONLY,
    needs=(USER_MODE,),
)
def test_user_mode_only_fails_the_kernels_write(mem):
    mem.protect()
    assert mem.kernel_write().error == EFAULT
    assert mem.kernel_read().silent
    assert mem.protected() == {mem.page}


@case(
    "API-15",
    kinds=(anon,),
    states=(none_pte, populated),
    features=(asynchronous,),
    thp=(False,),
    access=USER_MODE_ONLY,
    needs=(USER_MODE,),
)
def test_user_mode_only_async_lets_the_kernel_write(mem):
    mem.protect(mem.pages)
    assert mem.kernel_write().silent
    assert mem.protected() == set(mem.pages) - {mem.page}


@case("API-16", kinds=KINDS, states=(populated,), features=(plain,))
def test_write_protect_needs_no_feature(mem):
    mem.protect()
    assert mem.store().message == mem.wp_fault()


def refused(uffd, api, features):
    """Whether a handshake is refused with EINVAL and a zeroed structure."""
    answer, struct = uffd.try_ioctl(Ioctl.UFFDIO_API, "uffdio_api", api=api, features=features)
    zeroed = (struct.api, struct.features, struct.ioctls) == (0, 0, 0)
    return answer.error == EINVAL and zeroed


def poll(uffd):
    """The events of one poll(2) that doesn't wait."""
    poller = select.poll()
    poller.register(uffd.pollable, select.POLLIN)
    return dict(poller.poll(0)).get(uffd.pollable, 0)
