"""Two ends of a connection, a wire between them, and a clock: what tests of the engine work on."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.endpoints import Endpoints
from sentry.net.tcp.keyed import Flow, Keyed
from sentry.net.tcp.listener import Listener
from sentry.net.tcp.segment import Arrived, Outgoing, parse
from sentry.net.tcp.settings import Settings, Shared, Tuning

MS = 1_000_000
SECOND = 1_000_000_000
LEFT = Endpoint(MAPPED + b"\x0a\0\0\x01", 40000)
RIGHT = Endpoint(MAPPED + b"\x0a\0\0\x02", 80)
MTU = 1500

Filter = Callable[[int, Arrived], list[tuple[int, Arrived]]]
"""From (delay in nanoseconds, segment) to those that arrive."""


def shared(secret: bytes = b"0123456789abcdef", **settings: object) -> Shared:
    return Shared(Settings(**settings), Keyed(secret))  # type: ignore[arg-type]


def packets(made: Outgoing, cut: bool = True) -> list[Arrived]:
    """What arrives of a segment: itself, or as many as the host cuts it into."""
    data = b"".join(made.pieces)
    size = made.gso_size if cut and made.gso_size else max(len(data), 1)
    found = []
    for at in range(0, max(len(data), 1), size):
        part = data[at : at + size]
        head = bytearray(made.header)
        seq = (int.from_bytes(head[4:8]) + at) & 0xFFFFFFFF
        head[4:8] = seq.to_bytes(4)
        if at + size < len(data):
            head[13] &= ~0x09  # FIN and PSH are the last one's
        if at:
            head[13] &= ~0x80
        seg = parse(bytes(head) + part, ecn=made.ecn)
        assert seg is not None
        found.append(seg)
    return found


class Side:
    """One host."""

    def __init__(self, shared_: Shared) -> None:
        self.endpoints = Endpoints(shared_)
        self.shared = shared_


class Pair:
    """Two hosts: the left one connects, the right one listens."""

    def __init__(
        self,
        left: Shared | None = None,
        right: Shared | None = None,
        tunings: tuple[Tuning, Tuning] | None = None,
        delay_ns: int = 5 * MS,
        cut: bool = True,
        backlog: int = 8,
    ) -> None:
        self.now = 1000 * SECOND
        self.delay_ns = delay_ns
        self.cut = cut
        self.sides = (Side(left or shared(b"L" * 16)), Side(right or shared(b"R" * 16)))
        client, server = tunings or (Tuning(), Tuning())
        self.listener = Listener(self.sides[1].shared, backlog, server)
        self.sides[1].endpoints.listeners[RIGHT] = self.listener
        self.left = Connection(Flow(LEFT, RIGHT), self.sides[0].shared, MTU, client)
        self.right: Connection | None = None
        self.wire: list[tuple[int, int, int, Arrived]] = []
        self.order = itertools.count()
        self.seen: list[tuple[int, int, Arrived]] = []
        """(when, from which side, segment): all that was sent."""
        self.filter: Filter | None = None
        self.filters: list[Filter | None] = [None, None]

    # --- sending

    def put(self, side: int, made: list[Outgoing]) -> None:
        for one in made:
            for seg in packets(one, self.cut):
                self.seen.append((self.now, side, seg))
                if len(self.seen) > 4000:
                    del self.seen[:2000]
                keep = self.filters[side]
                arriving = [(self.delay_ns, seg)] if keep is None else keep(self.delay_ns, seg)
                for delay_ns, what in arriving:
                    heapq.heappush(self.wire, (self.now + delay_ns, next(self.order), side, what))

    def flush(self, *connections: Connection | None) -> None:
        """Put what the two ends have to send on the wire."""
        for side, connection in ((0, self.left), (1, self.right)):
            if connection is None:
                continue
            while True:
                made = self.sides[side].endpoints.settle(self.now, connection)
                if not made:
                    break
                self.put(side, [one for _, one in made])

    def arrive(self, side: int, seg: Arrived) -> None:
        """A segment sent by `side` comes to the other one."""
        there = self.sides[1 - side].endpoints
        flow = Flow(RIGHT, LEFT) if side == 0 else Flow(LEFT, RIGHT)
        replies = there.segment(self.now, flow, seg, MTU)
        self.put(1 - side, [one for _, one in replies])
        if self.right is None and self.listener.accepted:
            self.right = self.listener.accept()
        self.flush()

    # --- time

    def deadlines(self) -> list[tuple[int, Callable[[int], None]]]:
        found: list[tuple[int, Callable[[int], None]]] = []
        for one in (self.left, self.right, self.listener):
            if one is not None and (at := one.timer()) is not None:
                found.append((at, one.timeout))
        for side in self.sides:
            if (at := side.endpoints.time_wait.timer()) is not None:
                found.append((at, side.endpoints.time_wait.timeout))
        return found

    def step(self, until: int) -> bool:
        """The next thing that happens, if it does before `until`."""
        timers = self.deadlines()
        at, call = min(timers, key=lambda one: one[0], default=(1 << 62, None))
        arrival = self.wire[0][0] if self.wire else 1 << 62
        if min(at, arrival) > until:
            return False
        if arrival <= at:
            self.now = max(self.now, arrival)
            _, _, side, seg = heapq.heappop(self.wire)
            self.arrive(side, seg)
            return True
        assert call is not None
        self.now = max(self.now, at)
        call(self.now)
        self.put(1, [one for _, one in self.listener.take()])
        self.flush()
        return True

    def run(self, seconds: float = 1.0, steps: int = 1_000_000) -> None:
        """All that happens in some time."""
        until = self.now + int(seconds * SECOND)
        self.flush()
        for _ in range(steps):
            if not self.step(until):
                break
        else:
            raise AssertionError("it does not end")
        self.now = until

    def connect(self) -> Pair:
        self.put(0, [one for _, one in self.sides[0].endpoints.connect(self.now, self.left)])
        self.run(0.1)
        return self

    @property
    def accepted(self) -> Connection:
        assert self.right is not None
        return self.right

    # --- what programs do

    def pump(self, data: bytes, seconds: float = 60.0, chunk: int = 1 << 17) -> bytes:
        """Left sends all of it, right reads all that comes, until it has or time is over."""
        until = self.now + int(seconds * SECOND)
        got = bytearray()
        at = 0
        while self.now < until and len(got) < len(data):
            while at < len(data):
                taken = self.left.send(self.now, data[at : at + chunk])
                at += taken
                self.flush()
                if not taken:
                    break
            if self.right is not None:
                for piece in self.right.receive(self.now, 1 << 20):
                    got += piece
            self.flush()
            if not self.step(until):
                break
        return bytes(got)


def read(connection: Connection, now: int) -> bytes:
    return b"".join(connection.receive(now, 1 << 24))
