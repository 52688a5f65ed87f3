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
from sentry.mm.manager import MemoryManager
from sentry.platform.commitment import OVERCOMMIT_NEVER
from sentry.platform.memory import Ram

if TYPE_CHECKING:
    from conftest import OpenFile

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_nothing_is_promised_twice_without_overcommit(ram: Ram, mm: MemoryManager) -> None:
    ram.commitment.mode, ram.commitment.kbytes = OVERCOMMIT_NEVER, 12
    addr = mm.mmap(0, 2 * PAGE, RW, ANON)
    with pytest.raises(ENOMEM):
        mm.mmap(0, 2 * PAGE, RW, ANON)
    mm.mmap(0, 2 * PAGE, RW, ANON | MAP_NORESERVE)
    mm.mmap(0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS)
    later = mm.mmap(0, 2 * PAGE, PROT_READ, ANON)
    with pytest.raises(ENOMEM):
        mm.mprotect(later, 2 * PAGE, RW)
    with pytest.raises(ENOMEM):
        mm.fork()
    assert ram.commitment.pages == 2
    mm.munmap(addr, PAGE)
    mm.fork().release()
    mm.mprotect(later, PAGE, RW)
    assert ram.commitment.pages == 2
    mm.release()
    assert ram.commitment.pages == 0


def test_number_of_mappings(ram: Ram, mm: MemoryManager) -> None:
    ram.commitment.max_map_count = 5
    for number in range(6):
        mm.mmap(0, PAGE, RW if number % 2 else PROT_NONE, ANON)
    assert len(mm.vmas) == 6
    with pytest.raises(ENOMEM):
        mm.mmap(0, PAGE, PROT_READ, ANON)


def test_what_cannot_be_filled_is_locked_all_the_same(
    mm: MemoryManager, host_file: Callable[..., OpenFile]
) -> None:
    addr = mm.mmap(0, PAGE, PROT_NONE, ANON)
    with pytest.raises(ENOMEM):
        mm.mlock(addr, PAGE)
    assert mm.locked_pages == 1
    mm.mlock(addr, PAGE, MLOCK_ONFAULT)
    file = host_file(b"x" * PAGE)
    at = mm.mmap(0, 2 * PAGE, PROT_READ, MAP_SHARED, file, 0)
    with pytest.raises(ENOMEM):
        mm.mlock(at, 2 * PAGE)
    assert mm.locked_pages == 3
    mm.mlockall(1)


def test_what_a_child_inherits_stays_a_mapping_of_its_own(mm: MemoryManager) -> None:
    mm.mmap(0, 2 * PAGE, RW, ANON)
    child = mm.fork()
    child.mmap(0, PAGE, RW, ANON)
    assert len(child.vmas) == 2
    child.mmap(0, PAGE, RW, ANON)
    assert len(child.vmas) == 2
    mm.mmap(0, PAGE, RW, ANON)
    assert len(mm.vmas) == 1
    child.release()
