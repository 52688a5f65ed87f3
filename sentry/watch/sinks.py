"""Where records go: gVisor's wire, lines of JSON, nowhere. A descriptor comes with each.

The wire is one SOCK_SEQPACKET message for each record: a header of eight bytes (its size, the type
of the message, how many have been lost), and the message as a protocol buffer. What a listener and
the runtime say to each other first was said outside: runsc/launch/tracing.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from sentry.watch.encoder import encoder
from sentry.watch.messages import Line
from sentry.watch.outbox import Outbox, Patience

if TYPE_CHECKING:
    from sentry.config import TraceSink
    from sentry.protobuf import Message
    from sentry.watch.points import Point

Emit = Callable[[Any], None]
"""Takes a record."""
HEADER: Final = struct.Struct("<HHI")
"""Its own size, MessageType, how many were lost (modulo 2**32)."""
_JSON: Final = msgspec.json.Encoder()


class Sink(Protocol):
    """Who gets the records of a session."""

    name: str

    def emitter(self, point: Point) -> Emit:
        """What takes the records of a point."""
        ...

    def flush(self) -> None: ...
    def close(self) -> None: ...
    def forget(self) -> None: ...
    def when_gone(self, then: Callable[[], object]) -> None: ...

    @property
    def dropped(self) -> int: ...
    @property
    def taken(self) -> int: ...
    @property
    def is_gone(self) -> bool: ...


def _ignore(_record: Message) -> None:
    """For nobody."""


class Null:
    """Nobody: what the points themselves cost."""

    name = "null"
    dropped = taken = 0
    is_gone = True

    def emitter(self, point: Point) -> Emit:
        """They are made, and that is all."""
        return _ignore

    def flush(self) -> None:
        """There is nothing."""

    def close(self) -> None:
        """The same."""

    def forget(self) -> None:
        """The same."""

    def when_gone(self, then: Callable[[], object]) -> None:
        """Nobody goes."""


class _Outside:
    """The base of those that have a descriptor."""

    name = ""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    @property
    def dropped(self) -> int:
        """Records that were lost."""
        return self._outbox.dropped

    @property
    def taken(self) -> int:
        """All there were."""
        return self._outbox.taken

    def flush(self) -> None:
        """What can go now."""
        self._outbox.flush()

    @property
    def is_gone(self) -> bool:
        """Who listened does not any more."""
        return self._outbox.dead

    def close(self) -> None:
        """The session has ended."""
        self._outbox.close()

    def forget(self) -> None:
        """What has not been sent is another sandbox's."""
        self._outbox.forget()

    def when_gone(self, then: Callable[[], object]) -> None:
        """Call this when it has gone, in the middle of a system call."""
        self._outbox.on_death = then


class Remote(_Outside):
    """gVisor's wire."""

    name = "remote"

    def emitter(self, point: Point) -> Emit:
        """One message each."""
        outbox, kind = self._outbox, int(point.type)
        told, header = 0, HEADER.pack(HEADER.size, kind, 0)
        encode: Callable[[Any], bytes] | None = None

        def emit(record: Message) -> None:
            nonlocal told, header, encode
            if encode is None:  # all records of a point are of one type
                encode = encoder(type(record))
            if outbox.dropped != told:
                told = outbox.dropped
                header = HEADER.pack(HEADER.size, kind, told & 0xFFFFFFFF)
            outbox.put(header + encode(record))

        return emit


class Json(_Outside):
    """A JSON object a line: `point`, `record` (gVisor's names, without what is zero or empty; byte
    strings in base64), and `dropped` as soon as some have been lost."""

    name = "json"

    def emitter(self, point: Point) -> Emit:
        """One line each."""
        outbox, encode, name = self._outbox, _JSON.encode, point.name

        def emit(record: Message) -> None:
            outbox.put(encode(Line(name, record, outbox.dropped)) + b"\n")

        return emit


def make(config: TraceSink, fd: int, loop: Any) -> Sink:
    """The sink of a session; `fd` belongs to it. -1: who should listen is not there."""
    if config.name == "null" or fd < 0:
        return Null()
    if config.name == "remote":
        patience = Patience(config.retries, config.backoff_ns, config.backoff_max_ns)
        return Remote(Outbox(fd, loop, patience, packets=True))
    return Json(Outbox(fd, loop))  # one that is given up may have gone out by half


SINKS: Final = ("json", "null", "remote")
