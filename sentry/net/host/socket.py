"""`HostSocket`: a socket of the host's kernel as an open file of the sandbox.

The program's calls are checked and made again on the donated descriptor, with buffers of our own.
The descriptor does not block; who has to wait sleeps on its readiness.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_BIND_SERVICE
from sentry.abi.ioctl import FIONREAD, TIOCOUTQ
from sentry.abi.poll import EPOLLIN, EPOLLOUT, EPOLLRDNORM, EPOLLWRNORM
from sentry.abi.socket import AF_INET6, SOL_SOCKET
from sentry.abi.socket import BPF_TCP_CLOSE as TCP_CLOSE
from sentry.abi.socket import BPF_TCP_LISTEN as TCP_LISTEN
from sentry.errors import (
    EACCES,
    EAGAIN,
    EALREADY,
    ECONNRESET,
    EINPROGRESS,
    EINVAL,
    EMSGSIZE,
    ENFILE,
    ENOTCONN,
    EPERM,
    from_number,
)
from sentry.net.host import calls
from sentry.net.host.options import SENT_CONTROL
from sentry.net.host.rows import HOST
from sentry.net.ioctls import NAMES, SOCKETS
from sentry.net.message import Ancillary, Received
from sentry.net.socket import Socket
from sentry.net.sockfs import socket_location
from sentry.net.sysctls import FIRST_UNPRIVILEGED, first_unprivileged_port
from sentry.vfs.requests import Requests, put_int
from sentry.wait.again import CURRENT, Keeping, kept
from sentry.wait.fiber import Mode
from sentry.wait.host_queue import HostQueue
from sentry.wait.sleep import ended, instead, until

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller, Dest, Result, Source
    from sentry.vfs.location import Location

PIECE: Final = 1 << 18
"""Bytes that one call moves."""
SENT_FLAGS: Final = abi.MSG_OOB | abi.MSG_DONTROUTE | abi.MSG_EOR | abi.MSG_MORE | abi.MSG_CONFIRM
RECEIVED_FLAGS: Final = abi.MSG_OOB | abi.MSG_PEEK | abi.MSG_TRUNC | abi.MSG_ERRQUEUE
Came = tuple[int, bytes, bytes, bytes, int]
"""What `calls.receive` gives."""
MAX_SOCKETS: Final = 8192
"""Of one sandbox: each is a descriptor of the Sentry."""


REQUESTS: Final = Requests(SOCKETS, names=NAMES)
REQUESTS.row("FIONREAD", put_int(lambda sock: calls.count(sock.fd, FIONREAD)))
REQUESTS.row("TIOCOUTQ", put_int(lambda sock: calls.count(sock.fd, TIOCOUTQ)))
REQUESTS.row("SIOCATMARK", put_int(lambda sock: calls.count(sock.fd, abi.SIOCATMARK)))


class HostSocket(Socket):
    """TCP, UDP and ping sockets of the host."""

    __slots__ = ("_host_queue", "fd")
    options_known = HOST
    requests: ClassVar = REQUESTS

    keeps_unread = False

    def __init__(
        self, location: Location, family: int, kind: int, protocol: int, stack: Stack, fd: int
    ) -> None:
        super().__init__(location, family, kind, protocol, stack)
        self.fd = fd
        self._host_queue = HostQueue(stack.kernel.loop, fd, True)
        self.queue = self._host_queue
        stack.host_sockets += 1
        stack.kernel.vfs.budget.host_descriptors += 1

    def release(self) -> None:
        """The last descriptor is closed."""
        super().release()
        self.stack.host_sockets -= 1
        self.stack.kernel.vfs.budget.host_descriptors -= 1
        self._host_queue.close()
        fd, self.fd = self.fd, -1
        os.close(fd)

    def cut(self, null: int) -> None:
        """In a copy, which has no part in it: /dev/null, or nothing (-1), is under its number until
        `renew`. Who was connected hears that it was reset."""
        if self.kind == abi.SOCK_STREAM:
            state = calls.option(self.fd, abi.IPPROTO_TCP, abi.TCP_INFO, 1)[0]
            if state not in (TCP_CLOSE, TCP_LISTEN):
                self.so_error, self.read_shut = ECONNRESET.number, True
        self._host_queue.close()
        if null >= 0:
            os.dup2(null, self.fd, inheritable=False)
        else:
            os.close(self.fd)

    def renew(self, fd: int) -> None:
        """It is another socket of the host from now on, which has no address and no connection; the
        descriptor is not needed any more."""
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self._host_queue.reopen()
        self.queue.notify()

    def poll(self) -> int:
        """What the host says."""
        events = self._host_queue.ready()
        events |= EPOLLRDNORM if events & EPOLLIN else 0
        return events | (EPOLLWRNORM if events & EPOLLOUT else 0)

    # --- connections

    def bind(self, caller: Caller, address: bytes) -> Result:
        """bind(2); for a privileged port by the network process, which may."""
        if (self.family == AF_INET6 and len(address) < 24) or len(address) < 16:
            raise EINVAL("address")
        port = int.from_bytes(address[2:4], "big")
        capable = 0 < port < FIRST_UNPRIVILEGED and caller.creds.has(CAP_NET_BIND_SERVICE)
        if not capable:
            if 0 < port < first_unprivileged_port(self.stack):
                raise EACCES("privileged port")
            calls.bind(self.fd, address)
            return 0
        process = self.stack.host
        assert process is not None
        return process.bind(self.fd, address)

    def connect(self, caller: Caller, address: bytes, nonblock: bool) -> Result:
        """connect(2)."""
        self.read_shut = False  # whatever a copy was connected to before: `cut`
        try:
            calls.connect(self.fd, address)
            return 0
        except (EINPROGRESS, EALREADY):
            if nonblock:
                raise

        result: Result = ended(
            lambda: self.wait_for(self._connected, EPOLLOUT, self.sndtimeo_ns, False, caller),
            instead(EAGAIN, EINPROGRESS),
        )
        return result

    def _connected(self) -> int:
        self.take_error()
        if not self._host_queue.ready() & ~EPOLLIN:
            raise EAGAIN("not yet")
        (number,) = struct.unpack("<i", calls.option(self.fd, SOL_SOCKET, abi.SO_ERROR, 4))
        if number:
            raise from_number(number)
        return 0

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        calls.listen(self.fd, backlog)
        self.read_shut = False

    @property
    def listening(self) -> bool:
        """SO_ACCEPTCONN."""
        return calls.option(self.fd, SOL_SOCKET, abi.SO_ACCEPTCONN, 4) != bytes(4)

    def try_accept(self, caller: Caller) -> tuple[Socket, bytes]:
        """The next connection."""
        check_room(self.stack)
        try:
            fd, address = calls.accept(self.fd)
        finally:
            self._host_queue.arm(EPOLLIN)
        made = HostSocket(
            socket_location(caller), self.family, self.kind, self.protocol, self.stack, fd
        )
        return made, address

    def local_address(self) -> bytes:
        """getsockname(2)."""
        return calls.name(self.fd, peer=False)

    def peer_address(self) -> bytes:
        """getpeername(2)."""
        return calls.name(self.fd, peer=True)

    def shut(self, how: int) -> None:
        """shutdown(2)."""
        calls.shutdown(self.fd, how)
        self.queue.notify()

    # --- data

    @property
    def has_error_queue(self) -> bool:
        """IP_RECVERR."""
        return True

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        came: Came | None = kept((self, "came"))
        if came is None:
            self.take_error()
            try:
                came = calls.receive(
                    self.fd, min(dest.count, PIECE), flags & RECEIVED_FLAGS | abi.MSG_DONTWAIT
                )
            except ENOTCONN:
                if self.read_shut:  # it had been reset
                    return Received(0)
                raise
            finally:
                self._host_queue.arm(EPOLLIN)
        got, data, address, control, out = came
        if flags & abi.MSG_TRUNC and self.kind == abi.SOCK_STREAM:
            return Received(got, address, 0, None)
        with Keeping((self, "came"), came):  # the host has it no more
            dest.put(data)
        if CURRENT.call is not None:
            CURRENT.call.answers.pop((self, "came"), None)
        records = parse_records(control)
        ancillary = Ancillary(records=records) if records else None
        told = abi.MSG_TRUNC | abi.MSG_EOR | abi.MSG_OOB | abi.MSG_ERRQUEUE | abi.MSG_CTRUNC
        return Received(got if flags & abi.MSG_TRUNC else len(data), address, out & told, ancillary)

    def try_send(
        self,
        caller: Caller,
        source: Source,
        target: bytes | None,
        flags: int,
        ancillary: Ancillary | None,
    ) -> int:
        """sendmsg(2)."""
        self.take_error()
        control = pack_records(ancillary.records) if ancillary is not None else b""
        if self.kind != abi.SOCK_STREAM and source.count > PIECE:
            raise EMSGSIZE("no datagram is so long")
        data = source.peek(min(source.count, PIECE))
        allowed = flags & SENT_FLAGS | abi.MSG_DONTWAIT | abi.MSG_NOSIGNAL
        try:
            done = calls.send(self.fd, data, target or b"", control, allowed)
        except EAGAIN:
            self._host_queue.arm(EPOLLOUT)
            raise
        source.skip(done)
        return self.count_sent(caller, done)


def check_room(stack: Stack) -> None:
    """Raises: ENFILE."""
    if stack.host_sockets >= MAX_SOCKETS:
        raise ENFILE("host sockets")
    stack.kernel.vfs.budget.check_host_descriptor()


async def make_host_socket(
    location: Location, stack: Stack, kind: int, protocol: int, number: int
) -> HostSocket:
    """socket(2) of AF_INET and AF_INET6 with the host's network. Raises: what the host says."""
    if kind == abi.SOCK_RAW:
        raise EPERM("raw sockets of the host are not given away")
    check_room(stack)
    process = stack.host
    assert process is not None
    if not process.has_room:
        await until(process.check_room, (process.room,), mode=Mode.KILLABLE, exclusive=True)
    fd = await process.make(number, kind, protocol)
    if not protocol:
        protocol = struct.unpack("<i", calls.option(fd, SOL_SOCKET, abi.SO_PROTOCOL, 4))[0]
    return HostSocket(location, number, kind, protocol, stack, fd)


def parse_records(control: bytes) -> list[tuple[int, int, bytes]]:
    """Control messages of the host: cmsg(3)."""
    records = []
    at = 0
    while at + 16 <= len(control):
        size, level, kind = struct.unpack_from("<Qii", control, at)
        if size < 16 or at + size > len(control):
            break
        records.append((level, kind, control[at + 16 : at + size]))
        at += (size + 7) & ~7
    return records


def pack_records(records: list[tuple[int, int, bytes]]) -> bytes:
    """Control messages for the host. Raises: EINVAL for what is not passed on."""
    packed = b""
    for level, kind, body in records:
        if (level, kind) not in SENT_CONTROL:
            raise EINVAL(f"control message {level}, {kind}")
        packed += struct.pack("<Qii", 16 + len(body), level, kind) + body + bytes(-len(body) % 8)
    return packed
