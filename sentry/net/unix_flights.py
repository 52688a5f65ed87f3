"""`Flights`: the descriptors on their way between AF_UNIX sockets, and those that never arrive.

A descriptor in flight is a use of its own, so sockets that are only reachable through each other's
queues would live for ever. A search finds them as net/unix/garbage.c does: it looks at sockets in
flight alone. One whose uses are all in flight, all of them in queues of such sockets, is garbage if
nothing else leads to it. The search goes on in short steps while programs run: what is sent,
received, peeked at or given up meanwhile counts as reachable, since nobody can touch garbage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sentry.net.message import Ancillary
    from sentry.net.stack import Stack

STEP: Final = 200
"""Sockets or messages that are looked at, or files that are given up, in one turn of the loop."""
SHARE: Final = 16
"""There is a search once so many times the sockets closed are as many as those in flight,"""
AT_LATEST_NS: Final = 1_000_000_000
"""or after this time."""


class Message(Protocol):
    """What lies in a queue."""

    ancillary: Ancillary | None

    @property
    def files(self) -> list[Any]:
        """The descriptors that it carries."""


class Carrier(Protocol):
    """A socket of AF_UNIX."""

    refs: int

    @property
    def segments(self) -> Iterable[Message]:
        """Its queue."""

    @property
    def pending(self) -> Iterable[Carrier]:
        """Of a listener: the connections that it has not accepted, whose queues it keeps."""


def flights(stack: Stack) -> Flights:
    """Those of all network namespaces: the ends of a connection may be in two."""
    services = stack.kernel.services
    if services.flights is None:
        services.flights = Flights(stack.kernel.loop)
    return services.flights  # type: ignore[no-any-return]


def drop_files(stack: Stack, ancillary: Ancillary | None) -> None:
    """What a message carried and nobody took."""
    if ancillary is not None and ancillary.files:
        files, ancillary.files = ancillary.files, []
        flights(stack).drop(files)


class Flights:
    """What is on its way."""

    def __init__(self, loop: Any) -> None:
        self.count = 0
        """Descriptors of any kind."""
        self.sockets: dict[Carrier, int] = {}
        """How often each AF_UNIX socket is on its way."""
        self._loop = loop
        self._closed = 0
        self._search: Search | None = None
        self._steps: Iterator[None] | None = None
        self._late = False
        self._doomed: list[Any] = []
        self._dropping = False

    def begin(self, files: Sequence[Any]) -> None:
        """Descriptors are on their way from now on."""
        self.count += len(files)
        for file in files:
            if is_unix(file):
                self.sockets[file] = self.sockets.get(file, 0) + 1
        self.touch(files)

    def end(self, files: Sequence[Any]) -> None:
        """They have arrived, or are to be given up."""
        self.count -= len(files)
        for file in files:
            if is_unix(file):
                self.sockets[file] -= 1
                if not self.sockets[file]:
                    del self.sockets[file]
        self.touch(files)

    def touch(self, files: Sequence[Any]) -> None:
        """Somebody has them in his hands."""
        if self._search is not None:
            for file in files:
                self._search.reached(file)

    def drop(self, files: Sequence[Any]) -> None:
        """Give up descriptors that nobody received.

        By a list of work and not by recursion: a socket may carry one that carries one that …
        """
        self._doomed.extend(files)
        if not self._dropping:
            self._dropping = True
            self._drop()

    def _drop(self) -> None:
        for _ in range(STEP):
            if not self._doomed:
                self._dropping = False
                return
            self._doomed.pop().decref()
        self._loop.call_soon(self._drop)

    # --- garbage

    def socket_closed(self) -> None:
        """What it could reach may be garbage now."""
        if not self.sockets:
            return
        self._closed += 1
        if self._steps is not None:
            return
        if self._closed * SHARE >= len(self.sockets):
            self._begin()
        elif not self._late:
            self._late = True
            self._loop.call_at(self._loop.now_ns() + AT_LATEST_NS, self._time_is_up)

    def _time_is_up(self) -> None:
        self._late = False
        if self._steps is None and self._closed:
            self._begin()

    def _begin(self) -> None:
        self._closed = 0
        self._steps = self._collect()
        self._loop.call_soon(self._step)

    def _step(self) -> None:
        assert self._steps is not None
        for _ in range(STEP):
            if next(self._steps, self) is self:
                self._steps = None
                if self._closed:  # meanwhile
                    self._closed -= 1
                    self.socket_closed()
                return
        self._loop.call_soon(self._step)

    def _collect(self) -> Iterator[None]:
        search = self._search = Search(self.sockets)
        try:
            yield from search.steps()
        finally:
            self._search = None
        for sock in search.unreached:
            for one in queues_of(sock):
                for segment in list(one.segments):
                    self._empty(segment)
                    yield

    def _empty(self, segment: Message) -> None:
        ancillary = segment.ancillary
        if ancillary is not None and ancillary.files:
            files, ancillary.files = ancillary.files, []
            self.end(files)
            self.drop(files)


class Search:
    """Which of the sockets that are in flight now can be reached."""

    def __init__(self, flying: dict[Carrier, int]) -> None:
        self._flying = flying
        self._queues: dict[Carrier, list[Carrier]] = {}
        """Of sockets of which no process has a descriptor: whose queues they keep."""
        self.unreached: dict[Carrier, int] = {}
        """Those of them that nothing has led to: how often they are in the queues of others."""
        self._to_follow: list[Carrier] = []

    def steps(self) -> Iterator[None]:
        """The search. At its end `unreached` is garbage."""
        for sock in list(self._flying):
            if self._flying.get(sock) == sock.refs:
                self._queues[sock] = queues_of(sock)
                self.unreached[sock] = 0
            yield
        for sock in self._queues:
            for file in self._carried_by(sock):
                if file in self.unreached:
                    self.unreached[file] += 1
                yield
        for sock in self._queues:
            if self.unreached.get(sock) != self._flying.get(sock):
                self.reached(sock)
            yield
        while self._to_follow:
            for file in self._carried_by(self._to_follow.pop()):
                self.reached(file)
                yield

    def reached(self, file: Any) -> None:
        """It is no garbage, nor what it carries."""
        if file in self.unreached:
            del self.unreached[file]
            self._to_follow.append(file)

    def _carried_by(self, sock: Carrier) -> Iterator[Any]:
        for one in self._queues[sock]:
            for segment in list(one.segments):
                yield from segment.files


def is_unix(file: Any) -> bool:
    """Whether it may carry others."""
    return hasattr(file, "segments")


def queues_of(sock: Carrier) -> list[Carrier]:
    """Those whose queues it keeps."""
    return [sock, *sock.pending]
