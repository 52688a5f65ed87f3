"""Reading clocks and sleeping: clock_gettime(2), nanosleep(2), times(2), adjtimex(2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from sentry.abi.time import (
    ADJ_OFFSET_SINGLESHOT,
    ADJ_OFFSET_SS_READ,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME,
    CLOCK_THREAD_CPUTIME_ID,
    STA_NANO,
    STA_UNSYNC,
    TIME_ERROR,
    TIMER_ABSTIME,
    TIMESPEC,
    TIMEX,
    TIMEZONE,
    TMS,
)
from sentry.errors import EINVAL, EOPNOTSUPP, EPERM
from sentry.kernel import clocks, timers
from sentry.kernel.clocks import MAX_NS, NS, CpuClock
from sentry.kernel.cpu_timers import CpuTimer
from sentry.kernel.task import Task
from sentry.syscalls.args import StructOut, show_choice, signed, struct_out
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import (
    Addr,
    Int,
    TimespecIn,
    TimespecOut,
    TimevalInOrNull,
    TimevalOut,
)
from sentry.wait.fiber import Interrupted, Mode, RestartBlock, RestartNoHand, park, this_fiber

Clock = Annotated[
    int,
    signed(
        32,
        show_choice(
            {"CLOCK_REALTIME": 0, "CLOCK_MONOTONIC": 1, "CLOCK_PROCESS_CPUTIME_ID": 2,
             "CLOCK_THREAD_CPUTIME_ID": 3, "CLOCK_MONOTONIC_RAW": 4, "CLOCK_REALTIME_COARSE": 5,
             "CLOCK_MONOTONIC_COARSE": 6, "CLOCK_BOOTTIME": 7, "CLOCK_TAI": 11}
        ),
    ),
]  # fmt: skip
TmsOut = Annotated[StructOut, struct_out(TMS)]

TICK_NS = 10**7
"""USER_HZ is 100."""
TICK_US = 10000


def renew_vdso(task: Task) -> None:
    """The vDSO makes the call when its clock page is too old: give it a new one."""
    vdso = getattr(task.kernel.platform, "vdso", None)
    if vdso is not None:
        vdso.refresh()


@syscall(228)
def sys_clock_gettime(task: Task, clock: Clock, result: TimespecOut) -> None:
    """clock_gettime(2): where the vDSO did not answer."""
    renew_vdso(task)
    result.put(*divmod(clocks.now_ns(task, clock), NS))


@syscall(229)
def sys_clock_getres(task: Task, clock: Clock, result: TimespecOut) -> None:
    """clock_getres(2)."""
    resolution = clocks.resolution_ns(task, clock)
    if result:
        result.put(*divmod(resolution, NS))


@syscall(227)
def sys_clock_settime(task: Task, clock: Clock, value: Addr) -> None:
    """clock_settime(2): the clocks are the host's."""
    if clock not in clocks.HOST_CLOCKS and clocks.cpu_clock(task, clock) is None:
        raise EINVAL(f"clock {clock}")
    if clock != CLOCK_REALTIME and clock >= 0:
        raise EINVAL(f"clock {clock} cannot be set")
    _duration(TIMESPEC.unpack(task.mm.read(value, TIMESPEC.size)))
    raise EPERM("the clock is the host's")


