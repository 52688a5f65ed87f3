"""`Entrant`: a connection that a process of the host has made, joined to a program of the sandbox.

The host's socket is donated; the program's is connected as from within the sandbox. Bytes are
copied, some each way in a step; what either end has shut the other one sees shut.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLIN, EPOLLOUT
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SHUT_WR,
)
from sentry.auth.credentials import Credentials
from sentry.errors import EAGAIN, ECONNREFUSED, Errno
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.net.host import calls
from sentry.net.inet.address import Endpoint, parse
from sentry.net.inet.tcp import TcpSocket
from sentry.net.inet.tcp_listener import listening_at
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.sockfs import socket_location
from sentry.suppress import suppress

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.stack import Stack

PIECE: Final = 1 << 16
"""Bytes that are held in each direction, and moved in a step."""


class _Nobody:
    """Who connects: no task of the sandbox."""

    creds = Credentials.root()

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel


def connected(stack: Stack, target: Endpoint) -> TcpSocket:
    """A socket of nobody's that a program has yet to accept. Raises: ECONNREFUSED, ENFILE."""
    caller: Any = _Nobody(stack.kernel)
    family = AF_INET if target.is_v4 else AF_INET6
    client = TcpSocket(socket_location(caller), family, IPPROTO_TCP, stack)
    if not client.is_local(target.ip):
        raise ECONNREFUSED("an address of the host alone")
    source = client.source_for(target)
    listener = listening_at(stack, target, source, LOOPBACK_INDEX)
    if listener is None or listener.is_crowded:
        raise ECONNREFUSED("nobody listens")
    client.local = client.ports.claim_to_connect(client, target)
    client.has_port = client.established = True
    client.remote = target
    try:
        listener.admit(caller, client, target)
    except Errno:
        client.release()
        raise
    return client


def place_of(fd: int) -> Endpoint:
    """Where a connection of the host's came to. Raises: what getsockname(2) says, EINVAL."""
    raw = calls.name(fd, peer=False)
    return parse(raw, *struct.unpack_from("<H", raw))


class Entrant:
    """One connection."""

    def __init__(self, stack: Stack, fd: int, loop: Any, gone: Callable[[Entrant], object]) -> None:
        """Raises: ECONNREFUSED, ENFILE and the like; `fd` is ours if nothing is raised."""
        self._budget = stack.kernel.vfs.budget
        self._budget.check_host_descriptor()
        self._client = connected(stack, place_of(fd))
        self._budget.host_descriptors += 1
        self._host = socket.socket(fileno=fd)
        self._loop = loop
        self._gone = gone
        self._in, self._out = b"", b""
        """What was taken and not given yet."""
        self._in_ended = self._out_ended = False
        self._is_coming = self._is_closed = False
        self._entry = self._client.queue.add(self._look)
        self._look(0)

    def close(self) -> None:
        """No more of it."""
        if self._is_closed:
            return
        self._is_closed = True
        self._client.queue.remove(self._entry)
        self._client.release()
        self._loop.watch(self._host.fileno(), 0)
        self._host.close()
        self._budget.host_descriptors -= 1
        self._gone(self)

    def _look(self, _events: int) -> None:
        if not self._is_coming and not self._is_closed:
            self._is_coming = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._is_coming = False
        if self._is_closed:
            return
        try:
            has_moved = self._move_in() | self._move_out()
        except (Errno, OSError):  # one of the two was reset
            self.close()
            return
        is_out = self._out_ended and not self._out
        if is_out and (self._in_ended or self._client.refused_writes):
            self.close()  # nobody inside has it any more: what comes is the host's to refuse
            return
        wanted = EPOLLIN if not (self._in or self._in_ended) else 0
        wanted |= EPOLLOUT if self._out else 0
        self._loop.watch(self._host.fileno(), wanted, self._look)
        if has_moved:
            self._look(0)

    def _move_in(self) -> bool:
        """From the host to the program: whether something has moved."""
        if not self._in and not self._in_ended:
            try:
                self._in = self._host.recvmsg(PIECE, 0, MSG_DONTWAIT)[0]
            except BlockingIOError:
                return False
            if not self._in:
                self._in_ended = True
                with suppress(Errno):  # it has ended, too
                    self._client.shutdown(SHUT_WR)
                return True
        if not self._in:
            return False
        nobody: Any = None  # nothing is held back, so nobody has to be asked for
        try:
            done = self._client.try_send(nobody, KernelSource(self._in), None, 0, None)
        except EAGAIN:
            return False
        except Errno:  # nobody takes it; what the program has said before goes out still
            done, self._in_ended = len(self._in), True
        self._in = self._in[done:]
        return True

    def _move_out(self) -> bool:
        """From the program to the host."""
        if not self._out and not self._out_ended:
            dest = KernelDest(PIECE)
            try:
                self._client.try_receive(dest, 0)
            except EAGAIN:
                return False
            self._out = bytes(dest.data)
            if not self._out:
                self._out_ended = True
                with suppress(Errno):
                    calls.shutdown(self._host.fileno(), SHUT_WR)
                return True
        if not self._out:
            return False
        try:
            done = self._host.send(self._out, MSG_DONTWAIT | MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        self._out = self._out[done:]
        return True
