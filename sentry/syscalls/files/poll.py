"""poll, ppoll; time-outs and signal masks of these calls and of select(2)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sentry.abi.personality import STICKY_TIMEOUTS
from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLNVAL
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.time import TIMESPEC
from sentry.errors import EBADF, EFAULT, EINVAL
from sentry.kernel.task_signals import masked
from sentry.syscalls.files.looking import AT_A_TIME, Looked, look_until_ready
from sentry.syscalls.files.poll_set import poll_set
from sentry.syscalls.registry import syscall
from sentry.syscalls.signals.signal import read_mask
from sentry.syscalls.types import Addr, Int, Size, UInt
from sentry.vfs.file import Result
from sentry.wait.fiber import Interrupted, RestartBlock
from sentry.wait.sleep import Sleep, ended, instead, no_hand
from sentry.wait.steps import Steps

if TYPE_CHECKING:
    from sentry.kernel.task import Task

NS = 1_000_000_000
ENTRY = struct.Struct("<ihH")
"""struct pollfd, whose events are bits here."""
FOREVER = 1 << 62


def poll(task: Task, addr: int, count: int, deadline: int | None) -> Result:
    """do_sys_poll(). Raises: EINVAL beyond RLIMIT_NOFILE, EFAULT, Interrupted."""
    if count > task.rlimit(RLIMIT_NOFILE):
        raise EINVAL(f"{count} descriptors")
    raw = task.mm.read(addr, count * ENTRY.size) if count else b""
    table = task.files
    known = poll_set(task.kernel.vfs, table, addr, raw)
    results = array("H", bytes(2 * count))
    ready = 0

    def look(files: list[Looked]) -> Steps[int]:
        nonlocal ready, results
        if known is not None and not known.stale:
            results = array("H", bytes(2 * count))
            ready = yield from known.look(table, files, results)
            return ready
        ready = 0
        for at, (fd, events, _) in enumerate(ENTRY.iter_unpack(raw), 1):
            got = 0
            if fd >= 0:
                try:
                    file = table.get(fd)
                except EBADF:
                    got = EPOLLNVAL
                else:
                    got = file.poll() & (events & 0xFFFF | EPOLLERR | EPOLLHUP)
                    files.append(file)
            results[at - 1] = got
            ready += got != 0
            if not at % AT_A_TIME:
                yield
        return ready

    def tell() -> int:
        if known is not None:
            task.mm.write(addr, known.shown(ready, results))
        elif count:
            entries = array("H", raw)
            entries[3::4] = results
            task.mm.write(addr, entries.tobytes())
        return ready

    return look_until_ready(task.kernel.loop, look, tell, deadline)


@syscall(7)
def sys_poll(task: Task, fds: Addr, count: UInt, timeout: Int) -> Result:
    """poll(2)."""
    deadline = None if timeout < 0 else task.kernel.clock.now_ns() + timeout * 1_000_000
    return restartable_poll(task, fds, count, deadline)


def restartable_poll(task: Task, fds: int, count: int, deadline: int | None) -> Result:
    """A signal without a handler leaves the deadline where it was."""
    again = partial(restartable_poll, task, fds, count, deadline)
    result = poll(task, fds, count, deadline)
    if isinstance(result, Sleep):
        return result.ended(instead(Interrupted, partial(RestartBlock, again)))
    return result


def read_timeout(task: Task, addr: int, unit: int) -> int | None:
    """A timespec (`unit` 1) or timeval (1000) as a deadline. Raises: EINVAL."""
    if not addr:
        return None
    seconds, part = TIMESPEC.unpack(task.mm.read(addr, TIMESPEC.size))
    if unit == 1000:
        seconds += part // 1_000_000
        part = part % 1_000_000 if part >= 0 else part
    if seconds < 0 or part < 0 or part * unit >= NS:
        raise EINVAL("timeout")
    return int(min(task.kernel.clock.now_ns() + seconds * NS + part * unit, FOREVER))


def write_left(task: Task, addr: int, deadline: int | None, unit: int) -> None:
    """Linux tells how much time was left; a timeout that cannot be written is left alone."""
    if deadline is None or not addr or task.group.personality & STICKY_TIMEOUTS:
        return
    seconds, part = divmod(max(0, deadline - task.kernel.clock.now_ns()), NS)
    try:
        task.mm.write(addr, TIMESPEC.pack(seconds, part // unit))
    except EFAULT:
        return


def telling_left(
    task: Task,
    timeout: tuple[int, int | None, int],
    mask: int | None,
    call: Callable[[], Result],
) -> Result:
    """A call with another signal mask meanwhile; however it ends, the time left is told.

    `timeout`: where it stands, the deadline, the unit.
    """

    def end(finish: Callable[[], int]) -> int:
        try:
            result: int = no_hand(finish)
            return result
        finally:
            write_left(task, *timeout)

    result: Result = masked(task, mask, lambda: ended(call, end))
    return result


@syscall(271)
def sys_ppoll(
    task: Task, fds: Addr, count: UInt, timeout: Addr, mask: Addr, size: Size
) -> Result:
    """ppoll(2)."""
    deadline = read_timeout(task, timeout, 1)
    blocked = read_mask(task, mask, size) if mask else None
    return telling_left(
        task, (timeout, deadline, 1), blocked, partial(poll, task, fds, count, deadline)
    )
