"""Reading clocks and sleeping: clock_gettime(2), nanosleep(2), times(2), adjtimex(2)."""

from __future__ import annotations

import struct
from functools import partial
from typing import Annotated, Any, Final

from sentry.abi.capability import CAP_SYS_TIME
from sentry.abi.time import (
    ADJ_ESTERROR,
    ADJ_FREQUENCY,
    ADJ_MAXERROR,
    ADJ_MICRO,
    ADJ_NANO,
    ADJ_OFFSET,
    ADJ_OFFSET_SINGLESHOT,
    ADJ_OFFSET_SS_READ,
    ADJ_SETOFFSET,
    ADJ_STATUS,
    ADJ_TAI,
    ADJ_TICK,
    ADJ_TIMECONST,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME,
    CLOCK_THREAD_CPUTIME_ID,
    STA_NANO,
    STA_RONLY,
    STA_UNSYNC,
    TIME_ERROR,
    TIME_OK,
    TIMER_ABSTIME,
    TIMESPEC,
    TIMEX,
    TIMEZONE,
    TMS,
    Timex,
)
from sentry.clock import MAX_NS
from sentry.errors import EAGAIN, EINVAL, EOPNOTSUPP, EPERM
from sentry.kernel import clocks, timers
from sentry.kernel.clocks import NS, CpuClock
from sentry.kernel.cpu_timers import CpuTimer
from sentry.kernel.task import Task
from sentry.kernel.time_namespace import offset_ns, to_host_ns
from sentry.syscalls.args import StructOut, show_choice, signed, struct_out
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import (
    Addr,
    Int,
    OutAddr,
    TimespecIn,
    TimespecOut,
    TimevalInOrNull,
    TimevalOut,
)
from sentry.vfs.file import Result
from sentry.wait.again import Keeping, kept
from sentry.wait.fiber import Fiber, Interrupted, Mode, RestartBlock, RestartNoHand, TimedOut
from sentry.wait.queue import ALL
from sentry.wait.sleep import Sleep, Until, instead, never, no_hand, until

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

DEADLINE: Final = "deadline"
"""Key of the end of a sleep, where what is left of it could not be told yet."""
TICK_NS = 10**7
"""USER_HZ is 100."""
MAX_TAI_OFFSET = 100_000
MIN_TICK_US, TICK_US, MAX_TICK_US = 9000, 10000, 11000
MAX_MINUTES_WEST = 15 * 60
ADJ_ADJTIME = ADJ_OFFSET_SINGLESHOT & ~ADJ_OFFSET
"""The calls of old, adjtime(3): with ADJ_OFFSET, and perhaps only to look."""
ADJ_OFFSET_READONLY = ADJ_OFFSET_SS_READ & ~ADJ_OFFSET_SINGLESHOT
TIMEX_MODES = {
    ADJ_OFFSET: "offset", ADJ_FREQUENCY: "freq", ADJ_MAXERROR: "maxerror",
    ADJ_ESTERROR: "esterror", ADJ_TIMECONST: "constant", ADJ_TICK: "tick",
}  # fmt: skip
TIMEX_AT_START = {
    "offset": 0, "freq": 0, "maxerror": 16_000_000, "esterror": 16_000_000, "constant": 7,
    "tick": TICK_US, "status": STA_UNSYNC | STA_NANO, "tai": 0,
}  # fmt: skip


def renew_vdso(task: Task) -> None:
    """The vDSO makes the call when its clock page is too old: give it a new one."""
    vdso = task.kernel.platform.vdso
    if vdso is not None:
        vdso.refresh()


@syscall(228)
def sys_clock_gettime(task: Task, clock: Clock, result: OutAddr) -> None:
    """clock_gettime(2): where the vDSO did not answer."""
    vdso = task.kernel.platform.vdso
    now_ns = vdso.now_ns(clock) if vdso is not None else -1
    if now_ns < 0 and vdso is not None:
        vdso.refresh()
        now_ns = vdso.now_ns(clock)
    if now_ns < 0:
        now_ns = clocks.now_ns(task, clock)
    if not task.ns.time.is_first:
        now_ns += offset_ns(task, clock)
    task.mm.write(result, TIMESPEC.pack(*divmod(now_ns, NS)))


