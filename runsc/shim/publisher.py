"""Events, told to containerd in their order.

Over ttrpc to $TTRPC_ADDRESS; where there is none, by containerd's program (`publish`, with the
event on standard input). While containerd is away they are kept, up to a bound, and told when it is
back: containers go on while it is restarted. Source: containerd's pkg/shim/publisher.go.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec

from runsc.shim import ttrpc
from runsc.shim.loop import READ, WRITE, Loop, Timer
from runsc.shim.messages import (
    TOPICS,
    Any,
    Envelope,
    Forward,
    Request,
    Response,
    packed,
    timestamp,
)
from runsc.shim.workers import Report, Workers
from sentry.protobuf import Message, decode, encode

SERVICE = "containerd.services.events.ttrpc.v1.Events"
KEPT = 2048
"""Events; of more the oldest are lost."""
ANSWER_S = 5.0
PROGRAM_S = 30.0
"""How long containerd may take to answer, and its program, which has to begin, to end."""
AGAIN_S = 1.0
"""Between two tries to reach containerd."""
EVENTS = "containerd.events."


class Way(msgspec.Struct, frozen=True):
    """How containerd is reached."""

    ttrpc: str
    """$TTRPC_ADDRESS."""
    grpc: str = ""
    program: str = ""
    """-address and -publish-binary, where there is none."""
    namespace: str = ""


class Publisher:
    """A queue, and the connection to who takes from it."""

    def __init__(
        self, loop: Loop, workers: Workers, way: Way, log: Callable[[str], None]
    ) -> None:
        self._loop, self._workers, self._way, self._log = loop, workers, way, log
        self._queue: deque[Envelope] = deque()
        self._sock: socket.socket | None = None
        self._reader = ttrpc.Reader()
        self._stream = -1
        self._out = b""
        self._waits = False
        """Something is under way, or will be tried again."""
        self._program = -1
        """A pidfd of containerd's program."""
        self._late: Timer | None = None
        self.on_empty: Callable[[], None] = lambda: None
        """All have been told."""

    @property
    def empty(self) -> bool:
        """Whether all have been told."""
        return not self._queue

    @property
    def _is_under_way(self) -> bool:
        """The first one has been sent, and nobody knows what becomes of it."""
        return self._late is not None or (self._waits and not self._way.ttrpc)

    def publish(self, event: Message) -> None:
        """To be told after those before."""
        kind = type(event)
        self._queue.append(
            Envelope(
                timestamp(time.time_ns()),
                self._way.namespace,
                TOPICS[kind],
                packed(EVENTS + kind.__name__, event),
            )
        )
        if len(self._queue) > KEPT:
            oldest = 1 if self._is_under_way else 0
            lost = self._queue[oldest]
            del self._queue[oldest]
            self._log(f"containerd is away: an event is lost: {lost.topic}")
        self._go_on()

    def _go_on(self) -> None:
        if self._waits:
            return
        if not self._queue:
            self.on_empty()
            return
        self._waits = True
        if self._way.ttrpc:
            self._forward()
        else:
            self._call()

    # over ttrpc

    def _forward(self) -> None:
        try:
            sock = self._connected()
        except OSError:
            self._again()
            return
        self._stream += 2
        payload = encode(Forward(self._queue[0]))
        request = Request(SERVICE, "Forward", payload, int(ANSWER_S * 1e9))
        self._out = ttrpc.frame(self._stream, ttrpc.REQUEST, encode(request))
        self._late = self._loop.after(ANSWER_S, self._failed)
        self._loop.watch(sock.fileno(), READ | WRITE, self._ready)

    def _connected(self) -> socket.socket:
        if self._sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                sock.connect(self._way.ttrpc.removeprefix("unix://"))
            except OSError:
                sock.close()
                raise
            self._sock, self._reader, self._stream = sock, ttrpc.Reader(), -1
        return self._sock

    def _ready(self, events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            if self._out and events & WRITE:
                self._out = self._out[sock.send(self._out) :]
            if not self._out:
                self._loop.watch(sock.fileno(), READ, self._ready)
            if not events & ~WRITE:
                return
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._failed()
            return
        for each in self._reader.feed(data):
            if each.stream == self._stream and self._late is not None:
                self._told(each.data)

    def _told(self, data: bytes) -> None:
        """It is containerd's now. What it refuses it would refuse again."""
        self._settle()
        try:
            status = decode(Response, data).status
        except ValueError:
            status = None
        if status is not None and status.code:
            self._log(f"event {self._queue[0].topic}: {status.message}")
        self._queue.popleft()
        self._waits = False
        self._go_on()

    def _settle(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _failed(self) -> None:
        """The connection is of no use any more; whether the event has arrived nobody knows."""
        waited = self._late is not None
        self.close()
        if waited:
            self._again()

    def close(self) -> None:
        """End the connection."""
        self._settle()
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _again(self) -> None:
        def once_more() -> None:
            self._waits = False
            self._go_on()

        self._loop.after(AGAIN_S, once_more)

    # by containerd's program

    def _call(self) -> None:
        envelope, way = self._queue[0], self._way
        command = [
            way.program, "--address", way.grpc, "publish",
            "--topic", envelope.topic, "--namespace", way.namespace,
        ]  # fmt: skip
        event = encode(envelope.event or Any())

        def job(report: Report) -> None:
            source, sink = os.pipe()
            os.write(sink, event)  # less than a pipe holds
            os.close(sink)
            os.dup2(source, 0)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.set_inheritable(report.fileno(), True)  # open to its end, which is waited for
            os.execv(command[0], command)

        try:
            pid, sock = self._workers.fork(job)
        except OSError:
            self._again()
            return
        with suppress(OSError):  # no descriptor is left: then it has its time
            self._program = os.pidfd_open(pid)
        self._late = self._loop.after(PROGRAM_S, self._give_up)
        ended = self._workers.hear(pid, sock)
        ended.then(self._called)

    def _give_up(self) -> None:
        """It hangs, as with a containerd that does not answer: another one tries it again."""
        self._late = None
        with suppress(OSError):
            signal.pidfd_send_signal(self._program, signal.SIGKILL)

    def _called(self) -> None:
        with suppress(OSError):
            os.close(self._program)
        self._program = -1
        if self._late is None:
            self._again()
            return
        self._settle()
        self._queue.popleft()
        self._waits = False
        self._go_on()
