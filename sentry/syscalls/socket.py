"""Sockets: the calls of socket(2) and its relatives, over sentry.net."""

from __future__ import annotations

import struct
from collections.abc import Coroutine
from typing import Any

from sentry.abi.capability import CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.socket import (
    AF_NETLINK,
    AF_UNIX,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_WAITFORONE,
    SCM_CREDENTIALS,
    SCM_PIDFD,
    SCM_RIGHTS,
    SO_MARK,
    SO_PEERPIDFD,
    SO_TIMESTAMPING_OLD,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOL_SOCKET,
)
from sentry.errors import (
    EFAULT,
    EINVAL,
    EMFILE,
    EMSGSIZE,
    ENOBUFS,
    ENODATA,
    ENOTSOCK,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    ETOOMANYREFS,
    Errno,
)
from sentry.fs.pidfd import PidFile
from sentry.kernel.task import Task
from sentry.net.family import UnixSocket, make_socket
from sentry.net.socket import Ancillary, Received, Socket
from sentry.net.unix import shown_ucred
from sentry.net.unix_segment import drop_files
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Fd, Int, Size, TimespecInOrNull, UInt, UserIn, UserOut
from sentry.vfs.file import settle
from sentry.wait.fiber import Interrupted

SOCK_TYPE_MASK = 0xF
SOCK_PACKET = 10
MAX_ADDRESS = 128
MAX_CONTROL = 65536
MAX_RIGHTS = 253
MAX_IN_FLIGHT = 100_000
"""Descriptors on their way in the whole sandbox: a ceiling of ours."""
UIO_MAXIOV = 1024
MSGHDR = struct.Struct("<QI4xQQQQi4x")
"""struct user_msghdr: name, namelen, iov, iovlen, control, controllen, flags."""
MMSGHDR_SIZE = 64


def socket_of(task: Task, fd: int) -> Socket:
    """The socket of a descriptor. EBADF, ENOTSOCK."""
    file = task.files.get(fd & 0xFFFFFFFF)
    if not isinstance(file, Socket):
        raise ENOTSOCK(f"fd {fd}")
    return file


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
    if kind & SOCK_TYPE_MASK > SOCK_PACKET:
        raise EINVAL(f"type {kind:#x}")
    return kind & SOCK_TYPE_MASK, flags


def read_address(source: UserIn, size: int) -> bytes:
    """move_addr_to_kernel(). EINVAL, EFAULT."""
    if not 0 <= size <= MAX_ADDRESS:
        raise EINVAL(f"address of {size} bytes")
    return source.get(size) if size else b""


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
    made = make_socket(task, family, kind, protocol)
    if isinstance(made, Socket):
        return install(task, made, flags)
    return install_later(task, made, flags)


async def install_later(task: Task, making: Coroutine[Any, Any, Socket], flags: int) -> int:
    """For a socket that another process makes."""
    return install(task, await making, flags)


@syscall(53)
def sys_socketpair(task: Task, family: Int, kind: Int, protocol: Int, out: UserOut) -> None:
    """socketpair(2)."""
    kind, flags = split_type(kind)
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
async def sys_bind(task: Task, fd: Fd, address: UserIn, size: Int) -> None:
    """bind(2)."""
    sock = socket_of(task, fd)
    await sock.bind(task, read_address(address, size))


@syscall(42)
async def sys_connect(task: Task, fd: Fd, address: UserIn, size: Int) -> None:
    """connect(2)."""
    sock = socket_of(task, fd)
    with sock.held():
        await sock.connect(task, read_address(address, size), bool(sock.flags & O_NONBLOCK))


@syscall(50)
def sys_listen(task: Task, fd: Fd, backlog: Int) -> None:
    """listen(2)."""
    socket_of(task, fd).listen(task, backlog)


@syscall(43)
async def sys_accept(task: Task, fd: Fd, out: Addr, length: Addr) -> int:
    """accept(2)."""
    return await accept(task, fd, out, length, 0)


@syscall(288)
async def sys_accept4(task: Task, fd: Fd, out: Addr, length: Addr, flags: Int) -> int:
    """accept4(2)."""
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise EINVAL("flags")
    return await accept(task, fd, out, length, flags)


