"""Signals that are waited for are told once, also where the memory for it has to be fetched."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from sentry.abi.signal import SIGUSR1, SIGUSR2
from tests.world import Program

Fetch = Callable[[int], None]
SIGNALS = struct.pack("<Q", 1 << SIGUSR1 - 1 | 1 << SIGUSR2 - 1)


@pytest.mark.parametrize("sleeps", [False, True])
def test_sigtimedwait_tells_what_it_took_when_the_page_is_there(
    task: Program, fetched_first: Fetch, sleeps: bool
) -> None:
    task.block(SIGUSR1, SIGUSR2)
    wanted, info = task.place(SIGNALS), task.buffer(128)
    fetched_first(info)
    other, pid = task.sibling(), task.task.group.tgid
    if not sleeps:
        other.ok("kill", pid, SIGUSR1)
    call = task.begin("rt_sigtimedwait", wanted, info, 0, 8)
    if sleeps:
        assert not call.done
        other.ok("kill", pid, SIGUSR1)
    assert call.wait() == SIGUSR1
    assert struct.unpack("<i", task.read(info, 4)) == (SIGUSR1,)
    assert not task.take_signals()
