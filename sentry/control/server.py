"""The server behind `kill`, `ps`, `state`: control sockets in, calls on the kernel out.

Runs on the kernel thread: every connection is watched by the loop, and no send waits. Who may
connect is decided by the modes of the socket and its directory, and looked at once more here: user
0, as this process sees users. That is root, or, if it is in a user namespace, the user who made it.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Protocol

from sentry.abi.socket import UCRED
from sentry.config import FurtherConfig, JobUse
from sentry.control import descriptors
from sentry.control.orders import ClockOrder, ClockState, InjectOrder, ServeOrder
from sentry.control.protocol import (
    MAX_ANSWER,
    EgressState,
    Event,
    ExecProcess,
    FileOrder,
    ForkOrder,
    LineBuffer,
    Packets,
    ProcessInfo,
    Procfs,
    Profile,
    Reply,
    Request,
    Said,
    Stacks,
    Stats,
    Trace,
    TraceState,
    decode,
    encode,
)
from sentry.errors import Errno
from sentry.faults import InjectState

MAX_CONNECTIONS = 512
"""A process of `exec` has one for as long as it lives."""


WAITS = frozenset((
    "advance", "checkpoint", "create", "denials", "file", "forward", "oom", "read", "serve", "wait",
))  # fmt: skip
"""What ends with its connection, of which each has one."""


class Watcher(Protocol):
    """The part of sentry.loop that is used."""

    def watch(
        self, fd: int, events: int, callback: Callable[[int], None] | None = None
    ) -> None: ...


class Running(Protocol):
    """A process of `exec`, as its connection sees it."""

    def signal(self, number: int, everyone: bool) -> None:
        """Send it a signal, or all that has come of it. Raises: EINVAL."""

    def abandon(self) -> None:
        """The connection has ended."""


class Waiting(Protocol):
    """What a connection waits for."""

    def look(self) -> None:
        """It may be there already."""

    def abandon(self) -> None:
        """The connection has ended."""


class Looking(Protocol):
    """Somebody who looks at what goes by interfaces."""

    def ask(self, *, ends: bool) -> None:
        """For more."""

    def end(self) -> None:
        """No more."""


class Controlled(Protocol):
    """What the kernel offers. Each may raise an Errno: its text goes back to the caller."""

    def control_create(
        self, config: FurtherConfig, fds: list[int], told: Callable[[str], object]
    ) -> Waiting:
        """Add a container, which waits for its start; `told` "" or why not."""
        ...

    def control_exec(self, request: ExecProcess, fds: list[int], client: Connection) -> Running:
        """Add a process; `client` is told later what became of it. Takes the descriptors."""
        ...

    def control_attach(self, pid: int, fds: list[int], client: Connection) -> Running:
        """In a fork: be the client of a process, with these streams. Takes the descriptors."""
        ...

    def control_pause(self, done: Callable[[], object]) -> None:
        """Hold all programs; `done` once they stand, and others see what they did to files."""

    def control_sync(self, told: Callable[[str], object]) -> None:
        """Have all that was done to files on the host's disk; `told` "" then, or what failed."""

    def control_share(self, told: Callable[[str], object]) -> None:
        """Have what is done to the root on the host at once, from now on; `told` the same."""

    def control_resume(self) -> None:
        """Let them go on."""

    def control_start(self) -> None:
        """Make the first process run."""

    def control_resize(self) -> None:
        """The terminal of the first process has a new size on the host."""

    def control_update(self, request: Request) -> None:
        """Other limits; None is left as it is."""

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        """Send a signal to a process of the container, or to all of them."""

    def control_wait(self, pid: int, done: Callable[[int], object]) -> Waiting:
        """Tell how a process ends, `done` with its wait(2) status."""
        ...

    def control_forward(self, port: int, fds: list[int], told: Callable[[str], object]) -> Waiting:
        """Connect to a port inside; `fds` are the ways in and out; `told` "" or why not."""
        ...

    def control_read(
        self, request: Request, fds: list[int], told: Callable[[str], object]
    ) -> Waiting:
        """Read a file into a pipe; `told` "" at its end, or what failed."""
        ...

    def control_file(
        self, order: FileOrder, fds: list[int], told: Callable[[Reply], object]
    ) -> Waiting:
        """Do something with files; `told` what came of it."""
        ...

    def control_checkpoint(
        self, parent: str, fds: list[int], told: Callable[[Reply], object]
    ) -> Waiting:
        """Write a snapshot into two files; all stand still until the wait is abandoned."""
        ...

    def control_oom(self, known: int, done: Callable[[], None]) -> Waiting:
        """Tell when memory has run out more than so many times."""
        ...

    def control_egress(self, request: Request, fds: list[int]) -> EgressState:
        """What may leave, after a change if one is asked for, and what was denied."""
        ...

    def control_denials(self, after: int, done: Callable[[], None]) -> Waiting:
        """Tell when more has been denied."""
        ...

    def control_packets(self, interface: str, told: Callable[[Packets], object]) -> Looking:
        """Look at what goes by an interface, or by all; `told` some of it for each question."""
        ...

    def control_fork(
        self, asked: ForkOrder | None, fds: list[int], told: Callable[[str], object]
    ) -> None:
        """Make another sandbox of this one as it is; `told` "" when it has begun, or why not."""

    def control_processes(self, told: Callable[[list[ProcessInfo]], object]) -> None:
        """Tell its processes."""

    def control_stats(self) -> Stats:
        """What they use."""
        ...

    def control_counts(self) -> dict[str, int]:
        """How much of everything there is, by name."""
        ...

    def control_strace(self, trace: Trace, fds: list[int], done: Callable[[str], object]) -> None:
        """Write what programs call, or no more; `done` with "" or with what failed."""

    def control_log(self, debug: bool, done: Callable[[str], object]) -> None:
        """Tell in the log what programs do not get, or no more."""

    def control_trace(
        self, request: Request, fds: list[int], done: Callable[[str], object]
    ) -> None:
        """Somebody listens from now on; `done` with "" or with what failed. Takes descriptors."""

    def control_untrace(self, name: str) -> None:
        """Nobody of that session listens any more."""

    def control_repl(self, source: str) -> Said:
        """Run a statement of Python."""
        ...

    def control_traces(self) -> list[TraceState]:
        """Who listens."""
        ...

    def control_procfs(self, after: int) -> Procfs:
        """Some processes, as /proc has them."""
        ...

    def control_metrics(self) -> dict[str, int]:
        """Figures, by the names that Prometheus has for them."""
        ...

    def control_stacks(self, after: int) -> Stacks:
        """Where tasks, or the kernel itself, are."""
        ...

    def control_inject(self, order: InjectOrder) -> list[InjectState]:
        """Faults, after a change if one is asked for."""
        ...

    def control_serve(
        self, order: ServeOrder, fds: list[int], told: Callable[[Reply], object]
    ) -> Waiting:
        """Something that the sandbox's owner serves comes, or goes. Takes the descriptors."""
        ...

    def control_clock(self, asked: ClockOrder) -> ClockState:
        """The time that programs see, after a change if one is asked for."""
        ...

    def control_advance(self, by_ns: int, done: Callable[[ClockState], object]) -> Waiting:
        """So much of it goes by, from timer to timer; `done` with what it is then."""
        ...

    def control_profile(self, time_ns: int, done: Callable[[Profile], object]) -> None:
        """Measure for so long, then `done`."""

    def control_expire(self, time_ns: int) -> None:
        """End the container in so long; 0: not for that."""

    def control_expires_ns(self) -> int:
        """How long that is from now; 0: it was not asked for."""
        ...

    def control_status(self) -> str:
        """ "created", "running", "paused" or "stopped"."""


