"""Open files of a snapshot: a timerfd has what was left of its time, or a point on a clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sentry.abi.time import CLOCK_MONOTONIC, CLOCK_REALTIME
from sentry.clock import MAX_NS
from sentry.fs.timerfd import TimerFile
from sentry.state import open_files, records
from sentry.state.opening import Files
from sentry.state.pages import Damaged
from sentry.vfs.vfs import Vfs
from sentry.wait.queue import WaitQueue
from tests.unit.state.test_pages import run

COMMON = {"flags": 0, "position": 0}


class Programs:
    """Their clocks, `ahead` nanoseconds apart."""

    def __init__(self, now: int, ahead: int) -> None:
        self.now, self.ahead = now, ahead
        self.armed: list[int] = []

    def now_ns(self) -> int:
        return self.now

    def distance_ns(self, clock: int) -> int:
        return self.ahead

    def call_at(self, at_ns: int, callback: Any) -> Any:
        self.armed.append(at_ns)
        return SimpleNamespace(cancel=lambda: None)


def made(programs: Any, clock: int) -> TimerFile:
    return TimerFile(Vfs(), programs, WaitQueue(), clock, 0)


def restored(record: Any, programs: Any, steps: WaitQueue | None = None) -> TimerFile:
    services = SimpleNamespace(clock_steps=WaitQueue() if steps is None else steps)
    files: Any = SimpleNamespace(
        vfs=Vfs(), kernel=SimpleNamespace(services=services, clock=programs)
    )
    found: TimerFile = run(Files.timerfd(files, record))
    return found


def test_a_time_from_now_goes_on_where_it_was() -> None:
    file = made(Programs(1000, 0), CLOCK_MONOTONIC)
    file.set(50, 1400)
    record = open_files._timerfd(None, file, COMMON)  # type: ignore[arg-type]
    later = Programs(90_000, 0)
    assert restored(record, later).get() == (50, 400)
    assert later.armed == [90_400]


def test_a_point_on_a_clock_stays_there() -> None:
    file = made(Programs(1000, 0), CLOCK_MONOTONIC)
    file.set(0, 91_000)
    file.absolute = True
    record = open_files._timerfd(None, file, COMMON)  # type: ignore[arg-type]
    assert restored(record, Programs(90_000, 0)).get() == (0, 1000)


def test_a_point_on_the_wall_clock_stays_there_and_follows_it() -> None:
    file = made(Programs(1000, 500_000), CLOCK_REALTIME)
    file.set(0, 3000, again=lambda: 3000, cancels=True)  # 503,000 on the wall
    file.absolute = True
    record = open_files._timerfd(None, file, COMMON)  # type: ignore[arg-type]
    there, steps = Programs(200, 502_000), WaitQueue()  # of another machine
    again = restored(record, there, steps)
    assert again.get() == (0, 800)
    there.ahead = 501_000
    steps.notify(1)
    assert again.get() == (0, 1800)


def test_one_that_has_expired_stays_so() -> None:
    file = made(Programs(1000, 0), CLOCK_MONOTONIC)
    file.set(100, 900)
    file._expire()
    record = open_files._timerfd(None, file, COMMON)  # type: ignore[arg-type]
    again = restored(record, Programs(90_000, 0))
    assert again.poll() and again._count() == 2


def test_a_wall_time_of_another_clock_is_damaged() -> None:
    record = records.ClockTimer(flags=0, clock=CLOCK_MONOTONIC, wall_ns=5)
    with pytest.raises(Damaged):
        restored(record, Programs(1, 0))


def test_a_time_behind_the_end_of_clocks_can_be_read_again() -> None:
    for clock, absolute in ((CLOCK_MONOTONIC, False), (CLOCK_REALTIME, True)):
        file = made(Programs(1000, 1 << 61), clock)
        file.set(MAX_NS, MAX_NS, again=(lambda: MAX_NS) if absolute else None)
        file.absolute = absolute
        record = open_files._timerfd(None, file, COMMON)  # type: ignore[arg-type]
        read = msgspec.json.decode(msgspec.json.encode(record), type=records.ClockTimer)
        assert restored(read, Programs(2000, 1 << 61)).get()[1] > 1 << 60
