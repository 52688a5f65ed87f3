"""Sockets: the calls of socket(2) and its relatives, over sentry.net."""

from __future__ import annotations

import struct
from typing import Any, Final

from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.socket import (
    AF_MAX,
    AF_UNIX,
    SO_BINDTODEVICE,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_PACKET,
    SOL_SOCKET,
)
from sentry.errors import (
    EAFNOSUPPORT,
    EFAULT,
    EINVAL,
    EMFILE,
    ENODATA,
    EOPNOTSUPP,
    Errno,
)
from sentry.kernel.task import Task
from sentry.net.family import UnixSocket, make_socket
from sentry.net.message import Received
from sentry.net.options import Counted, Option, Question
from sentry.net.socket import Socket
from sentry.net.unix_flights import drop_files
from sentry.net.unix_options import UNIX
from sentry.syscalls.registry import syscall
from sentry.syscalls.sockets.buffers import (
    USED,
    Used,
    UsedFile,
    check_socket,
    dest_of,
    socket_of,
    source_of,
)
from sentry.syscalls.sockets.control import pidfd
from sentry.syscalls.types import Addr, Fd, Int, Size, UserIn, UserOut
from sentry.vfs.file import FileDescription, Result
from sentry.wait.again import Keeping, NotNow, kept
from sentry.wait.sleep import continued

SOCK_TYPE_MASK = 0xF
MAX_ADDRESS = 128
ACCEPTED: Final = "accepted"
RECEIVED: Final = "received"
VALUE: Final = "value"
"""Keys of what came while the program's memory for it, or for its address, did not."""


def install(task: Task, sock: Socket, flags: int) -> int:
    """A descriptor for a socket that is new."""
    if flags & SOCK_NONBLOCK:
        sock.flags |= O_NONBLOCK
    sock.incref()
    try:
        return task.files.install(
            sock, task.rlimit(RLIMIT_NOFILE), cloexec=bool(flags & SOCK_CLOEXEC)
        )
    finally:
        sock.decref()


def split_type(kind: int) -> tuple[int, int]:
    """(type, SOCK_CLOEXEC and SOCK_NONBLOCK). EINVAL."""
    flags = kind & ~SOCK_TYPE_MASK
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise EINVAL(f"type {kind:#x}")
    return kind & SOCK_TYPE_MASK, flags


def check_ranges(family: int, kind: int) -> None:
    """__sock_create(). EAFNOSUPPORT, EINVAL."""
    if not 0 <= family < AF_MAX:
        raise EAFNOSUPPORT(f"family {family}")
    if kind > SOCK_PACKET:
        raise EINVAL(f"type {kind:#x}")


def read_address(task: Task, sock: FileDescription, source: UserIn, size: int) -> bytes:
    """move_addr_to_kernel(). EINVAL, EFAULT."""
    if not 0 <= size <= MAX_ADDRESS:
        raise EINVAL(f"address of {size} bytes")
    raw = source.get(size) if size else b""
    if task.judge is not None and isinstance(sock, Socket):
        return task.judge.address(sock, raw)
    return raw


def write_address(task: Task, address: bytes, out: int, length_at: int) -> None:
    """move_addr_to_user(): cut to the caller's room; the true length is told. EINVAL, EFAULT."""
    (room,) = struct.unpack("<i", task.mm.read(length_at, 4))
    if room < 0:
        raise EINVAL("length")
    task.mm.write(out, address[:room])
    task.mm.write(length_at, struct.pack("<i", len(address)))


@syscall(41)
def sys_socket(task: Task, family: Int, kind: Int, protocol: Int) -> Any:
    """socket(2)."""
    kind, flags = split_type(kind)
    check_ranges(family, kind)
    made = make_socket(task, family, kind, protocol)
    return continued(made, lambda sock: install(task, sock, flags))


@syscall(53)
def sys_socketpair(task: Task, family: Int, kind: Int, protocol: Int, out: UserOut) -> None:
    """socketpair(2)."""
    kind, flags = split_type(kind)
    task.mm.check_out(out.addr, 8)
    check_ranges(family, kind)
    first = make_socket(task, family, kind, protocol)
    if not isinstance(first, UnixSocket):
        if isinstance(first, Socket):
            first.incref().decref()
        else:
            first.close()
        raise EOPNOTSUPP(f"family {family}")
    second = make_socket(task, family, kind, protocol)
    assert isinstance(second, UnixSocket)
    first.pair(second, task)
    one = install(task, first, flags)
    try:
        two = install(task, second, flags)
    except EMFILE:
        task.files.close(task, one)
        raise
    try:
        out.put(struct.pack("<ii", one, two))
    except EFAULT:
        task.files.close(task, one)
        task.files.close(task, two)
        raise


@syscall(49)
def sys_bind(task: Task, fd: Fd, address: UserIn, size: Int) -> Result:
    """bind(2)."""
    with Used(task, fd) as sock:
        return sock.bind(task, read_address(task, sock, address, size))


@syscall(42)
def sys_connect(task: Task, fd: Fd, address: UserIn, size: Int) -> Result:
    """connect(2): the address is read before it shows that this is no socket."""
    with UsedFile(task, fd) as file:
        target = read_address(task, file, address, size)
        sock = check_socket(file)
        return sock.connect(task, target, bool(sock.flags & O_NONBLOCK))


