"""Deadlines in CPU time: ITIMER_VIRTUAL, ITIMER_PROF, CPU-clock timers, RLIMIT_CPU.

Nothing ticks. One timer of the loop sleeps until the earliest moment at which a deadline could have
been reached, which is when all threads that may run do so; then the clocks are read again.
"""

from __future__ import annotations

from _heapq import heappop, heappush
from collections import deque
from collections.abc import Callable, Hashable
from itertools import chain
from typing import TYPE_CHECKING, Final

from sentry.abi.layout import Record
from sentry.abi.resource import RLIM_INFINITY, RLIMIT_CPU
from sentry.abi.signal import SIGKILL, SIGXCPU
from sentry.clock import MAX_NS
from sentry.kernel import signal_send
from sentry.kernel.clocks import NS, CpuClock, group_time
from sentry.kernel.signals import SigInfo

if TYPE_CHECKING:
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.wait.fiber import Timer
    from sentry.wait.steps import Steps

GRAIN_NS = 1_000_000
"""The clocks are not read more often than this."""
AT_ONCE: Final = 100
"""Deadlines that are reached, then others have their turn: MAX_COLLECTED of posix-cpu-timers.c."""


class CpuTimer:
    """One deadline: `fired` is called once the clock shows at least `at_ns`."""

    __slots__ = ("at_ns", "clock", "fired")

    def __init__(self, clock: CpuClock, fired: Callable[[], object]) -> None:
        self.clock = clock
        self.fired = fired
        self.at_ns = 0


class Deadline(Record):
    """A time that was set; it counts as long as its timer is armed for it."""

    at_ns: int
    number: int
    """In the order in which they were set."""
    timer: "CpuTimer"


class CpuTimers:
    """The deadlines of one process: for each clock, which is read once for all, a heap."""

    __slots__ = (
        "_armed", "_entries", "_group", "_heaps", "_limit", "_number", "_timer", "_wake_ns",
    )  # fmt: skip

    def __init__(self, group: ThreadGroup) -> None:
        self._group = group
        self._armed: dict[CpuTimer, Deadline] = {}
        self._heaps: dict[Hashable, list[Deadline]] = {}
        self._number = self._entries = 0
        """Deadlines that were set; those that lie in the heaps, at most."""
        self._timer: Timer | None = None
        self._wake_ns = 0
        self._limit = CpuTimer(CpuClock(group, None, False), self._limit_reached)

    def arm(self, timer: CpuTimer, at_ns: int) -> None:
        """Call it when its clock reaches `at_ns`, instead of what was set before."""
        timer.at_ns = at_ns
        self._number += 1
        self._entries += 1
        if self._entries > 64 + 2 * len(self._armed):
            self._forget_old()
        self._armed[timer] = deadline = Deadline(at_ns, self._number, timer)
        heappush(self._heaps.setdefault(timer.clock.key, []), deadline)
        wake_ns = self._earliest(deadline, timer.clock.now_ns())
        if self._timer is None or wake_ns < self._wake_ns:
            self._wake_at(wake_ns)

    def disarm(self, timer: CpuTimer) -> None:
        """Forget it; what wakes for it alone wakes in vain."""
        if self._armed.pop(timer, None) is not None and not self._armed:
            self.cancel()

    def cancel(self) -> None:
        """Forget all: the process ends. Whose deadlines these were goes with them, in steps."""
        self._armed.clear()
        forgotten = chain.from_iterable(list(self._heaps.values()))
        self._heaps.clear()
        self._entries = 0
        self._wake_at(None)
        self._group.kernel.vfs.leftovers.begin(forgotten, lambda _: None)

    def _forget_old(self) -> None:
        """Only deadlines that count stay. What is reached before it lies in a heap again is late by
        that."""
        old = deque(chain.from_iterable(self._heaps.values()))
        self._heaps.clear()
        self._entries = len(self._armed)
        self._group.kernel.vfs.leftovers.add(self._sorting_out(old))

    def _sorting_out(self, old: deque[Deadline]) -> Steps[None]:
        while old:
            for _ in range(min(len(old), AT_ONCE)):
                deadline = old.popleft()
                if self._counts(deadline):
                    heappush(self._heaps.setdefault(deadline.timer.clock.key, []), deadline)
            yield
        if self._armed:
            self._wake_at(self._group.kernel.loop.now_ns())

    def _earliest(self, deadline: Deadline, now_ns: int) -> int:
        """When it could be reached, on the loop's clock."""
        group, loop = self._group, self._group.kernel.loop
        alone = deadline.timer.clock.task is not None
        parallel = 1 if alone else max(1, min(len(group.tasks), group.kernel.cpus))
        left_ns = max((deadline.at_ns - now_ns) // parallel, GRAIN_NS)
        return min(loop.now_ns() + left_ns, MAX_NS)

    def _wake_at(self, at_ns: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at_ns is not None:
            self._wake_ns = at_ns
            self._timer = self._group.kernel.loop.call_at(at_ns, self._look)

    def _look(self) -> None:
        self._timer = None
        due: list[Deadline] = []
        wake_ns: int | None = None
        for key, heap in list(self._heaps.items()):
            now_ns = heap[0].timer.clock.now_ns()
            while heap and (heap[0].at_ns <= now_ns or not self._counts(heap[0])):
                if len(due) >= AT_ONCE:
                    break
                due.append(heappop(heap))
            if heap:
                earliest_ns = self._earliest(heap[0], now_ns)
                wake_ns = earliest_ns if wake_ns is None else min(wake_ns, earliest_ns)
            else:
                del self._heaps[key]
        self._wake_at(wake_ns if len(due) < AT_ONCE else self._group.kernel.loop.now_ns())
        for deadline in sorted(due, key=lambda deadline: deadline.number):
            if self._counts(deadline):
                del self._armed[deadline.timer]
                deadline.timer.fired()
        if not self._armed:
            self.cancel()

    def _counts(self, deadline: Deadline) -> bool:
        return self._armed.get(deadline.timer) is deadline

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