async def accept(task: Task, fd: int, out: int, length: int, flags: int) -> int:
    """Wait for a connection and give it a descriptor."""
    sock = socket_of(task, fd)
    task.files.free_from(0, task.rlimit(RLIMIT_NOFILE))
    server, address = await settle(sock.accept(task, bool(sock.flags & O_NONBLOCK)))
    try:
        if out:
            write_address(task, address, out, length)
    except Errno:
        server.incref().decref()
        raise
    return install(task, server, flags)


@syscall(51)
def sys_getsockname(task: Task, fd: Fd, out: Addr, length: Addr) -> None:
    """getsockname(2)."""
    write_address(task, socket_of(task, fd).local_address(), out, length)


@syscall(52)
def sys_getpeername(task: Task, fd: Fd, out: Addr, length: Addr) -> None:
    """getpeername(2)."""
    write_address(task, socket_of(task, fd).peer_address(), out, length)


@syscall(48)
def sys_shutdown(task: Task, fd: Fd, how: Int) -> None:
    """shutdown(2)."""
    socket_of(task, fd).shutdown(how)


@syscall(54)
def sys_setsockopt(task: Task, fd: Fd, level: Int, name: Int, value: UserIn, size: Int) -> None:
    """setsockopt(2)."""
    sock = socket_of(task, fd)
    if size < 0:
        raise EINVAL("length")
    sock.set_option(task, level, name, value.get(min(size, 4096)) if size else b"")


@syscall(55)
def sys_getsockopt(task: Task, fd: Fd, level: Int, name: Int, out: UserOut, length: Addr) -> None:
    """getsockopt(2)."""
    sock = socket_of(task, fd)
    (room,) = struct.unpack("<i", task.mm.read(length, 4))
    if room < 0:
        raise EINVAL("length")
    if (level, name) == (SOL_SOCKET, SO_PEERPIDFD):
        value = struct.pack("<i", peer_pidfd(task, sock))[:room]
    else:
        value = sock.option(task, level, name, room)
    out.put(value)
    task.mm.write(length, struct.pack("<i", len(value)))


def pidfd(task: Task, pid: int) -> int:
    """A new descriptor for a process. Raises: ESRCH, EMFILE."""
    group = task.kernel.pids.groups.get(pid)
    if group is None:
        raise ESRCH(f"pid {pid}")
    file = PidFile(task.kernel.vfs, group, False)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=True)


def peer_pidfd(task: Task, sock: Socket) -> int:
    """SO_PEERPIDFD. Raises: EOPNOTSUPP, ENODATA, ESRCH."""
    if not isinstance(sock, UnixSocket):
        raise EOPNOTSUPP("SO_PEERPIDFD")
    if sock.peer_creds is None:
        raise ENODATA("no peer")
    return pidfd(task, sock.peer_creds[0])


@syscall(44)
async def sys_sendto(
    task: Task, fd: Fd, data: UserIn, count: Size, flags: Int, address: UserIn, size: Int
) -> int:
    """sendto(2)."""
    sock = socket_of(task, fd)
    target = None
    if address:
        target = await sock.target(task, read_address(address, size))
    result: int = await settle(sock.send_message(task, data.take(count), target, flags, None))
    return result


@syscall(45)
async def sys_recvfrom(
    task: Task, fd: Fd, out: UserOut, count: Size, flags: Int, address: Addr, length: Addr
) -> int:
    """recvfrom(2)."""
    sock = socket_of(task, fd)
    got: Received = await settle(sock.receive_message(task, out.take(count), flags))
    drop_files(sock.stack, got.ancillary)
    if address:
        write_address(task, got.address, address, length)
    return got.count


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
        if self.name_size & 0x80000000:
            raise EINVAL("msg_namelen")
        if self.iov_count > UIO_MAXIOV:
            raise EMSGSIZE("msg_iovlen")


@syscall(46)
async def sys_sendmsg(task: Task, fd: Fd, message: Addr, flags: Int) -> int:
    """sendmsg(2)."""
    return await send_one(task, socket_of(task, fd), message, flags)


