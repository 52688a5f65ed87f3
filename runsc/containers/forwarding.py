"""Connections of the host, each to a port inside: `port-forward`, and `run --publish`.

For each connection there is one to the sandbox, with two pipes; when either ends, both do. Bytes
are copied here, so that no socket of the host gets into the sandbox.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import inf

from runsc.containers import listener
from runsc.errors import RuntimeFailure
from sentry.control.protocol import Request

PIECE = 1 << 16
ANSWER_S = 30.0
MOST = 128
"""Connections at a time."""
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""Of whom nothing is heard for two minutes is no more: a machine that was switched off says nothing
of that, and each has a place. Seconds; tcp(7)."""
PAUSE_S = 0.05
"""After one that could not be had: whoever has no descriptors left hears of it again at once."""

Say = Callable[[str], object]


class Way:
    """Bytes from one descriptor to another; at the end of the first the second is told."""

    def __init__(self, source: int, target: int, end: Callable[[], object]) -> None:
        self.source, self.target, self._end = source, target, end
        self.held = b""
        self.over = False

    @property
    def wanted(self) -> tuple[int, int]:
        """What to wait for: descriptor and events."""
        return (self.target, select.POLLOUT) if self.held else (self.source, select.POLLIN)

    def go_on(self) -> bool:
        """One step: whether more may be done at once. Raises: OSError."""
        try:
            if self.held:
                self.held = self.held[os.write(self.target, self.held) :]
                return True
            self.held = os.read(self.source, PIECE)
        except BlockingIOError:
            return False
        if not self.held:
            self.over = True
            self._end()
        return not self.over


