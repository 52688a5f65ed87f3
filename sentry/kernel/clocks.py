"""Clocks: which there are, what time they show, and what their time is on the kernel's own clock.

Programs sleep on CLOCK_MONOTONIC as they see it (sentry.clock), which is the host's unless somebody
outside has shaped it. The wall clock cannot be set from inside. CPU clocks count what vCPU threads
ran for a task, and its dispatch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sentry.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    CLOCK_REALTIME_COARSE,
    CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID,
)
from sentry.clock import MAX_NS
from sentry.errors import EINVAL

if TYPE_CHECKING:
    from sentry.clock import ProgramClock
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup

NS: Final = 10**9
HOST_CLOCKS: Final = {
    CLOCK_REALTIME: time.CLOCK_REALTIME,
    CLOCK_MONOTONIC: time.CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_RAW: time.CLOCK_MONOTONIC_RAW,
    CLOCK_REALTIME_COARSE: 5,
    CLOCK_MONOTONIC_COARSE: 6,
    CLOCK_BOOTTIME: time.CLOCK_BOOTTIME,
    CLOCK_REALTIME_ALARM: time.CLOCK_REALTIME,
    CLOCK_BOOTTIME_ALARM: time.CLOCK_BOOTTIME,
    CLOCK_TAI: time.CLOCK_TAI,
}
COARSE: Final = (CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE)
WITHOUT_TIMERS: Final = (*COARSE, CLOCK_MONOTONIC_RAW)
COARSE_RESOLUTION_NS: Final = 4_000_000
"""A tick at CONFIG_HZ=250."""
ALARMS: Final = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
WALL_CLOCKS: Final = (CLOCK_REALTIME, CLOCK_TAI)
OWN_CPU_CLOCKS: Final = (CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID)
SLEEPABLE: Final = (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI)

# a negative clock id is (~pid << 3) | per-thread bit | kind: include/linux/posix-timers.h
PER_THREAD: Final = 4
FD_CLOCK, FD_CLOCK_MASK = 3, 7
"""Ids of dynamic clocks (a descriptor of /dev/ptp0), of which there are none."""
PROF, VIRT, SCHED = 0, 1, 2
_USER_ONLY = {PROF: False, VIRT: True, SCHED: False}


class CpuClock:
    """The CPU time of a thread or of a process: `user_only` for the kind VIRT."""

    __slots__ = ("group", "task", "user_only")

    def __init__(self, group: ThreadGroup, task: Task | None, user_only: bool) -> None:
        self.group = group
        self.task = task
        self.user_only = user_only

    @property
    def key(self) -> tuple[Task | None, bool]:
        """The same for those that show the same, of one process."""
        return self.task, self.user_only

    def now_ns(self) -> int:
        """What it shows."""
        if self.task is not None:
            return task_time(self.task, self.user_only)
        return group_time(self.group, self.user_only)

    @property
    def gone(self) -> bool:
        """Whose time it is has ended, and was waited for."""
        if self.task is not None:
            return self.task.dead
        return self.group.kernel.pids.groups.get(self.group.tgid) is not self.group


class GoneClock(CpuClock):
    """That of somebody who was gone before a snapshot was made."""

    __slots__ = ()

    @property
    def gone(self) -> bool:
        """Always."""
        return True


def task_time(task: Task, user_only: bool = False) -> int:
    """CPU time of a thread in ns."""
    user = 0 if task.dead else task.ctx.cpu_time_ns()
    return user if user_only else user + task.sys_time_ns


def group_time(group: ThreadGroup, user_only: bool = False) -> int:
    """CPU time of a process in ns, its dead threads included."""
    user, system = group.cpu_ns()
    return user if user_only else user + system


def cpu_clock(task: Task, clock: int) -> CpuClock | None:
    """The CPU clock of an id; None when the id is no CPU clock. Raises: EINVAL."""
    if clock == CLOCK_PROCESS_CPUTIME_ID:
        return CpuClock(task.group, None, False)
    if clock == CLOCK_THREAD_CPUTIME_ID:
        return CpuClock(task.group, task, False)
    if clock >= 0:
        return None
    kind, pid = clock & 3, ~(clock >> 3)
    if kind not in _USER_ONLY:
        raise EINVAL(f"clock {clock}")
    user_only = _USER_ONLY[kind]
    pids = task.pids
    if clock & PER_THREAD:
        target = pids.task(pid) if pid else task
        if target is None or target.group is not task.group:
            raise EINVAL(f"no thread {pid}")
        return CpuClock(target.group, target, user_only)
    group = pids.group(pid) if pid else task.group
    if group is None:
        raise EINVAL(f"no process {pid}")
    return CpuClock(group, None, user_only)


def now_ns(task: Task, clock: int) -> int:
    """clock_gettime(2). Raises: EINVAL."""
    host = HOST_CLOCKS.get(clock)
    if host is not None:
        return task.kernel.clock.shown_ns(host)
    cpu = cpu_clock(task, clock)
    if cpu is None:
        raise EINVAL(f"clock {clock}")
    return cpu.now_ns()


def resolution_ns(task: Task, clock: int) -> int:
    """clock_getres(2). Raises: EINVAL."""
    if clock in COARSE:
        return COARSE_RESOLUTION_NS
    if clock not in HOST_CLOCKS and cpu_clock(task, clock) is None:
        raise EINVAL(f"clock {clock}")
    # what is not CPUCLOCK_SCHED is counted in ticks: posix_cpu_clock_getres()
    return COARSE_RESOLUTION_NS if clock < 0 and clock & 3 != SCHED else 1


def is_dynamic(clock: int) -> bool:
    """The id stands for a descriptor: clockid_to_kclock(), kernel/time/posix-timers.c."""
    return clock < 0 and clock & FD_CLOCK_MASK == FD_CLOCK


def to_monotonic(programs: ProgramClock, clock: int, at_ns: int) -> int:
    """The moment on CLOCK_MONOTONIC when a host clock will show `at_ns`, as things stand."""
    if clock != CLOCK_MONOTONIC:
        at_ns -= programs.distance_ns(HOST_CLOCKS[clock])
    return min(max(at_ns, 0), MAX_NS)


def wall_deadline(programs: ProgramClock, clock: int, at_ns: int) -> int:
    """The same, and never 0, which for a timer is none."""
    return max(1, to_monotonic(programs, clock, at_ns))
