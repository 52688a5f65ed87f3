"""The timers of a process: alarm(2), setitimer(2); `timers_of` makes them when first used.

ITIMER_REAL sends SIGALRM and starts anew only when that signal is taken (posixtimer_rearm_itimer in
Linux), so a process that does not look cannot make the kernel busy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.resource import RLIM_INFINITY, RLIMIT_CPU
from sentry.abi.signal import SIGALRM, SIGPROF, SIGVTALRM
from sentry.abi.time import ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL
from sentry.ahead import mypyc_attr
from sentry.clock import MAX_NS
from sentry.kernel import signal_send
from sentry.kernel.clocks import CpuClock, task_time
from sentry.kernel.cpu_timers import CpuTimer, CpuTimers
from sentry.kernel.signals import SigInfo

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.wait.fiber import Timer

MANY = 512
TICK_NS = 4_000_000
"""What a CPU timer shows that is due but not noticed yet: one tick."""


class CpuInterval:
    """ITIMER_VIRTUAL or ITIMER_PROF."""

    __slots__ = ("_cpu", "_group", "_signo", "_timer", "_used", "interval_ns")

    def __init__(self, group: ThreadGroup, cpu: CpuTimers, signo: int, user_only: bool) -> None:
        self._group = group
        self._cpu = cpu
        self._signo = signo
        self._timer = CpuTimer(CpuClock(group, None, user_only), self._fired)
        self._used: dict[int, int] = {}
        """CPU time of each thread by tid, at the last expiry."""
        self.interval_ns = 0

    @property
    def at_ns(self) -> int:
        """When it expires, on its clock; 0: it is not set."""
        return self._timer.at_ns

    def get(self) -> tuple[int, int]:
        """(interval, time left) in ns."""
        if not self._timer.at_ns:
            return self.interval_ns, 0
        left = self._timer.at_ns - self._timer.clock.now_ns()
        return self.interval_ns, left if left > 0 else TICK_NS

    def set(self, interval_ns: int, value_ns: int) -> None:
        """Start, or stop with 0."""
        self.interval_ns = interval_ns
        if value_ns:
            self._busiest()
            self._cpu.arm(self._timer, self._timer.clock.now_ns() + value_ns)
        else:
            self._timer.at_ns = 0
            self._cpu.disarm(self._timer)

    def restore(self, at_ns: int, interval_ns: int) -> None:
        """As another one was, whose clock this one's goes on from."""
        self.interval_ns = interval_ns
        if at_ns:
            self._busiest()
            self._cpu.arm(self._timer, at_ns)

    def _fired(self) -> None:
        if self.interval_ns:
            behind = self._timer.clock.now_ns() - self._timer.at_ns
            self._cpu.arm(
                self._timer, self._timer.at_ns + (behind // self.interval_ns + 1) * self.interval_ns
            )
        else:
            self._timer.at_ns = 0
        info = SigInfo.kernel(self._signo)
        signal_send.send_to_group(self._group, info, first=self._busiest())

    def _busiest(self) -> Task | None:
        """The thread that has run most since the last time: the one that Linux's tick finds.

        Among thousands nobody looks for it.
        """
        if len(self._group.tasks) > MANY:
            return None
        living = [task for task in self._group.tasks if not task.dead]
        before = self._used
        self._used = {t.tid: task_time(t, self._timer.clock.user_only) for t in living}
        return max(living, key=lambda t: self._used[t.tid] - before.get(t.tid, 0), default=None)


@mypyc_attr(allow_interpreted_subclasses=True)
class Timers:
    """All interval timers of one process, and its deadlines in CPU time."""

    __slots__ = ("_at_ns", "_group", "_interval_ns", "_wall", "cpu", "prof", "virtual")

    def __init__(self, group: ThreadGroup) -> None:
        self._group = group
        self.cpu = CpuTimers(group)
        self.virtual = CpuInterval(group, self.cpu, SIGVTALRM, True)
        self.prof = CpuInterval(group, self.cpu, SIGPROF, False)
        self._wall: Timer | None = None
        self._at_ns = 0
        self._interval_ns = 0

    def cancel(self) -> None:
        """The process has ended."""
        self.set_real(0, 0)
        self.cpu.cancel()

    def get(self, which: int) -> tuple[int, int]:
        """getitimer(2): (interval, time left) in ns."""
        if which == ITIMER_REAL:
            if self._wall is None:
                return self._interval_ns, 0
            return self._interval_ns, max(self._at_ns - self._group.kernel.clock.now_ns(), 1000)
        return {ITIMER_VIRTUAL: self.virtual, ITIMER_PROF: self.prof}[which].get()

    def real(self) -> tuple[int, int, bool] | None:
        """ITIMER_REAL for a snapshot: when on CLOCK_MONOTONIC, the interval, and whether that was
        already: the next period counts from it once the signal is taken. None: it is not set."""
        expired = self._wall is None
        if expired and not self._interval_ns:
            return None
        return self._at_ns, self._interval_ns, expired

    def restore_real(self, at_ns: int, interval_ns: int, expired: bool) -> None:
        """What `real` has told of another one."""
        self._interval_ns = interval_ns
        if expired:
            self._at_ns = at_ns
        else:
            self._start(at_ns)

    def set(self, which: int, interval_ns: int, value_ns: int) -> None:
        """setitimer(2)."""
        if which == ITIMER_REAL:
            self.set_real(interval_ns, value_ns)
        else:
            {ITIMER_VIRTUAL: self.virtual, ITIMER_PROF: self.prof}[which].set(interval_ns, value_ns)

    def set_real(self, interval_ns: int, value_ns: int) -> None:
        """ITIMER_REAL."""
        if self._wall is not None:
            self._wall.cancel()
            self._wall = None
        self._interval_ns = interval_ns
        if value_ns:
            self._start(self._group.kernel.clock.now_ns() + value_ns)
        else:
            self._interval_ns = 0

    def _start(self, at_ns: int) -> None:
        self._at_ns = min(at_ns, MAX_NS)
        self._wall = self._group.kernel.clock.call_at(self._at_ns, self._expired)

    def _expired(self) -> None:
        self._wall = None
        signal_send.send_to_group(self._group, SigInfo.kernel(SIGALRM))

    def alarm_taken(self) -> None:
        """A SIGALRM of the process was taken: the next period of ITIMER_REAL begins."""
        if self._wall is not None or not self._interval_ns:
            return
        behind = self._group.kernel.clock.now_ns() - self._at_ns
        self._start(self._at_ns + (behind // self._interval_ns + 1) * self._interval_ns)


def timers_of(group: ThreadGroup) -> Timers:
    """The timers of a process, made when first asked for."""
    timers = group.timers
    if timers is None:
        timers = group.timers = Timers(group)
    assert isinstance(timers, Timers)
    return timers


def watch_cpu_limit(group: ThreadGroup) -> None:
    """RLIMIT_CPU of a process is new (fork) or has changed (prlimit)."""
    if group.timers is not None or group.limits.soft(RLIMIT_CPU) != RLIM_INFINITY:
        timers_of(group).cpu.watch_limit()
