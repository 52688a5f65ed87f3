"""`Socket`: what all address families share, and the messages that travel.

A family subclasses `Socket` and gives plain attempts (`try_send`, `try_receive`, `try_accept`, …)
that raise EAGAIN rather than wait; sleeping, time-outs, flags and options are here, once.
Rules: socket(7), recv(2), send(2), net/core/sock.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sentry.abi.fcntl import O_NONBLOCK, O_RDWR, RWF_NOWAIT
from sentry.abi.poll import EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from sentry.abi.signal import SIGPIPE
from sentry.abi.socket import (
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_ACCEPTCONN,
    SO_BROADCAST,
    SO_BUSY_POLL,
    SO_DEBUG,
    SO_DOMAIN,
    SO_DONTROUTE,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_MARK,
    SO_NO_CHECK,
    SO_OOBINLINE,
    SO_PASSCRED,
    SO_PASSSEC,
    SO_PEEK_OFF,
    SO_PRIORITY,
    SO_PROTOCOL,
    SO_RCVBUF,
    SO_RCVBUFFORCE,
    SO_RCVLOWAT,
    SO_RCVTIMEO_NEW,
    SO_RCVTIMEO_OLD,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SO_SNDBUF,
    SO_SNDBUFFORCE,
    SO_SNDLOWAT,
    SO_SNDTIMEO_NEW,
    SO_SNDTIMEO_OLD,
    SO_TIMESTAMP_OLD,
    SO_TIMESTAMPNS_OLD,
    SO_TYPE,
    SOCK_STREAM,
    SOL_SOCKET,
)
from sentry.abi.stat import S_IFSOCK, SOCKFS_MAGIC
from sentry.errors import (
    EAGAIN,
    EDOM,
    EINVAL,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPIPE,
    ESPIPE,
    Errno,
    from_number,
)
from sentry.net.ioctls import socket_ioctl
from sentry.vfs.file import Caller, Dest, Result, Source, StreamFile
from sentry.vfs.interface import Inode, Owner
from sentry.wait.fiber import Interrupted, TimedOut
from sentry.wait.queue import until

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.dentry import Location

T = TypeVar("T")

DEFAULT_BUFFER: Final = 212992
"""net.core.rmem_default."""
MAX_BUFFER: Final = 212992
"""net.core.rmem_max."""
MIN_RCVBUF: Final = 2304
MIN_SNDBUF: Final = 4608
READABLE: Final = EPOLLIN | EPOLLRDHUP | EPOLLHUP
WRITABLE: Final = EPOLLOUT | EPOLLHUP

FLAG_OPTIONS: Final = frozenset(
    {
        SO_DEBUG, SO_REUSEADDR, SO_DONTROUTE, SO_BROADCAST, SO_KEEPALIVE, SO_OOBINLINE,
        SO_REUSEPORT, SO_PASSCRED, SO_NO_CHECK, SO_TIMESTAMP_OLD, SO_TIMESTAMPNS_OLD, SO_PASSSEC,
    }
)  # fmt: skip
"""Options of SOL_SOCKET that are on or off."""
NUMBER_OPTIONS: Final = frozenset({SO_PRIORITY, SO_MARK, SO_RCVLOWAT, SO_PEEK_OFF, SO_BUSY_POLL})


@dataclass(slots=True)
class Ancillary:
    """What a message carries beside its bytes."""

    files: list[Any] = field(default_factory=list)
    """SCM_RIGHTS: file descriptions, each with a use of its own."""
    creds: tuple[int, int, int] | None = None
    """SCM_CREDENTIALS: pid, uid, gid of the sender."""
    records: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Others: (level, type, data)."""


@dataclass(slots=True)
class Received:
    """What one receive gives."""

    count: int
    """Bytes put into the destination, or the whole length of a cut datagram with MSG_TRUNC."""
    address: bytes = b""
    flags: int = 0
    """MSG_TRUNC, MSG_EOR, MSG_OOB."""
    ancillary: Ancillary | None = None


