"""A question that was asked outside: who waits for it, and whom it was asked. RFC 5452."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Final

from msgspec import Struct

from sentry.net.inet.address import Endpoint
from sentry.net.names.asking import Ask, Transport
from sentry.net.names.cache import Key
from sentry.net.names.messages import Edns, Query, Question
from sentry.net.names.writer import OUR_SIZE, write_query

MAX_WAITING: Final = 32
"""Programs that wait for one question."""
TRIES_NS: Final = (1_000_000_000, 1_000_000_000, 2_000_000_000, 2_000_000_000, 4_000_000_000)
"""How long each try waits; resolvers of programs give up after 10 s (resolv.conf(5))."""
TCP_NS: Final = 4_000_000_000
MAX_WRONG: Final = 8
"""Answers that do not fit what was asked: somebody guesses, and the next try is over TCP."""


class Client(Struct, frozen=True):
    """Who asks. `token` and `program` mean something to the caller only."""

    token: Hashable
    program: object
    transport: Transport


class Reply(Struct, frozen=True):
    """To be sent to a client."""

    token: Hashable
    data: bytes


class Release(Struct, frozen=True):
    """Nothing more is expected at this port."""

    port: int


Effect = Reply | Ask | Release


class Attempt(Struct, frozen=True):
    """One message to one server."""

    server: Endpoint
    transport: Transport
    ident: int
    question: Question
    edns: Edns | None


class Pending:
    """One question, until it is answered."""

    __slots__ = ("attempts", "deadline_ns", "key", "question", "tries", "waiting", "wrong")

    def __init__(self, key: Key, question: Question) -> None:
        self.key = key
        self.question = question
        self.waiting: list[tuple[Query, Client]] = []
        self.attempts: dict[int, Attempt] = {}
        """By port."""
        self.tries = 0
        self.wrong = 0
        self.deadline_ns = 0

    def join(self, query: Query, client: Client) -> bool:
        """Whether another one may wait; who asks again waits once."""
        for at, (other, waiting) in enumerate(self.waiting):
            if waiting.token == client.token and other.ident == query.ident:
                self.waiting[at] = (query, client)
                return True
        if len(self.waiting) >= MAX_WAITING:
            return False
        self.waiting.append((query, client))
        return True


def attempt(
    pending: Pending,
    server: Endpoint,
    transport: Transport,
    edns: Edns | None,
    random: Callable[[int], bytes],
) -> tuple[Attempt, bytes]:
    """A message that nobody can foresee: its id, and which letters of its name are capitals."""
    question = Question(mixed(pending.key.name, random), pending.key.kind, None)
    ident = int.from_bytes(random(2))
    data = write_query(ident, pending.key.flags, question, edns)
    return Attempt(server, transport, ident, question, edns), data


def mixed(name: bytes, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """A name on the wire, each letter in lower or upper case (draft-vixie-dnsext-dns0x20)."""
    coins = int.from_bytes(random((len(name) + 7) // 8))
    upper = name.upper()
    return bytes(
        u if coins >> i & 1 else b for i, (b, u) in enumerate(zip(name, upper, strict=True))
    )


def our_edns(flags: int) -> Edns:
    """What we say to nameservers: our size, and DO if a program has said so. No options."""
    return Edns(OUR_SIZE, 0, flags)
