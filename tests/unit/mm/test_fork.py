"""What a child gets."""

from __future__ import annotations

import gc

import pytest

from sentry.abi import mman
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
)
from sentry.abi.prctl import PR_MDWE_NO_INHERIT, PR_MDWE_REFUSE_EXEC_GAIN
from sentry.mm import fork
from sentry.mm.address_map import AddressMap
from sentry.mm.advice import madvise
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect
from sentry.mm.vma import VmFlag
from sentry.mm.vma_run import MAX_BORROWERS
from sentry.wait.steps import at_once

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_madvise_fork_advice(mm: MemoryManager) -> None:
    wipe, skip = mmap(mm.map, 0, PAGE, RW, ANON), mmap(mm.map, 0, PAGE, PROT_READ, ANON)
    mm.write(wipe, b"secret")
    madvise(mm.map, wipe, PAGE, mman.MADV_WIPEONFORK)
    madvise(mm.map, skip, PAGE, mman.MADV_DONTFORK)
    child = mm.fork()
    assert child.read(wipe, 6) == bytes(6) and mm.read(wipe, 6) == b"secret"
    assert child.map.vmas.find(skip) is None


def test_what_a_child_inherits_stays_a_mapping_of_its_own(mm: MemoryManager) -> None:
    mmap(mm.map, 0, 2 * PAGE, RW, ANON)
    child = mm.fork()
    mmap(child.map, 0, PAGE, RW, ANON)
    assert len(child.map.vmas) == 2
    mmap(child.map, 0, PAGE, RW, ANON)
    assert len(child.map.vmas) == 2
    mmap(mm.map, 0, PAGE, RW, ANON)
    assert len(mm.map.vmas) == 1
    child.release()


def test_settings_go_to_a_child_and_to_the_next_program(mm: MemoryManager) -> None:
    mm.no_huge_pages, mm.map.mdwe = True, PR_MDWE_REFUSE_EXEC_GAIN
    for other in (mm.fork(), mm.new_for_exec(mm.map.limits)):
        assert (other.no_huge_pages, other.map.mdwe) == (True, PR_MDWE_REFUSE_EXEC_GAIN)
    mm.map.mdwe |= PR_MDWE_NO_INHERIT
    for other in (mm.fork(), mm.new_for_exec(mm.map.limits)):
        assert other.map.mdwe == 0


def test_space_is_freed_with_its_last_user(mm: MemoryManager) -> None:
    mmap(mm.map, 0, PAGE, RW, ANON)
    mmap(mm.map, 0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS)
    gc.collect()
    gc.disable()
    before = alive()
    child = mm.fork()
    assert alive() == before + 2
    child.share().release()
    child.release()
    del child
    after = alive()
    gc.enable()
    assert after == before


def alive() -> int:
    return sum(isinstance(each, MemoryManager | AddressMap) for each in gc.get_objects())


MANY = 3 * fork.LEND
"""Mappings that a child borrows."""


@pytest.fixture
def many(mm: MemoryManager) -> list[int]:
    """Mappings of a page with a page between them, with their number in each."""
    start = mmap(mm.map, 0, 2 * MANY * PAGE, RW, ANON)
    pages = [start + 2 * n * PAGE for n in range(MANY)]
    for n, at in enumerate(pages):
        munmap(mm.map, at + PAGE, PAGE)
        mm.write(at, bytes([n]))
    return pages


def lent(mm: MemoryManager) -> int:
    return sum(len(run.starts) for run in mm.map.vmas.runs if run.is_borrowed)


def test_child_of_many_mappings_has_them_all(mm: MemoryManager, many: list[int]) -> None:
    before = mm.space.ram.commitment.pages
    child = mm.fork()
    assert lent(child) == len(child.map.vmas) == len(mm.map.vmas) == MANY
    assert mm.space.ram.commitment.pages == before + child.map.committed_pages
    mm.write(many[3], b"new")
    for n, at in enumerate(many):
        assert child.read(at, 1) == bytes([n])
        child.write(at, b"c")
        assert mm.read(at, 1) == (b"n" if n == 3 else bytes([n]))
    assert child.map.total_pages == mm.map.total_pages == MANY
    child.release()
    assert mm.space.ram.commitment.pages == before and mm.space.ram.vmas == MANY


def test_what_a_parent_unmaps_stays_with_the_child(mm: MemoryManager, many: list[int]) -> None:
    child = mm.fork()
    grandchild = child.fork()
    mprotect(mm.map, many[1], PAGE, PROT_READ)
    munmap(mm.map, many[0], 2 * MANY * PAGE)
    assert len(mm.map.vmas) == 0
    for each in (child, grandchild):
        assert each.read(many[1], 1) == b"\x01"
        each.write(many[1], b"x")
        found = each.map.vmas.find(many[1])
        assert found is not None and found.prot == RW and found.flags & VmFlag.FORKED
        assert len(each.map.vmas) == MANY
    child.release()
    assert grandchild.read(many[2], 1) == b"\x02"
    grandchild.release()
    assert mm.space.ram.vmas == mm.space.ram.commitment.pages == 0


def test_parent_that_goes_first_leaves_the_child_what_it_lent(
    mm: MemoryManager, many: list[int]
) -> None:
    child = mm.fork()
    mm.release()
    assert [child.read(at, 1) for at in many] == [bytes([n]) for n in range(MANY)]
    assert mm.space.ram.vmas == MANY
    child.release()
    assert mm.space.ram.vmas == 0


def test_many_children_do_not_all_borrow(mm: MemoryManager, many: list[int]) -> None:
    children = [mm.fork() for _ in range(4)]
    assert [lent(child) for child in children] == [MANY, MANY, 0, 0]
    mm.write(many[0], b"n")
    munmap(mm.map, many[0], PAGE)
    for child in children:
        assert child.read(many[0], 1) == b"\0"
        child.release()


def test_lender_that_changes_his_during_a_borrowers_fork_changes_no_grandchild(
    mm: MemoryManager, many: list[int]
) -> None:
    children = [mm.fork() for _ in range(MAX_BORROWERS)]
    steps = children[0].forking()
    next(steps)
    munmap(mm.map, many[10], PAGE)
    mmap(mm.map, many[20] + PAGE, PAGE, RW, ANON | mman.MAP_FIXED)  # joins two
    mprotect(mm.map, many[30], PAGE, PROT_READ)
    grandchild = at_once(steps)
    found = [(vma.start, vma.end, vma.prot) for vma in grandchild.map.vmas]
    assert found == [(at, at + PAGE, RW) for at in many]
    for each in (*children, grandchild):
        each.release()


def test_mapping_that_is_not_inherited_is_not_lent(mm: MemoryManager, many: list[int]) -> None:
    madvise(mm.map, many[5], PAGE, mman.MADV_DONTFORK)
    child = mm.fork()
    assert lent(child) == 0 and child.map.vmas.find(many[5]) is None
    assert len(child.map.vmas) == child.map.total_pages == child.map.committed_pages == MANY - 1
    child.release()