class Connection:
    """One client."""

    def __init__(self, server: ControlServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._lines = LineBuffer()
        self._unsent = bytearray()
        """What the socket has had no room for."""
        self._waits_for_room = False
        self._fds: list[int] = []
        """Came with a request that is not complete yet."""
        self._running: Running | None = None
        self._waiting: Waiting | None = None
        self._looking: Looking | None = None

    def fileno(self) -> int:
        """The descriptor that the loop watches."""
        return self._sock.fileno()

    def send(self, message: Reply | Event) -> None:
        """Send, as far as there is room now. A client that does not read loses its connection."""
        if self._sock.fileno() < 0:
            return
        self._unsent += encode(message)
        if len(self._unsent) > MAX_ANSWER:
            self.close()
        else:
            self._push()

    def _push(self) -> None:
        was_waiting = self._waits_for_room
        try:
            sent = self._sock.send(self._unsent, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        self._waits_for_room = bool(self._unsent)
        if self._waits_for_room is not was_waiting:
            self._server.await_room(self, self._waits_for_room)

    def on_ready(self, events: int) -> None:
        """Read what came and answer it."""
        if events & select.EPOLLOUT and self._unsent:
            self._push()
        if not events & ~select.EPOLLOUT or self._sock.fileno() < 0:
            return
        try:
            data, fds = descriptors.receive(self._sock, 1 << 16)
        except BlockingIOError:
            return
        except ValueError as error:
            self.refuse(str(error))
            return
        except OSError:
            data, fds = b"", []
        if not data:
            descriptors.close_all(fds)
            self.close()
            return
        if fds and self._fds:
            descriptors.close_all(fds)
            self.refuse("descriptors of two requests")
            return
        self._fds += fds
        try:
            requests = [decode(line, Request) for line in self._lines.feed(data)]
        except ValueError as error:
            self.refuse(str(error))
            return
        for request in requests:
            reply = self._answer(request)
            if self._fds:
                self.refuse("descriptors without a use")
            if self._sock.fileno() < 0:
                return
            if reply is not None:
                self.send(reply)

    def _answer(self, request: Request) -> Reply | None:
        """The reply, or None if it comes later."""
        try:
            match request.op:
                case "exec":
                    return self._exec(request)
                case "attach":
                    return self._attach(request)
                case "signal":
                    if self._running is None:
                        return Reply(error="no process of this connection")
                    self._running.signal(request.signal, request.all)
                    return Reply()
                case "strace":
                    return self._strace(request)
                case "trace":
                    fds, self._fds = self._fds, []
                    self._server.kernel.control_trace(request, fds, self.told)
                    return None
                case "egress":
                    fds, self._fds = self._fds, []
                    return Reply(egress=self._server.kernel.control_egress(request, fds))
                case "packets":
                    return self._packets(request)
                case "fork":
                    fds, self._fds = self._fds, []
                    self._server.kernel.control_fork(request.fork, fds, self.told)
                    return None
                case op if op in WAITS:
                    return self._wait(request)
        except Errno as error:
            return failure(error)
        return self._server.answer(request, self)

    def _strace(self, request: Request) -> Reply | None:
        if request.trace is None:
            return Reply(error="what to trace?")
        fds, self._fds = self._fds, []
        self._server.kernel.control_strace(request.trace, fds, self.told)
        return None

    def told(self, error: str) -> None:
        """What takes longer is done, or failed."""
        self.send(Reply(error=error))

    def _wait(self, request: Request) -> Reply | None:
        if self._waiting is not None:
            return Reply(error="one wait for each connection")
        kernel = self._server.kernel
        if request.op == "create":
            fds, self._fds = self._fds, []
            if request.container is None:
                descriptors.close_all(fds)
                return Reply(error="which container?")
            self._waiting = kernel.control_create(request.container, fds, self._created)
        elif request.op == "forward":
            fds, self._fds = self._fds, []
            self._waiting = kernel.control_forward(request.port, fds, self.told)
        elif request.op == "read":
            fds, self._fds = self._fds, []
            self._waiting = kernel.control_read(request, fds, self.told)
        elif request.op == "file":
            fds, self._fds = self._fds, []
            if request.file is None:
                descriptors.close_all(fds)
                return Reply(error="what to do?")
            self._waiting = kernel.control_file(request.file, fds, self.send)
        elif request.op == "checkpoint":
            fds, self._fds = self._fds, []
            self._waiting = kernel.control_checkpoint(request.parent, fds, self.send)
        elif request.op == "denials":
            more = partial(self._denied, request)
            self._waiting = kernel.control_denials(request.after, more)
        elif request.op == "serve":
            fds, self._fds = self._fds, []
            if request.serve is None:
                descriptors.close_all(fds)
                return Reply(error="serve what?")
            self._waiting = kernel.control_serve(request.serve, fds, self._served)
        elif request.op == "advance":
            self._waiting = kernel.control_advance(request.time_ns, self._advanced)
        elif request.op == "oom":
            self._waiting = kernel.control_oom(request.oom_kills, self._ran_out)
        else:
            self._waiting = kernel.control_wait(request.pid, self._waited)
        self._waiting.look()
        return None

    def _packets(self, request: Request) -> Reply | None:
        if self._looking is None:
            kernel = self._server.kernel
            self._looking = kernel.control_packets(request.interface, self._seen)
        self._looking.ask(ends=request.ends)
        return None

    def _seen(self, packets: Packets) -> None:
        self.send(Reply(packets=packets))

    def _created(self, error: str) -> None:
        self._waiting = None
        self.told(error)

    def _served(self, reply: Reply) -> None:
        self._waiting = None
        self.send(reply)

    def _advanced(self, found: ClockState) -> None:
        self._waiting = None
        self.send(Reply(clock=found))

    def _ran_out(self) -> None:
        self._waiting = None
        self.send(Reply(stats=self._server.kernel.control_stats()))

    def _denied(self, request: Request) -> None:
        self._waiting = None
        self.send(Reply(egress=self._server.kernel.control_egress(request, [])))

    def _waited(self, status: int) -> None:
        self._waiting = None
        self.send(Reply(wait_status=status))

    def _exec(self, request: Request) -> Reply | None:
        if self._running is not None or request.process is None:
            return Reply(error="one process for each connection")
        fds, self._fds = self._fds, []
        self._running = self._server.kernel.control_exec(request.process, fds, self)
        return None

    def _attach(self, request: Request) -> Reply:
        fds, self._fds = self._fds, []
        if self._running is not None:
            descriptors.close_all(fds)
            return Reply(error="one process for each connection")
        self._running = self._server.kernel.control_attach(request.pid, fds, self)
        return Reply(pid=request.pid)

    def failed(self, text: str) -> None:
        """control_exec: the process could not be started."""
        self._running = None
        self.send(Reply(error=text))

    def started(self, pid: int) -> None:
        """control_exec: it runs."""
        self.send(Reply(pid=pid))

    def ended(self, status: int, use: JobUse | None, exceeded: str) -> None:
        """control_exec: it has ended."""
        self._running = None
        self.send(Event("exited", status=status, use=use, exceeded=exceeded))

    def refuse(self, why: str) -> None:
        """Say why, and end."""
        self.send(Reply(error=why))
        self.close()

    def disown(self) -> None:
        """In a forked process: the client is its parent's. What runs for it goes on."""
        self._running = None
        self.close()

    def close(self) -> None:
        """Forget this client; harmless if done."""
        if self._sock.fileno() >= 0:
            self._server.forget(self)
            self._sock.close()
            fds, self._fds = self._fds, []
            descriptors.close_all(fds)
            running, self._running = self._running, None
            if running is not None:
                running.abandon()
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                waiting.abandon()
            looking, self._looking = self._looking, None
            if looking is not None:
                looking.end()


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

    def again(self) -> None:
        """In a forked process: nobody is connected."""
        for connection in list(self._connections.values()):
            connection.disown()
        self._starter = None

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
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        if UCRED.unpack(peer).uid != self._owner:
            connection.refuse("the sandbox belongs to another user")


def failure(error: Errno) -> Reply:
    """The reply that says what was wrong."""
    return Reply(error=str(error) or type(error).__name__)


def _adopt(fd: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