class Connection:
    """One connection of the host and what stands for it inside, which is asked for: it is there
    when `begin` has been called. Raises: OSError."""

    def __init__(self, path: str, sock: socket.socket, port: int) -> None:
        self._sock = sock
        self._into = self._out = -1
        self.ways: list[Way] = []
        self.late_at = time.monotonic() + ANSWER_S
        """When the sandbox has to have answered; infinity: it has."""
        self._control = listener.connect(path)
        try:
            self._ask(port)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Hear the answer, and go on. Raises: RuntimeFailure, OSError, ValueError."""
        reply = listener.answer(self._control, self.late_at - time.monotonic())
        if reply.error:
            raise RuntimeFailure(reply.error)
        self.late_at = inf
        for fd in (self._sock.fileno(), self._into, self._out):
            os.set_blocking(fd, False)
        self.ways = [
            Way(self._sock.fileno(), self._into, self._end_inwards),
            Way(self._out, self._sock.fileno(), self._end_outwards),
        ]

    def _ask(self, port: int) -> None:
        into, self._into = os.pipe2(os.O_CLOEXEC)
        out = -1
        try:
            self._out, out = os.pipe2(os.O_CLOEXEC)
            listener.send(self._control, Request("forward", port=port), (into, out))
        finally:
            for fd in (into, out):
                if fd >= 0:
                    os.close(fd)

    def _end_inwards(self) -> None:
        fd, self._into = self._into, -1
        os.close(fd)

    def _end_outwards(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    @property
    def wanted(self) -> Iterator[tuple[int, int]]:
        """What to wait for: descriptors and events, and that nobody inside takes any more."""
        if self.late_at < inf:
            yield self._control.fileno(), select.POLLIN
            return
        yield from (way.wanted for way in self.ways)
        if self._into >= 0:
            yield self._into, 0

    @property
    def waits_for_visitor(self) -> bool:
        """The program has said all; who connected may never say more."""
        return self.late_at == inf and all(way.source != self._out for way in self.ways)

    def go_on(self, ready: Mapping[int, int]) -> bool:
        """What can be done now, by descriptors and their events; False when it is over.

        Raises: as `begin`.
        """
        if self.late_at < inf:
            if self._control.fileno() in ready or time.monotonic() >= self.late_at:
                self.begin()
            return True
        if ready.get(self._into, 0) & select.POLLERR:  # what was said inside goes out all the same
            self.ways = [way for way in self.ways if way.target != self._into]
            self._end_inwards()
        try:
            for way in self.ways:
                if way.wanted[0] in ready:
                    way.go_on()
        except OSError:
            return False
        self.ways = [way for way in self.ways if not way.over]
        return bool(self.ways)

    def last_words(self) -> None:
        """The container is over: what a program of it has said goes out, as far as there is
        room."""
        with suppress(OSError):
            for way in self.ways:
                while way.source == self._out and way.go_on():
                    pass

    def close(self) -> None:
        """Forget both. It may be called again: a signal may come in the middle of it."""
        self._sock.close()
        self._control.close()
        pipes, self._into, self._out = (self._into, self._out), -1, -1
        for fd in pipes:
            if fd >= 0:
                os.close(fd)


class Forwarding:
    """Connections to `path`'s sandbox, until `over` (a pidfd) is ready."""

    def __init__(self, path: str, over: int, say: Say) -> None:
        self._path, self._over, self._say = path, over, say
        self._connections: list[Connection] = []

    def add(self, sock: socket.socket, port: int) -> None:
        """Stand for it inside. Raises: RuntimeFailure, OSError, ValueError; it is closed."""
        self._begin(sock, port)
        try:
            self._connections[-1].begin()
        except BaseException:
            self._connections.pop().close()
            raise

    def _begin(self, sock: socket.socket, port: int) -> None:
        try:
            self._connections.append(Connection(self._path, sock, port))
        except BaseException:
            sock.close()
            raise

    def run(self, listening: Mapping[socket.socket, int]) -> None:
        """To the end of the container, or, if nobody listens, of all connections. `listening`:
        sockets that do not block, and the ports inside that they lead to."""
        while listening or self._connections:
            poll = select.poll()
            poll.register(self._over, select.POLLIN)
            if len(self._connections) >= MOST:
                self._make_room()
            if len(self._connections) < MOST:
                for each in listening:
                    poll.register(each, select.POLLIN)
            wanted: dict[int, int] = {}
            for connection in self._connections:
                for fd, events in connection.wanted:
                    wanted[fd] = wanted.get(fd, 0) | events
            for fd, events in wanted.items():
                poll.register(fd, events)
            late_at = min((each.late_at for each in self._connections), default=inf)
            left_s = max(0.0, late_at - time.monotonic())
            ready = dict(poll.poll(None if late_at == inf else left_s * 1000))
            if self._over in ready:
                for connection in self._connections:
                    connection.last_words()
                return
            for connection in list(self._connections):
                self._go_on(connection, ready)
            for each, port in listening.items():
                if each.fileno() in ready:
                    self._accept(each, port)

    def _go_on(self, connection: Connection, ready: Mapping[int, int]) -> None:
        try:
            if not connection.go_on(ready):
                self._end(connection)
        except (RuntimeFailure, OSError, ValueError) as error:
            connection.close()
            self._connections.remove(connection)
            is_late = isinstance(error, TimeoutError)
            text = "the sandbox does not answer" if is_late else str(error)
            self._say(f"port forwarding: {text}")

    def _make_room(self) -> None:
        """By the oldest one that waits for who connected alone, as a kernel does it with sockets
        that no program has any more."""
        for connection in self._connections:
            if connection.waits_for_visitor:
                self._end(connection)
                return

    def _end(self, connection: Connection) -> None:
        connection.close()
        self._connections.remove(connection)
        self._say("Finished forwarding connection...")

    def _accept(self, listening: socket.socket, port: int) -> None:
        try:
            sock, _ = listening.accept()
            for option in KEEPALIVE:
                sock.setsockopt(*option)
            self._say("Forwarding new connection...")
            self._begin(sock, port)
        except BlockingIOError:
            return
        except OSError as error:
            self._say(f"port forwarding: {error}")
            time.sleep(PAUSE_S)

    def close(self) -> None:
        """End all of them."""
        for connection in self._connections:
            connection.close()
