"""What a timer was before is told, also where the memory for it has to be fetched first."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from sentry.abi.signal import SA_RESTORER, SIGEV_SIGNAL, SIGUSR1
from sentry.abi.time import CLOCK_MONOTONIC, ITIMER_REAL
from tests.caller import HANDLER, RESTORER
from tests.world import Program, World

Fetch = Callable[[int], None]


def test_timers_whose_signal_is_wanted_again_go_on_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World(stepped=True) as world:
        task = world.program()
        ignore = task.place(struct.pack("<4Q", 1, 0, 0, 0))
        task.ok("rt_sigaction", SIGUSR1, ignore, 0, 8)
        task.block(SIGUSR1)
        event = task.place(struct.pack("<QiiI44x", 0, SIGUSR1, SIGEV_SIGNAL, 0))
        every, number = task.place(struct.pack("<4q", 1, 0, 1, 0)), task.buffer(4)
        for at in range(30):
            task.ok("timer_create", CLOCK_MONOTONIC, event, number)
            task.ok("timer_settime", at, 0, every, 0)
        task.ok("rt_sigaction", SIGUSR1, ignore, 0, 8)
        world.loop.advance(3 * 10**9)
        task.ok("rt_sigaction", SIGUSR1, ignore, 0, 8)
        assert not task.task.group.shared_pending.infos()
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        handler = task.place(struct.pack("<4Q", HANDLER, SA_RESTORER, RESTORER, 0))
        call, seen = task.begin("rt_sigaction", SIGUSR1, handler, 0, 8), 0
        while not call.done:
            now = len(task.task.group.shared_pending.infos())
            assert now <= seen + 2
            seen = now
            world.loop.turn()
        assert call.result == 0
        assert len(task.task.group.shared_pending.infos()) == 30


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
