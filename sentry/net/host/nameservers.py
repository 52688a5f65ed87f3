"""Nameservers, asked by sockets of the host: where engines have theirs, no link leads.

The network process makes the sockets, in the container's network namespace, and connects them. What
is sent is the resolver's own (sentry.net.names), never what a program has written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Protocol

from sentry.abi.poll import EPOLLIN, EPOLLOUT
from sentry.abi.socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM
from sentry.errors import Errno
from sentry.net.inet.address import pack
from sentry.net.names.asking import Transport
from sentry.net.names.stream import Messages, framed

if TYPE_CHECKING:
    from sentry.net.host.process import NetworkProcess
    from sentry.net.names.asking import Ask

MAX_OPEN: Final = 64
"""Questions at a time: descriptors, and requests to the network process."""
MAX_MESSAGE: Final = 65535
READ_AT_ONCE: Final = 16
"""Messages of a socket in a turn of the loop."""


class Asker(Protocol):
    """Who wants to know."""

    def heard(self, ask: Ask, data: bytes) -> None:
        """A message of the server has come."""

    def unheard(self, ask: Ask) -> None:
        """None comes: it cannot be reached, or has ended the connection."""


class Nameservers:
    """Of one stack."""

    def __init__(self, process: NetworkProcess, loop: Any, asker: Asker) -> None:
        self._process = process
        self._loop = loop
        self._asker = asker
        self._open: dict[int, _Question] = {}
        """By `Ask.port`."""

    def ask(self, ask: Ask) -> None:
        """Send a question from a socket of its own."""
        if len(self._open) >= MAX_OPEN:
            self._loop.call_soon(lambda: self._asker.unheard(ask))
            return
        question = self._open[ask.port] = _Question(self._loop, self._asker, ask)
        self._loop.spawn(self._connect(question), "resolver")

    async def _connect(self, question: _Question) -> None:
        ask = question.ask
        family = AF_INET if ask.server.is_v4 else AF_INET6
        kind = SOCK_DGRAM if ask.transport is Transport.UDP else SOCK_STREAM
        try:
            fd = await self._process.nameserver(family, kind, pack(ask.server, family))
        except Errno:
            self._asker.unheard(ask)
            return
        question.begin(fd)

    def release(self, port: int) -> None:
        """Nothing more is expected there."""
        question = self._open.pop(port, None)
        if question is not None:
            question.close()


class _Question:
    """One that was asked, and its socket."""

    def __init__(self, loop: Any, asker: Asker, ask: Ask) -> None:
        self.ask = ask
        self._loop = loop
        self._asker = asker
        self._fd = -1
        self._is_closed = False
        self._messages = Messages()

    def begin(self, fd: int) -> None:
        """The socket is there, and connects if it has to."""
        if self._is_closed:
            os.close(fd)
            return
        self._fd = fd
        self._loop.watch(fd, EPOLLOUT, self._send)

    def close(self) -> None:
        """No more of it."""
        self._is_closed = True
        if self._fd >= 0:
            self._loop.watch(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def _send(self, events: int) -> None:
        """All of it at once: a question is smaller than any buffer."""
        is_whole = self.ask.transport is Transport.UDP
        data = self.ask.data if is_whole else framed(self.ask.data)
        try:
            sent = os.write(self._fd, data)
        except OSError:
            sent = 0
        if sent < len(data):
            self._asker.unheard(self.ask)
            return
        self._loop.watch(self._fd, EPOLLIN, self._receive)

    def _receive(self, events: int) -> None:
        is_whole = self.ask.transport is Transport.UDP
        for _ in range(READ_AT_ONCE):
            try:
                data = os.read(self._fd, MAX_MESSAGE if is_whole else self._messages.room)
            except BlockingIOError:
                return
            except OSError:
                self._asker.unheard(self.ask)
                return
            if is_whole:
                self._asker.heard(self.ask, data)
            elif data:
                self._take(data)
            else:
                self._asker.unheard(self.ask)
            if self._is_closed:
                return

    def _take(self, data: bytes) -> None:
        self._messages.feed(data)
        while not self._is_closed and (message := self._messages.next()) is not None:
            self._asker.heard(self.ask, message)
