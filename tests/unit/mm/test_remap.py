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
from sentry.errors import EINVAL, ENOMEM, EPERM
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.mm.protect import mseal
from sentry.mm.ramfile import RamFile
from sentry.mm.remap import mremap, remap_file_pages
from sentry.platform.memory import AddressSpace, Exhausted, Ram
from tests.unit.mm.conftest import OpenFile

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


@pytest.mark.parametrize("how", ["no tables", "sealed"])
def test_file_that_cannot_be_mapped_elsewhere_is_held_once(
    mm: MemoryManager, ram: Ram, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    backing = RamFile(ram)
    backing.truncate(2 * PAGE)
    file = OpenFile(backing, True, True)
    addr = mmap(mm.map, 0, 2 * PAGE, RW, MAP_SHARED, file, 0)

    def refused(*_: int) -> None:
        raise Exhausted

    if how == "sealed":
        mseal(mm.map, addr, 2 * PAGE)
        with pytest.raises(EPERM):
            remap_file_pages(mm.map, addr, PAGE, 0, 1)
    else:
        mm.write(addr, b"x")
        monkeypatch.setattr(AddressSpace, "prepare_move", refused)
        flags = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED
        with pytest.raises(Exhausted):
            mremap(mm.map, addr, 2 * PAGE, 2 * PAGE, flags, 1 << 30)
    assert file.refs == 2
    mm.release()
    assert file.refs == 1
