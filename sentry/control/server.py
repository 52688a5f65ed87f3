"""The server behind `kill`, `ps`, `state`: control sockets in, calls on the kernel out.

Runs on the kernel thread: every connection is watched by the loop, and no send waits. Who may
connect is decided by the modes of the socket and its directory, and looked at once more here: user
0, as this process sees users. That is root, or, if it is in a user namespace, the user who made it.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sentry.control.connection import Connection, failure
from sentry.control.protocol import Event, Reply, Request
from sentry.errors import Errno

if TYPE_CHECKING:
    from sentry.control.controlled import Controlled

MAX_CONNECTIONS = 512
"""A process of `exec` has one for as long as it lives."""


class Watcher(Protocol):
    """The part of sentry.loop that is used."""

    def watch(
        self, fd: int, events: int, callback: Callable[[int], None] | None = None
    ) -> None: ...


class ControlServer:
    """Serves the descriptors of a SandboxConfig: `control_fd` and `control_listener_fd`."""

    def __init__(
        self,
        loop: Watcher,
        kernel: Controlled,
        control_fd: int,
        listener_fd: int = -1,
        owner: int = 0,
        most: int = MAX_CONNECTIONS,
        beside: ControlServer | None = None,
    ) -> None:
        """`beside`: another one of the sandbox; `most` holds for both together."""
        self._loop = loop
        self.kernel = kernel
        self._owner = owner
        self._connections: dict[int, Connection] = {}
        self._all: dict[int, Connection] = beside._all if beside is not None else {}
        self._most: int = beside._most if beside is not None else most
        self._starter = self._add(_adopt(control_fd)) if control_fd >= 0 else None
        self._listener = _adopt(listener_fd) if listener_fd >= 0 else None
        if self._listener is not None:
            loop.watch(listener_fd, select.EPOLLIN, self._on_connect)

    def announce(self, event: Event) -> None:
        """Tell the command line that started the sandbox."""
        if self._starter is not None:
            self._starter.send(event)

    def answer(self, request: Request, client: Connection) -> Reply | None:
        """Carry out one request; None if the reply goes to `client` later."""
        try:
            match request.op:
                case "pause":
                    self.kernel.control_pause(lambda: client.send(Reply()))
                    return None
                case "sync":
                    self.kernel.control_sync(client.told)
                    return None
                case "share":
                    self.kernel.control_share(client.told)
                    return None
                case "resume":
                    self.kernel.control_resume()
                    return Reply()
                case "start":
                    self.kernel.control_start()
                    return Reply()
                case "resize":
                    self.kernel.control_resize()
                    return Reply()
                case "update":
                    self.kernel.control_update(request)
                    return Reply()
                case "kill":
                    self.kernel.control_kill(request.pid, request.signal, request.all)
                    return Reply()
                case "ps":
                    self.kernel.control_processes(
                        lambda found: client.send(Reply(processes=found))
                    )
                    return None
                case "stats":
                    return Reply(stats=self.kernel.control_stats())
                case "profile":
                    self.kernel.control_profile(
                        request.time_ns, lambda found: client.send(Reply(profile=found))
                    )
                    return None
                case "log":
                    self.kernel.control_log(request.debug, client.told)
                    return None
                case "stacks":
                    return Reply(stacks=self.kernel.control_stacks(request.pid))
                case "counts":
                    return Reply(counts=self.kernel.control_counts())
                case "untrace":
                    self.kernel.control_untrace(request.name)
                    return Reply()
                case "traces":
                    return Reply(traces=self.kernel.control_traces())
                case "procfs":
                    return Reply(procfs=self.kernel.control_procfs(request.after))
                case "metrics":
                    return Reply(counts=self.kernel.control_metrics())
                case "repl":
                    return Reply(said=self.kernel.control_repl(request.source))
                case "inject":
                    return Reply(injected=self.kernel.control_inject(request.inject))
                case "clock":
                    return Reply(clock=self.kernel.control_clock(request.clock))
                case "expire":
                    self.kernel.control_expire(request.time_ns)
                    return Reply()
                case "decided":
                    expires_ns = self.kernel.control_expires_ns()
                    return Reply(decided=self.kernel.control_decided(), expires_ns=expires_ns)
                case "state":
                    expires_ns = self.kernel.control_expires_ns()
                    return Reply(status=self.kernel.control_status(), expires_ns=expires_ns)
        except Errno as error:
            return failure(error)
        return Reply(error=f"unknown operation {request.op}")

    def await_room(self, connection: Connection, wanted: bool) -> None:
        """Call it when there is room to send, or not any more."""
        events = select.EPOLLIN | (select.EPOLLOUT if wanted else 0)
        self._loop.watch(connection.fileno(), events)

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        fd = connection.fileno()
        self._loop.watch(fd, 0)
        self._connections.pop(fd, None)
        self._all.pop(fd, None)

    def again(self, *, keeps_starter: bool = False, hears_starter: bool = False) -> None:
        """In a forked process, or one whose place such a one takes: nobody is connected. Who has
        started the sandbox may be kept for a later process, which hears of it."""
        starter = self._starter
        if starter is not None and starter.fileno() >= 0 and keeps_starter:
            events = select.EPOLLIN if hears_starter else 0
            self._loop.watch(starter.fileno(), events, starter.on_ready)
        else:
            self._starter = None
        for connection in list(self._connections.values()):
            if connection is not self._starter:
                connection.disown()

    def leave(self) -> socket.socket | None:
        """The same, and nobody is heard any more. Where others connect to."""
        self.again(keeps_starter=True)
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.watch(listener.fileno(), 0)
        return listener

    def close(self) -> None:
        """End all connections; nobody can connect any more."""
        for connection in list(self._connections.values()):
            connection.close()
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), 0)
            self._listener.close()

    def _add(self, sock: socket.socket) -> Connection:
        connection = Connection(self, sock)
        self._connections[sock.fileno()] = self._all[sock.fileno()] = connection
        self._loop.watch(sock.fileno(), select.EPOLLIN, connection.on_ready)
        return connection

    def _on_connect(self, events: int) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._all) >= self._most:
            sock.close()
            return
        connection = self._add(sock)
        from sentry.abi.socket import UCRED  # noqa: PLC0415  900 names, which most never need

        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        if UCRED.unpack(peer).uid != self._owner:
            connection.refuse("the sandbox belongs to another user")


def _adopt(fd: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