@syscall(50)
def sys_listen(task: Task, fd: Fd, backlog: Int) -> None:
    """listen(2)."""
    socket_of(task, fd).listen(task, backlog)


@syscall(43)
def sys_accept(task: Task, fd: Fd, out: Addr, length: Addr) -> Result:
    """accept(2)."""
    return accept(task, fd, out, length, 0)


@syscall(288)
def sys_accept4(task: Task, fd: Fd, out: Addr, length: Addr, flags: Int) -> Result:
    """accept4(2)."""
    if kept(ACCEPTED) is None and kept(USED) is None:
        task.files.get(fd & 0xFFFFFFFF)
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise EINVAL("flags")
    return accept(task, fd, out, length, flags)


def accept(task: Task, fd: int, out: int, length: int, flags: int) -> Result:
    """Wait for a connection and give it a descriptor."""

    def finish(accepted: tuple[Socket, bytes]) -> int:
        server, address = accepted
        try:
            if out:
                with Keeping(ACCEPTED, accepted):
                    write_address(task, address, out, length)
        except NotNow as need:
            need.call.hold_files(server)
            raise
        except Errno:
            server.incref().decref()
            raise
        return install(task, server, flags)

    if kept(ACCEPTED) is not None:
        return finish(kept(ACCEPTED))
    with Used(task, fd) as sock:
        task.files.free_from(0, task.rlimit(RLIMIT_NOFILE))
        accepted = sock.accept(task, bool(sock.flags & O_NONBLOCK))
        result: Result = continued(accepted, finish)
        return result


@syscall(51)
def sys_getsockname(task: Task, fd: Fd, out: Addr, length: Addr) -> None:
    """getsockname(2)."""
    with Used(task, fd) as sock:
        write_address(task, sock.local_address(), out, length)


@syscall(52)
def sys_getpeername(task: Task, fd: Fd, out: Addr, length: Addr) -> None:
    """getpeername(2)."""
    with Used(task, fd) as sock:
        write_address(task, sock.peer_address(), out, length)


@syscall(48)
def sys_shutdown(task: Task, fd: Fd, how: Int) -> Result:
    """shutdown(2)."""
    socket_of(task, fd).shutdown(how)
    return task.kernel.vfs.leftovers.awaited()


@syscall(54)
def sys_setsockopt(task: Task, fd: Fd, level: Int, name: Int, value: UserIn, size: Int) -> None:
    """setsockopt(2)."""
    with Used(task, fd) as sock:
        if size < 0 or (size < 4 and level == SOL_SOCKET and name != SO_BINDTODEVICE):
            raise EINVAL("length")
        size = sock.value_size(task, level, name, size)
        sock.set_option(task, level, name, value.get(size) if size else b"")


@syscall(55)
def sys_getsockopt(task: Task, fd: Fd, level: Int, name: Int, out: UserOut, length: Addr) -> None:
    """getsockopt(2)."""
    if kept(VALUE) is not None:
        _write_option(task, out, length, *kept(VALUE))
        return
    with Used(task, fd) as sock:
        (room,) = struct.unpack("<i", task.mm.read(length, 4))
        if room < 0:
            if sock.family == AF_UNIX and level != SOL_SOCKET:
                raise EOPNOTSUPP(f"level {level}")
            raise EINVAL("length")
        value = sock.option(task, level, name, room)
        if isinstance(value, Question):
            value = value.answer(task.mm.read(out.addr, value.size))
    told = len(value)
    if isinstance(value, Counted):
        value, told = value
    _write_option(task, out, length, value, told)


def _write_option(task: Task, out: UserOut, length: int, value: bytes, told: int) -> None:
    with Keeping(VALUE, (value, told)):  # SO_ERROR is told once
        out.put(value)
        task.mm.write(length, struct.pack("<i", told))


def peer_pidfd(row: Option, sock: UnixSocket, task: Task, size: int) -> bytes:
    """SO_PEERPIDFD. Raises: ENODATA, ESRCH."""
    if sock.peer_creds is None:
        raise ENODATA("no peer")
    return struct.pack("<i", pidfd(task, sock.peer_creds[0]))


UNIX.row("SO_PEERPIDFD", peer_pidfd)


@syscall(44)
def sys_sendto(
    task: Task, fd: Fd, data: UserIn, count: Size, flags: Int, address: UserIn, size: Int
) -> Result:
    """sendto(2)."""
    with Used(task, fd) as sock:
        target = None
        if address:
            target = sock.target(task, read_address(task, sock, address, size))
        source = source_of(task, data.addr, count)
        result: Result = sock.send_message(task, source, target, flags, None)
        return result


@syscall(45)
def sys_recvfrom(
    task: Task, fd: Fd, out: UserOut, count: Size, flags: Int, address: Addr, length: Addr
) -> Result:
    """recvfrom(2)."""

    def tell(got: Received) -> int:
        if address:
            with Keeping(RECEIVED, got):
                write_address(task, got.address, address, length)
        return got.count

    def finish(got: Received) -> int:
        drop_files(sock.stack, got.ancillary)
        got.ancillary = None
        return tell(got)

    if kept(RECEIVED) is not None:
        return tell(kept(RECEIVED))
    with Used(task, fd) as sock:
        got = sock.receive_message(task, dest_of(task, out.addr, count), flags)
        result: Result = continued(got, finish)
        return result
