"""FILES windows: blocks that join again, and who has to give way when they are full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from sentry.errors import ENODEV, ENOMEM
from sentry.platform import windows as module
from sentry.platform._native import ffi, lib
from sentry.platform.constants import RO_WINDOW_GPA, WINDOW_SPAN
from sentry.platform.memory import Ram
from sentry.platform.windows import HIGHEST, MAX_TAKEN, Ranges, WindowRange, Windows
from sentry.wait.steps import Steps, at_once

PAGE = 4096
MIB = 1 << 20


class File:
    """A host file whose users drop what they are asked for."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.given: list[WindowRange] = []
        self.stubborn = False
        self.is_crowded = False

    def giving_up(self, piece: WindowRange) -> Steps[None]:
        self.given.append(piece)
        yield
        while piece.refs and not self.stubborn:
            piece.put()


def map_instead(windows: Windows, file: File, size: int) -> WindowRange:
    """In the place of others."""
    at_once(windows.taking_away(windows.in_the_way(size, False)))
    return windows.map(file, 0, size, False)


@pytest.fixture()
def windows() -> Iterator[Windows]:
    ram = Ram.from_memfd(8 << 30)
    yield ram.windows
    ram.close()


@pytest.fixture()
def file(tmp_path: Path) -> Iterator[File]:
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE))
    os.truncate(path, 1 << 40)
    fd = os.open(path, os.O_RDONLY)
    yield File(fd)
    os.close(fd)


def lies_there(gpa: int, size: int) -> int:
    """How many bytes of a part of a window are mapped to anything."""
    start = int(ffi.cast("uintptr_t", lib.frame_host(gpa)))
    there = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(at, 16) for at in line.split()[0].split("-"))
        there += max(0, min(high, start + size) - max(low, start))
    return there


@pytest.mark.parametrize("refuses", ["at once", "last"])
def test_file_that_cannot_be_mapped_leaves_no_hole_in_a_window(
    refuses: str, windows: Windows, file: File
) -> None:
    """Where the Sentry's own memory could come to lie, until a file takes its place."""
    kept = windows.map(file, 0, 16 * PAGE, False)
    path = "/proc/self" if refuses == "at once" else "/sys/devices/system/cpu/online"
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(ENODEV):
        windows.map(File(fd), 0, 16 * PAGE, False)
    os.close(fd)
    assert lies_there(RO_WINDOW_GPA, 64 * PAGE) == 64 * PAGE
    again = windows.map(file, 16 * PAGE, 16 * PAGE, False)
    assert abs(again.gpa - kept.gpa) == 16 * PAGE
    again.put()
    kept.put()


def test_blocks_of_all_sizes_are_one_again_once_they_are_free() -> None:
    ranges = Ranges(0)
    taken = [(ranges.take(order), order) for order in (16, 20, 16, 24, 17, 16, 30)]
    starts = sorted((at, at + (1 << order)) for at, order in taken if at is not None)
    assert len(starts) == 7
    assert all(end <= start for (_, end), (start, _) in pairwise(starts))
    assert all(at is not None and at % (1 << order) == 0 for at, order in taken)
    assert ranges.take(HIGHEST) is None
    for at, order in taken:
        assert at is not None
        ranges.give(at, order)
    assert ranges.take(HIGHEST) == 0


def test_who_needs_a_page_takes_the_place_of_the_oldest_piece(windows: Windows, file: File) -> None:
    size = WINDOW_SPAN // 4
    pieces = [windows.map(file, at * size, size, False) for at in range(4)]
    with pytest.raises(ENOMEM):
        windows.map(file, 0, PAGE, False)
    with pytest.raises(ENOMEM):
        map_instead(windows, file, MAX_TAKEN + PAGE)
    pieces[0].get()  # one more user than the others have
    assert map_instead(windows, file, PAGE).mapped
    assert file.given == [pieces[1]]
    assert [piece.mapped for piece in pieces] == [True, False, True, True]
    assert windows.taken == 1
    windows.map(file, 0, PAGE, False)  # there is room now


def test_small_pieces_give_way_together(
    windows: Windows, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WINDOWS", 8)
    pieces = [windows.map(file, 0, PAGE, False) for _ in range(8)]
    assert {piece.gpa for piece in pieces} == {RO_WINDOW_GPA + (at << 16) for at in range(8)}
    wide = map_instead(windows, file, 256 << 10)
    assert not any(piece.mapped for piece in file.given) and len(file.given) == 4
    assert wide.mapped and windows.mapped == 5


def test_idle_pieces_go_before_anybody_loses_one(windows: Windows, file: File) -> None:
    size = WINDOW_SPAN // 2
    one, other = windows.map(file, 0, size, False), windows.map(file, size, size, False)
    other.put()
    assert windows.map(file, 0, PAGE, False).mapped
    assert one.mapped and not other.mapped and not file.given


def test_a_piece_that_is_just_being_mapped_stays(windows: Windows, file: File) -> None:
    file.stubborn = True
    piece = windows.map(file, 0, WINDOW_SPAN, False)
    with pytest.raises(ENOMEM):
        map_instead(windows, file, PAGE)
    assert piece.mapped and piece.kept and not piece.leaves


def test_pieces_that_others_lose_already_are_taken_last(windows: Windows, file: File) -> None:
    size = WINDOW_SPAN // 2
    one, other = windows.map(file, 0, size, False), windows.map(file, size, size, False)
    other.get()
    (taken,) = windows.in_the_way(PAGE, False)
    losing = windows.taking_away([taken])
    next(losing)
    assert (taken, windows.in_the_way(PAGE, False)) == (one, [other])
    at_once(losing)
    assert not one.mapped and other.mapped and not windows.idle
