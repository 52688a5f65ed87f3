"""`Connection`: one client of a control socket. What it asks for by descriptors, or waits for, is
its own and ends with it; all else is the server's to answer. No send waits.
"""

from __future__ import annotations

import select
import socket
from functools import partial
from typing import TYPE_CHECKING

from sentry.control import descriptors
from sentry.control.protocol import MAX_ANSWER, Event, LineBuffer, Reply, Request, decode, encode
from sentry.errors import Errno

if TYPE_CHECKING:
    from sentry.config import JobUse
    from sentry.control.answers import ClockState, Packets, PolicyTold
    from sentry.control.controlled import Looking, Running, Waiting
    from sentry.control.server import ControlServer

WAITS = frozenset((
    "advance", "checkpoint", "create", "denials", "file", "forward", "oom", "questions", "read",
    "serve", "wait",
))  # fmt: skip
"""What ends with its connection, of which each has one."""
FAULT = "an exception of the sandbox's own, which its log has"


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
            try:
                reply = self._answer(request)
            except Exception:  # of ours: the loop tells of it
                self.refuse(FAULT)
                raise
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
                case "policy":
                    return self._policy(request)
                case "packets":
                    return self._packets(request)
                case "fork":
                    fds, self._fds = self._fds, []
                    self._server.kernel.control_fork(request.fork, fds, self.told)
                    return None
                case "succeed":
                    fds, self._fds = self._fds, []
                    self._server.kernel.control_succeed(fds, self.told)
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
        elif request.op == "questions":
            self._waiting = kernel.control_questions(request.after, self._asked)
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

    def _policy(self, request: Request) -> Reply | None:
        if request.policy is None:
            return Reply(error="what to do?")
        told = self._server.kernel.control_policy(request.policy, self.told)
        return Reply(policy=told) if told is not None else None

    def _asked(self, told: PolicyTold) -> None:
        self._waiting = None
        self.send(Reply(policy=told))

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


def failure(error: Errno) -> Reply:
    """The reply that says what was wrong."""
    return Reply(error=str(error) or type(error).__name__)
