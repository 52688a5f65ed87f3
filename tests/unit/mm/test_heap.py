"""brk(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import (
    EFAULT,
)
from sentry.mm.heap import brk, set_brk_start
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.mm.report import maps

if TYPE_CHECKING:
    from conftest import SomeLimits

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_brk_grows_shrinks_and_refuses(mm: MemoryManager, limits: SomeLimits) -> None:
    start = 0x20000000
    set_brk_start(mm.map, start)
    assert brk(mm.map, 0) == start
    assert brk(mm.map, start + 5000) == start + 5000
    mm.write(start + 4999, b"end")
    assert brk(mm.map, start + 100) == start + 100
    with pytest.raises(EFAULT):
        mm.read(start + PAGE, 1)
    assert brk(mm.map, start + 5000) == start + 5000
    assert mm.read(start + PAGE, 1000) == bytes(1000)
    mmap(mm.map, start + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED)
    assert brk(mm.map, start + 10 * PAGE) == start + 5000
    assert next(maps(mm.map, lambda file: (0, 0, 0, b""))).endswith(b"[heap]\n")
