"""Where mappings lie, what they may promise, how many there may be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import (
    ENOMEM,
)
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect
from sentry.platform.commitment import OVERCOMMIT_NEVER
from sentry.platform.memory import AddressSpace, Ram

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_mmap_goes_top_down_and_fills_holes(mm: MemoryManager) -> None:
    first = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    second = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    assert second == first - 4 * PAGE and len(mm.map.vmas) == 1
    munmap(mm.map, first + PAGE, PAGE)
    assert mmap(mm.map, 0, PAGE, RW, ANON) == first + PAGE


steps = st.lists(st.tuples(st.booleans(), st.integers(1, 24), st.integers(1, 5)), max_size=30)


@settings(deadline=None)
@given(steps)
def test_a_mapping_lies_as_high_as_there_is_room(steps: list[tuple[bool, int, int]]) -> None:
    ram = Ram.from_memfd(1 << 30)
    mm = MemoryManager.empty(lambda: AddressSpace(ram))
    base, taken = mm.map.mmap_base, set[int]()  # pages below it, the highest is 1
    for maps, page, count in steps:
        if not maps:
            munmap(mm.map, base - page * PAGE, count * PAGE)
            taken -= set(range(page - count + 1, page + 1))
            continue
        places = ((at, set(range(at - count + 1, at + 1))) for at in range(count, 400))
        lowest, pages = next(place for place in places if taken.isdisjoint(place[1]))
        assert mmap(mm.map, 0, count * PAGE, PROT_NONE, ANON) == base - lowest * PAGE
        taken |= pages
    mm.release()
    ram.close()


def test_mmap_base_differs_between_address_spaces(ram: Ram) -> None:
    bases = {MemoryManager.empty(lambda: AddressSpace(ram)).map.mmap_base for _ in range(4)}
    assert len(bases) == 4
    fixed = MemoryManager.empty(lambda: AddressSpace(ram), randomize=False)
    again = MemoryManager.empty(lambda: AddressSpace(ram), randomize=False)
    assert fixed.map.mmap_base == again.map.mmap_base


def test_large_anonymous_mapping_starts_on_a_block(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 4 << 20, RW, ANON)
    assert addr % (2 << 20) == 0 and mm.space.entry(addr) & 0x80


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