class Socket(StreamFile):
    """An open socket of any family."""

    can_async = True
    async_room = False

    __slots__ = (
        "cookie", "family", "kind", "last_stamp_ns", "linger", "numbers", "options", "protocol",
        "rcvbuf", "rcvtimeo_ns", "read_shut", "sndbuf", "sndtimeo_ns", "so_error", "stack",
        "write_shut",
    )  # fmt: skip

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack
    ) -> None:
        super().__init__(location, O_RDWR)
        self.stack = stack
        stack.sockets.add(self)
        self.cookie = 0
        self.last_stamp_ns = 0
        """SIOCGSTAMP: when what was read last had come (CLOCK_REALTIME)."""
        self.family = family
        self.kind = kind
        self.protocol = protocol
        self.options: set[int] = set()
        self.numbers: dict[int, int] = {SO_RCVLOWAT: 1, SO_PEEK_OFF: -1}
        self.linger = (0, 0)
        self.rcvbuf = self.sndbuf = DEFAULT_BUFFER
        self.rcvtimeo_ns: int | None = None
        self.sndtimeo_ns: int | None = None
        self.so_error = 0
        """Pending error number, told once."""
        self.read_shut = self.write_shut = False

    # --- what a family gives; each is an attempt that raises EAGAIN rather than sleep

    async def bind(self, caller: Caller, address: bytes) -> None:
        """bind(2)."""
        raise EOPNOTSUPP("bind")

    async def connect(self, caller: Caller, address: bytes, nonblock: bool) -> None:
        """connect(2)."""
        raise EOPNOTSUPP("connect")

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        raise EOPNOTSUPP("listen")

    def try_accept(self, caller: Caller) -> tuple[Socket, bytes]:
        """The next connection and the address of its other end."""
        raise EOPNOTSUPP("accept")

    def local_address(self) -> bytes:
        """getsockname(2)."""
        raise EOPNOTSUPP("getsockname")

    def peer_address(self) -> bytes:
        """getpeername(2)."""
        raise ENOTCONN("getpeername")

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        raise EOPNOTSUPP("receive")

    async def target(self, caller: Caller, address: bytes) -> Any:
        """What sendto's address names, found once before the attempts."""
        return address

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2); consumes from `source` what it took."""
        raise EOPNOTSUPP("send")

    def shut(self, how: int) -> None:
        """shutdown(2) of a connected socket."""
        raise EOPNOTSUPP("shutdown")

    def set_family_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """setsockopt(2) of another level."""
        raise ENOPROTOOPT(f"level {level} option {name}")

    def family_option(self, caller: Caller, level: int, name: int, size: int) -> bytes:
        """getsockopt(2) of another level."""
        raise ENOPROTOOPT(f"level {level} option {name}")

    def own_ioctl(self, caller: Caller, request: int, argument: int) -> int | None:
        """ioctl(2) requests of this family; None for others."""
        return None

    @property
    def listening(self) -> bool:
        """SO_ACCEPTCONN."""
        return False

    # --- sleeping, written once

    def take_error(self) -> None:
        """Raise and forget the pending error."""
        if self.so_error:
            number, self.so_error = self.so_error, 0
            raise from_number(number)

    def wait_for(
        self,
        attempt: Callable[[], T],
        events: int,
        timeout_ns: int | None,
        nonblock: bool,
        caller: Caller,
    ) -> Any:
        """`attempt` now, or a coroutine that repeats it; EAGAIN when non-blocking or timed out."""
        try:
            return attempt()
        except EAGAIN:
            if nonblock:
                raise
        return self._sleep(attempt, events, timeout_ns, caller)

    async def _sleep(
        self, attempt: Callable[[], T], events: int, timeout_ns: int | None, caller: Caller
    ) -> T:
        deadline = None if timeout_ns is None else caller.kernel.loop.now_ns() + timeout_ns
        with self.held():
            try:
                return await until(attempt, (self.queue,), events, deadline_ns=deadline)
            except TimedOut:
                raise EAGAIN("timed out") from None
            except Interrupted:
                if timeout_ns is not None:
                    raise from_number(4) from None  # a time-out makes it EINTR: signal(7)
                raise

    def nonblock(self, flags: int) -> bool:
        """Whether an operation with MSG_* flags may not sleep."""
        return bool(self.flags & O_NONBLOCK or flags & MSG_DONTWAIT)

    def receive_message(self, caller: Caller, dest: Dest, flags: int) -> Any:
        """recvmsg(2): a `Received` or a coroutine that gives one."""
        return self.wait_for(
            lambda: self.try_receive(dest, flags),
            READABLE,
            self.rcvtimeo_ns,
            self.nonblock(flags),
            caller,
        )

    def send_message(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> Any:
        """sendmsg(2): a count or a coroutine; a stream goes on until all is sent."""
        total = source.count
        nonblock = self.nonblock(flags)
        try:
            done = self.wait_for(
                lambda: self.try_send(caller, source, target, flags, ancillary),
                WRITABLE, self.sndtimeo_ns, nonblock, caller,
            )  # fmt: skip
        except EPIPE:
            self.broken_pipe(caller, flags)
            raise
        if isinstance(done, int) and (done == total or nonblock or self.kind != SOCK_STREAM):
            return done
        return self._send_rest(caller, source, done, target, flags, total)

    async def _send_rest(
        self, caller: Caller, source: Source, first: Any, target: Any, flags: int, total: int
    ) -> int:
        done = 0
        try:
            done = first if isinstance(first, int) else await first
            while done < total and self.kind == SOCK_STREAM:
                part = self.wait_for(
                    lambda: self.try_send(caller, source, target, flags, None),
                    WRITABLE, self.sndtimeo_ns, False, caller,
                )  # fmt: skip
                done += part if isinstance(part, int) else await part
        except (Errno, Interrupted) as error:
            if done:
                return done
            if isinstance(error, EPIPE):
                self.broken_pipe(caller, flags)
            raise
        return done

    def broken_pipe(self, caller: Caller, flags: int) -> None:
        """SIGPIPE for a stream whose other end is gone, unless MSG_NOSIGNAL."""
        if not flags & MSG_NOSIGNAL and self.kind == SOCK_STREAM:
            caller.send_signal(SIGPIPE)

    def accept(self, caller: Caller, nonblock: bool) -> Any:
        """accept(2): (socket, address) or a coroutine that gives it."""
        return self.wait_for(
            lambda: self.try_accept(caller), EPOLLIN | EPOLLHUP, self.rcvtimeo_ns, nonblock, caller
        )

    # --- as a file

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2) is recv(2) without flags."""
        flags = MSG_DONTWAIT if rwf & RWF_NOWAIT else 0
        got = self.receive_message(caller, dest, flags)
        return got.count if isinstance(got, Received) else _count(got)

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2) is send(2) without flags."""
        result: Result = self.send_message(
            caller, source, None, MSG_DONTWAIT if rwf & RWF_NOWAIT else 0, None
        )
        return result

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """lseek(2)."""
        raise ESPIPE("socket")

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """ioctl(2)."""
        return socket_ioctl(self, caller, request, argument)

    def shutdown(self, how: int) -> None:
        """shutdown(2). Raises: EINVAL, ENOTCONN."""
        if how not in (SHUT_RD, SHUT_WR, SHUT_RDWR):
            raise EINVAL(f"how {how}")
        self.shut(how)

    # --- options of SOL_SOCKET

    def set_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """setsockopt(2)."""
        if level != SOL_SOCKET:
            self.set_family_option(caller, level, name, value)
            return
        if name == SO_LINGER:
            if len(value) < 8:
                raise EINVAL("struct linger")
            on, seconds = struct.unpack_from("<ii", value)
            self.linger = (1 if on else 0, seconds)
            return
        if name in (SO_RCVTIMEO_OLD, SO_RCVTIMEO_NEW, SO_SNDTIMEO_OLD, SO_SNDTIMEO_NEW):
            timeout = parse_timeout(value)
            if name in (SO_RCVTIMEO_OLD, SO_RCVTIMEO_NEW):
                self.rcvtimeo_ns = timeout
            else:
                self.sndtimeo_ns = timeout
            return
        if len(value) < 4:
            raise EINVAL("int expected")
        (number,) = struct.unpack_from("<i", value)
        if name in FLAG_OPTIONS:
            if number:
                self.options.add(name)
            else:
                self.options.discard(name)
        elif name in (SO_RCVBUF, SO_RCVBUFFORCE):
            self.rcvbuf = max(MIN_RCVBUF, min(number & 0x7FFFFFFF, MAX_BUFFER) * 2)
        elif name in (SO_SNDBUF, SO_SNDBUFFORCE):
            self.sndbuf = max(MIN_SNDBUF, min(number & 0x7FFFFFFF, MAX_BUFFER) * 2)
            self.queue.notify(EPOLLOUT)
        elif name in NUMBER_OPTIONS:
            self.numbers[name] = number
        else:
            raise ENOPROTOOPT(f"SOL_SOCKET option {name}")

    def option(self, caller: Caller, level: int, name: int, size: int) -> bytes:
        """getsockopt(2): the value, at most `size` bytes of it."""
        if level != SOL_SOCKET:
            return self.family_option(caller, level, name, size)
        if name == SO_LINGER:
            return struct.pack("<ii", *self.linger)[:size]
        if name in (SO_RCVTIMEO_OLD, SO_RCVTIMEO_NEW):
            return format_timeout(self.rcvtimeo_ns)[:size]
        if name in (SO_SNDTIMEO_OLD, SO_SNDTIMEO_NEW):
            return format_timeout(self.sndtimeo_ns)[:size]
        if name == SO_ERROR:
            value, self.so_error = self.so_error, 0
        else:
            found = self._number_option(name)
            if found is None:
                raise ENOPROTOOPT(f"SOL_SOCKET option {name}")
            value = found
        return struct.pack("<i", value)[:size]

    def _number_option(self, name: int) -> int | None:
        if name in FLAG_OPTIONS:
            return int(name in self.options)
        fixed = {
            SO_TYPE: self.kind,
            SO_DOMAIN: self.family,
            SO_PROTOCOL: self.protocol,
            SO_ACCEPTCONN: int(self.listening),
            SO_RCVBUF: self.rcvbuf,
            SO_SNDBUF: self.sndbuf,
            SO_SNDLOWAT: 1,
        }
        if name in fixed:
            return fixed[name]
        return self.numbers.get(name, 0) if name in NUMBER_OPTIONS else None


def socket_location(caller: Caller) -> Location:
    """A place in sockfs for a new socket."""
    vfs = caller.kernel.vfs
    fs = vfs.anon_fs("sockfs", SOCKFS_MAGIC)
    ino = vfs.new_ino()
    inode = Inode(fs, ino, S_IFSOCK | 0o777, Owner(caller.creds.fsuid, caller.creds.fsgid))
    location: Location = vfs.anon_location(inode, b"socket:[%d]" % ino)
    return location


async def _count(pending: Any) -> int:
    received: Received = await pending
    return received.count


def parse_timeout(value: bytes) -> int | None:
    """struct timeval to ns; zero means for ever. Raises: EINVAL, EDOM."""
    if len(value) < 16:
        raise EINVAL("struct timeval")
    seconds, micros = struct.unpack_from("<qq", value)
    if not 0 <= micros < 1_000_000:
        raise EDOM("tv_usec")
    if seconds < 0:
        return 0
    return (seconds * 1_000_000 + micros) * 1000 or None


def format_timeout(timeout_ns: int | None) -> bytes:
    """ns to struct timeval."""
    micros = (timeout_ns or 0) // 1000
    return struct.pack("<qq", micros // 1_000_000, micros % 1_000_000)
