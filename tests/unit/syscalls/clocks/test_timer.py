"""What a timer was before is told, also where the memory for it has to be fetched first."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from sentry.abi.time import CLOCK_MONOTONIC, ITIMER_REAL
from tests.world import Program

Fetch = Callable[[int], None]


@pytest.mark.parametrize("name", ["setitimer", "timer_settime", "timerfd_settime"])
def test_old_value_is_told_when_the_page_is_there(
    task: Program, fetched_first: Fetch, name: str
) -> None:
    number, flags = ITIMER_REAL, tuple[int, ...]()
    if name != "setitimer":
        flags = (0,)
        if name == "timer_settime":
            task.ok("timer_create", CLOCK_MONOTONIC, 0, at := task.buffer(4))
            number = int.from_bytes(task.read(at, 4), "little")
        else:
            number = task.ok("timerfd_create", CLOCK_MONOTONIC, 0)
    old = task.buffer(32)
    task.ok(name, number, *flags, task.place(struct.pack("<4q", 7, 0, 1000, 0)), 0)
    fetched_first(old)
    call = task.begin(name, number, *flags, task.place(struct.pack("<4q", 9, 0, 5000, 0)), old)
    assert call.wait() == 0
    interval, _, left, _ = struct.unpack("<4q", task.read(old, 32))
    assert (interval, left) in ((7, 999), (7, 1000))
