"""timer_create(2): timers of a process that send a signal, in wall or CPU time.

As in Linux a timer has at most one signal queued; a periodic one starts its next period when that
signal is taken, and the periods that went by meanwhile are its overruns. It rests while its signal
is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sentry.abi.signal import SIGEV_NONE
from sentry.clock import MAX_NS
from sentry.errors import ESRCH
from sentry.kernel import signal_send
from sentry.kernel.clocks import HOST_CLOCKS, WALL_CLOCKS, CpuClock, to_monotonic
from sentry.kernel.cpu_timers import CpuTimer
from sentry.kernel.signals import Quota, SigInfo
from sentry.kernel.timers import timers_of

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

OVERRUN_MAX = 0x7FFFFFFF


class Notify(Struct, frozen=True):
    """struct sigevent."""

    how: int
    signo: int
    value: int
    task: Task | None = None
    """SIGEV_THREAD_ID."""


class PosixTimer:
    """One timer. `clock` is a host clock's id or a CPU clock."""

    __slots__ = (
        "_at_ns", "_cpu", "_generation", "_group", "_pending", "_quota", "_rests", "_step",
        "_timer", "_uid", "absolute", "clock", "interval_ns", "notify", "number", "overrun",
        "overrun_last",
    )  # fmt: skip

    def __init__(
        self, group: ThreadGroup, number: int, clock: int | CpuClock, notify: Notify, charged: int
    ) -> None:
        self._group = group
        self.number = number
        self.clock = clock
        self.notify = notify
        self.interval_ns = 0
        self.overrun = 0
        self.overrun_last = 0
        self._at_ns = 0
        """When it expires, on its clock; 0: not set."""
        self.absolute = False
        """It was set to a point on its clock."""
        self._timer: Any = None
        self._step: Any = None
        """Registration with the steps of the wall clock."""
        self._cpu = CpuTimer(clock, self._expired) if isinstance(clock, CpuClock) else None
        self._pending = False
        """Its signal is queued."""
        self._rests = False
        """Its signal was ignored."""
        self._generation = 0
        self._quota: Quota = group.kernel.services.signal_quota
        self._uid = charged

    def _now(self) -> int:
        if isinstance(self.clock, CpuClock):
            return self.clock.now_ns()
        programs = self._group.kernel.clock
        return programs.now_ns() + programs.distance_ns(HOST_CLOCKS[self.clock])

    # Setting -------------------------------------------------------------------------------------

    def get(self) -> tuple[int, int]:
        """(interval, time left) in ns; a period that nobody has seen the end of is the next one."""
        if isinstance(self.clock, CpuClock) and self.clock.gone:
            return 0, 0
        if not self._at_ns:
            return self.interval_ns, 0
        left = self._at_ns - self._now()
        if left <= 0 and self.interval_ns:
            left += (-left // self.interval_ns + 1) * self.interval_ns
        elif left <= 0:  # it is over once its signal is queued: common_timer_get()
            return 0, 0 if self._pending or self.notify.how == SIGEV_NONE else 1
        return self.interval_ns, left

    def set(self, interval_ns: int, value_ns: int, absolute: bool) -> None:
        """Start with a time from now or a point on its clock; 0 stops it.

        Raises: ESRCH, a process whose CPU time it counts is gone.
        """
        if isinstance(self.clock, CpuClock) and self.clock.gone:
            raise ESRCH("whose clock it is has ended")
        self._stop()
        self._forget_step()
        self._generation += 1
        self._rests = False
        self.interval_ns = interval_ns if value_ns else 0
        self.overrun = self.overrun_last = 0
        self._at_ns = 0
        if value_ns:
            self._at_ns = value_ns if absolute else self._now() + value_ns
            self.absolute = absolute
            self._follow_steps()
            self._start()

    @property
    def left_ns(self) -> int:
        """Until it expires; less than 0: since it has. Preconditions: it is set."""
        return self._at_ns - self._now()

    def restore(self, at_ns: int, left_ns: int | None, rests: bool) -> None:
        """As another one was: at a point on its clock, or (`left_ns`) in so long."""
        self._at_ns = at_ns
        self.absolute = left_ns is None
        if left_ns is not None:
            self._at_ns = min(max(self._now() + left_ns, 1), MAX_NS)
        self._rests = rests
        if at_ns:
            self._follow_steps()
            if not rests:
                self._start()  # one whose signal was queued expires again at once

    def _follow_steps(self) -> None:
        if self.absolute and self.clock in WALL_CLOCKS:
            self._step = self._group.kernel.services.clock_steps.add(self._clock_was_set)

    def delete(self) -> None:
        """It is gone."""
        self._stop()
        self._cpu = None
        self._forget_step()
        self._at_ns = 0
        self._rests = False
        self._generation += 1
        self._quota.give(self._uid)
        self._group.posix_timers.pop(self.number, None)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._cpu is not None:
            timers_of(self._cpu.clock.group).cpu.disarm(self._cpu)

    def _clock_was_set(self, _events: int) -> None:
        if self._timer is not None:
            self._stop()
            self._start()

    def _forget_step(self) -> None:
        if self._step is not None:
            self._group.kernel.services.clock_steps.remove(self._step)
            self._step = None

    def _start(self) -> None:
        if self.notify.how == SIGEV_NONE:
            return
        if self._cpu is not None:
            whose = self._cpu.clock.group
            if not whose.is_zombie:
                timers_of(whose).cpu.arm(self._cpu, self._at_ns)
        else:
            assert isinstance(self.clock, int)
            programs = self._group.kernel.clock
            at_ns = to_monotonic(programs, self.clock, self._at_ns)
            self._timer = programs.call_at(at_ns, self._expired)

    # Expiry --------------------------------------------------------------------------------------

    def _expired(self) -> None:
        self._timer = None
        if self._pending:
            self.overrun = min(self.overrun + 1, OVERRUN_MAX)
            return
        generation = self._generation
        self._pending = True
        info = SigInfo.timer(self.notify.signo, self.number, 0, self.notify.value)
        sent = signal_send.send_timer(
            self._group, self.notify.task, info, lambda taken: self._taken(taken, generation)
        )
        if not sent:
            self.ignored()

    @property
    def signo(self) -> int:
        """What it sends; 0: nothing."""
        return 0 if self.notify.how == SIGEV_NONE else self.notify.signo

    def ignored(self) -> None:
        """Nobody wants its signal, also if it is queued: posixtimer_sig_ignore()."""
        if self._pending:
            self._pending = False
            self._generation += 1
            self._rests = bool(self.interval_ns)
            if not self.interval_ns:
                self._at_ns = 0

    def wanted(self) -> None:
        """Somebody does: posixtimer_sig_unignore()."""
        if self._rests:
            self._rests = False
            self._expired()

    def _taken(self, info: SigInfo, generation: int) -> SigInfo:
        """The signal is being delivered: count the overruns, begin the next period."""
        self._pending = False
        if generation != self._generation:
            return info
        self._forward()
        self.overrun_last, self.overrun = self.overrun, 0
        return SigInfo.timer(info.signo, self.number, self.overrun_last, self.notify.value)

    def _forward(self) -> None:
        step = self.interval_ns
        if not step:
            self._at_ns = 0
            return
        missed = max(self._now() - self._at_ns, 0) // step
        self.overrun = min(self.overrun + missed, OVERRUN_MAX)
        self._at_ns += (missed + 1) * step
        self._start()
