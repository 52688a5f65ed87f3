"""Frames, page tables, windows and user copies against an independent page-table walker."""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from sentry.errors import EINVAL
from sentry.platform._native import ffi, lib
from sentry.platform.memory import AddressSpace, Exhausted, Ram
from sentry.platform.windows import WindowRange
from sentry.wait.steps import Steps

R, W, X = 1, 2, 4
PAGE = 4096
BLOCK = 2 << 20
BASE = 0x400000000
FULL, MANY = 16 << 20, 200
"""Bytes of a RAM that is full; page tables."""


class Walker(Protocol):
    def walk(self, space: AddressSpace, addr: int) -> tuple[int, str] | None: ...


@pytest.fixture()
def flushed(ram: Ram) -> Iterator[list[tuple[int, int]]]:
    """Every flush of data pages, in order."""
    log: list[tuple[int, int]] = []
    callback = ffi.callback("void(uint64_t, uint64_t)", lambda gpa, n: log.append((gpa, n)))
    lib.flush_observer = callback
    yield log
    lib.flush_observer = ffi.NULL


def covered(log: list[tuple[int, int]], gpa: int) -> bool:
    return any(start <= gpa < start + n * PAGE for start, n in log)


def test_map_anonymous_small_range_is_zero_and_has_its_rights(
    space: AddressSpace, walker: Walker
) -> None:
    space.map_anonymous(BASE, 3, R | W)

    assert space.read(BASE, 3 * PAGE) == bytes(3 * PAGE)
    assert [walker.walk(space, BASE + i * PAGE) is None for i in (-1, 0, 1, 2, 3)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert walker.walk(space, BASE)[1] == "uw"  # type: ignore[index]


@pytest.mark.parametrize(("prot", "rights"), [(R, "u"), (R | W, "uw"), (R | X, "ux"), (X, "ux")])
def test_protect_rights_are_what_the_processor_sees(
    space: AddressSpace, walker: Walker, prot: int, rights: str
) -> None:
    space.map_anonymous(BASE, 2, R | W)
    space.protect(BASE, 2, prot)

    assert walker.walk(space, BASE + PAGE)[1] == rights  # type: ignore[index]


def test_map_anonymous_aligned_block_is_one_large_entry(
    space: AddressSpace, walker: Walker
) -> None:
    space.map_anonymous(BASE - PAGE, 1 + 512 + 1, R | W)

    assert space.entry(BASE) & 0x80
    assert not space.entry(BASE - PAGE) & 0x80
    assert space.write(BASE + BLOCK - 2, b"abcd") == 4
    gpa = walker.walk(space, BASE + BLOCK - 2)[0]  # type: ignore[index]
    assert space.ram.peek(gpa, 2) == b"ab"


def test_unmap_inside_a_large_entry_splits_it(space: AddressSpace, walker: Walker) -> None:
    space.map_anonymous(BASE, 512, R | W)
    space.write(BASE + 5 * PAGE, b"five")
    before = walker.walk(space, BASE + 5 * PAGE)

    space.unmap(BASE + 6 * PAGE, 2)

    assert walker.walk(space, BASE + 5 * PAGE) == before
    assert walker.walk(space, BASE + 6 * PAGE) is None
    assert walker.walk(space, BASE + 8 * PAGE) is not None
    assert space.ram.counters().frames == 510


def test_unmap_data_is_flushed_before_the_frame_is_free(
    space: AddressSpace, walker: Walker, flushed: list[tuple[int, int]]
) -> None:
    space.map_anonymous(BASE, 40, R | W)
    frames = [walker.walk(space, BASE + i * PAGE)[0] for i in range(40)]  # type: ignore[index]

    space.unmap(BASE, 40)

    assert all(covered(flushed, gpa) for gpa in frames)
    assert len(flushed) == 1, "consecutive frames are flushed together"
    assert space.ram.counters().frames == 0


def test_freed_frame_comes_back_zeroed(space: AddressSpace) -> None:
    for _ in range(5):
        space.map_anonymous(BASE, 1100, R | W)
        assert space.read(BASE, 1100 * PAGE) == bytes(1100 * PAGE)
        space.write(BASE, b"\xff" * 1100 * PAGE)
        space.unmap(BASE, 1100)
    assert space.ram.counters().frames == 0


def test_protect_upgrade_needs_no_flush_downgrade_does(
    space: AddressSpace, flushed: list[tuple[int, int]]
) -> None:
    space.map_anonymous(BASE, 4, R)
    space.protect(BASE, 4, R | W)
    assert not flushed
    space.protect(BASE, 4, R)
    assert sum(n for _, n in flushed) == 4


def test_protect_none_keeps_the_frame(space: AddressSpace, walker: Walker) -> None:
    space.map_anonymous(BASE, 512, R | W)
    space.write(BASE + PAGE, b"kept")
    space.protect(BASE, 512, 0)
    assert walker.walk(space, BASE + PAGE) is None
    assert space.read(BASE + PAGE, 4) == b""
    space.protect(BASE + PAGE, 1, R)
    assert space.read(BASE + PAGE, 4) == b"kept"
    assert space.ram.counters().frames == 512


def test_fork_is_copy_on_write_both_ways(
    ram: Ram, space: AddressSpace, walker: Walker, flushed: list[tuple[int, int]]
) -> None:
    space.map_anonymous(BASE, 512 + 3, R | W)
    space.write(BASE, b"first")
    space.write(BASE + BLOCK, b"second")
    child = AddressSpace(ram)

    space.fork(child, BASE, 512 + 3, R | W, 0)

    for addr in (BASE, BASE + BLOCK):
        mine, its = walker.walk(space, addr), walker.walk(child, addr)
        assert mine == its and mine is not None and mine[1] == "u"
        assert covered(flushed, mine[0])
        assert space.write(addr, b"x") == 0 and child.write(addr, b"x") == 0
    assert space.break_cow(BASE, BASE, BASE + BLOCK, R | W) == 0
    assert space.write(BASE, b"FIRST") == 5
    assert child.read(BASE, 5) == b"first"
    assert child.break_cow(BASE + BLOCK, BASE, BASE + BLOCK + 3 * PAGE, R | W) == 0
    assert child.write(BASE + BLOCK, b"SECOND") == 6
    assert space.read(BASE + BLOCK, 6) == b"second"
    child.destroy()
    assert space.break_cow(BASE + BLOCK, BASE, BASE + BLOCK + 3 * PAGE, R | W) == 0
    space.unmap(BASE, 512 + 3)
    assert ram.counters().frames == 0


def test_fork_unpopulated_frames_are_not_shared(
    ram: Ram, space: AddressSpace, walker: Walker
) -> None:
    space.map_anonymous(BASE, 8, R | W)
    space.write(BASE + PAGE, b"touched")
    child = AddressSpace(ram)

    space.fork(child, BASE, 8, R | W, 0)

    shared = [
        walker.walk(space, BASE + i * PAGE) == walker.walk(child, BASE + i * PAGE) for i in range(8)
    ]
    assert shared == [False, True] + [False] * 6
    assert child.write(BASE, b"own") == 3 and space.read(BASE, 3) == bytes(3)
    child.destroy()


def test_fork_copies_at_once_what_it_may(
    ram: Ram, space: AddressSpace, walker: Walker, flushed: list[tuple[int, int]]
) -> None:
    space.map_anonymous(BASE, 8, R | W)
    space.write(BASE, b"p" * 8 * PAGE)
    child = AddressSpace(ram)

    assert space.fork(child, BASE, 8, R | W, 5) == 5

    assert [walker.walk(space, BASE + i * PAGE) for i in range(5)] != [
        walker.walk(child, BASE + i * PAGE) for i in range(5)
    ]
    assert space.write(BASE, b"P") == child.write(BASE + PAGE, b"c") == 1
    assert child.read(BASE, 8 * PAGE) == b"p" * PAGE + b"c" + b"p" * (7 * PAGE - 1)
    assert child.write(BASE + 5 * PAGE, b"x") == 0, "the rest is copy on write"
    assert sum(n for _, n in flushed) == 3
    child.destroy()


def test_fork_shared_mapping_stays_one_memory(ram: Ram, space: AddressSpace) -> None:
    space.map_anonymous(BASE, 4, R | W)
    child = AddressSpace(ram)
    space.share(child, BASE, 4)
    child.write(BASE + 3 * PAGE, b"seen")
    assert space.read(BASE + 3 * PAGE, 4) == b"seen"
    child.destroy()
    assert ram.counters().frames == 4


def test_break_cow_takes_neighbours_but_stays_in_its_bounds(
    ram: Ram, space: AddressSpace, walker: Walker
) -> None:
    space.map_anonymous(BASE, 32, R | W)
    space.write(BASE, b"z" * 32 * PAGE)
    child = AddressSpace(ram)
    space.fork(child, BASE, 32, R | W, 0)

    assert space.break_cow(BASE + 5 * PAGE, BASE + 3 * PAGE, BASE + 10 * PAGE, R | W) == 0

    writable = [
        i
        for i in range(32)
        if "w" in walker.walk(space, BASE + i * PAGE)[1]  # type: ignore[index]
    ]
    assert writable == list(range(3, 10))
    assert space.read(BASE, 32 * PAGE) == b"z" * 32 * PAGE
    child.destroy()


def test_break_cow_copies_more_where_stores_go_along(ram: Ram, space: AddressSpace) -> None:
    space.map_anonymous(BASE, 512, R | W)
    space.write(BASE, b"z" * 512 * PAGE)
    child = AddressSpace(ram)
    space.fork(child, BASE, 512, R | W, 0)

    def copied_by_a_store(page: int) -> int:
        before = ram.counters().frames
        assert space.break_cow(BASE + page * PAGE, BASE, BASE + 512 * PAGE, R | W) == 0
        return ram.counters().frames - before

    assert [copied_by_a_store(page) for page in (0, 16, 32, 64, 128)] == [16, 16, 32, 64, 64]
    assert copied_by_a_store(320) == 16
    assert space.read(BASE, 512 * PAGE) == b"z" * 512 * PAGE == child.read(BASE, 512 * PAGE)
    child.destroy()


def test_move_keeps_contents_and_large_entries(space: AddressSpace) -> None:
    space.map_anonymous(BASE, 512 + 2, R | W)
    space.write(BASE, b"head")
    space.write(BASE + BLOCK + PAGE, b"tail")

    space.move(BASE, BASE + 4 * BLOCK, 514)
    assert space.entry(BASE + 4 * BLOCK) & 0x80
    space.move(BASE + 4 * BLOCK, BASE + 8 * BLOCK + PAGE, 514)

    assert space.read(BASE, 4) == b""
    assert space.read(BASE + 8 * BLOCK + PAGE, 4) == b"head"
    assert space.read(BASE + 9 * BLOCK + 2 * PAGE, 4) == b"tail"


def test_discard_reads_as_zero_and_stays_mapped(ram: Ram, space: AddressSpace) -> None:
    space.map_anonymous(BASE, 16, R | W)
    space.write(BASE, b"q" * 16 * PAGE)
    before = ram.populated()
    space.discard(BASE + PAGE, 14)
    assert space.read(BASE, 16 * PAGE) == b"q" * PAGE + bytes(14 * PAGE) + b"q" * PAGE
    assert before > 0


def test_empty_tables_stay_linked_up_to_a_bound_then_wait_for_a_flush(
    ram: Ram, space: AddressSpace
) -> None:
    tickets: list[int] = []
    callback = ffi.callback("void(uint64_t)", tickets.append)
    lib.platform_flush_all = callback
    try:
        addresses = [BASE + i * BLOCK for i in range(300)]
        for addr in addresses:
            space.map_anonymous(addr, 1, R)
        for addr in addresses[:200]:
            space.unmap(addr, 1)
        assert space.empty_tables == 200 and ram.counters().quarantined == 0
        for addr in addresses[200:]:
            space.unmap(addr, 1)

        held = ram.counters().quarantined
        assert held > 256 and space.empty_tables <= 256
        assert tickets == [1], "one flush of everything was asked for"
        other = AddressSpace(ram)
        other.map_anonymous(BASE, 1, R)
        assert ram.counters().quarantined == held, "nothing comes back before the flush is over"
        lib.ram_flushed_all(1)
        other.map_anonymous(BASE + 64 * BLOCK, 1, R)
        assert ram.counters().quarantined < held
        other.destroy()
    finally:
        lib.platform_flush_all = ffi.NULL


def test_destroyed_space_gives_frames_back_after_its_flush_and_keeps_tables_apart(
    ram: Ram, flushed: list[tuple[int, int]], walker: Walker
) -> None:
    space = AddressSpace(ram)
    space.map_anonymous(BASE, 600, R | W)
    space.write(BASE, b"1" * 600 * PAGE)
    frames = [walker.walk(space, BASE + i * PAGE)[0] for i in range(600)]  # type: ignore[index]
    tables = space.tables

    space.destroy()

    assert all(covered(flushed, gpa) for gpa in frames)
    assert ram.counters().frames == 0 and ram.counters().quarantined == tables
    assert ram.counters().spaces == 0


def test_trim_gives_the_host_its_memory_back(ram: Ram, space: AddressSpace) -> None:
    space.map_anonymous(BASE, 1024, R | W)
    space.write(BASE, b"m" * 1024 * PAGE)
    space.unmap(BASE, 1024)
    assert ram.populated() >= 1024 * PAGE
    assert ram.trim() >= 1024 * PAGE
    assert ram.populated() < 1024 * PAGE and ram.counters().dirty == 0


def test_empty_tables_of_a_large_space_are_looked_for_in_pieces(
    ram: Ram, space: AddressSpace
) -> None:
    addresses = [BASE + (gib << 30) for gib in range(1400)]
    for addr in addresses:
        space.map_anonymous(addr, 1, R)
    held = space.tables
    for addr in addresses[1100:1356]:
        space.unmap(addr, 1)
    space.unmap(addresses[0], 1)
    assert (space.empty_tables, space.tables) == (256, held - 2)  # as far as a look goes
    space.unmap(addresses[1], 1)
    assert space.empty_tables == 0
    assert space.tables == held - 2 * 258
    for addr in addresses[2:1100]:
        space.unmap(addr, 1)
        assert space.empty_tables <= 256 + 1
    assert space.read(addresses[-1], 1) == b"\0"


class Donated:
    """A file of the host."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_crowded = False

    def giving_up(self, piece: WindowRange) -> Steps[None]:
        yield


def test_window_maps_a_file_read_only_and_privately(
    ram: Ram, space: AddressSpace, walker: Walker, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"A" * PAGE + b"B" * 100)
    with path.open("rb") as file:
        piece = ram.windows.map(Donated(file.fileno()), 0, 2 * PAGE, False)
        space.map_frames(BASE, piece.gpa, 2, R | W, True)
        assert walker.walk(space, BASE)[1] == "u"  # type: ignore[index]
        assert space.read(BASE + PAGE, 101) == b"B" * 100 + b"\0"

        assert space.break_cow(BASE, BASE, BASE + 2 * PAGE, R | W) == 0
        assert space.write(BASE, b"mine") == 4
        assert path.read_bytes()[:4] == b"AAAA"
        space.unmap(BASE, 2)
        piece.put()
    assert ram.windows.mapped == len(ram.windows.idle) == 1 and ram.counters().frames == 0


def test_window_read_write_is_the_file(ram: Ram, space: AddressSpace, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE))
    with path.open("r+b") as file:
        piece = ram.windows.map(Donated(file.fileno()), 0, PAGE, True)
        space.map_frames(BASE, piece.gpa, 1, R | W)
        space.write(BASE + 10, b"through")
        assert path.read_bytes()[10:17] == b"through"
        space.unmap(BASE, 1)
        piece.put()


def test_window_let_go_of_after_its_memory_leaves_the_next_ones_alone(tmp_path: Path) -> None:
    """A file object of a memory that has ended may be collected at any later time."""
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    with path.open("rb") as file:
        before = Ram.from_memfd()
        late = before.windows.map(Donated(file.fileno()), 0, PAGE, False)
        before.close()
        after = Ram.from_memfd()
        piece = after.windows.map(Donated(file.fileno()), 0, PAGE, False)
        late.forget()
        late.put()
        assert after.peek(piece.gpa, 8) == b"contents"
        after.close()


def test_copy_from_a_truncated_file_stops_and_names_the_address(
    ram: Ram, space: AddressSpace, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"C" * 3 * PAGE)
    with path.open("r+b") as file:
        piece = ram.windows.map(Donated(file.fileno()), 0, 3 * PAGE, False)
        space.map_frames(BASE, piece.gpa, 3, R, True)
        assert len(space.read(BASE, 3 * PAGE)) == 3 * PAGE
        file.truncate(PAGE)
        assert space.read(BASE, 3 * PAGE) == b"C" * PAGE
        assert (space.fault_addr, space.fault_gone) == (BASE + PAGE, True)
        space.unmap(BASE, 3)
        piece.put()


@pytest.mark.parametrize("skew", [0, 1, PAGE - 1])
def test_copies_stop_at_the_first_page_that_must_not_be_touched(
    space: AddressSpace, skew: int
) -> None:
    space.map_anonymous(BASE, 2, R | W)
    space.map_anonymous(BASE + 2 * PAGE, 1, R)
    data = os.urandom(3 * PAGE)

    assert space.write(BASE + skew, data) == 2 * PAGE - skew
    assert (space.fault_addr, space.fault_write) == (BASE + 2 * PAGE, True)
    assert space.read(BASE + skew, 4 * PAGE) == data[: 2 * PAGE - skew] + bytes(PAGE)
    assert (space.fault_addr, space.fault_write) == (BASE + 3 * PAGE, False)


def test_string_crosses_pages_and_stops_at_the_limit(space: AddressSpace) -> None:
    space.map_anonymous(BASE, 2, R | W)
    space.write(BASE + PAGE - 3, b"abcdef\0gh")
    assert space.string(BASE + PAGE - 3, 100) == b"abcdef\0"
    assert space.string(BASE + PAGE - 3, 4) == b"abcd"
    space.write(BASE + PAGE, b"x" * PAGE)
    assert len(space.string(BASE + PAGE, 2 * PAGE)) == PAGE


def test_host_reads_and_writes_go_straight_to_user_pages(
    space: AddressSpace, tmp_path: Path
) -> None:
    data = os.urandom(5 * PAGE)
    path = tmp_path / "file"
    path.write_bytes(data)
    space.map_anonymous(BASE, 5, R | W)
    with path.open("r+b") as file:
        assert space.from_host(file.fileno(), 3, BASE + 7, 4 * PAGE) == 4 * PAGE
        assert space.read(BASE + 7, 4 * PAGE) == data[3 : 3 + 4 * PAGE]
        assert space.to_host(file.fileno(), PAGE, BASE + 7, 100) == 100
        assert path.read_bytes()[PAGE : PAGE + 100] == data[3:103]
        assert space.from_host(file.fileno(), 0, BASE + 10 * PAGE, 10) == -14
        assert space.from_host(-1, 0, BASE, 10) == -9


def test_pinned_frame_is_not_reused(ram: Ram, space: AddressSpace) -> None:
    space.map_anonymous(BASE, 3, R | W)
    pinned = space.pin(BASE + 5, 2 * PAGE, True)
    assert (pinned.pieces, pinned.count) == (1, 2 * PAGE)
    space.unmap(BASE, 3)
    assert ram.counters().frames == 3 and ram.counters().pins == 3
    pinned.release()
    assert ram.counters().frames == 0 and ram.counters().pins == 0


def test_atomics(space: AddressSpace) -> None:
    space.map_anonymous(BASE, 1, R | W)
    assert space.load32(BASE) == 0
    assert space.cmpxchg32(BASE, 0, 7) == 0
    assert space.cmpxchg32(BASE, 0, 9) == 7 and space.load32(BASE) == 7
    assert space.futex_op(BASE, 1, 5) == 7 and space.load32(BASE) == 12
    assert space.futex_op(BASE, 3, 4) == 12 and space.load32(BASE) == 8
    space.protect(BASE, 1, R)
    assert space.cmpxchg32(BASE, 0, 1) is None and space.fault_write
    with pytest.raises(EINVAL):
        space.load32(BASE + 2)


def test_map_list_skips_holes(ram: Ram, space: AddressSpace) -> None:
    one, two = ram.alloc(), ram.alloc()
    space.map_list(BASE, array("Q", [one, 0, two]), 3, R | W)
    assert space.write(BASE + 2 * PAGE, b"two") == 3
    assert ram.peek(two, 3) == b"two" and space.entry(BASE + PAGE) == 0
    assert ram.references(one) == 2
    space.unmap(BASE, 3)
    assert ram.references(one) == 1
    ram.put(one)
    ram.put(two)
    assert ram.counters().frames == 0


def test_next_is_where_something_may_be_mapped(space: AddressSpace) -> None:
    end = BASE + (1 << 40)
    assert space.next(BASE, end) == end
    for at in (BASE + PAGE, BASE + 5 * BLOCK, BASE + (3 << 30), end - PAGE):
        space.map_anonymous(at, 1, R)

    found, at = [], BASE
    while (at := space.next(at, end)) < end:
        found.append(at - BASE)
        at += BLOCK - at % BLOCK
    assert found == [0, 5 * BLOCK, 3 << 30, (1 << 40) - BLOCK]

    space.unmap(BASE, 6 * BLOCK >> 12)
    assert space.next(BASE, end) == BASE + (3 << 30)
    assert space.next(BASE, BASE + 6 * BLOCK) == BASE + 6 * BLOCK
    assert space.next(BASE, BASE) == BASE


def test_bad_addresses_are_refused(space: AddressSpace) -> None:
    for addr, pages in ((BASE + 1, 1), (0x7FFFFFE00000, 1), (1 << 63, 1), (BASE, 1 << 60)):
        with pytest.raises(EINVAL):
            space.map_anonymous(addr, pages, R)
        with pytest.raises(EINVAL):
            space.unmap(addr, pages)
    assert space.read(1 << 63, 8) == b"" and space.write((1 << 64) - 4, b"12345678") == 0


def test_resident_says_which_pages_have_memory(space: AddressSpace) -> None:
    space.map_anonymous(BASE, 4, R | W)
    space.write(BASE + PAGE, b"x")
    assert space.resident(BASE, 5) == bytes([0, 1, 0, 0, 0])
    assert space.count(BASE, 4) == (1, 0, 1, 0)


def test_forked_sandbox_keeps_the_template_and_writes_elsewhere(
    ram: Ram, space: AddressSpace
) -> None:
    space.map_anonymous(BASE, 600, R | W)
    space.write(BASE, b"template")
    space.write(BASE + 599 * PAGE, b"end")
    file = os.dup(ram.fd)
    before = os.pread(file, 64 << 20, 0)
    ram.freeze()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ram.thaw(os.memfd_create("ram of the child"))
            assert space.read(BASE, 8) == b"template"
            space.write(BASE, b"CHILD")
            space.protect(BASE, 600, R)
            space.unmap(BASE + 599 * PAGE, 1)
            space.map_anonymous(BASE + 599 * PAGE, 1, R | W)
            assert space.read(BASE + 599 * PAGE, 3) == bytes(3)
            assert space.read(BASE, 8) == b"CHILDate"
            space.discard(BASE, 600)
            assert space.read(BASE, 8) == b""
            space.unmap(BASE, 600)
            ram.trim()
            status = 0
        finally:
            os.write(writer, bytes([status]))
            os._exit(status)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"\0"
    assert space.read(BASE, 8) == b"template" and space.read(BASE + 599 * PAGE, 3) == b"end"
    space.write(BASE, b"PARENT")
    space.unmap(BASE + PAGE, 500)
    ram.trim()
    space.map_anonymous(BASE + PAGE, 500, R | W)
    assert space.read(BASE + PAGE, 8) == bytes(8)
    frozen = lib.ram.frozen
    ram.freeze()
    assert space.read(BASE, 8) == b"PARENTte" and space.read(BASE + 599 * PAGE, 3) == b"end"
    assert os.pread(file, frozen, 0) == before[:frozen]
    os.close(file)
    os.close(reader)
    os.close(writer)


def test_what_was_given_back_before_a_fork_can_be_had_again(ram: Ram, space: AddressSpace) -> None:
    """And is the process's own from then on: the file keeps its holes."""
    pages = 4 * BLOCK // PAGE
    for number in range(20):
        space.map_anonymous(BASE, pages, R | W)
        for page in range(pages):
            assert space.read(BASE + page * PAGE, 4) == bytes(4)
            space.write(BASE + page * PAGE, b"used")
        space.unmap(BASE, pages)
        ram.trim()
        held = os.fstat(ram.fd).st_blocks
        ram.freeze()
        if not number:
            first = lib.ram.frozen
        assert lib.ram_counters.dirty == 0
    assert lib.ram.frozen == first
    assert os.fstat(ram.fd).st_blocks == held


def test_frames_of_a_file_are_flushed_only_where_a_space_had_them(
    ram: Ram, space: AddressSpace, flushed: list[tuple[int, int]]
) -> None:
    file = array("Q", [0, 0, 0])
    assert ram.fill(file, 0, 3) == 3
    mapped, *never = file
    space.map_frames(BASE, mapped, 1, R | W)
    space.unmap(BASE, 1)
    flushed.clear()

    assert ram.put_list(file, 0, 3) == 3
    assert covered(flushed, mapped) and not any(covered(flushed, gpa) for gpa in never)

    # who gets them next may map them
    assert ram.fill(file, 0, 3) == 3
    for page, gpa in enumerate(file):
        space.map_frames(BASE + page * PAGE, gpa, 1, R)
    others = set(file)
    space.destroy()
    flushed.clear()
    ram.put_list(file, 0, 3)
    assert all(covered(flushed, gpa) for gpa in others)


def test_block_that_could_not_be_cleared_is_used_once_it_can_be(ram: Ram) -> None:
    gpa = ram.alloc()
    ram.put(gpa)
    lib.ram.fd = -1  # the host refuses to punch
    with pytest.raises(Exhausted):
        ram.alloc()
    lib.ram.fd = ram.fd

    assert ram.alloc() == gpa


def test_frames_are_not_mapped_where_a_large_entry_is(ram: Ram, space: AddressSpace) -> None:
    lib.ram.large_entries = 1
    space.map_anonymous(BASE, 512, R | W)
    assert space.entry(BASE) & lib.PTE_PS
    file = array("Q", [ram.alloc()])

    space.map_list(BASE + 3 * PAGE, file, 1, R)
    space.map_frames(BASE + 4 * PAGE, file[0], 1, R)

    assert ram.references(file[0]) == 1
    assert space.translate(BASE + 3 * PAGE) == space.translate(BASE) + 3 * PAGE
    ram.put_list(file, 0, 1)


KEPT_HEAP = """
import resource
from sentry.platform.memory import keep_heap

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

keep_heap()
bytes(1 << 20)
before = faults()
for _ in range(20):
    bytes(1 << 20)
print(faults() - before)
"""


def test_a_megabyte_that_is_free_is_allocated_again_without_new_pages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KEPT_HEAP], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 256  # pages of one of them


