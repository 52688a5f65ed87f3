"""How much is in memory, and how much was at most."""

from __future__ import annotations

from sentry.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.residency import residency

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


def test_peak_stays_until_it_is_forgotten(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 8 * PAGE, RW, ANON)
    mm.write(addr, b"x" * 8 * PAGE)
    assert (mm.resident.pages(), mm.resident.peak_pages()) == (8, 8)
    munmap(mm.map, addr, 6 * PAGE)
    assert (mm.resident.pages(), mm.resident.peak_pages()) == (2, 8)
    mm.resident.forget_peak()
    assert mm.resident.peak_pages() == 2


def test_ram_is_counted_anew_only_after_a_change(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    assert mm.resident.ram_pages(1) == 0
    mm.write(addr, b"x" * 3 * PAGE)
    assert mm.resident.ram_pages(1) == 0
    assert mm.resident.ram_pages(2) == 3


def test_of_what_is_being_destroyed_nothing_is_in_memory(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    mm.write(addr, b"x" * 3 * PAGE)
    assert mm.resident.peak_pages() == 3
    ending = mm.releasing()
    next(ending)
    found = (mm.resident.pages(), mm.resident.ram_pages(1), mm.resident.peak_pages())
    assert found == (0, 0, 3)


def test_memory_has_one_owner_until_it_is_shared(mm: MemoryManager) -> None:
    private = mmap(mm.map, 0, 2 * PAGE, RW, ANON)
    shared = mmap(mm.map, 0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS)
    for addr in (private, shared):
        mm.write(addr, b"x" * 2 * PAGE)
    found = [mm.map.vmas.find(addr) for addr in (private, shared)]
    assert [residency(mm.map, vma) for vma in found if vma] == [(2, 0, 0, 0), (0, 0, 2, 0)]
    child = mm.share().fork()
    assert [residency(mm.map, vma) for vma in found if vma] == [(0, 2, 0, 0), (0, 0, 0, 2)]
    child.release()
