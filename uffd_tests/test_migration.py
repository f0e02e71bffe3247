# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter MIG: protected pages that are moved, between nodes and by compaction."""

import pytest

from helpers.arrange import content, huge_bytes
from helpers.axes import (
    ANON,
    anon,
    asynchronous,
    file_mapped,
    hugetlb_private,
    hugetlb_shared,
    memfd_private,
    memfd_shared,
    none_pte,
    pmd_mapped,
    populated,
    pte_mapped,
    wpu,
)
from helpers.cases import case
from helpers.machine import DISPOSABLE, NUMA
from helpers.migration import (
    NUMA_BALANCING,
    WAYS,
    balance,
    by_mbind,
    by_move_pages_of_all,
    compact,
    migrate,
)

KINDS = (anon, memfd_shared, memfd_private, hugetlb_shared, hugetlb_private)
STATES = (populated, file_mapped, pmd_mapped, pte_mapped)


@case("MIG-1", kinds=KINDS, states=STATES, needs=(NUMA,))
def test_migration_keeps_the_protection(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)  # protecting a shmem THP has unmapped it
    migrate(mem)
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@case("MIG-1", kinds=ANON, states=(populated, pmd_mapped), needs=(NUMA,))
def test_every_way_of_migration_keeps_the_protection(mem, way):
    mem.protect(mem.unit)
    migrate(mem, way)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("MIG-2", kinds=KINDS, states=STATES, needs=(NUMA,))
def test_migration_protects_nothing(mem):
    mem.protect(mem.unit)
    mem.unprotect(mem.unit)
    mem.load_all(mem.unit)
    migrate(mem)
    assert mem.protected() == set()
    assert mem.store().silent


@case("MIG-2", kinds=ANON, states=(pmd_mapped, pte_mapped), needs=(NUMA,))
def test_each_page_of_a_thp_keeps_its_own_protection(mem):
    mem.protect()
    migrate(mem)
    assert mem.protected() == {mem.page}
    assert mem.store(mem.page + 1).silent
    assert mem.store().message == mem.wp_fault()


@case("MIG-3", kinds=ANON, states=(pmd_mapped,), needs=(NUMA,))
def test_protected_thp_stays_huge(mem):
    mem.protect(mem.pmd)
    migrate(mem)
    assert huge_bytes(mem) == mem.machine.pmd_bytes
    assert mem.protected() == set(mem.pmd)


@case("MIG-4", kinds=KINDS, states=STATES, needs=(NUMA,))
def test_writer_that_waits_is_answered_after_the_migration(mem):
    mem.protect(mem.unit)
    write = mem.store(offset=8)
    mem.load_all(mem.unit)
    migrate(mem)
    mem.unprotect()
    assert write.completes()
    assert mem.load().value == content(mem)
    assert mem.store().silent


@case("MIG-5", kinds=KINDS, states=STATES, features=(asynchronous,), needs=(NUMA,))
def test_async_migration_is_no_write(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)
    migrate(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().silent
    assert mem.page not in mem.protected()


@case("MIG-6", kinds=(anon, memfd_shared), states=(populated, pmd_mapped), needs=(NUMA,))
def test_page_that_two_processes_map_is_protected_for_one(mem):
    mem.protect(mem.unit)
    mem.load_all(mem.unit)
    child = mem.fork()
    child.load_all(mem.unit)
    migrate(mem, by_move_pages_of_all)
    assert child.protected() == set()
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("MIG-7", kinds=(anon, memfd_shared), states=(none_pte,), features=(wpu,), needs=(NUMA,))
def test_markers_stay(mem):
    mem.protect()
    migrate(mem, by_mbind, page=mem.pmd[0])
    assert mem.look() == mem.marker
    assert mem.changed() == mem.protected() == {mem.page}


@case("MIG-9", kinds=ANON, states=(populated, pmd_mapped), needs=(NUMA, NUMA_BALANCING))
def test_numa_balancing_keeps_the_protection(mem):
    mem.protect(mem.unit)
    balance(mem)
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()


@case("MIG-8", kinds=(anon, memfd_shared), states=(populated,), needs=(DISPOSABLE,))
def test_compaction_keeps_the_protection(mem):
    mem.protect(mem.unit)
    compact(mem)
    assert mem.load().value == content(mem)
    assert mem.protected() == set(mem.unit)
    assert mem.store().message == mem.wp_fault()
