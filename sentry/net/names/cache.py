"""Answers that are given again until their TTL ends. RFC 1035, 7.4; RFC 2308 for those that say no.

Bounded in number and in bytes; what was not used for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from sentry.net.names.chain import Found

MAX_ANSWERS: Final = 4096
MAX_BYTES: Final = 4 << 20
MAX_ANSWER_BYTES: Final = 64 << 10
RECORD_BYTES: Final = 200
"""What a record costs beside its owner and its data."""
NS: Final = 1_000_000_000


class Key(Struct, frozen=True):
    """A question, as far as answers differ by it."""

    name: bytes
    """As on the wire, in lower case."""
    kind: int
    flags: int
    """CD of the header and DO of EDNS."""


class Cached(Struct, frozen=True):
    """An answer and when it came."""

    found: Found
    since_ns: int
    until_ns: int
    size: int

    def elapsed_s(self, now_ns: int) -> int:
        """Whole seconds since, which its TTLs have lost."""
        return (now_ns - self.since_ns) // NS


class Cache:
    """Answers by question."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Key, Cached] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: Key, now_ns: int) -> Cached | None:
        """What is known and still valid."""
        cached = self._answers.get(key)
        if cached is None:
            return None
        if cached.until_ns <= now_ns:
            self._drop(key)
            return None
        self._answers.move_to_end(key)
        return cached

    def put(self, key: Key, found: Found, now_ns: int) -> None:
        """Keep an answer, if it may be kept."""
        records = (*found.answer, *found.authority)
        size = sum(RECORD_BYTES + len(r.owner) + len(r.data) for r in records) + RECORD_BYTES
        if found.lifetime_s <= 0 or size > MAX_ANSWER_BYTES:
            return
        if key in self._answers:
            self._drop(key)
        self._answers[key] = Cached(found, now_ns, now_ns + found.lifetime_s * NS, size)
        self.bytes += size
        while self.bytes > MAX_BYTES or len(self._answers) > MAX_ANSWERS:
            self._drop(next(iter(self._answers)))

    def clear(self) -> None:
        """Forget all, as when the nameservers are others."""
        self._answers.clear()
        self.bytes = 0

    def _drop(self, key: Key) -> None:
        self.bytes -= self._answers.pop(key).size