@syscall(229)
def sys_clock_getres(task: Task, clock: Clock, result: TimespecOut) -> None:
    """clock_getres(2)."""
    resolution = clocks.resolution_ns(task, clock)
    if result:
        result.put(*divmod(resolution, NS))


@syscall(227)
def sys_clock_settime(task: Task, clock: Clock, value: Addr) -> None:
    """clock_settime(2): the clocks are the host's."""
    if clock != CLOCK_REALTIME and clock >= 0:
        raise EINVAL(f"clock {clock} cannot be set")
    time = TIMESPEC.unpack(task.mm.read(value, TIMESPEC.size))
    if clock < 0:
        clocks.cpu_clock(task, clock)
        raise EPERM("a CPU clock")
    _duration(time)
    raise EPERM("the clock is the host's")


@syscall(96)
def sys_gettimeofday(task: Task, result: TimevalOut, zone: Addr) -> None:
    """gettimeofday(2)."""
    renew_vdso(task)
    if result:
        now = task.kernel.clock.wall_ns()
        result.put(now // NS, now % NS // 1000)
    if zone:
        task.mm.write(zone, bytes(TIMEZONE.size))


@syscall(164)
def sys_settimeofday(task: Task, value: TimevalInOrNull, zone: Addr) -> None:
    """settimeofday(2)."""
    if value is not None and not (0 <= value.tv_usec < 10**6 and value.tv_sec >= 0):
        raise EINVAL("time")
    west = 0
    if zone:
        west, _ = struct.unpack("<ii", task.mm.read(zone, TIMEZONE.size))
    if not task.creds.has(CAP_SYS_TIME):
        raise EPERM("CAP_SYS_TIME")
    if abs(west) > MAX_MINUTES_WEST:
        raise EINVAL(f"{west} minutes west")
    if value is not None or zone:
        raise EPERM("the clock is the host's")


@syscall(201)
def sys_time(task: Task, result: Addr) -> int:
    """time(2)."""
    renew_vdso(task)
    now = task.kernel.clock.wall_ns() // NS
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
    return task.kernel.clock.now_ns() // TICK_NS


# Sleeping ----------------------------------------------------------------------------------------


def _duration(value: Any) -> int:
    if value.tv_sec < 0 or not 0 <= value.tv_nsec < NS:
        raise EINVAL("time")
    return int(value.tv_sec * NS + value.tv_nsec)


@syscall(35)
def sys_nanosleep(task: Task, request: TimespecIn, remaining: Addr) -> Any:
    """nanosleep(2)."""
    at_ns = min(task.kernel.clock.now_ns() + _duration(request), MAX_NS)
    return _sleep(task, kept(DEADLINE) or at_ns, remaining)


@syscall(230)
def sys_clock_nanosleep(
    task: Task, clock: Clock, flags: Int, request: Addr, remaining: Addr
) -> Any:
    """clock_nanosleep(2): unknown flags are ignored."""
    sleepable = clock in clocks.SLEEPABLE or clock in clocks.ALARMS
    if not sleepable and clock >= 0 and clock != CLOCK_PROCESS_CPUTIME_ID:
        known = clock in clocks.HOST_CLOCKS or clock == CLOCK_THREAD_CPUTIME_ID
        raise (EOPNOTSUPP if known else EINVAL)(f"no sleep on clock {clock}")
    if clocks.is_dynamic(clock):
        raise EOPNOTSUPP(f"no sleep on clock {clock}")
    time_ns = _duration(TIMESPEC.unpack(task.mm.read(request, TIMESPEC.size)))
    absolute = bool(flags & TIMER_ABSTIME)
    if clock in clocks.ALARMS:
        raise EOPNOTSUPP("no clock could wake the machine")
    if not sleepable:
        cpu = clocks.cpu_clock(task, clock)
        assert cpu is not None
        if clock != CLOCK_PROCESS_CPUTIME_ID and cpu.task is task:
            raise EINVAL("a thread cannot sleep on its own CPU clock")
        if absolute:
            return CpuSleep(cpu, time_ns).ended(no_hand) if cpu.now_ns() < time_ns else 0
        at_ns = kept(DEADLINE) or cpu.now_ns() + time_ns
        return _sleep_cpu(task, clock & 0xFFFFFFFF, at_ns, remaining)
    if absolute:
        return _sleep_until(task, clock, to_host_ns(task, clock, time_ns))
    at_ns = min(task.kernel.clock.now_ns() + time_ns, MAX_NS)
    return _sleep(task, kept(DEADLINE) or at_ns, remaining)


def _sleep(task: Task, deadline_ns: int, remaining: int) -> Result:
    """A relative sleep: what is left is told, and restart_syscall(2) goes on to the same point."""
    if deadline_ns <= task.kernel.clock.now_ns():
        return 0

    def interrupted() -> int | RestartBlock:
        left = deadline_ns - task.kernel.clock.now_ns()
        if left <= 0:
            return 0
        if remaining:
            with Keeping(DEADLINE, deadline_ns):
                task.mm.write(remaining, TIMESPEC.pack(*divmod(left, NS)))
        return RestartBlock(partial(_sleep, task, deadline_ns, remaining))

    sleep = until(never, (), deadline_ns=deadline_ns).tried().timed_by_programs()
    return sleep.ended(instead(TimedOut, int)).ended(instead(Interrupted, interrupted))


def _sleep_until(task: Task, clock: int, at_ns: int) -> Result:
    sleep = ClockSleep(task, clock, at_ns)
    try:
        return sleep.attempt()
    except EAGAIN:
        return sleep.tried()


class ClockSleep(Until):
    """Until a clock shows a time, also when it is set meanwhile."""

    __slots__ = ("_at_ns", "_clock_of_programs", "_id")

    def __init__(self, task: Task, clock: int, at_ns: int) -> None:
        queues = (task.kernel.services.clock_steps,)
        super().__init__(never, queues, ALL, None, Mode.INTERRUPTIBLE, False)
        self._id = clock
        self._at_ns = at_ns
        self._clock_of_programs = task.kernel.clock
        self.in_program_time = True

    def attempt(self) -> int:
        """Whether it is late enough. Raises: EAGAIN."""
        programs = self._clock_of_programs
        self.deadline_ns = clocks.to_monotonic(programs, self._id, self._at_ns)
        if programs.now_ns() < self.deadline_ns:
            raise EAGAIN
        return 0

    def failed(self, error: BaseException) -> int:
        """The deadline is what it waits for; a signal leaves an absolute time where it was."""
        if isinstance(error, TimedOut):
            return 0
        raise RestartNoHand if isinstance(error, Interrupted) else error


class CpuSleep(Sleep):
    """Until a CPU clock shows a time."""

    __slots__ = ("_at_ns", "_cpu", "_cpu_clock", "_cpu_timer")

    def __init__(self, clock: CpuClock, at_ns: int) -> None:
        super().__init__()
        self._cpu_clock = clock
        self._at_ns = at_ns
        self._cpu = timers.timers_of(clock.group).cpu
        self._cpu_timer: CpuTimer | None = None

    def enter(self, fiber: Fiber) -> None:
        """The timer wakes it."""
        self._cpu_timer = CpuTimer(self._cpu_clock, fiber.wake)
        self._cpu.arm(self._cpu_timer, self._at_ns)

    def attempt(self) -> int:
        """Whether it is late enough. Raises: EAGAIN."""
        if self._cpu_clock.now_ns() >= self._at_ns:
            return 0
        assert self._cpu_timer is not None
        self._cpu.arm(self._cpu_timer, self._at_ns)
        raise EAGAIN

    def leave(self) -> None:
        """No timer is armed any more."""
        if self._cpu_timer is not None:
            self._cpu.disarm(self._cpu_timer)
            self._cpu_timer = None


def _sleep_cpu(task: Task, clock: int, at_ns: int, remaining: int) -> Result:
    """A relative sleep on the clock with this id, of 32 bits: as `_sleep`."""
    cpu = clocks.cpu_clock(task, clock - (1 << 32) if clock >> 31 else clock)
    if cpu is None:
        raise EINVAL(f"clock {clock}")
    if cpu.now_ns() >= at_ns:
        return 0

    def interrupted() -> int | RestartBlock:
        left_ns = at_ns - cpu.now_ns()
        if left_ns <= 0:
            return 0
        if remaining:
            with Keeping(DEADLINE, at_ns):
                task.mm.write(remaining, TIMESPEC.pack(*divmod(left_ns, NS)))
        return RestartBlock(partial(_sleep_cpu, task, clock, at_ns, remaining))

    return CpuSleep(cpu, at_ns).ended(instead(Interrupted, interrupted))


# The discipline of the clock ---------------------------------------------------------------------


@syscall(159)
def sys_adjtimex(task: Task, timex: Addr) -> int:
    """adjtimex(2): what CAP_SYS_TIME sets is kept and reported; the clock is the host's."""
    return _adjust(task, timex)


@syscall(305)
def sys_clock_adjtime(task: Task, clock: Clock, timex: Addr) -> int:
    """clock_adjtime(2)."""
    if clock >= 0 and clock not in clocks.HOST_CLOCKS and clock not in clocks.OWN_CPU_CLOCKS:
        raise EINVAL(f"clock {clock}")
    if clock != CLOCK_REALTIME:
        task.mm.read(timex, TIMEX.size)
        raise (EINVAL if clocks.is_dynamic(clock) else EOPNOTSUPP)(f"clock {clock}")
    return _adjust(task, timex)


def _check_adjustment(task: Task, asked: Timex) -> None:
    """timekeeping_validate_timex(), kernel/time/timekeeping.c. EINVAL, EPERM."""
    modes, capable = asked.modes, task.creds.has(CAP_SYS_TIME)
    if modes & ADJ_ADJTIME:
        if not modes & ADJ_OFFSET:
            raise EINVAL("ADJ_ADJTIME without ADJ_OFFSET_SINGLESHOT")
        if not modes & ADJ_OFFSET_READONLY and not capable:
            raise EPERM("CAP_SYS_TIME")
    else:
        if modes and not capable:
            raise EPERM("CAP_SYS_TIME")
        if modes & ADJ_TICK and not MIN_TICK_US <= asked.tick <= MAX_TICK_US:
            raise EINVAL(f"tick {asked.tick}")
    if modes & ADJ_SETOFFSET:
        if not capable:
            raise EPERM("CAP_SYS_TIME")
        if not 0 <= asked.time_tv_usec < (NS if modes & ADJ_NANO else 10**6):
            raise EINVAL("time")
        raise EPERM("the clock is the host's")


def _adjust(task: Task, addr: int) -> int:
    asked = TIMEX.unpack(task.mm.read(addr, TIMEX.size))
    _check_adjustment(task, asked)
    modes = asked.modes
    kept = task.kernel.services.timex
    if not kept:
        kept.update(TIMEX_AT_START)
    if not modes & ADJ_ADJTIME:
        for bit, name in TIMEX_MODES.items():
            if modes & bit:
                kept[name] = getattr(asked, name)
        if modes & ADJ_STATUS:
            kept["status"] = asked.status & ~STA_RONLY | kept["status"] & STA_RONLY
        if modes & ADJ_NANO:
            kept["status"] |= STA_NANO
        if modes & ADJ_MICRO:
            kept["status"] &= ~STA_NANO
        if modes & ADJ_TAI and 0 <= asked.constant <= MAX_TAI_OFFSET:
            kept["tai"] = asked.constant
    now = task.kernel.clock.wall_ns()
    part = now % NS if kept["status"] & STA_NANO else now % NS // 1000
    offset = 0 if modes & ADJ_ADJTIME else kept["offset"]
    task.mm.write(
        addr,
        TIMEX.pack(
            modes, offset, kept["freq"], kept["maxerror"], kept["esterror"], kept["status"],
            kept["constant"], 1, 32_768_000, now // NS, part, kept["tick"],
            0, 0, 0, 0, 0, 0, 0, 0, kept["tai"],
        ),
    )  # fmt: skip
    return TIME_ERROR if kept["status"] & STA_UNSYNC else TIME_OK
