"""madvise(2), mincore(2), msync(2)."""

from __future__ import annotations

import pytest

from sentry.abi import mman
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import (
    EINVAL,
    ENOMEM,
    Errno,
)
from sentry.mm.advice import madvise, mincore
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


@pytest.mark.parametrize(
    ("advice", "error"),
    [
        (mman.MADV_HWPOISON, EINVAL),
        (mman.MADV_MERGEABLE, EINVAL),
        (99, EINVAL),
        (mman.MADV_REMOVE, EINVAL),
    ],
)
def test_madvise_errors(mm: MemoryManager, advice: int, error: type[Errno]) -> None:
    addr = mmap(mm.map, 0, PAGE, RW, ANON)
    with pytest.raises(error):
        madvise(mm.map, addr, PAGE, advice)
    with pytest.raises(EINVAL):
        madvise(mm.map, addr + 1, PAGE, mman.MADV_NORMAL)
    with pytest.raises(ENOMEM):
        madvise(mm.map, addr, 2 * PAGE, mman.MADV_WILLNEED)


def test_madvise_dontneed_on_shared_memory_keeps_the_bytes(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS)
    mm.write(addr, b"kept")
    madvise(mm.map, addr, PAGE, mman.MADV_DONTNEED)
    assert mm.read(addr, 4) == b"kept"
    madvise(mm.map, addr, PAGE, mman.MADV_REMOVE)
    assert mm.read(addr, 4) == bytes(4)


def test_mincore_and_populate(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    assert mincore(mm.map, addr, 4 * PAGE) == bytes(4)
    madvise(mm.map, addr + PAGE, PAGE, mman.MADV_POPULATE_WRITE)
    assert mincore(mm.map, addr, 4 * PAGE) == bytes([0, 1, 0, 0])
    with pytest.raises(ENOMEM):
        mincore(mm.map, addr, 5 * PAGE)
    assert mm.resident.pages() == 1
