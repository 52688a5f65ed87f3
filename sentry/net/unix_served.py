"""A program's Unix socket that processes of the host connect to, or send datagrams.

Its name lies in a folder of the host, and the Gofer has made a socket of the host there, which
listens or receives as the program's does. Who comes from there is, to the program, as if another
program had come; behind it is a `HostEnd`, so that only bytes are passed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLIN, EPOLLRDNORM
from sentry.abi.socket import (
    AF_UNIX,
    SHUT_RDWR,
    SO_DOMAIN,
    SO_TYPE,
    SOCK_DGRAM,
    SOL_SOCKET,
)
from sentry.errors import EOPNOTSUPP, EPROTO
from sentry.net.host import calls
from sentry.net.sockfs import socket_location
from sentry.net.sysctls import longest_backlog
from sentry.net.unix import UnixSocket
from sentry.net.unix_host import HostEnd, join
from sentry.wait.host_queue import HostQueue

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.vfs.file import Caller

COMES: Final = EPOLLIN | EPOLLRDNORM


def serve(sock: UnixSocket, caller: Caller, served: Any) -> Listener | Receiver | None:
    """What is to be asked besides the socket. `served`: sentry.fs.gofer.host_socket.Served."""
    if served.fd < 0:
        return None
    if not _is_bound(served.fd, sock.kind):
        served.close()
        raise EPROTO("the Gofer has given something else")
    return Receiver(sock, caller, served) if sock.kind == SOCK_DGRAM else Listener(sock, served)


def _is_bound(fd: int, kind: int) -> bool:
    """A socket as was asked for, which does not block."""
    found = [calls.option(fd, SOL_SOCKET, name, 4) for name in (SO_DOMAIN, SO_TYPE)]
    wanted = [number.to_bytes(4, "little") for number in (AF_UNIX, kind)]
    return found == wanted and not os.get_blocking(fd)


class Listener:
    """Of a stream, or of packets. The host's queue of connections is looked at when somebody wants
    one: it is as long as the program has said, and nothing lies here that nobody has accepted."""

    def __init__(self, sock: UnixSocket, served: Any) -> None:
        self._sock = sock
        self._served = served
        self._listens = False
        self._host = HostQueue(sock.stack.kernel.loop, served.fd, True)
        sock.stack.kernel.vfs.budget.host_descriptors += 1

    def listen(self, backlog: int, creds: Credentials) -> None:
        """listen(2): whose service it is the host sees, too."""
        self._served.listen(min(backlog & 0xFFFFFFFF, longest_backlog(self._sock.stack)), creds)
        if not self._listens:
            self._listens = True
            self._host.add(self._came, EPOLLIN)

    def _came(self, _events: int) -> None:
        self._sock.queue.notify(COMES)

    def waits(self) -> bool:
        """Whether `accept` would give a connection."""
        return self._listens and bool(self._host.ready() & EPOLLIN)

    def accept(self, caller: Caller) -> UnixSocket:
        """The next connection. Raises: EAGAIN, ENFILE."""
        sock = self._sock
        sock.stack.kernel.vfs.budget.check_host_descriptor()
        try:
            fd, _ = calls.accept(self._served.fd)
        finally:
            self._host.arm(EPOLLIN)
        server = UnixSocket(socket_location(caller), sock.kind, sock.stack)
        server.name = sock.name
        join(server, HostEnd(socket_location(caller), sock.kind, sock.stack, fd), fd)
        return server

    def shut(self, how: int) -> None:
        """shutdown(2)."""
        calls.shutdown(self._served.fd, how)

    def close(self) -> None:
        """The program's socket is closed: who waits is refused."""
        self._host.close()
        self._served.close()
        self._sock.stack.kernel.vfs.budget.host_descriptors -= 1


class Receiver:
    """Of datagrams: they are passed on as they come, as far as the program's queue has room."""

    def __init__(self, sock: UnixSocket, caller: Caller, served: Any) -> None:
        self._served = served
        fd, served.fd = served.fd, -1
        self._end = HostEnd(socket_location(caller), SOCK_DGRAM, sock.stack, fd)
        self._end.peer = sock
        self._end.start()

    def listen(self, backlog: int, creds: Credentials) -> None:
        """There is nothing of the kind."""

    def waits(self) -> bool:
        """What has come is in the program's queue."""
        return False

    def accept(self, caller: Caller) -> UnixSocket:
        """There is nothing of the kind. Raises: EOPNOTSUPP."""
        raise EOPNOTSUPP("datagrams")

    def shut(self, how: int) -> None:
        """shutdown(2)."""
        self._end.shut_host(how)

    def close(self) -> None:
        """The program's socket is closed."""
        self._served.close()
        self._end.shut(SHUT_RDWR)
