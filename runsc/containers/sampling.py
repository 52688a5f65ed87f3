"""Figures of a sandbox once a second: what `runsc top` shows, and `runsc report` draws beside the
records of a session.

A recording has them as messages of a type that is never on the wire, so that who reads the others
passes them over. The sandbox, which is not trusted, is asked over its control socket.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from runsc.containers import listener
from sentry.control.answers import Cost, Profile
from sentry.control.orders import Number
from sentry.control.protocol import LineBuffer, Reply, Request, decode
from sentry.watch.sinks import HEADER

if TYPE_CHECKING:
    from sentry.control.answers import ProcessInfo

SAMPLE: Final = 0xFF00
"""The type of the message."""
MAX_SAMPLE: Final = 1 << 20
SECOND_NS: Final = 10**9


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """What there was at one moment, and what the second before it was spent with."""

    time_ns: Number
    counts: dict[str, Number]
    """As `runsc metrics` has them."""
    calls: dict[str, Cost] = {}
    """By system call; none while somebody else measures."""
    faults: Cost = Cost(0, 0, 0)
    elapsed_ns: Number = 0
    guest_ns: Number = 0
    """CPU time of programs."""


def message(sample: Sample) -> bytes:
    """As a recording has it."""
    return HEADER.pack(HEADER.size, SAMPLE, 0) + msgspec.json.encode(sample)


def kept(samples: Iterable[Sample]) -> Iterator[bytes]:
    """Messages of those that a recording has room for."""
    made = map(message, samples)
    return (data for data in made if len(data) <= MAX_SAMPLE)


def parse(data: bytes) -> Sample | None:
    """Of a message; None if it is another one. Raises: ValueError."""
    if len(data) < HEADER.size or HEADER.unpack_from(data)[1] != SAMPLE:
        return None
    return decode(data[HEADER.size :], Sample)


class Sampler:
    """Asks again and again over a connection of its own; `hear` when there is something to read.

    Each question is a profile of a second, then its processes if they are wanted, then the
    figures. If the sandbox says something else it is not asked any more.
    """

    def __init__(self, sock: socket.socket, *, lists: bool = False) -> None:
        """`lists`: processes, too."""
        self._sock = sock
        self._lists = lists
        self.processes: list[ProcessInfo] = []
        self._lines = LineBuffer()
        self._profile: Profile | None = None
        self.is_over = False
        self.due = inf
        """When to ask again, by time.monotonic(), unless an answer is waited for."""
        sock.setblocking(False)
        self._ask(Request("metrics"))

    def fileno(self) -> int:
        """To be waited for."""
        return self._sock.fileno()

    def close(self) -> None:
        """Ask no more."""
        self._sock.close()

    def tick(self) -> None:
        """Ask, if it is time."""
        if time.monotonic() >= self.due:
            self.due = inf
            self._ask(Request("ps" if self._lists else "metrics"))

    def hear(self) -> list[Sample]:
        """What came, if it is whole."""
        try:
            data = self._sock.recv(1 << 18)
            replies = [decode(line, Reply) for line in self._lines.feed(data)]
        except BlockingIOError:
            return []
        except (OSError, ValueError):
            data, replies = b"", []
        if not data:
            self.is_over = True
        return [made for reply in replies if (made := self._hear(reply))]

    def _hear(self, reply: Reply) -> Sample | None:
        asked = self._asked
        if asked == "profile" and (reply.profile is not None or reply.error):
            self._profile = reply.profile
            self.due = time.monotonic()
            if reply.profile is None:  # somebody else measures
                self.due += SECOND_NS / 1e9
            self.tick()
            return None
        if asked == "ps" and not reply.error:
            self.processes = reply.processes
            self._ask(Request("metrics"))
            return None
        if not reply.counts:
            self.is_over = True
            return None
        spent, self._profile = self._profile, None
        made = Sample(time.time_ns(), reply.counts)
        if spent is not None:
            made = msgspec.structs.replace(
                made, calls=spent.calls, faults=spent.faults, elapsed_ns=spent.elapsed_ns,
                guest_ns=spent.guest_ns,
            )  # fmt: skip
        self._ask(Request("profile", time_ns=SECOND_NS))
        return made

    def _ask(self, request: Request) -> None:
        self._asked = request.op
        try:
            listener.send(self._sock, request)
        except OSError:
            self.is_over = True
