"""Page faults: stacks, copies on write, files that end."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sentry.abi import mman
from sentry.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
)
from sentry.abi.resource import RLIMIT_STACK
from sentry.errors import (
    EFAULT,
)
from sentry.mm.advice import madvise
from sentry.mm.errors import BusError, SegFault
from sentry.mm.faults import fault, file_gone
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.ramfile import CHUNK, RamFile
from sentry.mm.vma_list import RUN_MAX
from sentry.platform.memory import Ram

if TYPE_CHECKING:
    from conftest import OpenFile, SomeLimits

PAGE = 4096
RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS
MakeFile = Callable[..., "OpenFile"]
WRITE_FAULT, READ_FAULT = 6, 4


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


def test_large_private_file_is_copied_only_where_written(
    ram: Ram, mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(bytes(40 * PAGE))
    addr = mmap(mm.map, 0, 40 * PAGE, RW, MAP_PRIVATE, file, 0)
    assert ram.counters().frames == 0
    fault(mm.map, addr + 20 * PAGE, WRITE_FAULT)
    assert 1 <= ram.counters().frames <= 16


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


def test_of_many_mappings_that_a_file_is_too_short_for_few_are_looked_at_in_a_step(
    mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(b"y" * 3 * PAGE, writable=True)
    many = [mmap(mm.map, 0, PAGE, PROT_READ, MAP_SHARED, file, PAGE) for _ in range(3 * RUN_MAX)]
    os.ftruncate(file.backing.fd, PAGE)  # type: ignore[union-attr]
    looking = file_gone.steps(mm.map)
    next(looking)
    assert mm.space.entry(min(many)) == 0
    assert mm.space.entry(max(many)) != 0
    munmap(mm.map, many[RUN_MAX], PAGE)
    with pytest.raises(StopIteration) as end:
        while True:
            next(looking)
    assert end.value.value is True
    assert not any(mm.space.entry(at) for at in many)


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


def test_hole_is_made_in_a_huge_mapping_by_what_the_file_has(
    ram: Ram, mm: MemoryManager, open_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, size = RamFile(ram), 1 << 36
    opened = open_file(file)
    shared = mmap(mm.map, 0, size, RW, MAP_SHARED, opened, 0)
    private = mmap(mm.map, 0, size, RW, MAP_PRIVATE | mman.MAP_NORESERVE, opened, 0)
    far = size - 3 * PAGE
    file.write(0, b"f" * PAGE)
    file.write(far, b"f" * 2 * PAGE)
    mm.read(private, 1)
    mm.read(private + far, 2 * PAGE)
    mm.write(private + far, b"own")
    pages, frames = list[int](), RamFile.frames

    def counted(self: RamFile, index: int, count: int) -> array[int]:
        pages.append(count)
        return frames(self, index, count)

    monkeypatch.setattr(RamFile, "frames", counted)
    madvise(mm.map, shared, size, mman.MADV_REMOVE)
    assert sum(pages) <= 2 * CHUNK
    assert mm.read(private, 1) == mm.read(private + far + PAGE, 1) == b"\0"
    assert mm.read(private + far, 4) == b"ownf"
    mm.release()
    file.close()


def test_read_of_what_is_not_mapped_is_a_segfault(mm: MemoryManager) -> None:
    addr = mmap(mm.map, 0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS)
    for error_code, bad, code in ((4, addr + PAGE, 1), (6, addr, 2), (0x14, addr, 2)):
        try:
            fault(mm.map, bad, error_code)
        except SegFault as found:
            assert (found.addr, found.si_code) == (bad, code)
        else:
            raise AssertionError("no fault")
