"""The socket on which the shim is asked: connections, and which method answers a request.

What comes in is containerd's, but nothing of it ends the shim: a frame that is none is answered
with an error, and a defect in a method with INTERNAL and a traceback in the log.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from runsc.errors import NoContainer, NotRunning, RuntimeFailure
from runsc.shim import ttrpc
from runsc.shim.loop import READ, WRITE, Loop, spawn
from runsc.shim.messages import Request
from runsc.shim.ttrpc import Code, Frame, Refused
from sentry.protobuf import Message, decode

CHUNK = 1 << 16
AGAIN_S = 0.5
UNREAD = 64 << 20
"""Bytes of answers that a client may leave unread; then its connection is closed."""


class Method(NamedTuple):
    """What answers a request."""

    takes: type[Message]
    call: Callable[[Any], Awaitable[Message]]


Services = Mapping[str, Mapping[str, Method]]
"""By name, and methods by theirs."""


class Server:
    """Listens; has a `Connection` for each client."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        services: Services,
        log: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.services = services
        self.log = log
        self._listener = listener
        self._connections: set[Connection] = set()
        self._on_answered: Callable[[], None] | None = None
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self.loop.watch(self._listener.fileno(), READ, self._accept)

    def when_answered(self, callback: Callable[[], None]) -> None:
        """Call this once no client waits for an answer, be it to a question asked from now on."""
        self._on_answered = callback
        self.settle()

    def settle(self) -> None:
        """Something has been answered, or nobody waits for it any more."""
        if self._on_answered and not any(each.is_due for each in self._connections):
            callback, self._on_answered = self._on_answered, None
            callback()

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # it is gone
            return
        except OSError:  # no descriptor is left: who looks again at once does nothing else
            self.loop.forget(self._listener.fileno())
            self.loop.after(AGAIN_S, self._listen)
            return
        self._connections.add(Connection(self, sock))

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._connections.discard(connection)
        self.settle()


class Connection:
    """A client."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._reader = ttrpc.Reader()
        self._out = bytearray()
        self._last = 0
        self._asked = 0
        self._open = True
        sock.setblocking(False)
        server.loop.watch(sock.fileno(), READ, self._ready)

    @property
    def is_due(self) -> bool:
        """Whether the client waits for an answer."""
        return bool(self._asked or self._out)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._open and events & ~WRITE:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for each in self._reader.feed(data):
            self._take(each)

    def _take(self, frame: Frame) -> None:
        if frame.kind == ttrpc.RESPONSE:  # an answer to a question that nobody asked
            return
        problem = self._problem(frame)
        if problem is not None:
            self._send(ttrpc.error(frame.stream, problem.code, str(problem)))
            return
        self._last = frame.stream
        self._asked += 1
        spawn(self._serve(frame))

    def _problem(self, frame: Frame) -> Refused | None:
        if frame.length:
            return Refused(
                Code.RESOURCE_EXHAUSTED,
                f"message length {frame.length} exceed maximum message size of {ttrpc.MOST}",
            )
        if frame.kind != ttrpc.REQUEST:
            return Refused(Code.INVALID_ARGUMENT, f"no stream is open for type {frame.kind}")
        if frame.stream % 2 != 1:
            text = "StreamID must be odd for client initiated streams"
            return Refused(Code.INVALID_ARGUMENT, text)
        if frame.stream <= self._last:
            text = "StreamID cannot be re-used and must increment"
            return Refused(Code.INVALID_ARGUMENT, text)
        return None

    async def _serve(self, frame: Frame) -> None:
        try:
            method, payload = self._method(frame.data)
            reply = ttrpc.answer(frame.stream, await method.call(payload))
        except Exception as error:
            refused = refusal(error)
            if refused.code == Code.INTERNAL:
                self._server.log("".join(traceback.format_exception(error)))
            reply = ttrpc.error(frame.stream, refused.code, str(refused))
        self._asked -= 1
        self._send(reply)

    def _method(self, data: bytes) -> tuple[Method, Message]:
        try:
            request = decode(Request, data)
        except ValueError as error:
            raise Refused(Code.INVALID_ARGUMENT, f"unmarshal request error: {error}") from None
        service = self._server.services.get(request.service)
        if service is None:
            raise Refused(Code.UNIMPLEMENTED, f"service {request.service}")
        method = service.get(request.method)
        if method is None:
            raise Refused(Code.UNIMPLEMENTED, f"method {request.method}")
        try:
            return method, decode(method.takes, request.payload)
        except ValueError as error:
            raise Refused(Code.INVALID_ARGUMENT, f"{request.method}: {error}") from None

    def _send(self, data: bytes) -> None:
        if not self._open:
            return
        self._out += data
        self._flush()
        if len(self._out) > UNREAD:
            self.close()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        events = READ | WRITE if self._out else READ
        self._server.loop.watch(self._sock.fileno(), events, self._ready)
        self._server.settle()

    def close(self) -> None:
        """What is being answered goes on; nobody will hear of it."""
        if self._open:
            self._open = False
            self._server.loop.forget(self._sock.fileno())
            self._sock.close()
            self._server.forget(self)


def refusal(error: BaseException) -> Refused:
    """What a client is told of an exception."""
    match error:
        case Refused():
            return error
        case NoContainer() | NotRunning():
            return Refused(Code.NOT_FOUND, str(error))
        case RuntimeFailure():
            return Refused(Code.UNKNOWN, str(error))
        case OSError():
            what = (error.strerror or str(error)).lower()
            return Refused(Code.UNKNOWN, f"{error.filename}: {what}" if error.filename else what)
    return Refused(Code.INTERNAL, f"the shim failed: {error!r}")
