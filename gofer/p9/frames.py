"""Cuts a stream of bytes into 9P frames."""

from __future__ import annotations

from gofer.p9.codec import Message, decode
from gofer.p9.constants import HEADER_SIZE
from gofer.p9.fields import ProtocolError


class FrameReader:
    """Bytes in, (tag, message) out. A frame larger than `limit` is a ProtocolError."""

    __slots__ = ("_held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = bytearray()
        """Of an incomplete frame: no more than its bytes, in however many pieces they come."""

    def feed(self, data: bytes) -> list[tuple[int, Message]]:
        """Add what came from the socket; give the messages that are complete now."""
        held = self._held
        if held:
            held += data
            if len(held) < HEADER_SIZE or len(held) < self._size_of(held):
                return []
            data = bytes(held)
            held.clear()
        pos, total = 0, len(data)
        if HEADER_SIZE <= total <= self.limit and self._size_of(data) == total:
            return [decode(data, 0, total)]  # as nearly always
        frames: list[tuple[int, Message]] = []
        while total - pos >= HEADER_SIZE:
            size = int.from_bytes(data[pos : pos + 4], "little")
            if not HEADER_SIZE <= size <= self.limit:
                raise ProtocolError(f"frame of {size} bytes, the limit is {self.limit}")
            if total - pos < size:
                break
            frames.append(decode(data, pos, pos + size))
            pos += size
        if pos < total:
            held += data[pos:] if pos else data
        return frames

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame."""
        return len(self._held)

    def _size_of(self, first: bytes | bytearray) -> int:
        return int.from_bytes(first[:4], "little")
