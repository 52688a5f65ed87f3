"""What address spaces may promise, how many mappings they may have, and locked memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    MLOCK_ONFAULT,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import ENOMEM
from sentry.mm.locking import mlock, mlockall
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect
from sentry.platform.commitment import OVERCOMMIT_NEVER
from sentry.platform.memory import Ram

if TYPE_CHECKING:
    from conftest import OpenFile

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_nothing_is_promised_twice_without_overcommit(ram: Ram, mm: MemoryManager) -> None:
    ram.commitment.mode, ram.commitment.kbytes = OVERCOMMIT_NEVER, 12
    addr = mmap(mm.map, 0, 2 * PAGE, RW, ANON)
    with pytest.raises(ENOMEM):
        mmap(mm.map, 0, 2 * PAGE, RW, ANON)
    mmap(mm.map, 0, 2 * PAGE, RW, ANON | MAP_NORESERVE)
    mmap(mm.map, 0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS)
    later = mmap(mm.map, 0, 2 * PAGE, PROT_READ, ANON)
    with pytest.raises(ENOMEM):
        mprotect(mm.map, later, 2 * PAGE, RW)
    with pytest.raises(ENOMEM):
        mm.fork()
    assert ram.commitment.pages == 2
    munmap(mm.map, addr, PAGE)
    mm.fork().release()
    mprotect(mm.map, later, PAGE, RW)
    assert ram.commitment.pages == 2
    mm.release()
    assert ram.commitment.pages == 0


def test_number_of_mappings(ram: Ram, mm: MemoryManager) -> None:
    ram.commitment.max_map_count = 5
    for number in range(6):
        mmap(mm.map, 0, PAGE, RW if number % 2 else PROT_NONE, ANON)
    assert len(mm.map.vmas) == 6
    with pytest.raises(ENOMEM):
        mmap(mm.map, 0, PAGE, PROT_READ, ANON)


def test_what_cannot_be_filled_is_locked_all_the_same(
    mm: MemoryManager, host_file: Callable[..., OpenFile]
) -> None:
    addr = mmap(mm.map, 0, PAGE, PROT_NONE, ANON)
    with pytest.raises(ENOMEM):
        mlock(mm.map, addr, PAGE)
    assert mm.map.locked_pages == 1
    mlock(mm.map, addr, PAGE, MLOCK_ONFAULT)
    file = host_file(b"x" * PAGE)
    at = mmap(mm.map, 0, 2 * PAGE, PROT_READ, MAP_SHARED, file, 0)
    with pytest.raises(ENOMEM):
        mlock(mm.map, at, 2 * PAGE)
    assert mm.map.locked_pages == 3
    mlockall(mm.map, 1)


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
