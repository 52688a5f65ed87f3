"""Sleeps that a signal ends say what is left, also where the memory for it has to be fetched."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest

from sentry.abi.signal import SIGUSR1
from sentry.abi.time import CLOCK_MONOTONIC
from tests.world import World

SECOND = 10**9


@pytest.mark.parametrize("name", ["nanosleep", "clock_nanosleep"])
def test_what_is_left_of_a_sleep_is_told_when_the_page_is_there(
    fetched_first: Callable[[int], None], name: str
) -> None:
    with World(stepped=True) as world:
        program, other = world.program(), world.program()
        program.handle(SIGUSR1)
        request, left = program.place(struct.pack("<2q", 100, 0)), program.buffer(16)
        clock = (CLOCK_MONOTONIC, 0) if name == "clock_nanosleep" else ()
        program.begin(name, *clock, request, left)
        world.loop.advance(30 * SECOND)
        fetched_first(left)
        other.ok("kill", program.task.group.tgid, SIGUSR1)
        world.settle()
        assert program.in_handler
        assert struct.unpack("<2q", program.read(left, 16)) == (70, 0)
        program.leave_handler()
        assert program.context.result == -errno.EINTR
