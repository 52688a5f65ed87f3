"""mlock(2) and relatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    MLOCK_ONFAULT,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import (
    EINVAL,
    ENOMEM,
)
from sentry.mm.locking import mlock, mlockall, munlock
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap

if TYPE_CHECKING:
    from conftest import OpenFile

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_mlock_counts(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    mlock(mm.map, addr + PAGE, 2 * PAGE)
    assert mm.map.locked_pages == 2 and len(mm.map.vmas) == 3
    munlock(mm.map, addr, 4 * PAGE)
    assert mm.map.locked_pages == 0 and len(mm.map.vmas) == 1
    with pytest.raises(EINVAL):
        mlockall(mm.map, 0)


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
