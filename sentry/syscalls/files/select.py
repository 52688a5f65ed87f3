"""select, pselect6. Sets that come again are polled as lists that do (`poll_set`)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

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
from sentry.errors import EBADF, EINVAL
from sentry.syscalls.files.looking import AT_A_TIME, Looked, look_until_ready
from sentry.syscalls.files.poll import read_timeout, telling_left
from sentry.syscalls.files.poll_set import PollSet, select_set
from sentry.syscalls.registry import syscall
from sentry.syscalls.signals.signal import read_mask
from sentry.syscalls.types import Addr, Int
from sentry.vfs.file import FileDescription, Result
from sentry.wait.steps import Steps

if TYPE_CHECKING:
    from sentry.kernel.task import Task

READ_SET = EPOLLIN | EPOLLRDNORM | EPOLLRDBAND | EPOLLHUP | EPOLLERR
WRITE_SET = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND | EPOLLERR
EXCEPT_SET = EPOLLPRI
SETS = (READ_SET, WRITE_SET, EXCEPT_SET)
ASKED = (EPOLLIN | EPOLLRDNORM, EPOLLOUT | EPOLLWRNORM, EPOLLPRI)
"""The events by which a poll set knows what a descriptor is in; HUP and ERR it looks at anyway."""
Watched = tuple[int, FileDescription, tuple[str, ...]]
"""A descriptor, its file, in which sets it is."""
NOT_ASKED = ("0", "0", "0")


def read_set(task: Task, addr: int, count: int) -> int:
    """An fd_set as a number with a bit for each descriptor."""
    if not addr or not count:
        return 0
    size = (count + 63) // 64 * 8
    return int.from_bytes(task.mm.read(addr, size), "little") & (1 << count) - 1


def bits_of(asked: tuple[int, int, int], count: int) -> Iterator[tuple[str, ...]]:
    """Of each descriptor, in which sets it is; a shift would take as long as the set."""
    return zip(*(f"{number:0{count}b}"[::-1] for number in asked), strict=True)


def rows_of(asked: tuple[int, int, int], count: int) -> bytes:
    """The same as struct pollfd of each that is in one."""
    rows = bytearray()
    for fd, inside in enumerate(bits_of(asked, count)):
        if inside != NOT_ASKED:
            events = sum(ASKED[n] for n in range(3) if inside[n] == "1")
            rows += struct.pack("<ihH", fd, events, 0)
    return bytes(rows)


def select(task: Task, count: int, sets: tuple[int, int, int], deadline: int | None) -> Result:
    """core_sys_select(). Raises: EINVAL, EBADF, Interrupted."""
    if count < 0:
        raise EINVAL(f"{count} descriptors")
    table = task.files
    count = min(count, (table.highest() + 64) // 64 * 64)
    readers, writers, others = (read_set(task, addr, count) for addr in sets)
    asked = readers, writers, others
    known = select_set(task.kernel.vfs, table, asked, partial(rows_of, asked, count))
    watched: list[Watched] = []
    found = [bytearray((count + 63) // 64 * 8) for _ in sets]

    def first() -> Iterator[Watched | None]:
        for fd, inside in enumerate(bits_of(asked, count)):
            one = None
            if inside != NOT_ASKED:
                try:
                    one = (fd, table.get(fd), inside)
                except EBADF:
                    if known is None:
                        raise  # else it was closed while the call slept
                else:
                    if known is None:  # else nobody has a use of it: it is asked for each time
                        watched.append(one)
            yield one

    def look(files: list[Looked]) -> Steps[int]:
        found[:] = [bytearray(len(each)) for each in found]
        ready = 0
        if known is not None and not known.stale:
            results = array("H", bytes(2 * len(known)))
            if (yield from known.look(table, files, results)):
                ready = mark(known, results)
            return ready
        for at, one in enumerate(list(watched) or first(), 1):
            if one is not None:
                fd, file, inside = one
                files.append(file)
                events = file.poll()
                for n, interest in enumerate(SETS):
                    if inside[n] == "1" and events & interest:
                        found[n][fd >> 3] |= 1 << (fd & 7)
                        ready += 1
            if not at % AT_A_TIME:
                yield
        return ready

    def mark(known: PollSet, results: array[int]) -> int:
        ready = 0
        for at, events in enumerate(results):
            if not events:
                continue
            if events & EPOLLNVAL:
                if not known.stale:
                    raise EBADF("not open")
                continue  # it was closed meanwhile
            fd, wanted = known.row(at)
            for n, interest in enumerate(SETS):
                if wanted & ASKED[n] and events & interest:
                    found[n][fd >> 3] |= 1 << (fd & 7)
                    ready += 1
        return ready

    def tell() -> int:
        for addr, each in zip(sets, found, strict=True):
            if addr and count:
                task.mm.write(addr, bytes(each))
        return sum(int.from_bytes(each, "little").bit_count() for each in found)

    return look_until_ready(task.kernel.loop, look, tell, deadline)


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
