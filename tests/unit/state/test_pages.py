"""Frames are written once, zeros not at all, and read into other frames."""

from __future__ import annotations

import os
import random
import struct
import tempfile
import zlib
from array import array
from collections.abc import Coroutine, Iterator
from typing import Any

import msgspec
import pytest

from sentry.config import PagesConfig, RestoreConfig
from sentry.mm.ramfile import RamFile
from sentry.platform._native import lib
from sentry.platform.frames import frames_of, read_frames, write_frames
from sentry.platform.memory import AddressSpace, Ram
from sentry.state import filling
from sentry.state.filling import BLOCK_PAGES, Loaded
from sentry.state.pages import PIECE_PAGES, Damaged, Remembered, Saved, Written
from sentry.state.records import Run
from sentry.wait.fiber import Killed
from sentry.wait.steps import Pace

PAGE = 4096


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Nobody else runs while it rests."""
    try:
        work.send(None)
        while True:
            work.send(True)
    except StopIteration as end:
        return end.value


@pytest.fixture
def ram() -> Iterator[Ram]:
    made = Ram.from_memfd()
    yield made
    made.close()


def frames(ram: Ram, *contents: bytes) -> array[int]:
    """A frame for each, which begins so; empty: zeros that the host has given."""
    found = array("Q", bytes(8 * len(contents)))
    ram.fill(found, 0, len(contents))
    for at, data in enumerate(contents):
        write_frames(found, at * PAGE, data or b"\0")
    return found


def test_numbered_shared_frames_have_one_number_and_zeros_none(ram: Ram) -> None:
    saved = Saved()
    mine = frames(ram, b"a", b"", b"b", b"c")
    mine.append(0)
    assert saved.numbered(mine, 10, zeros=False) == [Run(10, 1, 1), Run(12, 2, 2)]
    assert saved.numbered(mine, 0, zeros=True) == [Run(0, 1, 1), Run(1, 0, 1), Run(2, 2, 2)]
    assert saved.numbered(mine[2:], 0, zeros=False) == [Run(0, 2, 2)]
    assert saved.pages == 3


def written(saved: Saved) -> tuple[int, Written]:
    fd = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR)
    found = run(saved.write(fd))
    assert isinstance(found, Written)
    return fd, found


def image(*layers: tuple[int, Written], pages: int = -1, hashed: bool = True) -> RestoreConfig:
    """What the last of some snapshots that build on each other has."""
    files = [PagesConfig(fd, each.own, tuple(each.checks), hashed) for fd, each in layers]
    found = tuple(layers[-1][1].origins)
    pages = sum(count for *_, count in found) if pages < 0 else pages
    return RestoreConfig(-1, 0, 0, pages, tuple(files), found, snapshot="it")


def xxh64(data: bytes) -> int:
    """Of whole stripes, with seed 0: the specification of XXH64."""
    p1, p2, p3, p4 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                      0x85EBCA77C2B2AE63)  # fmt: skip
    most = (1 << 64) - 1

    def turn(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & most

    def lane(total: int, word: int) -> int:
        return turn((total + word * p2) & most, 31) * p1 & most

    sums = [(p1 + p2) & most, p2, 0, -p1 & most]
    words = struct.unpack(f"<{len(data) // 8}Q", data)
    for at, word in enumerate(words):
        sums[at % 4] = lane(sums[at % 4], word)
    found = sum(turn(each, bits) for each, bits in zip(sums, (1, 7, 12, 18), strict=True)) & most
    for each in sums:
        found = ((found ^ lane(0, each)) * p1 + p4) & most
    found = (found + len(data)) & most
    found = (found ^ found >> 33) * p2 & most
    found = (found ^ found >> 29) * p3 & most
    return found ^ found >> 32


def test_checks_are_of_the_hashes_of_pages(ram: Ram) -> None:
    saved = Saved()
    mine = frames(ram, b"a", bytes(range(256)) * 16)
    saved.numbered(mine, 0, zeros=False)
    fd, found = written(saved)
    pages = [b"a".ljust(PAGE, b"\0"), bytes(range(256)) * 16]
    hashes = struct.pack("<2Q", *map(xxh64, pages))
    assert found == Written(2, [(0, 0, 2)], [zlib.crc32(hashes)])
    assert os.pread(fd, 3 * PAGE, 0) == b"".join(pages)
    os.close(fd)


@pytest.fixture
def watched(ram: Ram) -> Ram:
    """It hears from the host what changes."""
    if lib.changes_open(os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)):
        pytest.skip("the host does not tell what changes")
    return ram


def taken(ram: Ram, mine: array[int], last: Remembered | None) -> Remembered:
    """A snapshot that builds on the last one, which has what one has that reads all of memory."""
    saved = Saved(last)
    run(saved.look(Pace()))
    read_all = Saved(None if last is None else last._replace(same=bytearray(last.split)))
    assert saved.numbered(mine, 0, zeros=True) == read_all.numbered(mine, 0, zeros=True)
    fds = []
    for each in (saved, read_all):
        fd, found = written(each)
        fds.append((os.pread(fd, found.own * PAGE, 0), found))
        os.close(fd)
    assert fds[0] == fds[1]
    kept, other = saved.remembered(), read_all.remembered()
    assert (kept.numbers, kept.hashes, kept.places) == (other.numbers, other.hashes, other.places)
    return kept


@pytest.mark.parametrize("seed", range(6))
def test_what_has_changed_is_what_hashes_tell(watched: Ram, seed: int) -> None:
    chance = random.Random(seed)
    space = AddressSpace(watched)
    base, pages = 0x400000, 1500
    space.map_anonymous(base, pages, 3)
    file = RamFile(watched)
    file.write(0, b"file" * 300_000)
    last = None
    source = os.memfd_create("bytes")
    os.write(source, bytes(range(256)) * 64)

    def change(kind: int) -> None:
        addr = base + chance.randrange(pages - 8) * PAGE
        if kind == 0:
            space.write(addr, bytes([chance.randrange(256)]))
        elif kind == 1:  # the host's own stores
            space.from_host(source, 0, addr, chance.randrange(1, 4 * PAGE))
        elif kind == 2:  # reads as zero, and has another frame afterwards
            space.unmap(addr, 4)
            space.map_anonymous(addr, 4, 3)
        elif kind == 3:
            space.discard(addr, chance.randrange(1, 8))
        elif kind == 4:  # flushed: its translations are gone, its bytes are not
            space.protect(addr, 3, 1)
            space.protect(addr, 3, 3)
        elif kind == 5:
            file.write(chance.randrange(300) * PAGE, b"other")
        elif kind == 6:
            file.punch(chance.randrange(290) * PAGE, 5 * PAGE)
        elif kind == 7:
            watched.trim()
        elif kind == 8:  # a word as it was
            space.write(addr, space.read(addr, 8))
        else:
            space.cmpxchg32(addr, space.load32(addr) or 0, chance.randrange(1 << 32))

    for _ in range(12):
        for _ in range(chance.choice((0, 3, 40))):
            change(chance.randrange(10))
        mine = array("Q", bytes(8 * pages))
        lib.aspace_list(space.native, base, pages, frames_of(mine))
        mine += file.frames(0, 300)
        last = taken(watched, mine, last)
    space.destroy()
    os.close(source)


def test_a_page_that_was_not_stored_to_is_not_read(watched: Ram) -> None:
    mine = frames(watched, b"a", b"b", b"")
    last = taken(watched, mine, None)
    last.hashes[0] ^= 1  # it would be found out
    run((saved := Saved(last)).look(Pace()))
    saved.numbered(mine, 0, zeros=False)
    fd, found = written(saved)
    os.close(fd)
    assert found.own == 0 and saved.remembered().hashes == last.hashes


def test_a_snapshot_that_fails_does_not_lose_what_has_changed(watched: Ram) -> None:
    mine = frames(watched, b"a", b"b")
    last = taken(watched, mine, None)
    write_frames(mine, 0, b"c")
    run(Saved(last).look(Pace()))  # and nothing comes of it
    write_frames(mine, PAGE, b"d")
    run((saved := Saved(last)).look(Pace()))
    saved.numbered(mine, 0, zeros=False)
    fd, found = written(saved)
    assert found.own == 2 and os.pread(fd, 1, 0) + os.pread(fd, 1, PAGE) == b"cd"
    os.close(fd)


def test_a_snapshot_that_is_broken_off_does_not_lose_what_has_changed(watched: Ram) -> None:
    class Killing(Pace):
        async def rest(self, mode: Any = None) -> None:
            """Who asked for it is gone."""
            raise Killed

    mine = frames(watched, b"a", b"b")
    last = taken(watched, mine, None)
    write_frames(mine, 0, b"c")
    with pytest.raises(Killed):
        run(Saved(last).look(Killing()))
    run((saved := Saved(last)).look(Pace()))
    saved.numbered(mine, 0, zeros=False)
    fd, found = written(saved)
    assert found.own == 1 and os.pread(fd, 1, 0) == b"c"
    os.close(fd)


def test_a_page_that_changes_meanwhile_is_written_as_it_is_checked(
    watched: Ram, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Restless(Pace):
        async def rest(self, mode: Any = None) -> None:
            """Others run, and write."""
            write_frames(mine, 0, os.urandom(len(mine) * PAGE))

    monkeypatch.setattr("sentry.state.pages.Pace", Restless)
    mine = frames(watched, *(b"%d" % number for number in range(2 * PIECE_PAGES)))
    last: Remembered | None = None
    for _ in range(3):
        run((saved := Saved(last)).look(Pace()))
        saved.numbered(mine, 0, zeros=False)
        fd, found = written(saved)
        assert found.own == len(mine)
        pages = [os.pread(fd, PAGE, at * PAGE) for at in range(found.own)]
        os.close(fd)
        last = saved.remembered()
        assert list(last.hashes) == [xxh64(page) for page in pages]


def test_frozen_memory_is_read(watched: Ram) -> None:
    mine = frames(watched, b"a", b"b")
    last = taken(watched, mine, None)
    watched.freeze()
    write_frames(mine, 0, b"c")
    last = taken(watched, mine, last)
    assert not any(last.same)


def test_a_second_snapshot_writes_what_has_changed_and_both_are_read_together(ram: Ram) -> None:
    first, count = Saved(), PIECE_PAGES + 10
    mine = frames(ram, *(b"%d" % number for number in range(1, count + 1)))
    first.numbered(mine, 0, zeros=False)
    base = written(first)
    write_frames(mine, 5 * PAGE, b"changed")
    mine += frames(ram, b"new")
    second = Saved(first.remembered())
    second.numbered(mine[::-1], 0, zeros=False)
    delta = written(second)
    assert delta[1].own == 2
    write_frames(mine, 6 * PAGE, b"once more")
    third = Saved(second.remembered())
    third.numbered(mine, 0, zeros=False)
    last = written(third)
    assert last[1].own == 1
    config = image(base, delta, last)
    loaded = Loaded(ram, config)
    run(loaded.read())
    new = loaded.frames[1:]
    assert read_frames(new, 5 * PAGE, 7) == b"changed"
    assert read_frames(new, 6 * PAGE, 9) == b"once more"
    assert read_frames(new, count * PAGE, 3) == b"new"
    for number in (0, 4, 7, count - 1):
        text = b"%d" % (number + 1)
        assert read_frames(new, number * PAGE, len(text)) == text
    again = loaded.remembered()
    assert again is not None and (again.name, again.layers) == ("it", 3)
    fourth = Saved(again)
    fourth.numbered(new, 0, zeros=False)
    fd, nothing = written(fourth)
    assert (nothing.own, nothing.checks) == (0, []) and nothing.origins == last[1].origins
    os.pwrite(base[0], b"x", 3 * PAGE)
    with pytest.raises(Damaged, match="pages 1 to 256 of a file"):
        run(Loaded(ram, config).read())
    for each in (fd, base[0], delta[0], last[0]):
        os.close(each)


def test_pages_that_are_nowhere_are_said(ram: Ram) -> None:
    saved = Saved()
    saved.numbered(frames(ram, b"a", b"b"), 0, zeros=False)
    fd, found = written(saved)
    good = image((fd, found))
    wrong: list[tuple[tuple[int, int, int], ...]] = [
        (), ((1, 0, 2),), ((0, 1, 2),), ((0, 0, 1),), ((0, 0, 3),), ((0, 1, 1), (0, 0, 1)),
        ((0, 0, 2), (0, 0, 1)), ((0, 0, 0), (0, 0, 2)),
    ]  # fmt: skip
    for origins in wrong:
        with pytest.raises(Damaged, match="pages"):
            Loaded(ram, msgspec.structs.replace(good, origins=origins))
    with pytest.raises(Damaged, match="too many others"):
        Loaded(ram, msgspec.structs.replace(good, layers=good.layers * 65))
    os.close(fd)


def test_an_image_of_the_first_version_has_checks_of_bytes(ram: Ram) -> None:
    fd = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR)
    os.pwrite(fd, b"old".ljust(PAGE, b"\0"), 0)
    check = zlib.crc32(b"old".ljust(PAGE, b"\0"))
    config = image((fd, Written(1, [(0, 0, 1)], [check])), hashed=False)
    loaded = Loaded(ram, config)
    run(loaded.read())
    assert read_frames(loaded.frames[1:], 0, 3) == b"old" and loaded.remembered() is None
    os.close(fd)


def test_read_pages_come_into_other_frames(ram: Ram) -> None:
    saved = Saved()
    old = frames(ram, *(b"%d" % number for number in range(1, PIECE_PAGES + 3)))
    assert saved.numbered(old, 0, zeros=False) == [Run(0, 1, PIECE_PAGES + 2)]
    fd, found = written(saved)
    assert len(found.checks) == 2
    loaded = Loaded(ram, image((fd, found)))
    loaded.count([Run(0, 1, PIECE_PAGES + 2), Run(7, 1, 1)])
    run(loaded.read())
    new = loaded.frames[1:]
    assert not set(new) & set(old)
    assert read_frames(new, (PIECE_PAGES + 1) * PAGE, 3) == b"%d" % (PIECE_PAGES + 2)
    assert loaded.uses[1] == 2 and loaded.uses[2] == 1
    before = ram.counters().frames
    loaded.let_go()
    assert ram.counters().frames == before - PIECE_PAGES - 2
    os.close(fd)


def test_pages_are_counted_and_made_in_steps(ram: Ram, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Saved()
    saved.numbered(frames(ram, *(b"%d" % number for number in range(10))), 0, zeros=False)
    fd, found = written(saved)
    loaded = Loaded(ram, image((fd, found)))
    monkeypatch.setattr(filling, "COUNTED", 3)
    monkeypatch.setattr(filling, "LISTED", 3)
    assert len(list(loaded.counting([Run(0, 1, 10), Run(0, 2, 3)]))) == 4 + 1
    assert list(loaded.uses[1:]) == [1, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    run(loaded.read())
    assert read_frames(loaded.frames[1:], 9 * PAGE, 1) == b"9"
    loaded.let_go()
    os.close(fd)


def test_read_what_is_damaged_or_not_there_is_said(ram: Ram) -> None:
    saved = Saved()
    saved.numbered(frames(ram, b"a"), 0, zeros=False)
    fd, found = written(saved)
    good = image((fd, found))
    with pytest.raises(Damaged, match="another size"):
        Loaded(ram, image((fd, found._replace(own=2))))
    with pytest.raises(Damaged, match="number of pieces"):
        Loaded(ram, image((fd, found._replace(checks=[]))))
    with pytest.raises(Damaged, match="there is no page 2"):
        Loaded(ram, good).count([Run(0, 1, 2)])
    with pytest.raises(Damaged, match="more pages than a sandbox has"):
        Loaded(ram, good).count([Run(0, 0, 1 << 40)])
    wrong = Loaded(ram, image((fd, found._replace(checks=[found.checks[0] ^ 1]))))
    with pytest.raises(Damaged, match="pages 1 to 256 are damaged"):
        run(wrong.read())
    wrong.let_go()
    os.close(fd)


def test_pages_in_the_background_show_the_file_and_stores_make_copies(ram: Ram) -> None:
    saved, count = Saved(), 2 * BLOCK_PAGES + 10
    saved.numbered(frames(ram, *(b"%d" % number for number in range(count))), 0, zeros=False)
    fd, found = written(saved)
    config = msgspec.structs.replace(image((fd, found)), background=True)
    before = ram.counters().frames
    loaded = Loaded(ram, config)
    assert loaded.mapped == 2 * BLOCK_PAGES == ram.counters().frames - before
    loaded.own(5, 3)
    with pytest.raises(Damaged, match="two files"):
        loaded.own(7, 1)
    file = RamFile(ram, 1 << 30)
    file.take(510, loaded.frames[5:8])
    run(loaded.read())
    assert (file.pages, file.read(511 * PAGE, 1)) == (3, b"5")
    for number in (0, 700, count - 1):
        text = b"%d" % number
        assert read_frames(loaded.frames[1:], number * PAGE, len(text)) == text
    write_frames(loaded.frames[1:], 700 * PAGE, b"mine")
    assert os.pread(fd, 3, 700 * PAGE) == b"700"
    os.pwrite(fd, b"theirs", 701 * PAGE)
    assert read_frames(loaded.frames[1:], 701 * PAGE, 6) == b"theirs"
    assert loaded.remembered() is None
    loaded.let_go()
    assert ram.counters().frames == before + 3
    again = frames(ram, *[b""] * (2 * BLOCK_PAGES))
    heads = (read_frames(again, number * PAGE, 8) for number in range(len(again)))
    assert not any(head.strip(b"\0") for head in heads)
    file.close()
    os.close(fd)
