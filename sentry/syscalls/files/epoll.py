"""epoll(7)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sentry.abi.poll import (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLL_EVENT,
    EPOLLIN,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.time import TIMESPEC
from sentry.ahead import mypyc_attr
from sentry.errors import EFAULT, EINTR, EINVAL
from sentry.fs.epoll.file import EpollFile, Ready, check_exclusive, check_pollable
from sentry.kernel.task_signals import masked
from sentry.mm.layout import TASK_END
from sentry.syscalls.registry import syscall
from sentry.syscalls.signals.signal import read_mask
from sentry.syscalls.types import Addr, Int, Size, UInt
from sentry.vfs.file import Result
from sentry.wait.fiber import Interrupted, TimedOut
from sentry.wait.looks import Looks
from sentry.wait.sleep import Retry
from sentry.wait.steps import Steps

if TYPE_CHECKING:
    from sentry.kernel.task import Task

MAX_EVENTS = (1 << 31) // EPOLL_EVENT.size - 1
NS = 1_000_000_000
FETCH_LIMIT = 4096
"""Events told in one go."""


def create(task: Task, flags: int) -> int:
    """An epoll instance and its descriptor."""
    return task.files.install(
        EpollFile(task.kernel.vfs), task.rlimit(RLIMIT_NOFILE), cloexec=bool(flags & EPOLL_CLOEXEC)
    )


@syscall(213)
def sys_epoll_create(task: Task, size: Int) -> int:
    """epoll_create(2): the size is only checked."""
    if size <= 0:
        raise EINVAL(f"size {size}")
    return create(task, 0)


@syscall(291)
def sys_epoll_create1(task: Task, flags: Int) -> int:
    """epoll_create1(2)."""
    if flags & ~EPOLL_CLOEXEC:
        raise EINVAL(f"flags {flags:#x}")
    return create(task, flags)


@syscall(233)
def sys_epoll_ctl(task: Task, epfd: UInt, op: Int, fd: UInt, event: Addr) -> None:
    """epoll_ctl(2): the event is copied before any descriptor is looked at."""
    events = data = 0
    if op != EPOLL_CTL_DEL:
        if not event:
            raise EFAULT("null")
        events, data = EPOLL_EVENT.unpack(task.mm.read(event, EPOLL_EVENT.size))
    epoll = task.files.get(epfd)
    file = task.files.get(fd)
    check_pollable(file)
    if file is epoll or not isinstance(epoll, EpollFile):
        raise EINVAL("not an epoll")
    if op in (EPOLL_CTL_ADD, EPOLL_CTL_MOD):
        check_exclusive(file, events, op == EPOLL_CTL_ADD)
    if op == EPOLL_CTL_ADD:
        epoll.add(fd, file, events, data)
    elif op == EPOLL_CTL_MOD:
        epoll.modify(fd, file, events, data)
    elif op == EPOLL_CTL_DEL:
        epoll.delete(fd, file)
    else:
        raise EINVAL(f"operation {op}")


def wait(task: Task, epfd: int, where: tuple[int, int], timeout_ns: int | None) -> Result:
    """do_epoll_wait(): `where` is the address and the number of events."""
    addr, limit = where
    epoll = task.files.get(epfd)
    if not 0 < limit <= MAX_EVENTS:
        raise EINVAL(f"{limit} events")
    if addr + limit * EPOLL_EVENT.size > TASK_END:
        raise EFAULT(f"{addr:#x}")
    if not isinstance(epoll, EpollFile):
        raise EINVAL("not an epoll")
    found = epoll.ready_now(min(limit, FETCH_LIMIT))
    if found:
        return tell(task, epoll, addr, found)
    if timeout_ns == 0:
        return LookOn(task, epoll, addr, min(limit, FETCH_LIMIT)) if epoll.has_more else 0

    def attempt() -> int:
        return tell(task, epoll, addr, epoll.fetch(min(limit, FETCH_LIMIT)))

    epoll.go_on()
    deadline = None if timeout_ns is None else task.kernel.clock.now_ns() + timeout_ns
    sleep = EpollSleep(
        attempt, epoll.queue, EPOLLIN, epoll, deadline_ns=deadline, exclusive=True
    )
    return sleep.timed_by_programs()


class LookOn(Looks):
    """The same among more than one looks at in a step, without waiting for any."""

    __slots__ = ("_epoll", "_tell")

    def __init__(self, task: Task, epoll: EpollFile, addr: int, limit: int) -> None:
        def look() -> Steps[tuple[list[Ready]]]:
            found: list[Ready] = []
            while not found and epoll.has_more:
                yield
                found = epoll.ready_now(limit)
            return (found,)

        super().__init__(task.kernel.loop, look(), look)
        self._epoll = epoll
        self._tell = partial(tell, task, epoll, addr)
        epoll.refs += 1

    def register(self) -> None:
        """Nobody is waited for."""

    def found(self, what: tuple[list[Ready]]) -> int:
        """Perhaps nothing."""
        return self._tell(what[0])

    def leave(self) -> None:
        """The file may be closed."""
        super().leave()
        self._epoll.decref()


def tell(task: Task, epoll: EpollFile, addr: int, found: list[Ready]) -> int:
    """Write the events; how many. Those that cannot be written are not lost."""
    data = b"".join([EPOLL_EVENT.pack(events, item.data) for events, item in found])
    told = 0
    try:
        task.mm.write(addr, data)
        told = len(found)
    except EFAULT:
        told = task.mm.accessible(addr, len(data), True) // EPOLL_EVENT.size
        if not told:
            raise
    finally:
        if told < len(found):
            epoll.untold(found[told:])
    return told


@mypyc_attr(allow_interpreted_subclasses=True)
class EpollSleep(Retry):
    """Until something is ready."""

    __slots__ = ()

    def failed(self, error: BaseException) -> int:
        """A time-out is no event; a signal is EINTR."""
        if isinstance(error, TimedOut):
            return 0
        raise EINTR("a signal") if isinstance(error, Interrupted) else error


def from_ms(timeout: int) -> int | None:
    """A timeout in ms; negative is for ever."""
    return None if timeout < 0 else timeout * 1_000_000


@syscall(232)
def sys_epoll_wait(task: Task, epfd: UInt, events: Addr, limit: Int, timeout: Int) -> Result:
    """epoll_wait(2)."""
    return wait(task, epfd, (events, limit), from_ms(timeout))


@syscall(281)
def sys_epoll_pwait(
    task: Task, epfd: UInt, events: Addr, limit: Int, timeout: Int, mask: Addr, size: Size
) -> Result:
    """epoll_pwait(2)."""
    blocked = read_mask(task, mask, size) if mask else None
    call = partial(wait, task, epfd, (events, limit), from_ms(timeout))
    result: Result = masked(task, blocked, call)
    return result


@syscall(441)
def sys_epoll_pwait2(
    task: Task, epfd: UInt, events: Addr, limit: Int, timeout: Addr, mask: Addr, size: Size
) -> Result:
    """epoll_pwait2(2): the timeout is a struct timespec."""
    timeout_ns = None
    if timeout:
        seconds, ns = TIMESPEC.unpack(task.mm.read(timeout, TIMESPEC.size))
        if seconds < 0 or not 0 <= ns < NS:
            raise EINVAL("timeout")
        timeout_ns = seconds * NS + ns
    blocked = read_mask(task, mask, size) if mask else None
    result: Result = masked(task, blocked, partial(wait, task, epfd, (events, limit), timeout_ns))
    return result
