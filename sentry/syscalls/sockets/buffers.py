"""Descriptors and buffers of the socket calls.

A socket looks at the program's buffer last: a bad pointer counts only when there is something to
copy (EAGAIN, ENOTCONN and the like come first).
"""

from __future__ import annotations

from typing import Any

from sentry.errors import EFAULT, ENOTSOCK
from sentry.kernel.task import Task
from sentry.mm.manager import MAX_RW_COUNT
from sentry.net.socket import Socket


def socket_of(task: Task, fd: int) -> Socket:
    """The socket of a descriptor. EBADF, ENOTSOCK."""
    file = task.files.get(fd & 0xFFFFFFFF)
    if not isinstance(file, Socket):
        raise ENOTSOCK(f"fd {fd}")
    return file


class BadBuffer:
    """A `Dest` and a `Source` of which no byte can be touched."""

    __slots__ = ("count", "wanted")

    def __init__(self, count: int) -> None:
        self.count = self.wanted = count

    def put(self, data: bytes | bytearray | memoryview) -> int:
        """Raises: EFAULT, unless there is nothing to put."""
        if len(data):
            raise EFAULT("buffer")
        return 0

    def get(self, n: int) -> bytes:
        """Raises: EFAULT, unless there is nothing to get."""
        if n:
            raise EFAULT("buffer")
        return b""

    def peek(self, n: int) -> bytes:
        """The same."""
        return self.get(n)


def dest_of(task: Task, addr: int, count: int) -> Any:
    """Where recv(2) puts its bytes."""
    try:
        return task.mm.buffer_out(addr, count)
    except EFAULT:
        return BadBuffer(min(count, MAX_RW_COUNT))


def source_of(task: Task, addr: int, count: int) -> Any:
    """Where send(2) takes its bytes from."""
    try:
        return task.mm.buffer_in(addr, count)
    except EFAULT:
        return BadBuffer(min(count, MAX_RW_COUNT))


def dest_of_iov(task: Task, addr: int, count: int) -> Any:
    """Where recvmsg(2) puts its bytes. Raises: EINVAL, EFAULT of the array itself."""
    try:
        return task.mm.buffer_out_iov(addr, count)
    except EFAULT:
        return BadBuffer(_total(task, addr, count))


def source_of_iov(task: Task, addr: int, count: int) -> Any:
    """Where sendmsg(2) takes its bytes from. Raises: EINVAL, EFAULT of the array itself."""
    try:
        return task.mm.buffer_in_iov(addr, count)
    except EFAULT:
        return BadBuffer(_total(task, addr, count))


def _total(task: Task, addr: int, count: int) -> int:
    return sum(length for _, length in task.mm.read_iov(addr, count))