async def send_one(task: Task, sock: Socket, message: int, flags: int) -> int:
    """One message."""
    header = Header(task, message)
    target = None
    if header.name:
        address = task.mm.read(header.name, min(header.name_size, MAX_ADDRESS))
        target = await sock.target(task, address)
    ancillary = None
    if header.control and header.control_size:
        if header.control_size > MAX_CONTROL:
            raise ENOBUFS("msg_controllen")
        ancillary = parse_control(task, sock, task.mm.read(header.control, header.control_size))
    source = task.mm.buffer_in_iov(header.iov, header.iov_count)
    try:
        result: int = await settle(sock.send_message(task, source, target, flags, ancillary))
    finally:
        if ancillary is not None and not ancillary.sent:
            drop_files(sock.stack, ancillary)
    return result


@syscall(47)
async def sys_recvmsg(task: Task, fd: Fd, message: Addr, flags: Int) -> int:
    """recvmsg(2)."""
    return await receive_one(task, socket_of(task, fd), message, flags)


async def receive_one(task: Task, sock: Socket, message: int, flags: int) -> int:
    """One message."""
    header = Header(task, message)
    dest = task.mm.buffer_out_iov(header.iov, header.iov_count)
    got: Received = await settle(sock.receive_message(task, dest, flags))
    control, out_flags = b"", got.flags | flags & MSG_CMSG_CLOEXEC
    try:
        if got.ancillary is not None:
            room = header.control_size if header.control else 0
            control, cut = format_control(task, got.ancillary, room, flags)
            out_flags |= MSG_CTRUNC if cut else 0
    finally:
        drop_files(sock.stack, got.ancillary)
    if header.name:
        task.mm.write(header.name, got.address[: header.name_size])
        task.mm.write(message + 8, struct.pack("<I", len(got.address)))
    if control:
        task.mm.write(header.control, control)
    task.mm.write(message + 40, struct.pack("<Qi", len(control), out_flags))
    return got.count


@syscall(307)
async def sys_sendmmsg(task: Task, fd: Fd, messages: Addr, count: UInt, flags: Int) -> int:
    """sendmmsg(2): as many as go; an error counts only for the first."""
    sock = socket_of(task, fd)
    done = 0
    for i in range(min(count, UIO_MAXIOV)):
        at = messages + i * MMSGHDR_SIZE
        try:
            sent = await send_one(task, sock, at, flags)
            task.mm.write(at + 56, struct.pack("<I", sent))
        except (Errno, Interrupted):
            if done:
                break
            raise
        done += 1
    return done


@syscall(299)
async def sys_recvmmsg(
    task: Task, fd: Fd, messages: Addr, count: UInt, flags: Int, timeout: TimespecInOrNull
) -> int:
    """recvmmsg(2): the time-out is looked at after each message only, as in Linux."""
    sock = socket_of(task, fd)
    deadline = None
    if timeout is not None:
        if timeout.tv_sec < 0 or not 0 <= timeout.tv_nsec < 10**9:
            raise EINVAL("timeout")
        deadline = task.kernel.loop.now_ns() + timeout.tv_sec * 10**9 + timeout.tv_nsec
    done = 0
    for i in range(min(count, UIO_MAXIOV)):
        at = messages + i * MMSGHDR_SIZE
        try:
            got = await receive_one(task, sock, at, flags & ~MSG_WAITFORONE)
            task.mm.write(at + 56, struct.pack("<I", got))
        except (Errno, Interrupted):
            if done:
                break
            raise
        done += 1
        if flags & MSG_WAITFORONE:
            flags |= MSG_DONTWAIT
        if deadline is not None and task.kernel.loop.now_ns() >= deadline:
            break
    return done


# --- control messages


