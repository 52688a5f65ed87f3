"""mmap, munmap, brk, mremap, madvise: errors, placement, files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sentry.abi import mman
from sentry.abi.mman import (
    MAP_32BIT,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_STACK,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from sentry.abi.resource import RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK
from sentry.errors import (
    EACCES,
    EAGAIN,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOMEM,
    EPERM,
    Errno,
)
from sentry.mm.advice import madvise, mincore, msync
from sentry.mm.errors import BusError, SegFault
from sentry.mm.faults import fault, file_gone
from sentry.mm.forced import poke
from sentry.mm.heap import brk, set_brk_start
from sentry.mm.locking import mlock, mlockall, munlock
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect
from sentry.mm.ramfile import RamFile
from sentry.mm.remap import mremap
from sentry.mm.report import maps
from sentry.platform.memory import AddressSpace, Ram

if TYPE_CHECKING:
    from conftest import OpenFile, SomeLimits

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS
HIGH = 0x7FFFFFDFF000
MakeFile = Callable[..., "OpenFile"]
WRITE_FAULT, READ_FAULT = 6, 4


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 0, RW, ANON), EINVAL),
        ((0, PAGE, RW, MAP_ANONYMOUS), EINVAL),
        ((0, PAGE, RW, 3 | MAP_ANONYMOUS), EINVAL),
        ((1, PAGE, RW, ANON | MAP_FIXED), EINVAL),
        ((HIGH, PAGE, RW, ANON | MAP_FIXED), ENOMEM),
        ((0, 1 << 47, RW, ANON), ENOMEM),
        ((0, (1 << 64) - 1, RW, ANON), ENOMEM),
        ((0, PAGE, RW, ANON, None, 5), EINVAL),
        ((0x1000, PAGE, RW, ANON | MAP_FIXED), EPERM),
        ((0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN), EINVAL),
    ],
)
def test_mmap_bad_arguments(
    mm: MemoryManager, arguments: tuple[int, int, int, int], error: type[Errno]
) -> None:
    with pytest.raises(error):
        mmap(mm.map, *arguments)
    assert len(mm.map.vmas) == 0


def test_mmap_hint_is_taken_when_free_and_ignored_when_not(mm: MemoryManager) -> None:
    assert mmap(mm.map, 0x10000001, PAGE, RW, ANON) == 0x10001000
    assert mmap(mm.map, 0x10001000, PAGE, RW, ANON) != 0x10001000
    with pytest.raises(EEXIST):
        mmap(mm.map, 0x10001000, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE)


def test_mmap_goes_top_down_and_fills_holes(mm: MemoryManager) -> None:
    first = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    second = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    assert second == first - 4 * PAGE and len(mm.map.vmas) == 1
    munmap(mm.map, first + PAGE, PAGE)
    assert mmap(mm.map, 0, PAGE, RW, ANON) == first + PAGE


def test_mmap_32bit_lies_below_2_gib(mm: MemoryManager) -> None:
    assert 0x40000000 <= mmap(mm.map, 0, PAGE, RW, ANON | MAP_32BIT) < 0x80000000


def test_mmap_base_differs_between_address_spaces(ram: Ram) -> None:
    bases = {MemoryManager.empty(lambda: AddressSpace(ram)).map.mmap_base for _ in range(4)}
    assert len(bases) == 4
    fixed = MemoryManager.empty(lambda: AddressSpace(ram), randomize=False)
    again = MemoryManager.empty(lambda: AddressSpace(ram), randomize=False)
    assert fixed.map.mmap_base == again.map.mmap_base


def test_large_anonymous_mapping_starts_on_a_block(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 4 << 20, RW, ANON)
    assert addr % (2 << 20) == 0 and mm.space.entry(addr) & 0x80


def test_fresh_anonymous_memory_needs_no_fault(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 300 << 10, RW, ANON)
    assert mm.space.check(addr, 300 << 10, True) == 300 << 10
    lazy = mmap(mm.map, 0, 300 << 10, RW, ANON | MAP_NORESERVE)
    assert mm.space.check(lazy, PAGE, False) == 0
    none = mmap(mm.map, 0, PAGE, PROT_NONE, ANON)
    assert mm.space.entry(none) == 0


def test_mprotect_from_none_makes_memory_usable_without_fault(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 8 << 20, PROT_NONE, ANON | MAP_NORESERVE | MAP_STACK)
    mprotect(mm.map, addr + PAGE, (8 << 20) - PAGE, RW)
    mm.write(addr + (8 << 20) - 8, b"on stack")
    with pytest.raises(EFAULT):
        mm.read(addr, 1)


def test_limits(mm: MemoryManager, limits: SomeLimits) -> None:
    mmap(mm.map, 0, 10 * PAGE, RW, ANON)
    limits.values[RLIMIT_AS] = 20 * PAGE
    with pytest.raises(ENOMEM):
        mmap(mm.map, 0, 11 * PAGE, PROT_READ, ANON)
    del limits.values[RLIMIT_AS]
    limits.values[RLIMIT_DATA] = 20 * PAGE
    with pytest.raises(ENOMEM):
        mmap(mm.map, 0, 11 * PAGE, RW, ANON)
    mmap(mm.map, 0, 11 * PAGE, PROT_READ, ANON)
    limits.values[RLIMIT_MEMLOCK] = 2 * PAGE
    with pytest.raises(EAGAIN):
        mmap(mm.map, 0, 3 * PAGE, PROT_READ, ANON | MAP_LOCKED)
    limits.values[RLIMIT_MEMLOCK] = 0
    with pytest.raises(EPERM):
        mlock(mm.map, 0x10000, PAGE)


def test_munmap_errors(mm: MemoryManager) -> None:
    for addr, length in ((1, PAGE), (PAGE, 0), ((1 << 47) - PAGE, PAGE), (PAGE, 1 << 63)):
        with pytest.raises(EINVAL):
            munmap(mm.map, addr, length)
    munmap(mm.map, 0x10000, PAGE)
    munmap(mm.map, HIGH, PAGE)


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
    assert maps(mm.map, lambda file: (0, 0, 0, b"")).splitlines()[0].endswith(b"[heap]")


# --- stacks


def test_stack_grows_by_faults_up_to_its_limit_and_keeps_its_gap(
    mm: MemoryManager, limits: SomeLimits
) -> None:
    limits.values[RLIMIT_STACK] = 1 << 20
    top = 0x60000000
    mmap(mm.map, top - 16 * PAGE, 16 * PAGE, RW, ANON | MAP_GROWSDOWN | MAP_FIXED)
    fault(mm.map, top - 100 * PAGE, WRITE_FAULT)
    mm.write(top - 90 * PAGE, b"deep")
    with pytest.raises(SegFault):
        fault(mm.map, top - (1 << 20) - 1, WRITE_FAULT)
    fault(mm.map, top - (1 << 20), WRITE_FAULT)

    other = 0x50000000
    mmap(mm.map, other - PAGE, PAGE, RW, ANON | MAP_GROWSDOWN | MAP_FIXED)
    mmap(mm.map, other - 300 * PAGE, PAGE, RW, ANON | MAP_FIXED)
    with pytest.raises(SegFault):
        fault(mm.map, other - 100 * PAGE, WRITE_FAULT)
    fault(mm.map, other - 10 * PAGE, WRITE_FAULT)


# --- files


def test_private_file_mapping_shows_the_file_and_keeps_stores(
    mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(b"a" * PAGE + b"b" * PAGE + b"c" * 10)
    addr = mmap(mm.map, 0, 3 * PAGE, RW, MAP_PRIVATE, file, 0)
    assert mm.read(addr + PAGE, PAGE + 11) == b"b" * PAGE + b"c" * 10 + b"\0"
    mm.write(addr, b"mine")
    assert os.pread(file.backing.fd, 4, 0) == b"aaaa"  # type: ignore[union-attr]
    child = mm.fork()
    child.write(addr + 4, b"its")
    assert mm.read(addr, 8) == b"mineaaaa" and child.read(addr, 8) == b"mineitsa"
    madvise(mm.map, addr, PAGE, mman.MADV_DONTNEED)
    assert mm.read(addr, 4) == b"aaaa"
    assert file.refs == 3
    child.release()
    mm.release()
    assert file.refs == 1


def test_large_private_file_is_copied_only_where_written(
    ram: Ram, mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(bytes(40 * PAGE))
    addr = mmap(mm.map, 0, 40 * PAGE, RW, MAP_PRIVATE, file, 0)
    assert ram.counters().frames == 0
    fault(mm.map, addr + 20 * PAGE, WRITE_FAULT)
    assert 1 <= ram.counters().frames <= 16


def test_shared_file_mapping_is_the_file(mm: MemoryManager, host_file: MakeFile) -> None:
    file = host_file(bytes(2 * PAGE), writable=True)
    addr = mmap(mm.map, 0, 2 * PAGE, RW, MAP_SHARED, file, 0)
    mm.write(addr + PAGE - 1, b"xy")
    assert os.pread(file.backing.fd, 2, PAGE - 1) == b"xy"  # type: ignore[union-attr]
    os.pwrite(file.backing.fd, b"back", 0)  # type: ignore[union-attr]
    assert mm.read(addr, 4) == b"back"
    assert msync(mm.map, addr, 2 * PAGE, mman.MS_SYNC) == [file.backing]


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


def test_file_mapping_past_the_end_is_sigbus(mm: MemoryManager, host_file: MakeFile) -> None:
    file = host_file(b"x" * 100)
    addr = mmap(mm.map, 0, 3 * PAGE, PROT_READ, MAP_PRIVATE, file, 0)
    assert mm.read(addr, PAGE) == b"x" * 100 + bytes(PAGE - 100)
    with pytest.raises(BusError) as bus:
        fault(mm.map, addr + PAGE, READ_FAULT)
    assert bus.value.si_code == 2
    with pytest.raises(EFAULT):
        mm.read(addr + PAGE, 1)


def test_file_truncated_under_a_mapping_is_sigbus_after_file_gone(
    mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(b"y" * 3 * PAGE, writable=True)
    addr = mmap(mm.map, 0, 3 * PAGE, PROT_READ, MAP_SHARED, file, 0)
    mm.read(addr, 3 * PAGE)
    os.ftruncate(file.backing.fd, PAGE)  # type: ignore[union-attr]
    with pytest.raises(EFAULT):
        mm.read(addr + PAGE, 1)
    file_gone(mm.map)
    assert mm.space.entry(addr + 2 * PAGE) == 0 and mm.read(addr, 1) == b"y"
    with pytest.raises(BusError):
        fault(mm.map, addr + 2 * PAGE, READ_FAULT)
    os.ftruncate(file.backing.fd, 3 * PAGE)  # type: ignore[union-attr]
    assert mm.read(addr + 2 * PAGE, 3) == bytes(3)


def test_window_is_shared_between_processes_and_kept_for_the_next(
    ram: Ram, mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(b"lib" * 5000)
    addr = mmap(mm.map, 0, 4 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0)
    other = MemoryManager.empty(mm.new_space)
    there = mmap(other.map, 0, PAGE, PROT_READ, MAP_PRIVATE, file, PAGE)
    assert mm.space.translate(addr + PAGE) == other.space.translate(there)
    assert ram.windows.mapped == 1
    mm.release()
    other.release()
    assert ram.windows.mapped == 1 and len(ram.windows.idle) == 1
    file.backing.close()
    assert ram.windows.mapped == 0


# --- mremap and madvise


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


def test_madvise_fork_advice(mm: MemoryManager) -> None:
    wipe, skip = mmap(mm.map, 0, PAGE, RW, ANON), mmap(mm.map, 0, PAGE, PROT_READ, ANON)
    mm.write(wipe, b"secret")
    madvise(mm.map, wipe, PAGE, mman.MADV_WIPEONFORK)
    madvise(mm.map, skip, PAGE, mman.MADV_DONTFORK)
    child = mm.fork()
    assert child.read(wipe, 6) == bytes(6) and mm.read(wipe, 6) == b"secret"
    assert child.map.vmas.find(skip) is None


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


def test_mlock_counts(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, 4 * PAGE, RW, ANON)
    mlock(mm.map, addr + PAGE, 2 * PAGE)
    assert mm.map.locked_pages == 2 and len(mm.map.vmas) == 3
    munlock(mm.map, addr, 4 * PAGE)
    assert mm.map.locked_pages == 0 and len(mm.map.vmas) == 1
    with pytest.raises(EINVAL):
        mlockall(mm.map, 0)


# --- files in RAM under mappings


def test_ram_file_truncation_is_sigbus_for_every_mapper(
    ram: Ram, mm: MemoryManager, open_file: MakeFile
) -> None:
    file = RamFile(ram)
    file.write(0, b"r" * 3 * PAGE)
    opened = open_file(file)
    addr = mmap(mm.map, 0, 3 * PAGE, RW, MAP_SHARED, opened, 0)
    child = mm.fork()
    private = mmap(child.map, 0, 3 * PAGE, RW, MAP_PRIVATE, opened, 0)
    child.write(private + 2 * PAGE, b"own copy")

    file.truncate(PAGE + 5)

    for space, at in ((mm, addr), (child, addr), (child, private)):
        assert space.read(at + PAGE, 8) == b"rrrrr\0\0\0"
        with pytest.raises(BusError):
            fault(space.map, at + 2 * PAGE, READ_FAULT)
    child.release()
    mm.release()
    assert file.pages == 2 and ram.counters().frames == 2
    file.close()
    assert ram.counters().frames == 0


def test_store_through_a_shared_mapping_is_seen_by_read(
    ram: Ram, mm: MemoryManager, open_file: MakeFile
) -> None:
    file = RamFile(ram)
    file.truncate(2 * PAGE)
    addr = mmap(mm.map, 0, 2 * PAGE, RW, MAP_SHARED, open_file(file), 0)
    mm.write(addr + PAGE, b"stored")
    assert file.read(PAGE, 6) == b"stored" and file.pages == 1


def test_poke_reaches_read_only_code_but_not_the_file(
    mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(b"\x90" * PAGE)
    addr = mmap(mm.map, 0, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0)
    poke(mm, addr + 1, b"\xcc")
    assert mm.read(addr, 3) == b"\x90\xcc\x90"
    assert os.pread(file.backing.fd, 3, 0) == b"\x90\x90\x90"  # type: ignore[union-attr]
    with pytest.raises(EFAULT):
        mm.write(addr, b"x")
