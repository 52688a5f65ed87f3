"""What a child gets."""

from __future__ import annotations

import gc

from sentry.abi import mman
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
)
from sentry.abi.prctl import PR_MDWE_NO_INHERIT, PR_MDWE_REFUSE_EXEC_GAIN
from sentry.mm.address_map import AddressMap
from sentry.mm.advice import madvise
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap

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
