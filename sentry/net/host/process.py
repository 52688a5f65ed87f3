"""The network process, seen from the Sentry: it makes sockets, binds them to low ports, lists."""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from sentry.abi.poll import EPOLLIN
from sentry.errors import EAGAIN, ENETDOWN, ENFILE, ETOOMANYREFS
from sentry.net.host.protocol import (
    BIND,
    CAME,
    CHANGED,
    CLOSE,
    GIVE_BACK,
    HEADER,
    LIST,
    LISTEN,
    MAX_PACKET,
    NAMESERVER,
    REPLY,
    SOCKET,
    UPLINK,
)
from sentry.platform.host_io import host_error
from sentry.wait.fiber import Fiber, Mode
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Sleep

MAX_WAITING: Final = 64
"""Requests of programs without an answer: the socket pair has room for more packets than that."""
MAX_OWN: Final = 16
"""More of them for what the sandbox asks for by itself, which nobody would ask for again."""
MAX_LIST: Final = 1 << 22
"""Bytes of a list that are kept: more interfaces than are shown."""

ENDED: Final = "the network process has ended"
NOBODY: Final = -1
"""In the place of an errno: nobody is there to answer."""


class Answer(Sleep):
    """What comes back for one request, and the sleep until it has come."""

    __slots__ = ("changes", "done", "error", "fd", "fiber", "parts", "size")
    ended_by = Mode.UNINTERRUPTIBLE

    def __init__(self) -> None:
        super().__init__()
        self.fiber: Fiber | None = None
        self.done = False
        self.error = 0
        self.parts: list[bytes] = []
        """Of a list, each with whole messages."""
        self.size = 0
        self.changes = 0
        """How many there had been before the list was made."""
        self.fd = -1

    def enter(self, fiber: Fiber) -> None:
        """It will be woken."""
        self.fiber = fiber

    def attempt(self) -> Answer:
        """Itself, once it is there."""
        if not self.done:
            raise EAGAIN("no answer yet")
        if self.error:
            _close(self.fd)
            self.fd = -1
        if self.error == NOBODY:
            raise ENETDOWN(ENDED)
        if self.error:
            raise host_error(self.error)
        return self

    def leave(self) -> None:
        """It is not waited for any more."""
        self.fiber = None


