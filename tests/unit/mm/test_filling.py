"""What is mapped before it is touched."""

from __future__ import annotations

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_fresh_anonymous_memory_needs_no_fault(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 300 << 10, RW, ANON)
    assert mm.space.check(addr, 300 << 10, True) == 300 << 10
    lazy = mmap(mm.map, 0, 300 << 10, RW, ANON | MAP_NORESERVE)
    assert mm.space.check(lazy, PAGE, False) == 0
    none = mmap(mm.map, 0, PAGE, PROT_NONE, ANON)
    assert mm.space.entry(none) == 0