def parse_control(task: Task, sock: Socket, data: bytes) -> Ancillary:
    """What sendmsg is given beside the bytes: cmsg(3). EINVAL, EBADF, EPERM."""
    result = Ancillary()
    at = 0
    try:
        while at + 16 <= len(data):
            length, level, kind = struct.unpack_from("<Qii", data, at)
            if length < 16 or at + length > len(data):
                raise EINVAL("cmsg_len")
            body = data[at + 16 : at + length]
            at += (length + 7) & ~7
            if level != SOL_SOCKET:
                result.records.append((level, kind, body))
            elif sock.family not in (AF_UNIX, AF_NETLINK):
                if kind not in (SO_MARK, SO_TIMESTAMPING_OLD, SCM_RIGHTS, SCM_CREDENTIALS):
                    raise EINVAL(f"control message {kind}")
            elif kind == SCM_RIGHTS:
                take_rights(task, sock, result, body)
            elif kind == SCM_CREDENTIALS:
                if len(body) != 12:
                    raise EINVAL("struct ucred")
                result.creds = check_creds(task, struct.unpack("<iII", body))
            else:
                raise EINVAL(f"control message {kind}")
    except Errno:
        drop_files(sock.stack, result)
        raise
    return result


def take_rights(task: Task, sock: Socket, result: Ancillary, body: bytes) -> None:
    """SCM_RIGHTS: a use of every named file."""
    fds = struct.unpack(f"<{len(body) // 4}i", body[: len(body) // 4 * 4])
    if len(result.files) + len(fds) > MAX_RIGHTS:
        raise EINVAL("too many descriptors")
    exempt = task.creds.has(CAP_SYS_RESOURCE) or task.creds.has(CAP_SYS_ADMIN)
    flying = sock.stack.in_flight
    if flying > MAX_IN_FLIGHT or (flying > task.rlimit(RLIMIT_NOFILE) and not exempt):
        raise ETOOMANYREFS("descriptors in flight")
    for fd in fds:
        result.files.append(task.files.get_raw(fd).incref())


def check_creds(task: Task, given: tuple[int, int, int]) -> tuple[int, int, int]:
    """scm_check_creds(): one's own ids, unless capable. EPERM, ESRCH."""
    creds = task.creds
    pid, uid, gid = task.pids.known(given[0]), creds.kuid(given[1]), creds.kgid(given[2])
    if pid != task.group.tgid and not creds.has_in(task.pids.owner, CAP_SYS_ADMIN):
        raise EPERM("pid")
    if pid not in task.kernel.pids.groups:
        raise ESRCH(f"pid {pid}")
    if uid not in (creds.uid, creds.euid, creds.suid) and not creds.own(CAP_SETUID):
        raise EPERM("uid")
    if gid not in (creds.gid, creds.egid, creds.sgid) and not creds.own(CAP_SETGID):
        raise EPERM("gid")
    if 0xFFFFFFFF in (uid, gid):
        raise EINVAL("no such id")
    return pid, uid, gid


def format_control(task: Task, ancillary: Ancillary, room: int, flags: int) -> tuple[bytes, bool]:
    """(control bytes for the receiver, whether something did not fit)."""
    out, cut = b"", False

    def add(level: int, kind: int, body: bytes) -> None:
        nonlocal out, cut
        left = room - len(out)
        if left < 16:
            cut = True
            return
        taken = body[: left - 16]
        cut |= len(taken) < len(body)
        out += struct.pack("<Qii", 16 + len(taken), level, kind) + taken
        out += bytes(min(-len(out) % 8, max(0, room - len(out))))

    if ancillary.creds is not None:
        add(SOL_SOCKET, SCM_CREDENTIALS, struct.pack("<iII", *shown_ucred(task, ancillary.creds)))
    if ancillary.files:
        fit = max(0, (room - len(out) - 16) // 4)
        fds = []
        for file in ancillary.files[:fit]:
            try:
                fds.append(
                    task.files.install(
                        file, task.rlimit(RLIMIT_NOFILE), cloexec=bool(flags & MSG_CMSG_CLOEXEC)
                    )
                )
            except EMFILE:
                break
        cut |= len(fds) < len(ancillary.files)
        if fds:
            add(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"<{len(fds)}i", *fds))
    if ancillary.pid is not None and room - len(out) >= 20:
        try:
            add(SOL_SOCKET, SCM_PIDFD, struct.pack("<i", pidfd(task, ancillary.pid)))
        except Errno as error:
            add(SOL_SOCKET, SCM_PIDFD, struct.pack("<i", -error.number))
    elif ancillary.pid is not None:
        cut = True
    for level, kind, body in ancillary.records:
        add(level, kind, body)
    return out, cut
