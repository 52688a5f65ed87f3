"""`Door`: where connections to a nameserver come in, and `Stream`, one of them. RFC 7766."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.socket import BPF_TCP_LISTEN as TCP_LISTEN
from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import EAGAIN, Errno
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.net.inet.tcp import TcpSocket
from sentry.net.names.stream import Messages, framed
from sentry.net.sockfs import new_location
from sentry.vfs.interface import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.egress.policy import Program
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.tcp_listener import TcpListener
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller
    from sentry.vfs.location import Location

MAX_STREAMS: Final = 64
"""The oldest one goes first."""
MAX_UNSENT: Final = 1 << 17
"""Bytes of answers that nobody takes; beyond it nothing more is read."""
MOST_UNSENT: Final = 4 * MAX_UNSENT
"""Answers to what was read before; beyond it the connection ends."""
AT_ONCE: Final = 16
"""Messages of a connection in a turn of the loop."""


class Door(TcpSocket):
    """A listener that is at no port, and its connections' ends in the resolver: no program has one,
    so none is shown."""

    __slots__ = ("came", "program")

    def __init__(self, location: Location, family: int, protocol: int, stack: Stack) -> None:
        super().__init__(location, family, protocol, stack)
        self._life = None  # as of the kernel's own sockets: it holds no namespace
        self.came: Callable[[Door], object] = lambda server: None
        """A connection is there."""
        self.program: Program | None = None
        """Who has made it, where somebody judges."""

    @classmethod
    def open(cls, stack: Stack, family: int, came: Callable[[Door], object]) -> Door:
        """From now on connections come."""
        location = new_location(stack.kernel.vfs, Owner(0, 0))
        door = cls(location, family, IPPROTO_TCP, stack)
        door.came = came
        door.state = TCP_LISTEN
        return door

    def _establish(self, caller: Caller, client: TcpListener, target: Endpoint) -> None:
        if self.stack.egress is not None:
            from sentry.net.egress.gate import program_of  # noqa: PLC0415  it is there if that is

            self.program = program_of(caller)
        super()._establish(caller, client, target)

    def can_accept(self, server: Any) -> None:
        """A connection is complete."""
        server.program = self.program
        self.came(server)


class Stream:
    """One connection, and the questions that come over it."""

    def __init__(
        self, loop: Any, sock: Door, asked: Callable[[Stream, bytes], object],
        gone: Callable[[Stream], object],
    ) -> None:  # fmt: skip
        self.program = sock.program
        self.server = sock.local
        self._loop = loop
        self._sock = sock
        self._asked = asked
        self._gone = gone
        self._messages = Messages()
        self._unsent = bytearray()
        self._is_coming = self._is_closed = False
        self._entry = sock.queue.add(self._look)
        self._look(0)

    def reply(self, message: bytes) -> None:
        """An answer."""
        self._unsent += framed(message)
        if len(self._unsent) > MOST_UNSENT:
            self.close()
        self._look(0)

    def close(self) -> None:
        """No more of it."""
        if not self._is_closed:
            self._is_closed = True
            self._sock.queue.remove(self._entry)
            self._sock.release()
            self._gone(self)

    def _look(self, events: int) -> None:
        if not self._is_coming:
            self._is_coming = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._is_coming = False
        if self._is_closed:
            return
        try:
            self._send()
            if len(self._unsent) < MAX_UNSENT:
                self._receive()
        except EAGAIN:
            pass
        except Errno:  # it was reset
            self.close()

    def _send(self) -> None:
        caller: Any = None  # nothing is held back, so nobody has to be asked for
        while self._unsent:
            source = KernelSource(self._unsent)
            del self._unsent[: self._sock.try_send(caller, source, None, 0, None)]

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            message = self._messages.next()
            if message is not None:
                self._asked(self, message)
                continue
            dest = KernelDest(self._messages.room)
            if not self._sock.try_receive(dest, 0).count:
                if self._sock.peer is None:
                    self.close()
                return  # it may still want answers
            self._messages.feed(bytes(dest.data))
        self._look(0)
