"""Where a network process listens for others of the host that are in its network namespace.

A Sentry with a stack of its own says where its programs listen, and gets each connection that comes
to one of these addresses by the namespace's loopback: what comes by other interfaces never gets to
the host's stack (`silence`).
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

from sentry.net.host import protocol
from sentry.net.host.protocol import MAX_LISTENING

FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
BACKLOG: Final = 128
FLAGS: Final = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class LocalPorts:
    """The sockets."""

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._by_number: dict[int, socket.socket] = {}
        self._numbers: dict[int, int] = {}
        """By descriptor."""

    def asked(self, data: bytes) -> bool:
        """Do what is asked for; False: it is something else. Raises: OSError, ValueError."""
        if len(data) < protocol.HEADER.size:
            return False
        operation, number, v6only, _ = protocol.HEADER.unpack_from(data)
        if operation == protocol.CLOSE:
            self._close(number)
        elif operation == protocol.LISTEN:
            self._listen(number, data[protocol.HEADER.size :], v6only=bool(v6only))
        return operation in (protocol.CLOSE, protocol.LISTEN)

    def _listen(self, number: int, address: bytes, *, v6only: bool) -> None:
        family = int.from_bytes(address[:2], "little")
        if family not in FAMILIES:
            raise OSError(errno.EAFNOSUPPORT, "family")
        if number in self._by_number or len(self._by_number) >= MAX_LISTENING:
            raise OSError(errno.EMFILE, "number")
        sock = socket.socket(family, socket.SOCK_STREAM | FLAGS)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
            at(address, family, sock.bind)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._by_number[number] = sock
        self._numbers[sock.fileno()] = number
        self._poll.register(sock, select.POLLIN)

    def _close(self, number: int) -> None:
        sock = self._by_number.pop(number, None)
        if sock is not None:
            self._poll.unregister(sock)
            del self._numbers[sock.fileno()]
            sock.close()

    def accepted(self, ready: set[int]) -> Iterator[tuple[int, int]]:
        """Of each socket that is ready a connection: its number, and a descriptor."""
        for fd in ready & self._numbers.keys():
            number = self._numbers[fd]
            try:
                made, _ = self._by_number[number].accept()
            except OSError:  # it has gone again
                continue
            yield number, made.detach()

    def close(self) -> None:
        """All of them."""
        for sock in self._by_number.values():
            sock.close()


def open_to_all(path: str = "/proc/sys/net/ipv4/ip_unprivileged_port_start") -> None:
    """Whoever is in this network namespace may listen at low ports: who has a right to them inside
    the Sentry knows. Raises: OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def at(address: bytes, family: int, call: Callable[[Any], object]) -> None:
    """bind(2) or connect(2) of a socket with struct sockaddr_in or sockaddr_in6.

    Raises: OSError, ValueError.
    """
    port = int.from_bytes(address[2:4], "big")
    if family == socket.AF_INET:
        call((socket.inet_ntop(family, address[4:8]), port))
        return
    flow, scope = int.from_bytes(address[4:8], "big"), int.from_bytes(address[24:28], "little")
    call((socket.inet_ntop(family, address[8:24]), port, flow, scope))
