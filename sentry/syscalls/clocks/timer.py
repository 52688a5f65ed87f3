"""Timers: setitimer(2), alarm(2), timer_create(2), timerfd_create(2)."""

from __future__ import annotations

import struct
from typing import Annotated, Any, Final

from sentry.abi import time as abi
from sentry.abi.capability import CAP_WAKE_ALARM
from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.resource import RLIMIT_NOFILE, RLIMIT_SIGPENDING
from sentry.abi.signal import SIGALRM, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID
from sentry.abi.time import (
    ITIMER_REAL,
    ITIMERSPEC,
    TFD_CLOEXEC,
    TFD_NONBLOCK,
    TFD_TIMER_ABSTIME,
    TFD_TIMER_CANCEL_ON_SET,
    TIMER_ABSTIME,
)
from sentry.clock import MAX_NS
from sentry.errors import EAGAIN, EFAULT, EINVAL, EOPNOTSUPP, EPERM
from sentry.fs.timerfd import CLOCKS, WALL_CLOCKS, TimerFile
from sentry.kernel import clocks
from sentry.kernel.clocks import NS
from sentry.kernel.posix_timers import Notify, PosixTimer
from sentry.kernel.signals import NSIG
from sentry.kernel.task import Task
from sentry.kernel.time_namespace import to_host_ns
from sentry.kernel.timers import timers_of
from sentry.syscalls.args import flags, show_choice, show_flags, signed
from sentry.syscalls.clocks.time import Clock
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import (
    Addr,
    Fd,
    Int,
    ItimerspecOut,
    ItimervalInOrNull,
    ItimervalOut,
    UInt,
)
from sentry.wait.again import Keeping, kept

Which = Annotated[
    int, signed(32, show_choice({"ITIMER_REAL": 0, "ITIMER_VIRTUAL": 1, "ITIMER_PROF": 2}))
]
TimerfdFlags = Annotated[
    int,
    flags(
        TFD_CLOEXEC | TFD_NONBLOCK,
        show_flags({"TFD_CLOEXEC": TFD_CLOEXEC, "TFD_NONBLOCK": TFD_NONBLOCK}),
    ),
]
SetFlags = Annotated[
    int, signed(32, show_flags({n: v for n, v in vars(abi).items() if n.startswith("TFD_TIMER")}))
]

_sigevent = struct.Struct("<QiiI44x")
OLD: Final = "old"
"""Key of what was before, where it could not be told yet."""
US = 1000
MAX_TIMERS = 1 << 16
MAX_TIMER = (1 << 31) - 1
"""The highest number: posix_timer_add() goes on behind the last one that it gave."""
"""Timers of one process; RLIMIT_SIGPENDING usually ends it before."""


# Interval timers ---------------------------------------------------------------------------------


