"""mprotect(2): rights, and what becomes usable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_STACK,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import (
    EACCES,
    EFAULT,
)
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.mm.protect import mprotect

if TYPE_CHECKING:
    from conftest import OpenFile

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS
MakeFile = Callable[..., "OpenFile"]


def test_mprotect_from_none_makes_memory_usable_without_fault(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 8 << 20, PROT_NONE, ANON | MAP_NORESERVE | MAP_STACK)
    mprotect(mm.map, addr + PAGE, (8 << 20) - PAGE, RW)
    mm.write(addr + (8 << 20) - 8, b"on stack")
    with pytest.raises(EFAULT):
        mm.read(addr, 1)


def test_shared_mapping_of_a_read_only_file_can_never_be_written(
    mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(bytes(PAGE))
    with pytest.raises(EACCES):
        mmap(mm.map, 0, PAGE, RW, MAP_SHARED, file, 0)
    addr = mmap(mm.map, 0, PAGE, PROT_READ, MAP_SHARED, file, 0)
    with pytest.raises(EACCES):
        mprotect(mm.map, addr, PAGE, RW)
    with pytest.raises(EACCES):
        mmap(
            mm.map,
            0,
            PAGE,
            PROT_READ,
            MAP_PRIVATE,
            host_file(b"", readable=False, writable=True),
            0,
        )
