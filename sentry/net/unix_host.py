"""A connection of a program to a service of the host, over a Unix socket that config.json mounts.

The program's socket is connected to another one of ours, behind which is the host's, which the
Gofer has connected and donated. So all that a program can do with a socket is as ever, and of the
host's only bytes are read and written. Descriptors do not go along: those that a program sends are
dropped with their message, and what a service sends beside its bytes is closed by the host's
kernel, since read(2) takes none.
"""

from __future__ import annotations

import os
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from sentry.abi.socket import SHUT_WR, SO_PEERCRED, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from sentry.auth.credentials import Credentials
from sentry.errors import EAGAIN, ECONNREFUSED, EISCONN, EMSGSIZE, EPERM, Errno, from_host
from sentry.mm.buffers import KernelSource
from sentry.net.host import calls
from sentry.net.sockfs import socket_location
from sentry.net.unix import UnixSocket
from sentry.suppress import suppress
from sentry.wait.host_queue import HostQueue
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller, Source
    from sentry.vfs.location import Location
    from sentry.wait.queue import Registration

PIECE: Final = 1 << 16
"""Bytes on their way in each direction; no message is longer."""
READABLE: Final = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR


class _Group:
    tgid = 0


class Service:
    """Who writes what comes from outside: no task of the sandbox."""

    group = _Group()
    creds = Credentials.root()

    def send_signal(self, signo: int) -> None:
        """Nobody is there to get one."""


SERVICE: Final[Any] = Service()


def connect(sock: UnixSocket, caller: Caller, name: bytes, place: Any) -> int:
    """connect(2) to `place`, an inode with a service of the host behind it.

    Raises: EISCONN, ENFILE, and what the host says; EAGAIN also where Linux would wait for a place
    in the backlog.
    """
    if sock.connected:
        raise EISCONN("connected")
    sock.stack.kernel.vfs.budget.check_host_descriptor()
    fd = place.connect(sock.kind, caller.creds)
    if fd < 0:
        raise ECONNREFUSED(f"{name!r}")
    end = HostEnd(socket_location(caller), sock.kind, sock.stack, fd)
    end.name = name + b"\0"
    join(sock, end, fd)
    return 0


def join(sock: UnixSocket, end: HostEnd, fd: int) -> None:
    """They are connected now. `fd` is the host's, behind the end."""
    sock.turn_to(end)
    end.peer = sock
    sock.connected = end.connected = sock.kind != SOCK_DGRAM
    _, uid, gid = struct.unpack("<iII", calls.option(fd, SOL_SOCKET, SO_PEERCRED, 12))
    sock.learn((0, uid, gid), ())
    end.start()


class HostEnd(UnixSocket):
    """The other end of the program's socket, and the host's descriptor.

    What the program sends is written at once, so that it is on its way when the program ends; what
    the service sends is copied by a fiber.
    """

    __slots__ = ("_fd", "_host", "_waits_for_room")
    is_outside: ClassVar = True

    def __init__(self, location: Location, kind: int, stack: Stack, fd: int) -> None:
        super().__init__(location, kind, stack)
        self._fd = fd
        self._host = HostQueue(stack.kernel.loop, fd, True)
        self._waits_for_room: Registration | None = None
        stack.kernel.vfs.budget.host_descriptors += 1

    def start(self) -> None:
        """Copy from now on, until both sides have said all."""
        self.stack.kernel.loop.spawn(self._copy(), "socket of the host")

    # --- to the host

    def take(self, source: Source) -> int:
        """sendmsg(2) of the program. Raises: EAGAIN, EMSGSIZE, and what the host says."""
        if self.kind != SOCK_STREAM and source.count > PIECE:
            raise EMSGSIZE("no message is so long")
        if not self.has_room():
            raise EAGAIN("no room")
        done = self._write(source.peek(min(source.count, PIECE)))
        source.skip(done)
        return done

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except OSError as error:
            self._wait_for_room()
            raise from_host(error) from None

    def has_room(self) -> bool:
        """Whether a send would not wait; if it would, the program hears when that is over."""
        if self._fd < 0 or self._host.ready() & (EPOLLOUT | EPOLLHUP | EPOLLERR):
            return True
        self._wait_for_room()
        return False

    def _wait_for_room(self) -> None:
        if self._waits_for_room is None:
            self._waits_for_room = self._host.add(self._room_came, EPOLLOUT | EPOLLHUP | EPOLLERR)

    def _room_came(self, events: int) -> None:
        if self._waits_for_room is not None:
            self._host.remove(self._waits_for_room)
            self._waits_for_room = None
        if self.peer is not None:
            self.peer.queue.notify(EPOLLOUT)

    def told(self) -> None:
        """The program has shut down one of its directions, or closed its end."""
        if self.read_shut and self._fd >= 0 and self.kind != SOCK_DGRAM:
            with suppress(Errno):
                calls.shutdown(self._fd, SHUT_WR)

    def shut_host(self, how: int) -> None:
        """shutdown(2) of the host's."""
        with suppress(Errno):
            calls.shutdown(self._fd, how)

    # --- from the host

    async def _copy(self) -> None:
        try:
            queues = (self._host, self.queue)
            while (data := await until(self._read, queues, READABLE)) is not None:
                source = KernelSource(data)
                await until(partial(self._give, source), (self.queue,))
                while source.count:
                    await until(partial(self._give, source), (self.queue,))
        except Errno:  # one of the two is gone
            pass
        if self.kind != SOCK_DGRAM and not self.write_shut:
            self.shut(SHUT_WR)
        # a service that listens on is told what the program has still to say
        await until(self._until_read_shut, (self.queue, self._host))
        self._room_came(0)
        self._host.close()
        fd, self._fd = self._fd, -1
        os.close(fd)
        self.stack.kernel.vfs.budget.host_descriptors -= 1
        self.release()

    def _read(self) -> bytes | None:
        """What is there; None when nothing will come, or nobody wants it."""
        if self.write_shut:
            return None
        if not self._host.ready() & READABLE:
            raise EAGAIN("nothing there")
        try:
            data = os.read(self._fd, PIECE)
            return data if data or self.kind == SOCK_DGRAM else None
        except OSError as error:
            raise from_host(error) from None

    def _give(self, source: KernelSource) -> None:
        try:
            self.try_send(SERVICE, source, None, 0, None)
        except EPERM:  # the program's filter wants no such datagram
            source.skip(source.count)

    def _until_read_shut(self) -> None:
        if not self.read_shut and not self._host.ready() & (EPOLLHUP | EPOLLERR):
            raise EAGAIN("the program may say more")
