"""Frames are written once, zeros not at all, and read into other frames."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from sentry.platform.memory import Ram, read_frames, write_frames
from sentry.state.pages import PIECE_PAGES, Damaged, Loaded, Saved
from sentry.state.records import Run

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
    assert len(saved.frames) == 3


def written(saved: Saved) -> tuple[int, list[int]]:
    fd = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR)
    checks = run(saved.write(fd))
    assert isinstance(checks, list)
    return fd, checks


def test_read_pages_come_into_other_frames(ram: Ram) -> None:
    saved = Saved()
    old = frames(ram, *(b"%d" % number for number in range(1, PIECE_PAGES + 3)))
    assert saved.numbered(old, 0, zeros=False) == [Run(0, 1, PIECE_PAGES + 2)]
    fd, checks = written(saved)
    assert len(checks) == 2
    loaded = Loaded(ram, fd, PIECE_PAGES + 2, checks)
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


def test_read_what_is_damaged_or_not_there_is_said(ram: Ram) -> None:
    saved = Saved()
    saved.numbered(frames(ram, b"a"), 0, zeros=False)
    fd, checks = written(saved)
    with pytest.raises(Damaged, match="another size"):
        Loaded(ram, fd, 2, checks)
    with pytest.raises(Damaged, match="number of pieces"):
        Loaded(ram, fd, 1, [])
    with pytest.raises(Damaged, match="there is no page 2"):
        Loaded(ram, fd, 1, checks).count([Run(0, 1, 2)])
    with pytest.raises(Damaged, match="more pages than a sandbox has"):
        Loaded(ram, fd, 1, checks).count([Run(0, 0, 1 << 40)])
    wrong = Loaded(ram, fd, 1, [checks[0] ^ 1])
    with pytest.raises(Damaged, match="pages 1 to 256 are damaged"):
        run(wrong.read())
    wrong.let_go()
    os.close(fd)
