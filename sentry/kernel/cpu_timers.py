"""Deadlines in CPU time: ITIMER_VIRTUAL, ITIMER_PROF, CPU-clock timers, RLIMIT_CPU.

Nothing ticks. One timer of the loop sleeps until the earliest moment at which a deadline could have
been reached, which is when all threads that may run do so; then the clocks are read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sentry.abi.resource import RLIM_INFINITY, RLIMIT_CPU
from sentry.abi.signal import SIGKILL, SIGXCPU
from sentry.kernel import signal_send
from sentry.kernel.clocks import MAX_NS, NS, CpuClock, group_time
from sentry.kernel.signals import SigInfo

if TYPE_CHECKING:
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.wait.fiber import Timer

GRAIN_NS = 1_000_000
"""The clocks are not read more often than this."""


class CpuTimer:
    """One deadline: `fired` is called once the clock shows at least `at_ns`."""

    __slots__ = ("at_ns", "clock", "fired")

    def __init__(self, clock: CpuClock, fired: Callable[[], None]) -> None:
        self.clock = clock
        self.fired = fired
        self.at_ns = 0


class CpuTimers:
    """The deadlines of one process."""

    __slots__ = ("_armed", "_group", "_limit", "_timer")

    def __init__(self, group: ThreadGroup) -> None:
        self._group = group
        self._armed: list[CpuTimer] = []
        self._timer: Timer | None = None
        self._limit = CpuTimer(CpuClock(group, None, False), self._limit_reached)

    def arm(self, timer: CpuTimer, at_ns: int) -> None:
        """Call it when its clock reaches `at_ns`, instead of what was set before."""
        timer.at_ns = at_ns
        if timer not in self._armed:
            self._armed.append(timer)
        self._sleep()

    def disarm(self, timer: CpuTimer) -> None:
        """Forget it."""
        if timer in self._armed:
            self._armed.remove(timer)
            self._sleep()

    def cancel(self) -> None:
        """Forget all: the process ends."""
        self._armed.clear()
        self._sleep()

    def _sleep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._armed:
            return
        group = self._group
        parallel = max(1, min(len(group.tasks), group.kernel.cpus))
        left = min(
            (t.at_ns - t.clock.now_ns()) // (1 if t.clock.task is not None else parallel)
            for t in self._armed
        )
        loop = group.kernel.loop
        at_ns = loop.now_ns() + max(left, GRAIN_NS)
        self._timer = loop.call_at(min(at_ns, MAX_NS), self._look)

    def _look(self) -> None:
        self._timer = None
        for timer in list(self._armed):
            if timer in self._armed and timer.clock.now_ns() >= timer.at_ns:
                self._armed.remove(timer)
                timer.fired()
        self._sleep()

    # RLIMIT_CPU ----------------------------------------------------------------------------------

    def watch_limit(self) -> None:
        """The limit is new or has changed."""
        soft = self._group.limits.soft(RLIMIT_CPU)
        if soft == RLIM_INFINITY:
            self.disarm(self._limit)
        else:
            # a limit of 0 is one of a second: update_rlimit_cpu, kernel/time/posix-cpu-timers.c
            self.arm(self._limit, max(soft, 1) * NS)

    def _limit_reached(self) -> None:
        """SIGXCPU, then a second more each time; SIGKILL at the hard limit."""
        group = self._group
        soft, hard = group.limits.soft(RLIMIT_CPU), group.limits.hard(RLIMIT_CPU)
        used = group_time(group) // NS
        if used >= hard:
            group.exit(SIGKILL)
            return
        if soft != RLIM_INFINITY and used >= max(soft, 1):
            signal_send.send_to_group(group, SigInfo.kernel(SIGXCPU))
            group.limits.set(RLIMIT_CPU, min(used + 1, hard), hard)
        self.watch_limit()
