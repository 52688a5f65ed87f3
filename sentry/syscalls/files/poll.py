"""poll, ppoll, select, pselect6."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sentry.abi.personality import STICKY_TIMEOUTS
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLNVAL,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDBAND,
    EPOLLRDNORM,
    EPOLLWRBAND,
    EPOLLWRNORM,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.time import TIMESPEC
from sentry.errors import EAGAIN, EBADF, EFAULT, EINVAL
from sentry.kernel.task_signals import masked
from sentry.syscalls.registry import syscall
from sentry.syscalls.signals.signal import read_mask
from sentry.syscalls.types import Addr, Int, Size, UInt
from sentry.vfs.file import FileDescription, Result
from sentry.wait.fiber import Interrupted, RestartBlock, TimedOut
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Sleep, ended, instead, no_hand, until

if TYPE_CHECKING:
    from sentry.kernel.task import Task

NS = 1_000_000_000
POLLFD_SIZE = 8
FOREVER = 1 << 62

READ_SET = EPOLLIN | EPOLLRDNORM | EPOLLRDBAND | EPOLLHUP | EPOLLERR
WRITE_SET = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND | EPOLLERR
EXCEPT_SET = EPOLLPRI
NOT_ASKED = ("0", "0", "0")


def sleep_on(
    files: list[FileDescription],
    attempt: Callable[[], int],
    deadline: int | None,
    late: Callable[[], int],
) -> Result:
    """`attempt` has raised EAGAIN: sleep until it finds something; `late` is for the deadline."""
    queues: list[WaitQueue] = list({id(file.queue): file.queue for file in files}.values())
    sleep = until(attempt, queues, deadline_ns=deadline).tried(files)
    return sleep.ended(instead(TimedOut, late))


# --- poll


def scan(
    task: Task, asked: list[tuple[int, int, int]]
) -> tuple[list[int], list[FileDescription]]:
    """The returned events of each entry, and what to sleep on."""
    results, watched = [], []
    files = task.files
    for fd, events, _ in asked:
        if fd < 0:
            results.append(0)
            continue
        try:
            file = files.get(fd)
        except EBADF:
            results.append(EPOLLNVAL)
            continue
        results.append(file.poll() & (events & 0xFFFF | EPOLLERR | EPOLLHUP))
        watched.append(file)
    return results, watched


def poll(task: Task, addr: int, count: int, deadline: int | None) -> Result:
    """do_sys_poll(). Raises: EINVAL beyond RLIMIT_NOFILE, EFAULT, Interrupted."""
    if count > task.rlimit(RLIMIT_NOFILE):
        raise EINVAL(f"{count} descriptors")
    raw = task.mm.read(addr, count * POLLFD_SIZE) if count else b""
    asked = list(struct.iter_unpack("<ihH", raw))
    results, watched = scan(task, asked)

    def tell(results: list[int]) -> int:
        if count:
            task.mm.write(
                addr,
                b"".join(
                    struct.pack("<ihH", fd, events, got)
                    for (fd, events, _), got in zip(asked, results, strict=True)
                ),
            )
        return sum(map(bool, results))

    def attempt() -> int:
        results, _ = scan(task, asked)
        if not any(results):
            raise EAGAIN("nothing is ready")
        return tell(results)

    if any(results):
        return tell(results)
    return sleep_on(watched, attempt, deadline, lambda: tell([0] * count))


@syscall(7)
def sys_poll(task: Task, fds: Addr, count: UInt, timeout: Int) -> Result:
    """poll(2)."""
    deadline = None if timeout < 0 else task.kernel.loop.now_ns() + timeout * 1_000_000
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
    loop: Any = task.kernel.loop
    return int(min(loop.now_ns() + seconds * NS + part * unit, FOREVER))


def write_left(task: Task, addr: int, deadline: int | None, unit: int) -> None:
    """Linux tells how much time was left; a timeout that cannot be written is left alone."""
    if deadline is None or not addr or task.group.personality & STICKY_TIMEOUTS:
        return
    seconds, part = divmod(max(0, deadline - task.kernel.loop.now_ns()), NS)
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


# --- select


def read_set(task: Task, addr: int, count: int) -> int:
    """An fd_set as a number with a bit for each descriptor."""
    if not addr or not count:
        return 0
    size = (count + 63) // 64 * 8
    return int.from_bytes(task.mm.read(addr, size), "little") & (1 << count) - 1


def select(task: Task, count: int, sets: tuple[int, int, int], deadline: int | None) -> Result:
    """core_sys_select(). Raises: EINVAL, EBADF, Interrupted."""
    if count < 0:
        raise EINVAL(f"{count} descriptors")
    table = list(task.files)
    count = min(count, (table[-1] + 64) // 64 * 64 if table else 64)
    asked = [read_set(task, addr, count) for addr in sets]
    watched: list[tuple[int, FileDescription, tuple[str, ...]]] = []
    bits = [f"{number:0{count}b}"[::-1] for number in asked]  # a shift takes as long as the set
    for fd, inside in enumerate(zip(*bits, strict=True)):
        if inside != NOT_ASKED:
            watched.append((fd, task.files.get(fd), inside))
    results = [0, 0, 0]

    def tell() -> int:
        for addr, bits in zip(sets, results, strict=True):
            if addr and count:
                task.mm.write(addr, bits.to_bytes((count + 63) // 64 * 8, "little"))
        return sum(bits.bit_count() for bits in results)

    def attempt() -> int:
        found = [bytearray(count // 8 + 1) for _ in results]
        for fd, file, inside in watched:
            events = file.poll()
            for n, interest in enumerate((READ_SET, WRITE_SET, EXCEPT_SET)):
                if inside[n] == "1" and events & interest:
                    found[n][fd >> 3] |= 1 << (fd & 7)
        results[:] = [int.from_bytes(each, "little") for each in found]
        if not any(results):
            raise EAGAIN("nothing is ready")
        return tell()

    try:
        return attempt()
    except EAGAIN:
        return sleep_on([file for _, file, _ in watched], attempt, deadline, tell)


@syscall(23)
def sys_select(
    task: Task, count: Int, readers: Addr, writers: Addr, others: Addr, timeout: Addr
) -> Result:
    """select(2)."""
    deadline = read_timeout(task, timeout, 1000)
    call = partial(select, task, count, (readers, writers, others), deadline)
    return telling_left(task, (timeout, deadline, 1000), None, call)


@syscall(270)
def sys_pselect6(
    task: Task, count: Int, readers: Addr, writers: Addr, others: Addr, timeout: Addr, mask: Addr
) -> Result:
    """pselect(2): the last argument points at a mask and its size."""
    signals = size = 0
    if mask:
        signals, size = struct.unpack("<QQ", task.mm.read(mask, 16))
    deadline = read_timeout(task, timeout, 1)
    blocked = read_mask(task, signals, size) if signals else None
    call = partial(select, task, count, (readers, writers, others), deadline)
    return telling_left(task, (timeout, deadline, 1), blocked, call)
