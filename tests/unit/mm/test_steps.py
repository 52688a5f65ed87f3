"""How much one step of an operation on many mappings does, and what lies between two steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise

import pytest

from sentry.abi.mman import (
    MADV_COLD,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_REMOVE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    MS_SYNC,
)
from sentry.abi.resource import RLIMIT_MEMLOCK
from sentry.errors import ENOMEM
from sentry.fs.proc.process_status import sizes_of
from sentry.mm import faults
from sentry.mm.address_map import AT_ONCE, PIECE_VMAS, AddressMap, NoLimits
from sentry.mm.advice import DISCARD_AT_ONCE, madvise, msync
from sentry.mm.errors import NeedsFault
from sentry.mm.faults import PIECE, populate
from sentry.mm.locking import mlock, mlockall, munlock, munlockall
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect, mseal
from sentry.mm.ramfile import CHUNK_BYTES
from sentry.mm.remap import mremap
from sentry.mm.report import smaps_rollup, statm
from sentry.mm.vma_list import RUN_MAX
from sentry.platform.memory import AddressSpace, Exhausted
from sentry.syscalls.memory.mapping import advise_all
from sentry.syscalls.memory.numa import bound
from sentry.wait.steps import Steps
from tests.unit.mm.conftest import ANON, PAGE, RW

PAIRS = 100
SIZE = PAIRS * 2 * PAGE
START = 0x10000000
MOVED = MREMAP_MAYMOVE | MREMAP_FIXED


@pytest.fixture()
def amap(mm: MemoryManager) -> AddressMap:
    """Two hundred mappings side by side."""
    mmap(mm.map, START, SIZE, RW, ANON | MAP_FIXED)
    for at in range(START, START + SIZE, 2 * PAGE):
        mprotect(mm.map, at, PAGE, 1)
    assert len(mm.map.vmas.overlapping(START, START + SIZE)) == 2 * PAIRS
    return mm.map


class Locked(NoLimits):
    """RLIMIT_MEMLOCK alone."""

    def __init__(self, size: int) -> None:
        self.size = size

    def rlimit(self, resource: int) -> int:
        return self.size if resource == RLIMIT_MEMLOCK else super().rlimit(resource)


def locked_too_much(amap: AddressMap, size: int) -> Steps[object]:
    """mlock(2) beyond the limit, which looks at what is locked already."""
    amap.limits = Locked(size - PAGE)
    with pytest.raises(ENOMEM):
        yield from mlock.steps(amap, START, size)


def statm_steps(amap: AddressMap, _size: int) -> Steps[object]:
    """The pieces of /proc/PID/statm."""
    for _ in statm(amap):
        yield


def consistent(amap: AddressMap) -> None:
    """What is counted is what is there."""
    vmas = list(amap.vmas)
    assert amap.total_pages == sum(vma.pages for vma in vmas)
    assert all(low.end <= high.start for low, high in pairwise(vmas))


ALL: list[tuple[str, Callable[[AddressMap], Steps[object]], int]] = [
    ("mprotect", lambda a: mprotect.steps(a, START, SIZE, RW), 1),
    ("mlock", lambda a: mlock.steps(a, START, SIZE), 1),
    ("mlockall", lambda a: mlockall.steps(a, 1), 1),
    ("munlockall", munlockall.steps, 1),
    ("madvise", lambda a: madvise.steps(a, START, SIZE, MADV_DONTFORK), 1),
    ("munmap", lambda a: munmap.steps(a, START, SIZE), PIECE_VMAS),
    ("mmap", lambda a: mmap.steps(a, START, SIZE, RW, ANON | MAP_FIXED), PIECE_VMAS),
]


@pytest.mark.parametrize(("name", "work", "at_once"), ALL, ids=[row[0] for row in ALL])
def test_a_step_does_few_mappings_and_leaves_the_map_whole(
    amap: AddressMap, name: str, work: Callable[[AddressMap], Steps[object]], at_once: int
) -> None:
    steps = 0
    for _ in work(amap):
        consistent(amap)
        steps += 1
    assert steps >= 2 * PAIRS // at_once - 1


LENT = 8 * RUN_MAX
BORROWED: dict[str, Callable[[AddressMap, int], Steps[object]]] = {
    "msync": lambda a, size: msync.steps(a, START, size, MS_SYNC),
    "mlock": lambda a, size: mlock.steps(a, START, size),
    "mlock too much": locked_too_much,
    "munlock": lambda a, size: munlock.steps(a, START, size),
    "mlockall": lambda a, size: mlockall.steps(a, 1),
    "mseal": lambda a, size: mseal.steps(a, START, size),
    "mprotect": lambda a, size: mprotect.steps(a, START, size, RW),
    "munmap": lambda a, size: munmap.steps(a, START, size),
    "mmap": lambda a, size: mmap.steps(a, START, size, RW, ANON | MAP_FIXED),
    "advice": lambda a, size: madvise.steps(a, START, size, MADV_DONTFORK),
    "discard": lambda a, size: madvise.steps(a, START, size, MADV_DONTNEED),
    "mbind": lambda a, size: bound(a, START, START + size, (1, 1)),
    "statm": statm_steps,
    "rollup": lambda a, size: (None for _ in smaps_rollup(a)),
}


@pytest.mark.parametrize("name", BORROWED)
def test_a_step_after_a_fork_makes_the_mappings_of_few_runs(mm: MemoryManager, name: str) -> None:
    size = LENT * PAGE
    mmap(mm.map, START, size, RW, ANON | MAP_FIXED)
    for at in range(START, START + size, 2 * PAGE):
        mprotect(mm.map, at, PAGE, 1)
    child = mm.fork().map

    def borrowed() -> int:
        return sum(run.is_borrowed for run in child.vmas.runs)

    before = borrowed()
    assert before >= LENT // RUN_MAX
    for _ in BORROWED[name](child, size):
        left = borrowed()
        assert left >= before - 2
        before = left
    assert not before


@pytest.mark.parametrize("lent", [True, False])
def test_fork_and_the_end_take_a_step_for_few_mappings(
    amap: AddressMap, mm: MemoryManager, lent: bool
) -> None:
    if not lent:  # each is copied where a neighbour is locked
        for at in range(START, START + SIZE, RUN_MAX // 8 * PAGE):
            mlock(amap, at, PAGE)
    forking = mm.forking()
    steps = 0
    while True:
        try:
            next(forking)
        except StopIteration as end:
            child = end.value
            break
        steps += 1
    assert steps >= (1 if lent else 2 * PAIRS)
    assert sum(run.is_borrowed for run in child.map.vmas.runs) >= (steps if lent else 0)
    assert [v.start for v in child.map.vmas] == [v.start for v in mm.map.vmas]
    assert sum(1 for _ in child.releasing()) >= 2 * PAIRS // PIECE_VMAS


def test_the_last_release_leaves_many_mappings_to_what_ends_behind(
    amap: AddressMap, mm: MemoryManager
) -> None:
    for at in range(START, START + SIZE, RUN_MAX // 8 * PAGE):
        mlock(amap, at, PAGE)  # so that a child has its own
    child, ram = mm.fork().map, amap.space.ram
    promised, ends = ram.commitment.pages, list[Callable[[], object]]()
    ram.let_go = lambda things, end: ends.extend(partial(end, each) for each in things)
    MemoryManager(lambda: child.space, child).release()
    assert child.space.is_gone
    for act in ends:
        before = len(child.vmas)
        act()
        assert before - len(child.vmas) <= PIECE_VMAS
    assert len(ends) >= 2 * PAIRS // PIECE_VMAS
    assert not len(child.vmas) and ram.commitment.pages < promised


def test_memory_is_populated_and_forgotten_in_pieces(mm: MemoryManager) -> None:
    size = 4 * PIECE
    mapped = mmap.steps(mm.map, START, size, RW, ANON | MAP_FIXED | MAP_POPULATE)
    assert sum(1 for _ in mapped) >= 4
    assert sum(1 for _ in populate.steps(mm.map, START, START + size)) >= 4
    mmap(mm.map, START, 4 * DISCARD_AT_ONCE, RW, ANON | MAP_FIXED | MAP_NORESERVE)
    for at in range(START, START + 4 * DISCARD_AT_ONCE, DISCARD_AT_ONCE):
        mm.write(at, b"there")
    forgotten = madvise.steps(mm.map, START, 4 * DISCARD_AT_ONCE, MADV_DONTNEED)
    assert sum(1 for _ in forgotten) >= 4
    mmap(mm.map, START, 4 * CHUNK_BYTES, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
    for at in range(START, START + 4 * CHUNK_BYTES, CHUNK_BYTES):
        mm.write(at, b"there")
    removed = madvise.steps(mm.map, START, 4 * CHUNK_BYTES, MADV_REMOVE)
    assert sum(1 for _ in removed) >= 4
    assert mm.read(START + 3 * CHUNK_BYTES, 5) == bytes(5)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (PAGE, 0), (0, PAGE), (PAGE, PAGE)])
def test_entries_of_much_memory_go_in_pieces(mm: MemoryManager, first: int, last: int) -> None:
    size = 4 * AT_ONCE
    mmap(mm.map, START, size, RW, ANON | MAP_FIXED)
    for at in range(START, START + size, AT_ONCE):
        mm.write(at, b"first")
    mm.write(START + size - 4, b"last")
    low, high = START + first, START + size - last
    steps = 0
    for _ in munmap.steps(mm.map, low, high - low):
        consistent(mm.map)
        steps += 1
    assert steps >= 3
    assert mm.map.vmas.free(low, high)
    assert not mm.space.check(low, high - low, False)
    assert not first or mm.read(START, 5) == b"first"
    assert not last or mm.read(high + last - 4, 4) == b"last"


@pytest.mark.parametrize("shared", [0, MAP_SHARED ^ MAP_PRIVATE])
def test_entries_of_much_memory_are_changed_and_inherited_in_pieces(
    mm: MemoryManager, shared: int
) -> None:
    size, first = 4 * AT_ONCE, START + PAGE
    places = [first, *range(START + AT_ONCE, START + size, AT_ONCE), first + size - PAGE]
    mmap(mm.map, first, size, RW, (ANON | MAP_FIXED) ^ shared)
    for at in places:
        mm.write(at, b"there")
    forking, steps = mm.forking(), 0
    with suppress(StopIteration):
        while True:
            next(forking)
            steps += 1
    assert steps >= 4
    child = mm.fork()
    assert [child.read(at, 5) for at in places] == [b"there"] * 5
    assert sum(1 for _ in mprotect.steps(mm.map, first, size, 1)) >= 4
    for at in places:
        assert mm.space.check(at, 5, False)
        assert not mm.space.check(at, 5, True)
    assert sum(1 for _ in mprotect.steps(mm.map, first, size, RW)) >= 4
    for at in places:
        mm.write(at, b"again")
    assert [child.read(at, 5) for at in places] == [b"again" if shared else b"there"] * 5


def test_where_nothing_is_takes_no_step_however_large_it_is(mm: MemoryManager) -> None:
    size = 32 << 40
    mmap(mm.map, START, size, RW, ANON | MAP_FIXED | MAP_NORESERVE)
    places = [START + number * size // 8 for number in range(8)]
    for at in places:
        mm.write(at, b"there")
    assert sum(1 for _ in madvise.steps(mm.map, START, size, MADV_DONTNEED)) < 100
    assert all(mm.read(at, 5) == bytes(5) for at in places)
    assert sum(1 for _ in munmap.steps(mm.map, START, size)) < 100
    assert not any(mm.space.check(at, 5, False) for at in places)


def test_a_fault_waits_for_who_has_the_lock(amap: AddressMap) -> None:
    amap.lock.take()
    with pytest.raises(NeedsFault):
        faults.touch(amap, START, write=False)
    with pytest.raises(NeedsFault):
        faults.check_lock(amap)
    amap.lock.let_go()
    faults.touch(amap, START, write=False)


@pytest.mark.parametrize("by", [8 * AT_ONCE, 8 * AT_ONCE + PAGE])
def test_much_memory_moves_in_pieces(mm: MemoryManager, by: int) -> None:
    size = 4 * AT_ONCE
    places = [*range(START, START + size, AT_ONCE), START + size - PAGE]
    mmap(mm.map, START, size, RW, ANON | MAP_FIXED)
    for at in places:
        mm.write(at, b"there")
    moving, steps = mremap.steps(mm.map, START, size, size, MOVED, START + by), 0
    with suppress(StopIteration):
        while True:
            next(moving)
            steps += 1
            consistent(mm.map)
            for at in places:
                assert mm.space.check(at, 5, False) != mm.space.check(at + by, 5, False)
    assert steps >= 6
    assert [mm.read(at + by, 5) for at in places] == [b"there"] * 5
    assert mm.map.vmas.free(START, START + size)


def test_move_that_has_no_room_for_tables_leaves_all_in_its_place(
    mm: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, by, prepared = 4 * AT_ONCE, 8 * AT_ONCE, []
    mmap(mm.map, START, size, RW, ANON | MAP_FIXED)
    for at in range(START, START + size, AT_ONCE):
        mm.write(at, b"there")

    def prepare(_: AddressSpace, old: int, *__: int) -> None:
        prepared.append(old)
        if len(prepared) == 3:
            raise Exhausted("no page table left")

    monkeypatch.setattr(AddressSpace, "prepare_move", prepare)
    with pytest.raises(Exhausted):
        mremap(mm.map, START, size, size, MOVED, START + by)
    assert all(mm.read(at, 5) == b"there" for at in range(START, START + size, AT_ONCE))
    assert mm.map.vmas.free(START + by, START + by + size)
    assert mm.map.total_pages == size // PAGE


@pytest.mark.parametrize("ranges", [[(START, SIZE)], [(START, SIZE + PAGE)]])
def test_process_madvise_ends_a_process_that_has_ended_meanwhile_in_steps(
    amap: AddressMap, mm: MemoryManager, ranges: list[tuple[int, int]]
) -> None:
    work = advise_all(mm, ranges, MADV_COLD)
    next(work)
    mm.release()
    lengths = set()
    with suppress(StopIteration, ENOMEM):
        while True:
            next(work)
            lengths.add(len(amap.vmas))
    assert len(lengths) > 2 * PAIRS // PIECE_VMAS
    assert not len(amap.vmas)


def test_who_reads_sizes_and_gives_up_ends_a_process_that_has_ended_meanwhile(
    amap: AddressMap, mm: MemoryManager
) -> None:
    reading = sizes_of(mm)
    next(reading)
    mm.release()
    reading.close()
    assert not len(amap.vmas)
