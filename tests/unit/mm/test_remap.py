"""mremap(2)."""

from __future__ import annotations

import pytest

from sentry.abi import mman
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import (
    EINVAL,
    ENOMEM,
)
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.mm.remap import mremap

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_mremap_grows_in_place_or_moves(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0x30000000, PAGE, RW, ANON | MAP_FIXED)
    mm.write(addr, b"stay")
    assert mremap(mm.map, addr, PAGE, 3 * PAGE, 0) == addr
    mmap(mm.map, addr + 3 * PAGE, PAGE, RW | PROT_EXEC, ANON | MAP_FIXED)
    with pytest.raises(ENOMEM):
        mremap(mm.map, addr, 3 * PAGE, 5 * PAGE, 0)
    moved = mremap(mm.map, addr, 3 * PAGE, 5 * PAGE, mman.MREMAP_MAYMOVE)
    assert moved != addr and mm.read(moved, 4) == b"stay"
    assert mremap(mm.map, moved, 5 * PAGE, PAGE, 0) == moved
    assert mm.map.total_pages == 2


def test_mremap_of_nothing_duplicates_shared_memory(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS)
    mm.write(addr, b"twice")
    twin = mremap(mm.map, addr, 0, PAGE, mman.MREMAP_MAYMOVE)
    mm.write(twin, b"TWICE")
    assert mm.read(addr, 5) == b"TWICE"
    private = mmap(mm.map, 0, PAGE, RW, ANON)
    with pytest.raises(EINVAL):
        mremap(mm.map, private, 0, PAGE, mman.MREMAP_MAYMOVE)