CODE = """
import math, re
from sentry.platform.memory import trim_heap

def of_files():
    text = open("/proc/self/smaps").read()
    found = re.findall(r" r-xp .*/(.*)\\n(?:\\w+: .*\\n)*?Rss: +(\\d+)", text)
    return {name: int(rss) for name, rss in found}

math.exp(1.5)
before = of_files()
trim_heap()
after = of_files()
print(before["libm.so.6"], after["libm.so.6"], sum(before.values()), sum(after.values()))
"""


def test_code_that_has_run_is_given_back_with_the_heap() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], check=True, capture_output=True, text=True, timeout=60
    )

    unused, unused_after, all_of_it, all_after = map(int, done.stdout.split())
    assert unused > 0 and unused_after == 0
    assert 0 < all_after < all_of_it  # what looks has run again


@pytest.mark.root
def test_page_tables_are_had_where_free_frames_hold_all_that_the_host_gives(
    tmp_path: Path,
) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={FULL}", "none", str(tmp_path)]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("no tmpfs of one's own")
    fd = os.open(tmp_path, os.O_RDWR | os.O_TMPFILE, 0o600)
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
    ram = Ram(fd, span=1 << 30)
    space, other = AddressSpace(ram), AddressSpace(ram)

    pages = FULL // PAGE
    space.map_anonymous(BASE, pages, R | W)
    taken = space.write(BASE, bytes(FULL))
    assert taken < FULL and space.fault_gone
    space.destroy()
    assert ram.populated() > FULL - BLOCK
    for number in range(MANY):  # each has a table of its own
        other.map_anonymous(BASE + number * BLOCK, 1, R | W)

    assert other.tables > MANY
    other.destroy()
    ram.close()
