"""timerfd on a clock that the test moves; the wall clock set by somebody."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from sentry.abi.poll import EPOLLIN, EPOLLRDNORM
from sentry.abi.time import CLOCK_MONOTONIC, CLOCK_REALTIME
from sentry.errors import EAGAIN, ECANCELED, EINVAL
from sentry.fs.timerfd import TimerFile
from sentry.mm.buffers import KernelDest
from sentry.vfs.vfs import Vfs
from sentry.wait.queue import WaitQueue
from tests.world import Program

READY = EPOLLIN | EPOLLRDNORM


class Loop:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000
        self.timers: list[Timer] = []

    def now_ns(self) -> int:
        return self.now

    def call_at(self, at_ns: int, callback: Any) -> Timer:
        self.timers.append(Timer(at_ns, callback))
        return self.timers[-1]

    def advance(self, to_ns: int) -> None:
        self.now = to_ns
        for timer in [t for t in self.timers if t.at_ns <= to_ns]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.callback()


class Timer:
    def __init__(self, at_ns: int, callback: Any) -> None:
        self.at_ns, self.callback, self.cancelled = at_ns, callback, False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def loop() -> Loop:
    return Loop()


def make(loop: Any, steps: WaitQueue | None = None, clock: int = CLOCK_MONOTONIC) -> TimerFile:
    return TimerFile(Vfs(), loop, WaitQueue() if steps is None else steps, clock, 0)


def read(file: TimerFile) -> int:
    dest = KernelDest(8)
    assert file.receive(dest) == 8
    return int.from_bytes(dest.data, "little")


def test_read_counts_periods_that_nobody_saw(loop: Loop) -> None:
    file = make(loop)
    file.set(100, 1050)
    with pytest.raises(EAGAIN):
        file.receive(KernelDest(8))
    assert file.poll() == 0
    loop.advance(1260)
    assert file.poll() == READY
    assert read(file) == 3
    assert file.get() == (100, 90)
    assert not file.poll()
    loop.advance(1350)
    assert read(file) == 1


def test_expired_timer_that_nobody_reads_does_not_wake_again(loop: Loop) -> None:
    file = make(loop)
    file.set(1, 1001)
    loop.advance(1001)
    assert not loop.timers
    loop.advance(10**9)
    assert read(file) == 10**9 - 1000


def test_set_forgets_what_has_expired(loop: Loop) -> None:
    file = make(loop)
    file.set(0, 1050)
    loop.advance(1100)
    file.set(0, 0)
    assert not file.poll()
    assert file.get() == (0, 0)


def test_short_buffer_is_refused(loop: Loop) -> None:
    with pytest.raises(EINVAL):
        make(loop).receive(KernelDest(7))


def test_step_of_the_wall_clock_moves_the_deadline(loop: Loop) -> None:
    steps = WaitQueue()
    file = make(loop, steps, CLOCK_REALTIME)
    where = [5000]
    file.set(0, where[0], lambda: where[0])
    where[0] = 2000
    steps.notify()
    loop.advance(2000)
    assert read(file) == 1


def test_step_of_the_wall_clock_cancels_where_asked(loop: Loop) -> None:
    steps = WaitQueue()
    file = make(loop, steps, CLOCK_REALTIME)
    file.set(0, 5000, lambda: 9000, True)
    steps.notify()
    assert file.poll() == READY
    with pytest.raises(ECANCELED):
        file.receive(KernelDest(8))
    assert not file.poll()
    file.release()
    assert not len(steps)


def test_read_of_as_many_expiries_as_fit_and_one_more(loop: Loop) -> None:
    file = make(loop)
    file.set(0, 2000)
    file._ticks = (1 << 64) - 1  # TFD_IOC_SET_TICKS
    loop.advance(2000)
    assert read(file) == 0  # the kernel's count goes round, too


def test_attributes_of_files_without_a_name_stay(task: Program) -> None:
    for fd in (task.ok("timerfd_create", 1, 0), task.ok("pidfd_open", task.ok("getpid"), 0)):
        assert task.call("fchmod", fd, 0o600) == -errno.EOPNOTSUPP
        assert task.call("fchown", fd, 0, 0) == -errno.EOPNOTSUPP
        assert task.call("utimensat", fd, 0, 0, 0) == -errno.EOPNOTSUPP
