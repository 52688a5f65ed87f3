"""Messages: sendmsg(2), recvmsg(2), sendmmsg(2), recvmmsg(2)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from sentry.abi.limits import UIO_MAXIOV
from sentry.abi.socket import (
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_WAITFORONE,
)
from sentry.errors import EAGAIN, EINVAL, EMSGSIZE, ENOBUFS, Errno
from sentry.kernel.task import Task
from sentry.net.message import Ancillary, Received
from sentry.net.socket import Socket
from sentry.net.unix_flights import drop_files
from sentry.syscalls.registry import syscall
from sentry.syscalls.sockets.buffers import Used, dest_of_iov, socket_of, source_of_iov
from sentry.syscalls.sockets.control import format_control, parse_control
from sentry.syscalls.types import Addr, Fd, Int, TimespecInOrNull, UInt
from sentry.vfs.file import Result
from sentry.wait.again import Keeping, again, kept
from sentry.wait.fiber import Interrupted
from sentry.wait.sleep import continued, ended
from sentry.wait.steps import Pace

MAX_ADDRESS = 128
TOLD: Final = "told"
"""Key of a message whose header could not be written yet."""
MAX_CONTROL = 131071
"""Below net.core.optmem_max."""
MSGHDR = struct.Struct("<QI4xQQQQi4x")
"""struct user_msghdr: name, namelen, iov, iovlen, control, controllen, flags."""
MMSGHDR_SIZE = 64
MSG_CMSG_COMPAT = 0x80000000


def check_flags(flags: int) -> None:
    """MSG_CMSG_COMPAT is the kernel's own. Raises: EINVAL."""
    if flags & MSG_CMSG_COMPAT:
        raise EINVAL("MSG_CMSG_COMPAT")


class Header:
    """struct user_msghdr as the program gave it."""

    __slots__ = (
        "addr",
        "control",
        "control_size",
        "flags",
        "iov",
        "iov_count",
        "name",
        "name_size",
    )

    def __init__(self, task: Task, addr: int) -> None:
        self.addr = addr
        (
            self.name, self.name_size, self.iov, self.iov_count, self.control, self.control_size,
            self.flags,
        ) = MSGHDR.unpack(task.mm.read(addr, MSGHDR.size))  # fmt: skip
        if self.name and self.name_size & 0x80000000:
            raise EINVAL("msg_namelen")
        if self.iov_count > UIO_MAXIOV:
            raise EMSGSIZE("msg_iovlen")


@syscall(46)
def sys_sendmsg(task: Task, fd: Fd, message: Addr, flags: Int) -> Result:
    """sendmsg(2)."""
    check_flags(flags)
    with Used(task, fd) as sock:
        return send_one(task, sock, message, flags)


def send_one(task: Task, sock: Socket, message: int, flags: int) -> Result:
    """One message."""
    header = Header(task, message)
    target = None
    if header.name and header.name_size:
        address = task.mm.read(header.name, min(header.name_size, MAX_ADDRESS))
        if task.judge is not None:
            address = task.judge.address(sock, address)
        target = sock.target(task, address)
    source = source_of_iov(task, header.iov, header.iov_count)
    ancillary = None
    if header.control_size:
        if header.control_size > MAX_CONTROL:
            raise ENOBUFS("msg_controllen")
        ancillary = parse_control(task, sock, task.mm.read(header.control, header.control_size))
    send = partial(sock.send_message, task, source, target, flags, ancillary)
    result: Result = send() if ancillary is None else ended(send, partial(_sent, sock, ancillary))
    return result


def _sent(sock: Socket, ancillary: Ancillary, finish: Callable[[], int]) -> int:
    """An end: what did not go off is let go."""
    try:
        return finish()
    finally:
        if not ancillary.sent:
            drop_files(sock.stack, ancillary)


@syscall(47)
def sys_recvmsg(task: Task, fd: Fd, message: Addr, flags: Int) -> Result:
    """recvmsg(2)."""
    check_flags(flags)
    if kept(TOLD) is not None:
        return write_message(task, *kept(TOLD))
    with Used(task, fd) as sock:
        return receive_one(task, sock, message, flags)


