"""The CPU quota of a container that is one of several in a sandbox.

That of the container that made the sandbox is kept by the host, in whose cgroup all of the sandbox
is. A further container's is kept here, as Linux's CFS bandwidth control does it
(Documentation/scheduler/sched-bwc.rst): who has used in a period what the quota gives stands still
until the period ends (`sentry.kernel.pause`), and what it has used beyond that is owed in the next.

It is looked at when it may have used all at the earliest, at the end of each period, and once in a
second while it does not run. So it has no more than the quota and what a look that comes late adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.kernel import pause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel

SHORTEST_NS: Final = 1_000_000
"""Between two looks."""
IDLE_NS: Final = 1_000_000_000
"""The same while it does not run."""


class Period:
    """One, of one container."""

    __slots__ = ("idle", "start_ns", "used_ns")

    def __init__(self, start_ns: int, used_ns: int, *, idle: bool = False) -> None:
        self.start_ns = start_ns
        self.used_ns = used_ns
        """Its CPU time at the start, less what it owes."""
        self.idle = idle


class CpuQuotas:
    """The looks at all containers that have a quota."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._periods: dict[Container, Period] = {}

    def look(self, exited: Sequence[Any]) -> None:
        """Called every so many exits, with the last ones."""
        if not self._kernel.further:
            return
        for context in exited:
            if context.owner is None:
                continue
            container = context.owner.group.container
            if not container.cpu_quota[0] or container is self._kernel.container:
                continue
            period = self._periods.get(container)
            if period is None or period.idle:
                now_ns = self._kernel.loop.now_ns()
                ran_ns = container.cpu_ns()
                self._begin(container, Period(now_ns, ran_ns), ran_ns)

    def _begin(self, container: Container, period: Period, ran_ns: int) -> None:
        self._periods[container] = period
        self._arm(container, period, ran_ns)

    def _arm(self, container: Container, period: Period, ran_ns: int) -> None:
        quota_us, period_us = container.cpu_quota
        loop = self._kernel.loop
        when = period.start_ns + (IDLE_NS if period.idle else period_us * 1000)
        if not period.idle and not container.throttled:
            left_ns = (quota_us * 1000 - (ran_ns - period.used_ns)) // self._kernel.cpus
            when = min(when, loop.now_ns() + max(left_ns, SHORTEST_NS))
        loop.call_at(when, lambda: self._look_at(container, period))

    def _look_at(self, container: Container, period: Period) -> None:
        if self._periods.get(container) is not period:
            return
        quota_ns, period_ns = (each * 1000 for each in container.cpu_quota)
        if not quota_ns or container not in self._kernel.further:
            del self._periods[container]
            pause.unthrottle(container)
            return
        now_ns, ran_ns = self._kernel.loop.now_ns(), container.cpu_ns()
        used_ns = ran_ns - period.used_ns
        if passed := (now_ns - period.start_ns) // period_ns:
            owed_ns = max(0, used_ns - quota_ns * passed)
            if owed_ns < quota_ns:
                pause.unthrottle(container)
            following = Period(now_ns, ran_ns - owed_ns, idle=not used_ns)
            self._begin(container, following, ran_ns)
            return
        if used_ns >= quota_ns:
            pause.throttle(container)
        self._arm(container, period, ran_ns)