class NetworkProcess:
    """The socket to it. When it dies, every request fails with ENETDOWN; sockets go on."""

    def __init__(self, fd: int, loop: Any) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd)
        self._waiting: deque[Answer] = deque()
        self._loop = loop
        self._dead = False
        self.room = WaitQueue()
        """Who waits until there may be one more request."""
        self.on_change: Callable[[], None] | None = None
        """Called once after a list, when it is no longer true."""
        self.on_end: Callable[[], None] = lambda: None
        self.on_connection: Callable[[int, int], object] = lambda number, fd: os.close(fd)
        """A socket that listens, by its number, was connected to: a descriptor, to be closed."""
        loop.watch(fd, EPOLLIN, lambda _: self._receive())

    def close(self) -> None:
        """Nobody asks any more, and who waits hears so; it ends."""
        if not self._dead:
            self._end()
        self._sock.close()

    @property
    def is_asked(self) -> bool:
        """An answer is to come."""
        return bool(self._waiting)

    @property
    def has_room(self) -> bool:
        """For one more request; or it has ended, which that is told."""
        return self._dead or len(self._waiting) < MAX_WAITING

    def check_room(self) -> None:
        """An attempt. Raises: EAGAIN while there is none."""
        if not self.has_room:
            raise EAGAIN("too many requests to the network process")

    def make(self, family: int, kind: int, protocol: int) -> Sleep:
        """socket(2): a descriptor that does not block. Raises: what the host says, ENETDOWN."""
        return self._ask(HEADER.pack(SOCKET, family, kind, protocol)).then(attrgetter("fd"))

    def bind(self, fd: int, address: bytes) -> Sleep:
        """bind(2) to a privileged port. Raises: what the host says, ENETDOWN."""
        return self._ask(HEADER.pack(BIND, 0, 0, 0) + address, fd).then(lambda _: 0)

    def uplink(self, index: int) -> Sleep:
        """A packet socket for an interface. Raises: what the host says, ENETDOWN."""
        return self._ask_by_itself(HEADER.pack(UPLINK, index, 0, 0)).then(attrgetter("fd"))

    def give_back(self, index: int) -> None:
        """That of an interface, which is closed here, is for another one. Raises: ENETDOWN."""
        self._ask_by_itself(HEADER.pack(GIVE_BACK, index, 0, 0))

    def nameserver(self, family: int, kind: int, address: bytes) -> Sleep:
        """A socket that is connected to a nameserver, or connects, and does not block.

        Raises: what the host says, ENETDOWN.
        """
        request = HEADER.pack(NAMESERVER, family, kind, 0) + address
        return self._ask(request).then(attrgetter("fd"))

    def listen(self, number: int, address: bytes, *, v6only: bool) -> Sleep:
        """Listen at an address of the namespace. Raises: what the host says, ENETDOWN."""
        request = HEADER.pack(LISTEN, number, v6only, 0) + address
        return self._ask_by_itself(request).then(lambda _: 0)

    def close_port(self, number: int) -> Sleep:
        """No more. Raises: ENETDOWN."""
        return self._ask_by_itself(HEADER.pack(CLOSE, number, 0, 0)).then(lambda _: 0)

    def list_all(self, changes: int) -> Sleep:
        """The `Answer` with all that there is, or with the interfaces alone, if there have been no
        more changes than so many. Raises: what the host says, ENETDOWN."""
        return self._ask_by_itself(HEADER.pack(LIST, changes, 0, 0))

    def _ask_by_itself(self, request: bytes) -> Answer:
        return self._ask(request, most=MAX_WAITING + MAX_OWN)

    def _ask(self, request: bytes, fd: int = -1, most: int = MAX_WAITING) -> Answer:
        if self._dead:
            raise ENETDOWN(ENDED)
        if len(self._waiting) >= most:
            raise ENFILE("too many requests to the network process")
        answer = Answer()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            if rights:
                self._sock.sendmsg([request], rights, flags)
            else:
                self._sock.send(request, flags)
        except OSError as error:
            if error.errno == ETOOMANYREFS.number:
                raise ENFILE("the user's sockets hold too many descriptors") from None
            raise ENETDOWN(ENDED) from None
        self._waiting.append(answer)
        return answer

    def _receive(self) -> None:
        room = socket.CMSG_LEN(4)  # CMSG_SPACE would take a second one
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            data, control, came, _ = self._sock.recvmsg(MAX_PACKET, room, flags)
        except BlockingIOError:
            return
        except OSError:
            data, control, came = b"", [], 0
        fd = -1
        for _, _, rights in control:
            (fd,) = array.array("i", rights[:4])
        answer = self._addressee(data, fd)
        if answer is None:
            return
        answer.error, more, answer.changes = REPLY.unpack_from(data)
        if answer.size < MAX_LIST:
            answer.parts.append(data[REPLY.size :])
            answer.size += len(data)
        if fd >= 0:
            _close(answer.fd)
            answer.fd = fd
        if came & socket.MSG_CTRUNC and answer.fd < 0:
            answer.error = ENFILE.number
        if not more:
            self._waiting.popleft()
            self._tell(answer)
            self.room.notify()

    def _addressee(self, data: bytes, fd: int) -> Answer | None:
        """Who has waited for it longest; None: it is no answer, or the end, and the descriptor has
        been given on, or closed."""
        error, number, _ = REPLY.unpack_from(data) if len(data) >= REPLY.size else (None, 0, 0)
        if error == CAME and fd >= 0:
            self.on_connection(number, fd)
            return None
        if error not in (None, CAME, CHANGED) and self._waiting:
            return self._waiting[0]
        _close(fd)
        if error == CHANGED and self.on_change is not None:
            self.on_change()
        elif error not in (CAME, CHANGED):
            self._end()
        return None

    def _end(self) -> None:
        self._dead = True
        self._loop.watch(self._sock.fileno(), 0)
        self.on_end()
        while self._waiting:
            answer = self._waiting.popleft()
            answer.error = NOBODY
            self._tell(answer)
        self.room.notify_all()

    @staticmethod
    def _tell(answer: Answer) -> None:
        answer.done = True
        if answer.fiber is not None:
            answer.fiber.wake()


def _close(fd: int) -> None:
    """A descriptor that nobody wants; -1: there is none."""
    if fd >= 0:
        os.close(fd)
