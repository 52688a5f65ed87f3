"""The server behind `kill`, `ps`, `state`: control sockets in, calls on the kernel out.

Runs on the kernel thread: every connection is watched by the loop, and no send waits. Who may
connect is decided by the mode of the directory in which the socket lies.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Protocol

from sentry.control.protocol import (
    Event,
    LineBuffer,
    ProcessInfo,
    Reply,
    Request,
    decode,
    encode,
)
from sentry.errors import Errno

MAX_CONNECTIONS = 32


class Watcher(Protocol):
    """The part of sentry.loop that is used."""

    def watch(
        self, fd: int, events: int, callback: Callable[[int], None] | None = None
    ) -> None: ...


class Controlled(Protocol):
    """What the kernel offers. Each may raise an Errno: its text goes back to the caller."""

    def control_start(self) -> None:
        """Make the first process run."""

    def control_resize(self) -> None:
        """The terminal of the first process has a new size on the host."""

    def control_update(self, pids_limit: int | None, memory_limit: int | None) -> None:
        """Other limits; None is left as it is."""

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        """Send a signal to a process of the container, or to all of them."""

    def control_processes(self) -> list[ProcessInfo]:
        """Its processes."""

    def control_status(self) -> str:
        """ "created", "running", "paused" or "stopped"."""


class Connection:
    """One client."""

    def __init__(self, server: ControlServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._lines = LineBuffer()

    def fileno(self) -> int:
        """The descriptor that the loop watches."""
        return self._sock.fileno()

    def send(self, message: Reply | Event) -> None:
        """Send now or give the client up: a client that does not read loses its connection."""
        data = encode(message)
        try:
            if self._sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) != len(data):
                self.close()
        except OSError:
            self.close()

    def on_ready(self, events: int) -> None:
        """Read what came and answer it."""
        try:
            data = self._sock.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            requests = [decode(line, Request) for line in self._lines.feed(data)]
        except ValueError as error:
            self.send(Reply(error=str(error)))
            self.close()
            return
        for request in requests:
            self.send(self._server.answer(request))

    def close(self) -> None:
        """Forget this client; harmless if done."""
        if self._sock.fileno() >= 0:
            self._server.forget(self)
            self._sock.close()


class ControlServer:
    """Serves the descriptors of a SandboxConfig: `control_fd` and `control_listener_fd`."""

    def __init__(
        self, loop: Watcher, kernel: Controlled, control_fd: int, listener_fd: int = -1
    ) -> None:
        self._loop = loop
        self._kernel = kernel
        self._connections: dict[int, Connection] = {}
        self._starter = self._add(_adopt(control_fd)) if control_fd >= 0 else None
        self._listener = _adopt(listener_fd) if listener_fd >= 0 else None
        if self._listener is not None:
            self._listener.setblocking(False)
            loop.watch(listener_fd, select.EPOLLIN, self._on_connect)

    def announce(self, event: Event) -> None:
        """Tell the command line that started the sandbox."""
        if self._starter is not None:
            self._starter.send(event)

    def answer(self, request: Request) -> Reply:
        """Carry out one request."""
        try:
            match request.op:
                case "start":
                    self._kernel.control_start()
                    return Reply()
                case "resize":
                    self._kernel.control_resize()
                    return Reply()
                case "update":
                    self._kernel.control_update(request.pids_limit, request.memory_limit)
                    return Reply()
                case "kill":
                    self._kernel.control_kill(request.pid, request.signal, request.all)
                    return Reply()
                case "ps":
                    return Reply(processes=self._kernel.control_processes())
                case "state":
                    return Reply(status=self._kernel.control_status())
        except Errno as error:
            return Reply(error=str(error) or type(error).__name__)
        return Reply(error=f"unknown operation {request.op}")

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        fd = connection.fileno()
        self._loop.watch(fd, 0)
        self._connections.pop(fd, None)

    def close(self) -> None:
        """End all connections; nobody can connect any more."""
        for connection in list(self._connections.values()):
            connection.close()
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), 0)
            self._listener.close()

    def _add(self, sock: socket.socket) -> Connection:
        connection = Connection(self, sock)
        self._connections[sock.fileno()] = connection
        self._loop.watch(sock.fileno(), select.EPOLLIN, connection.on_ready)
        return connection

    def _on_connect(self, events: int) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            sock.close()
            return
        self._add(sock)


def _adopt(fd: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