@syscall(96)
def sys_gettimeofday(task: Task, result: TimevalOut, zone: Addr) -> None:
    """gettimeofday(2)."""
    renew_vdso(task)
    if result:
        now = time.time_ns()
        result.put(now // NS, now % NS // 1000)
    if zone:
        task.mm.write(zone, bytes(TIMEZONE.size))


@syscall(164)
def sys_settimeofday(task: Task, value: TimevalInOrNull, zone: Addr) -> None:
    """settimeofday(2)."""
    if value is not None and not (0 <= value.tv_usec < 10**6 and value.tv_sec >= 0):
        raise EINVAL("time")
    if zone:
        task.mm.read(zone, TIMEZONE.size)
    raise EPERM("the clock is the host's")


@syscall(201)
def sys_time(task: Task, result: Addr) -> int:
    """time(2)."""
    renew_vdso(task)
    now = int(time.time())
    if result:
        task.mm.write(result, now.to_bytes(8, "little"))
    return now


@syscall(100)
def sys_times(task: Task, result: TmsOut) -> int:
    """times(2): clock ticks since some point in the past."""
    group = task.group
    if result:
        user = clocks.group_time(group, user_only=True)
        children = group.reaped_usage
        result.put(
            user // TICK_NS,
            (clocks.group_time(group) - user) // TICK_NS,
            children.user_ns // TICK_NS,
            children.sys_ns // TICK_NS,
        )
    return time.monotonic_ns() // TICK_NS


# Sleeping ----------------------------------------------------------------------------------------


def _duration(value: Any) -> int:
    if value.tv_sec < 0 or not 0 <= value.tv_nsec < NS:
        raise EINVAL("time")
    return int(value.tv_sec * NS + value.tv_nsec)


@syscall(35)
def sys_nanosleep(task: Task, request: TimespecIn, remaining: Addr) -> Any:
    """nanosleep(2)."""
    deadline_ns = min(task.kernel.loop.now_ns() + _duration(request), MAX_NS)
    return _sleep(task, deadline_ns, remaining)


@syscall(230)
def sys_clock_nanosleep(
    task: Task, clock: Clock, flags: Int, request: Addr, remaining: Addr
) -> Any:
    """clock_nanosleep(2): unknown flags are ignored."""
    if clock not in clocks.SLEEPABLE:
        cpu = None if clock in clocks.HOST_CLOCKS else clocks.cpu_clock(task, clock)
        if cpu is None and clock not in clocks.HOST_CLOCKS:
            raise EINVAL(f"clock {clock}")
        if cpu is None or clock == CLOCK_THREAD_CPUTIME_ID:
            raise EOPNOTSUPP(f"no sleep on clock {clock}")
    time_ns = _duration(TIMESPEC.unpack(task.mm.read(request, TIMESPEC.size)))
    absolute = bool(flags & TIMER_ABSTIME)
    if clock not in clocks.SLEEPABLE:
        cpu = clocks.cpu_clock(task, clock)
        assert cpu is not None
        if clock != CLOCK_PROCESS_CPUTIME_ID and cpu.task is task:
            raise EINVAL("a thread cannot sleep on its own CPU clock")
        return _sleep_cpu(task, cpu, time_ns if absolute else cpu.now_ns() + time_ns, absolute)
    if absolute:
        return _sleep_until(task, clock, time_ns)
    return _sleep(task, min(task.kernel.loop.now_ns() + time_ns, MAX_NS), remaining)


def _sleep(task: Task, deadline_ns: int, remaining: int) -> Coroutine[Any, Any, int] | int:
    """A relative sleep: what is left is told, and restart_syscall(2) goes on to the same point."""
    if deadline_ns <= task.kernel.loop.now_ns():
        return 0
    return _sleep_relative(task, deadline_ns, remaining)


async def _sleep_relative(task: Task, deadline_ns: int, remaining: int) -> int:
    try:
        while await park(Mode.INTERRUPTIBLE, deadline_ns):
            pass
    except Interrupted:
        left = deadline_ns - task.kernel.loop.now_ns()
        if left <= 0:
            return 0
        if remaining:
            task.mm.write(remaining, b"".join(v.to_bytes(8, "little") for v in divmod(left, NS)))
        raise RestartBlock(lambda: _sleep(task, deadline_ns, remaining)) from None
    return 0


async def _sleep_until(task: Task, clock: int, at_ns: int) -> int:
    """An absolute sleep, also when the wall clock is set meanwhile."""
    fiber = await this_fiber()
    queue = clocks.steps(task.kernel)
    entry = queue.add(fiber.wake)
    try:
        while task.kernel.loop.now_ns() < (deadline_ns := clocks.to_monotonic(clock, at_ns)):
            await park(Mode.INTERRUPTIBLE, deadline_ns)
    except Interrupted:
        raise RestartNoHand from None
    finally:
        queue.remove(entry)
    return 0


async def _sleep_cpu(task: Task, clock: CpuClock, at_ns: int, absolute: bool) -> int:
    """Until a CPU clock shows a time."""
    fiber = await this_fiber()
    timer = CpuTimer(clock, fiber.wake)
    cpu = timers.timers_of(clock.group).cpu
    try:
        while clock.now_ns() < at_ns:
            cpu.arm(timer, at_ns)
            await park()
    except Interrupted:
        if absolute:
            raise RestartNoHand from None
        again: Callable[[], Any] = lambda: _sleep_cpu(task, clock, at_ns, absolute)  # noqa: E731
        raise RestartBlock(again) from None
    finally:
        cpu.disarm(timer)
    return 0


# The discipline of the clock ---------------------------------------------------------------------


@syscall(159)
def sys_adjtimex(task: Task, timex: Addr) -> int:
    """adjtimex(2): may be read."""
    return _adjust(task, timex)


@syscall(305)
def sys_clock_adjtime(task: Task, clock: Clock, timex: Addr) -> int:
    """clock_adjtime(2)."""
    if clock not in clocks.HOST_CLOCKS and clocks.cpu_clock(task, clock) is None:
        raise EINVAL(f"clock {clock}")
    if clock != CLOCK_REALTIME:
        task.mm.read(timex, TIMEX.size)
        raise EOPNOTSUPP(f"clock {clock}")
    return _adjust(task, timex)


def _adjust(task: Task, addr: int) -> int:
    modes = TIMEX.unpack(task.mm.read(addr, TIMEX.size)).modes
    if modes & ADJ_OFFSET_SINGLESHOT == ADJ_OFFSET_SINGLESHOT:
        if modes != ADJ_OFFSET_SS_READ:
            raise EPERM("the clock is the host's")
    elif modes:
        raise EPERM("the clock is the host's")
    now = time.time_ns()
    task.mm.write(
        addr,
        TIMEX.pack(
            modes, 0, 0, 16_000_000, 16_000_000, STA_UNSYNC | STA_NANO, 7, 1, 32_768_000,
            now // NS, now % NS, TICK_US, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ),
    )  # fmt: skip
    return TIME_ERROR
