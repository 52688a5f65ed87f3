"""The network process, seen from the Sentry: it makes sockets, binds them to low ports."""

from __future__ import annotations

import array
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from sentry.abi.poll import EPOLLIN
from sentry.errors import ENETDOWN, ENFILE, from_number
from sentry.net.host.protocol import BIND, DUMP, HEADER, MAX_PACKET, REPLY, SOCKET
from sentry.wait.fiber import Mode, park, this_fiber

MAX_WAITING: Final = 64
"""Requests without an answer: the socket pair has room for more packets than that."""


class Answer:
    """What comes back for one request."""

    __slots__ = ("data", "done", "error", "fd", "wake")

    def __init__(self, wake: Callable[[int], object]) -> None:
        self.wake = wake
        self.done = False
        self.error = 0
        self.data = b""
        self.fd = -1


class NetworkProcess:
    """The socket to it. When it dies, every request fails with ENETDOWN; sockets go on."""

    def __init__(self, fd: int, loop: Any) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd)
        self._waiting: deque[Answer] = deque()
        self._loop = loop
        self._dead = False
        loop.watch(fd, EPOLLIN, lambda _: self._receive())

    async def make(self, family: int, kind: int, protocol: int) -> int:
        """socket(2): a descriptor that does not block. Raises: what the host says, ENETDOWN."""
        return (await self._ask(HEADER.pack(SOCKET, family, kind, protocol))).fd

    async def bind(self, fd: int, address: bytes) -> None:
        """bind(2) to a privileged port. Raises: what the host says, ENETDOWN."""
        await self._ask(HEADER.pack(BIND, 0, 0, 0) + address, fd)

    async def dump(self, kind: int) -> bytes:
        """The messages of an RTM_GET* dump. Raises: what the host says, ENETDOWN."""
        return (await self._ask(HEADER.pack(DUMP, kind, 0, 0))).data

    async def _ask(self, request: bytes, fd: int = -1) -> Answer:
        if self._dead:
            raise ENETDOWN("the network process has ended")
        if len(self._waiting) >= MAX_WAITING:
            raise ENFILE("too many requests to the network process")
        answer = Answer((await this_fiber()).wake)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        try:
            self._sock.sendmsg([request], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            raise ENETDOWN(f"the network process: {error}") from None
        self._waiting.append(answer)
        while not answer.done:
            await park(Mode.UNINTERRUPTIBLE)
        if answer.error:
            raise from_number(answer.error)
        return answer

    def _receive(self) -> None:
        room = socket.CMSG_SPACE(4)
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            data, control, _, _ = self._sock.recvmsg(MAX_PACKET, room, flags)
        except BlockingIOError:
            return
        except OSError:
            data, control = b"", []
        if len(data) < REPLY.size or not self._waiting:
            self._end()
            return
        answer = self._waiting.popleft()
        (answer.error,) = REPLY.unpack_from(data)
        answer.data = data[REPLY.size :]
        for _, _, rights in control:
            (answer.fd,) = array.array("i", rights[:4])
        self._tell(answer)

    def _end(self) -> None:
        self._dead = True
        self._loop.watch(self._sock.fileno(), 0)
        while self._waiting:
            answer = self._waiting.popleft()
            answer.error = ENETDOWN.number
            self._tell(answer)

    @staticmethod
    def _tell(answer: Answer) -> None:
        answer.done = True
        answer.wake(0)
