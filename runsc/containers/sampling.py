"""Figures of a sandbox once a second, beside the records of a session: what `runsc report` draws.

A recording has them as messages of a type that is never on the wire, so that who reads the others
passes them over. The sandbox, which is not trusted, is asked over its control socket.
"""

from __future__ import annotations

import socket
import time
from typing import Final

import msgspec

from runsc.containers import listener
from sentry.control.protocol import Cost, LineBuffer, Number, Profile, Reply, Request, decode
from sentry.watch.sinks import HEADER

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


def parse(data: bytes) -> Sample | None:
    """Of a message; None if it is another one. Raises: ValueError."""
    if len(data) < HEADER.size or HEADER.unpack_from(data)[1] != SAMPLE:
        return None
    return decode(data[HEADER.size :], Sample)


class Sampler:
    """Asks again and again over a connection of its own; `hear` when there is something to read.

    Each question is a profile of a second, then the figures. If the sandbox says something else it
    is not asked any more.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines = LineBuffer()
        self._profile: Profile | None = None
        self._is_busy = False
        self.is_over = False
        sock.setblocking(False)
        self._ask(Request("metrics"))

    def fileno(self) -> int:
        """To be waited for."""
        return self._sock.fileno()

    def close(self) -> None:
        """Ask no more."""
        self._sock.close()

    def hear(self) -> list[bytes]:
        """Messages for a recording, if what came makes some."""
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

    def _hear(self, reply: Reply) -> bytes | None:
        if reply.profile is not None:
            self._profile = reply.profile
            self._ask(Request("metrics"))
            return None
        if reply.error and not self._is_busy:  # somebody measures already: figures alone
            self._is_busy = True
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
        data = message(made)
        return data if len(data) <= MAX_SAMPLE else None

    def _ask(self, request: Request) -> None:
        try:
            listener.send(self._sock, request)
        except OSError:
            self.is_over = True