def _put_itimer(out: Any, interval_ns: int, value_ns: int) -> None:
    out.put(interval_ns // NS, interval_ns % NS // US, value_ns // NS, value_ns % NS // US)


@syscall(36)
def sys_getitimer(task: Task, which: Which, result: ItimervalOut) -> None:
    """getitimer(2)."""
    if not 0 <= which <= 2:
        raise EINVAL(f"timer {which}")
    _put_itimer(result, *timers_of(task.group).get(which))


@syscall(38)
def sys_setitimer(task: Task, which: Which, new: ItimervalInOrNull, old: ItimervalOut) -> None:
    """setitimer(2): a null pointer stops the timer."""
    interval_ns = value_ns = 0
    if new is not None:
        for sec, usec in (new[:2], new[2:]):
            if sec < 0 or not 0 <= usec < 10**6:
                raise EINVAL("time")
        interval_ns = new.it_interval_tv_sec * NS + new.it_interval_tv_usec * US
        value_ns = new.it_value_tv_sec * NS + new.it_value_tv_usec * US
    if not 0 <= which <= 2:
        raise EINVAL(f"timer {which}")
    was = kept(OLD)
    if was is None:
        timers = timers_of(task.group)
        was = timers.get(which)
        timers.set(which, interval_ns, value_ns)
    if old:
        with Keeping(OLD, was):
            _put_itimer(old, *was)


@syscall(37)
def sys_alarm(task: Task, seconds: UInt) -> int:
    """alarm(2): gives the seconds that were left, rounded, but not to 0."""
    timers = timers_of(task.group)
    _, left = timers.get(ITIMER_REAL)
    timers.set(ITIMER_REAL, 0, seconds * NS)
    return max(1, (left + NS // 2) // NS) if left else 0


# POSIX timers ------------------------------------------------------------------------------------


def _find(task: Task, number: int) -> PosixTimer:
    timer = task.group.posix_timers.get(number)
    if not isinstance(timer, PosixTimer):
        raise EINVAL(f"timer {number}")
    return timer


@syscall(222)
def sys_timer_create(task: Task, clock: Clock, event: Addr, result: Addr) -> None:
    """timer_create(2)."""
    fields = _sigevent.unpack(task.mm.read(event, _sigevent.size)) if event else None
    if clocks.is_dynamic(clock) or clock in clocks.WITHOUT_TIMERS:
        raise EOPNOTSUPP(f"no timers on clock {clock}")
    if clock >= 0 and clock not in clocks.HOST_CLOCKS and clock not in clocks.OWN_CPU_CLOCKS:
        raise EINVAL(f"clock {clock}")
    group = task.group
    quota = task.kernel.services.signal_quota
    uid = task.creds.uid
    if len(group.posix_timers) >= MAX_TIMERS or not quota.take(uid, task.rlimit(RLIMIT_SIGPENDING)):
        raise EAGAIN("too many timers")
    try:
        number = group.next_timer
        while number in group.posix_timers:
            number = number + 1 & MAX_TIMER
        group.next_timer = number + 1 & MAX_TIMER
        notify = Notify(SIGEV_SIGNAL, SIGALRM, number) if fields is None else _notify(task, *fields)
        task.mm.write(result, number.to_bytes(4, "little"))
        source = _clock_of(task, clock)
    except BaseException:
        quota.give(uid)
        raise
    group.posix_timers[number] = PosixTimer(group, number, source, notify, uid)


def _clock_of(task: Task, clock: int) -> int | clocks.CpuClock:
    """What the timer's clock itself refuses. Raises: EINVAL, EOPNOTSUPP."""
    if clock in clocks.ALARMS:
        raise EOPNOTSUPP("no clock could wake the machine")
    if clock in clocks.SLEEPABLE:
        return clock
    cpu = clocks.cpu_clock(task, clock)
    if cpu is None:
        raise EINVAL(f"clock {clock}")
    return cpu


def _notify(task: Task, value: int, signo: int, how: int, tid: int) -> Notify:
    """good_sigevent(), kernel/time/posix-timers.c. EINVAL."""
    target = None
    if how == SIGEV_THREAD_ID:
        target = task.pids.task(tid)
        if target is None or target.group is not task.group:
            raise EINVAL(f"thread {tid}")
    elif how not in (SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_NONE):
        raise EINVAL(f"sigev_notify {how}")
    if how != SIGEV_NONE and not 1 <= signo <= NSIG:
        raise EINVAL(f"signal {signo}")
    return Notify(how, signo, value, target)


def read_itimerspec(task: Task, addr: int) -> tuple[int, int]:
    """(interval, value) in ns. EFAULT, EINVAL."""
    if not addr:
        raise EFAULT("null")
    spec = ITIMERSPEC.unpack(task.mm.read(addr, ITIMERSPEC.size))
    for sec, nsec in (spec[:2], spec[2:]):
        if sec < 0 or not 0 <= nsec < NS:
            raise EINVAL("time")
    return spec[0] * NS + spec[1], spec[2] * NS + spec[3]


def _put_spec(out: Any, interval_ns: int, value_ns: int) -> None:
    out.put(*divmod(interval_ns, NS), *divmod(value_ns, NS))


@syscall(223)
def sys_timer_settime(task: Task, number: Int, how: Int, new: Addr, old: ItimerspecOut) -> None:
    """timer_settime(2)."""
    if not new:
        raise EINVAL("null")
    interval_ns, value_ns = read_itimerspec(task, new)
    timer = _find(task, number)
    was = kept(OLD)
    if was is None:
        was = timer.get()
        if value_ns and how & TIMER_ABSTIME and isinstance(timer.clock, int):
            value_ns = to_host_ns(task, timer.clock, value_ns)
        timer.set(interval_ns, value_ns, bool(how & TIMER_ABSTIME))
    if old:
        with Keeping(OLD, was):
            _put_spec(old, *was)


@syscall(224)
def sys_timer_gettime(task: Task, number: Int, result: ItimerspecOut) -> None:
    """timer_gettime(2)."""
    _put_spec(result, *_find(task, number).get())


@syscall(225)
def sys_timer_getoverrun(task: Task, number: Int) -> int:
    """timer_getoverrun(2)."""
    return _find(task, number).overrun_last


@syscall(226)
def sys_timer_delete(task: Task, number: Int) -> None:
    """timer_delete(2)."""
    _find(task, number).delete()


# timerfd -----------------------------------------------------------------------------------------


@syscall(283)
def sys_timerfd_create(task: Task, clock: Clock, how: TimerfdFlags) -> int:
    """timerfd_create(2)."""
    if clock not in CLOCKS:
        raise EINVAL(f"clock {clock}")
    if clock in clocks.ALARMS and not task.creds.has(CAP_WAKE_ALARM):
        raise EPERM("CAP_WAKE_ALARM")
    kernel = task.kernel
    file = TimerFile(kernel.vfs, kernel.clock, kernel.services.clock_steps, clock, O_NONBLOCK & how)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=bool(how & TFD_CLOEXEC))


def _timer_file(task: Task, fd: int) -> TimerFile:
    file = task.files.get(fd)
    if not isinstance(file, TimerFile):
        raise EINVAL(f"fd {fd} is no timer")
    return file


@syscall(286)
def sys_timerfd_settime(task: Task, fd: Fd, how: SetFlags, new: Addr, old: ItimerspecOut) -> None:
    """timerfd_settime(2): the time is copied and checked before the descriptor."""
    interval_ns, value_ns = read_itimerspec(task, new)
    if how & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        raise EINVAL("flags")
    file = _timer_file(task, fd)
    was = kept(OLD)
    if was is None:
        was = file.get()
        _set_timer_file(task, file, how, interval_ns, value_ns)
    if old:
        with Keeping(OLD, was):
            _put_spec(old, *was)


def _set_timer_file(
    task: Task, file: TimerFile, how: int, interval_ns: int, value_ns: int
) -> None:
    programs = task.kernel.clock
    at_ns = 0
    again = None
    if value_ns and how & TFD_TIMER_ABSTIME:

        def deadline() -> int:
            at_ns = to_host_ns(task, file.clock, value_ns)
            return clocks.wall_deadline(programs, file.clock, at_ns)

        at_ns = deadline()
        again = deadline if file.clock in WALL_CLOCKS else None
    elif value_ns:
        at_ns = min(programs.now_ns() + value_ns, MAX_NS)
    cancels = again is not None and bool(how & TFD_TIMER_CANCEL_ON_SET)
    file.set(min(interval_ns, MAX_NS), at_ns, again, cancels)
    file.absolute = bool(how & TFD_TIMER_ABSTIME)


@syscall(287)
def sys_timerfd_gettime(task: Task, fd: Fd, result: ItimerspecOut) -> None:
    """timerfd_gettime(2)."""
    _put_spec(result, *_timer_file(task, fd).get())
