"""Lists of frames: their bytes, and their bounds."""

from __future__ import annotations

from array import array

import pytest

from sentry.errors import EINVAL
from sentry.platform.frames import frames_of, read_frames, runs, write_frames, zero_frames
from sentry.platform.memory import Ram

PAGE = 4096


def test_what_is_written_over_frames_is_read_and_cleared(ram: Ram) -> None:
    gpas = array("Q", [ram.alloc(), 0, ram.alloc()])
    assert write_frames(gpas, PAGE - 2, b"ab") == 2
    assert write_frames(gpas, 2 * PAGE + 1, memoryview(b"cd")) == 2
    assert read_frames(gpas, PAGE - 3, PAGE + 7) == b"\0ab" + bytes(PAGE) + b"\0cd\0"
    zero_frames(gpas, PAGE - 1, PAGE + 3)
    assert read_frames(gpas, 0, 3 * PAGE).strip(b"\0") == b"a" + bytes(PAGE + 3) + b"d"
    assert list(frames_of(gpas)) == list(gpas)
    for gpa in gpas[0], gpas[2]:
        ram.put(gpa)


@pytest.mark.parametrize(("offset", "count"), [(-1, 1), (PAGE, 1), (PAGE - 1, 2)])
def test_nothing_outside_of_the_list_is_touched(ram: Ram, offset: int, count: int) -> None:
    gpas = array("Q", [ram.alloc()])
    with pytest.raises(EINVAL):
        read_frames(gpas, offset, count)
    with pytest.raises(EINVAL):
        zero_frames(gpas, offset, count)
    with pytest.raises(EINVAL):
        write_frames(gpas, offset, bytes(count))
    ram.put(gpas[0])


def test_runs_are_of_frames_that_follow_one_another() -> None:
    gpas = array("Q", [0, PAGE, 2 * PAGE, 0, 3 * PAGE, 9 * PAGE])
    assert list(runs(gpas)) == [(1, PAGE, 2), (4, 3 * PAGE, 1), (5, 9 * PAGE, 1)]
    assert not list(runs(array("Q")))
