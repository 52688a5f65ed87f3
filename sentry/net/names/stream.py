"""DNS over TCP: each message has its length before it. RFC 1035, 4.2.2; RFC 7766."""

from __future__ import annotations

from typing import Final

MAX_HELD: Final = 2 + 65535
"""A message; who reads a stream takes what is whole before it reads on."""


def framed(message: bytes) -> bytes:
    """A message as it goes over a stream."""
    return len(message).to_bytes(2) + message


class Messages:
    """The messages of one direction of a stream."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def room(self) -> int:
        """How many bytes `feed` takes now. It is never 0 if all that is whole was taken."""
        return MAX_HELD - len(self._held)

    def feed(self, data: bytes) -> None:
        """Bytes that have arrived, at most `room` of them."""
        assert len(data) <= self.room
        self._held += data

    def next(self) -> bytes | None:
        """The next one that is whole."""
        size = 2 + int.from_bytes(self._held[:2])
        if len(self._held) < max(size, 2):
            return None
        message = bytes(self._held[2:size])
        del self._held[:size]
        return message