def receive_one(task: Task, sock: Socket, message: int, flags: int) -> Result:
    """One message."""
    if kept(TOLD) is not None:
        return write_message(task, *kept(TOLD))
    header = Header(task, message)
    dest = dest_of_iov(task, header.iov, header.iov_count)
    got = sock.receive_message(task, dest, flags)
    result: Result = continued(got, partial(tell, task, sock, header, flags))
    return result


def tell(task: Task, sock: Socket, header: Header, flags: int, got: Received) -> int:
    """Install what a message has brought, then fill the program's header."""
    control, out_flags = b"", got.flags | flags & MSG_CMSG_CLOEXEC
    try:
        if got.ancillary is not None:
            room = header.control_size if header.control else 0
            control, cut = format_control(task, got.ancillary, room, flags)
            out_flags |= MSG_CTRUNC if cut else 0
    finally:
        drop_files(sock.stack, got.ancillary)
    return write_message(task, header, (got.count, got.address, control, out_flags))


def write_message(task: Task, header: Header, told: tuple[int, bytes, bytes, int]) -> int:
    """What a message tells beside its bytes, which is there once only."""
    count, address, control, flags = told
    with Keeping(TOLD, (header, told)):
        if header.name:
            task.mm.write(header.name, address[: header.name_size])
            task.mm.write(header.addr + 8, struct.pack("<I", len(address)))
        if control:
            task.mm.write(header.control, control)
        task.mm.write(header.addr + 40, struct.pack("<Qi", len(control), flags))
    return count


@syscall(307)
async def sys_sendmmsg(task: Task, fd: Fd, messages: Addr, count: UInt, flags: Int) -> int:
    """sendmmsg(2): as many as go; an error counts only for the first."""
    check_flags(flags)
    sock = socket_of(task, fd)
    with sock.held():
        return await _send_many(task, sock, messages, min(count, UIO_MAXIOV), flags)


async def _send_many(task: Task, sock: Socket, messages: int, count: int, flags: int) -> int:
    done, pace = 0, Pace()
    for i in range(count):
        at = messages + i * MMSGHDR_SIZE
        try:
            sent = await again(send_one, task, sock, at, flags)
            await again(task.mm.write, at + 56, struct.pack("<I", sent))
        except (Errno, Interrupted):
            if done:
                break
            raise
        done += 1
        await pace.rest()
    return done


@syscall(299)
async def sys_recvmmsg(
    task: Task, fd: Fd, messages: Addr, count: UInt, flags: Int, timeout: TimespecInOrNull
) -> int:
    """recvmmsg(2): the time-out is looked at after each message only, as in Linux. An error behind
    the first message is told by the next call."""
    check_flags(flags)
    sock = socket_of(task, fd)
    deadline = None
    if timeout is not None:
        if timeout.tv_sec < 0 or not 0 <= timeout.tv_nsec < 10**9:
            raise EINVAL("timeout")
        deadline = task.kernel.loop.now_ns() + timeout.tv_sec * 10**9 + timeout.tv_nsec
    if not flags & MSG_ERRQUEUE:
        sock.take_error()
    with sock.held():
        return await _receive_many(task, sock, messages, min(count, UIO_MAXIOV), flags, deadline)


async def _receive_many(
    task: Task, sock: Socket, messages: int, count: int, flags: int, deadline: int | None
) -> int:
    done, pace = 0, Pace()
    for i in range(count):
        at = messages + i * MMSGHDR_SIZE
        try:
            got = await again(receive_one, task, sock, at, flags & ~MSG_WAITFORONE)
            await again(task.mm.write, at + 56, struct.pack("<I", got))
        except (Errno, Interrupted) as error:
            if not done:
                raise
            if isinstance(error, Errno) and not isinstance(error, EAGAIN):
                sock.so_error = error.number
            break
        done += 1
        if flags & MSG_WAITFORONE:
            flags |= MSG_DONTWAIT
        if deadline is not None and task.kernel.loop.now_ns() >= deadline:
            break
        await pace.rest()
    return done
