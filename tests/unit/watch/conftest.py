"""A world whose calls are watched, into a socket of the test's."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.config import TracePoint, TraceSession, TraceSink
from sentry.protobuf import Message, decode
from sentry.syscalls import table  # noqa: F401  all declarations
from sentry.wait.steps import at_once
from sentry.watch.session import Watch
from tests.world import World


class Watched(World):
    """A world with a session, and the other end of its sink."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel.watch = self.watch = Watch(self.kernel)
        self.there: socket.socket | None = None
        self._listeners: list[socket.socket] = []

    def listen(
        self, *names: str, context: tuple[str, ...] = (), optional: tuple[str, ...] = (),
        sink: str = "remote", name: str = "Default",
    ) -> socket.socket:  # fmt: skip
        """Begin a session of these points; the listener's end."""
        kind = socket.SOCK_SEQPACKET if sink == "remote" else socket.SOCK_STREAM
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        points = tuple(TracePoint(each, optional, context) for each in names)
        config = TraceSession(name, points, (TraceSink(sink, has_fd=True),))
        self.watch.check(config)
        at_once(self.watch.create(config, [ours.detach()]))
        theirs.setblocking(False)
        self.there = theirs
        self._listeners.append(theirs)
        return theirs

    def told(self) -> list[tuple[int, bytes]]:
        """What has come: (message type, payload) of each."""
        assert self.there is not None
        self.watch.flush()
        found = []
        while True:
            try:
                data = self.there.recv(1 << 20)
            except BlockingIOError:
                return found
            if not data:
                return found
            size, kind, _ = struct.unpack_from("<HHI", data)
            found.append((kind, data[size:]))

    def records(self, kind: type[Message]) -> list[Any]:
        """The same, if all are of one type."""
        return [decode(kind, data) for _, data in self.told()]

    def _end(self) -> None:
        for name in list(self.watch.sessions):
            self.watch.delete(name)
        for there in self._listeners:
            there.close()
        super()._end()


@pytest.fixture
def world() -> Iterator[Watched]:
    with Watched() as made:
        yield made
