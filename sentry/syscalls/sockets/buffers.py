"""Descriptors and buffers of the socket calls.

A socket looks at the program's buffer last: a bad pointer counts only when there is something to
copy (EAGAIN, ENOTCONN and the like come first).
"""

from __future__ import annotations

from typing import Any, Final

from sentry.errors import EFAULT, ENOTSOCK
from sentry.kernel.task import Task
from sentry.mm.manager import MAX_RW_COUNT
from sentry.net.socket import Socket
from sentry.vfs.file import FileDescription
from sentry.wait.again import NotNow, kept

USED: Final = "socket"
"""Key of the file of a call that is made again."""


def socket_of(task: Task, fd: int) -> Socket:
    """The socket of a descriptor. EBADF, ENOTSOCK."""
    return check_socket(task.files.get(fd & 0xFFFFFFFF))


def check_socket(file: FileDescription) -> Socket:
    """It is one. Raises: ENOTSOCK."""
    if not isinstance(file, Socket):
        raise ENOTSOCK(repr(file))
    return file


class UsedFile:
    """`with` it: the file of a descriptor, which stays the one of its call until the end, where
    that has to wait for something and is made again: another may have the number by then."""

    __slots__ = ("_file",)

    def __init__(self, task: Task, fd: int) -> None:
        self._file: FileDescription = kept(USED) or task.files.get(fd & 0xFFFFFFFF)

    def __enter__(self) -> Any:
        """The file."""
        return self._file

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        if isinstance(error, NotNow):
            error.call.answers[USED] = self._file
            error.call.hold_files(self._file)


class Used(UsedFile):
    """The same of a socket. ENOTSOCK."""

    __slots__ = ()

    def __enter__(self) -> Socket:
        """The socket."""
        return check_socket(self._file)


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
