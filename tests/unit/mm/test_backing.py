"""Host files under mappings."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from sentry.abi.mman import (
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from sentry.errors import ENODEV
from sentry.mm import backing as backing_module
from sentry.mm.address_map import AT_ONCE
from sentry.mm.backing import HostBacking
from sentry.mm.errors import BusError, NeedsFault
from sentry.mm.faults import fault
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap, munmap
from sentry.mm.protect import mprotect
from sentry.mm.ramfile import CHUNK, RamFile
from sentry.mm.vma_list import RUN_MAX
from sentry.platform import windows
from sentry.platform.memory import Ram
from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from conftest import OpenFile

PAGE = 4096
START = 0x10000000
MakeFile = Callable[..., "OpenFile"]
RW = PROT_READ | PROT_WRITE
READ_FAULT = 4


def test_truncation_takes_private_copies_too(
    mm: MemoryManager, host_file: Callable[..., OpenFile]
) -> None:
    file = host_file(b"x" * 3 * PAGE, writable=True)
    backing = file.backing
    assert isinstance(backing, HostBacking)
    private = mmap(mm.map, 0, 3 * PAGE, RW, MAP_PRIVATE, file, 0)
    mm.write(private + 2 * PAGE, b"own")
    child = mm.fork()
    shared = mmap(child.map, 0, 3 * PAGE, RW, MAP_SHARED, file, 0)
    assert list(backing.mappers.values()) == [1, 2]
    os.ftruncate(backing.fd, PAGE + 5)
    at_once(backing.cutting(PAGE + 5))
    for space, at in ((mm, private), (child, private), (child, shared)):
        assert space.read(at + PAGE, 5) == b"xxxxx"
        with pytest.raises(BusError):
            fault(space.map, at + 2 * PAGE, READ_FAULT)
    child.release()
    assert list(backing.mappers.values()) == [1]
    munmap(mm.map, private, 3 * PAGE)
    assert not backing.mappers


def test_file_is_cut_and_a_piece_given_up_while_one_that_maps_them_ends(
    mm: MemoryManager, host_file: Callable[..., OpenFile]
) -> None:
    memory, host = RamFile(mm.space.ram, 400 * PAGE), host_file(b"x" * PAGE)
    file: Any = type(host)(memory, True, True)
    child = mm.fork()
    for page in range(100):
        mmap(child.map, 0, PAGE, RW, MAP_SHARED, file, page * 2 * PAGE)
    mmap(child.map, 0x10000, PAGE, PROT_READ, MAP_PRIVATE, host, 0)
    child.read(0x10000, 1)
    backing = host.backing
    assert isinstance(backing, HostBacking)
    ending = child.releasing()
    next(ending)
    assert memory.mappers
    memory.truncate(PAGE)
    memory.punch(0, PAGE)
    at_once(backing.cutting(0))
    for piece in list(backing._pieces):
        at_once(backing.giving_up(piece))
    at_once(ending)
    assert not memory.mappers
    assert not backing.mappers
    memory.close()


def test_file_that_many_mappings_show_is_cut_in_steps_whatever_they_do(mm: MemoryManager) -> None:
    memory = RamFile(mm.space.ram, 4 * PAGE)
    file: Any = SimpleNamespace(
        has_max_offset=True, readable=True, writable=True, incref=lambda: file,
        decref=lambda: None, mmap_backing=lambda writable: memory,
    )  # fmt: skip
    first, other = mm.fork(), mm.fork()
    for each in (first, other):
        for number in range(100):
            mmap(each.map, START + 2 * number * PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED, file, PAGE)
        each.write(START, b"there")
    other.map.lock.take()
    cutting = memory.truncating(PAGE)
    assert sum(1 for _ in zip(cutting, range(150), strict=False)) == 150
    assert (memory.size, first.map.lock.holder) == (PAGE, None)
    assert not first.space.check(START, 1, False)
    assert other.space.check(START + 198 * PAGE, 1, False)
    child = other.fork()
    other.map.lock.let_go()
    for _ in zip(cutting, range(20), strict=False):
        assert other.map.lock.holder is not None
    other.release()
    at_once(cutting)
    assert other.map.lock.holder is None
    assert (memory.pages, memory.frames(1, 3)) == (0, array("Q", [0, 0, 0]))
    assert not child.space.check(START, 200 * PAGE, False)
    for each in (first, child):
        each.release()
    memory.close()


def test_hole_in_what_many_mappings_show_is_made_in_steps_whatever_they_do(
    mm: MemoryManager,
) -> None:
    memory = RamFile(mm.space.ram, 4 * PAGE)
    file: Any = SimpleNamespace(
        has_max_offset=True, readable=True, writable=True, incref=lambda: file,
        decref=lambda: None, mmap_backing=lambda writable: memory,
    )  # fmt: skip
    memory.write(PAGE, b"there")
    first = mm.fork()
    last = START + 2 * 3 * RUN_MAX * PAGE
    for at in range(START, last, 2 * PAGE):
        mmap(first.map, at, PAGE, RW, MAP_SHARED | MAP_FIXED, file, PAGE)
    private = mmap(first.map, 0, 2 * PAGE, RW, MAP_PRIVATE, file, PAGE)
    first.write(private + PAGE, b"own")
    other, frame = first.fork(), memory.peek(1)
    first.map.lock.take()  # as who makes the hole by MADV_REMOVE
    punching = memory.punching(PAGE, PAGE)
    for _ in range(3):
        next(punching)
    assert memory.pages == 1
    assert memory.read(PAGE, 5) == bytes(5)
    assert not first.space.check(START, 1, False)
    assert first.read(last - 2 * PAGE, 5) == other.read(START, 5) == b"there"
    first.map.lock.let_go()
    munmap(first.map, START, last - START)
    mmap(first.map, START, PAGE, RW, MAP_SHARED | MAP_FIXED, file, PAGE)
    first.write(START, b"again")
    child = other.fork()
    at_once(punching)
    assert mm.space.ram.references(frame) == 0
    for each in (first, other, child):
        assert each.read(START, 5) == b"again"
        assert each.read(private, 5) == b"again"
        assert each.read(private + PAGE, 3) == b"own"
        each.release()
    memory.close()


def test_hole_that_is_given_up_midway_leaves_no_frames(mm: MemoryManager) -> None:
    memory = RamFile(mm.space.ram, 4 * PAGE)
    file: Any = SimpleNamespace(
        has_max_offset=True, readable=True, writable=True, incref=lambda: file,
        decref=lambda: None, mmap_backing=lambda writable: memory,
    )  # fmt: skip
    before = mm.space.ram.counters().frames
    memory.write(PAGE, b"there")
    for at in range(START, START + 4 * RUN_MAX * PAGE, 2 * PAGE):
        mmap(mm.map, at, PAGE, RW, MAP_SHARED | MAP_FIXED, file, PAGE)
    punching = memory.punching(0, 4 * PAGE)
    next(punching)
    punching.close()
    munmap(mm.map, START, 4 * RUN_MAX * PAGE)
    assert (memory.pages, mm.space.ram.counters().frames) == (0, before)
    memory.close()


def test_address_space_that_goes_before_it_was_used_ends_a_cut_of_what_it_maps(
    mm: MemoryManager,
) -> None:
    size = 8 * AT_ONCE
    memory = RamFile(mm.space.ram, size)
    file: Any = SimpleNamespace(
        has_max_offset=True, readable=True, writable=True, incref=lambda: file,
        decref=lambda: None, mmap_backing=lambda writable: memory,
    )  # fmt: skip
    child = mm.fork()
    mmap(child.map, START, size, RW, MAP_SHARED | MAP_FIXED, file, 0)
    for at in range(START, START + size, AT_ONCE):
        child.write(at, b"there")
    cutting = memory.truncating(0)
    for _ in range(3):
        next(cutting)
    assert 0 < child.space.count(START, size // PAGE).ram < 8
    child.release()
    at_once(cutting)
    assert (memory.pages, child.map.lock.holder) == (0, None)
    memory.close()


def test_file_that_the_host_refuses_to_map_is_no_memory_that_is_used_up(
    mm: MemoryManager, ram: Ram, open_file: MakeFile, host_file: Callable[..., OpenFile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fd = os.open("/sys/devices/system/cpu/online", os.O_RDONLY)
    backing = HostBacking(ram.windows, fd, False)
    for flags in (MAP_SHARED, MAP_PRIVATE):
        with pytest.raises(ENODEV):
            mmap(mm.map, 0, PAGE, PROT_READ, flags, open_file(backing), 0)
    backing.close()
    os.close(fd)
    at = mmap(mm.map, 0, PAGE, 0, MAP_SHARED, host_file(b"x"), 0)
    ram.windows.evict(0)

    def refuse(*_: object) -> None:
        raise ENODEV("cannot be mapped")

    monkeypatch.setattr(ram.windows, "map", refuse)
    mprotect(mm.map, at, PAGE, PROT_READ)
    with pytest.raises(BusError):
        fault(mm.map, at, READ_FAULT)


def test_hole_in_a_mapping_larger_than_memory_costs_what_is_there(
    mm: MemoryManager, ram: Ram, open_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 1 << 44
    backing = RamFile(ram, size)
    backing.write(size // 2, b"there")
    at = mmap(mm.map, 0, size, PROT_READ, MAP_PRIVATE, open_file(backing), 0)
    assert mm.read(at + size // 2, 5) == b"there"
    seen: list[int] = []
    frames = RamFile.frames

    def counted(self: RamFile, index: int, count: int) -> Any:
        seen.append(count)
        assert count <= CHUNK
        return frames(self, index, count)

    monkeypatch.setattr(RamFile, "frames", counted)
    backing.punch(0, size)
    assert seen and not mm.space.translate(at + size // 2)
    assert mm.read(at + size // 2, 5) == bytes(5)


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


def test_who_loses_a_piece_to_another_finds_its_pages_and_its_copies_again(
    ram: Ram, mm: MemoryManager, host_file: MakeFile
) -> None:
    file = host_file(b"lib" * 100_000, writable=True)
    backing = file.backing
    assert isinstance(backing, HostBacking)
    private = mmap(mm.map, 0, 64 * PAGE, RW, MAP_PRIVATE, file, 0)
    shared = mmap(mm.map, 0, 64 * PAGE, RW, MAP_SHARED, file, 0)
    mm.write(private, b"own")
    far = 42 * PAGE
    child = mm.fork()
    for piece in list(backing._pieces):
        at_once(backing.giving_up(piece))
    assert len(ram.windows.idle) == 2 and mm.space.native.windows == 0
    ram.windows.evict(0)
    for each in (mm, child):
        assert not each.space.translate(private + far)
        fault(each.map, private + far, READ_FAULT)
        fault(each.map, shared, READ_FAULT)
        assert each.read(private, 6) == b"ownlib" and each.read(private + far, 3) == b"lib"
        assert each.read(shared, 6) == b"liblib"
    mm.write(shared, b"new")
    assert child.read(shared, 3) == b"new" and child.read(private, 3) == b"own"
    for each in (mm, child):
        each.release()
    assert not backing.mappers


def test_pieces_of_files_that_many_map_are_waited_for(
    ram: Ram, mm: MemoryManager, host_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = host_file(b"first" * 10_000), host_file(b"second" * 10_000)
    at = mmap(mm.map, 0, PAGE, PROT_READ, MAP_PRIVATE, first, 0)
    child = mm.fork()
    fault(child.map, at, READ_FAULT)
    monkeypatch.setattr(windows, "MAX_WINDOWS", 1)
    monkeypatch.setattr(backing_module, "MANY", -1)
    there = mmap(mm.map, 0, PAGE, PROT_READ, MAP_PRIVATE, second, 0)  # nothing is made ahead
    assert ram.windows.taken == 0 and not mm.space.translate(there)
    with pytest.raises(NeedsFault) as need:
        fault(mm.map, there, READ_FAULT)
    assert child.read(at, 5) == b"first"
    with pytest.raises(StopIteration):
        need.value.wait().send(None)
    assert not mm.space.translate(at) and not child.space.translate(at)
    fault(mm.map, there, READ_FAULT)
    assert mm.read(there, 6) == b"second"
    for each in (mm, child):
        each.release()
