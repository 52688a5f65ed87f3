"""The journal: requests that a client leaves in memory for the server to carry out later.

A ring of bytes, sans-io. The client alone writes it; what it has written stays when it dies. A
record is `check[4] length[4] position[8]` and a request, a whole 9P frame. `position` counts bytes
since the ring was empty: it says where the record begins, and that it is not one that lay there a
lap ago. `check` is the CRC-32 of all that follows. So a record is there or it is not, whenever the
writer stopped, and nothing else in the ring need be believed: no index, no count, no commit word.

The reader tells how far it has come in replies, never in the ring: what is read is never written
by two.
"""

from __future__ import annotations

import struct
from binascii import crc32
from typing import Final

from gofer.p9.fields import ProtocolError

CAPACITY: Final = 1 << 20
"""Bytes of a ring, where nobody wants another one: some ten thousand records."""
MAX_FRAME: Final = 1 << 17
"""The largest request: setxattr(2) has values of 64 KiB (XATTR_SIZE_MAX)."""
_HEADER: Final = struct.Struct("<IIQ")
_CHECKED: Final = struct.Struct("<IQ")
_FIRST, _MOST = 1 << 10, 1 << 16
"""Bytes to look at when mostly nothing is there, and in a long run of records."""


class JournalFull(Exception):
    """The record does not fit before the reader has come further."""


class JournalWriter:
    """The client's side."""

    __slots__ = ("_memory", "executed", "position")

    def __init__(self, memory: memoryview) -> None:
        """`memory`: the ring, all zeros."""
        self._memory = memory
        self.position = 0
        """Where the next record begins."""
        self.executed = 0
        """What begins before this has been carried out."""

    @property
    def capacity(self) -> int:
        """Bytes of the ring."""
        return len(self._memory)

    @property
    def free(self) -> int:
        """Bytes that can be written now."""
        return len(self._memory) - (self.position - self.executed)

    def append(self, *frames: bytes) -> int:
        """Write records, all of which are there when this returns; where the last one ends.

        Raises: JournalFull; ProtocolError for one that never fits. Then none is there.
        """
        for frame in frames:
            if len(frame) > MAX_FRAME or _HEADER.size + len(frame) > len(self._memory):
                raise ProtocolError(f"a request of {len(frame)} bytes in a journal")
        if sum(map(len, frames)) + len(frames) * _HEADER.size > self.free:
            raise JournalFull
        for frame in frames:
            checked = _CHECKED.pack(len(frame), self.position) + frame
            self._put(crc32(checked).to_bytes(4, "little") + checked)
        return self.position

    def reached(self, position: int) -> None:
        """The server says that it has come so far. Raises: ProtocolError if it cannot have."""
        if not self.executed <= position <= self.position:
            raise ProtocolError(f"a journal of {self.position} bytes is executed to {position}")
        self.executed = position

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.release()

    def _put(self, record: bytes) -> None:
        memory = self._memory
        at = self.position % len(memory)
        end = at + len(record)
        if end <= len(memory):
            memory[at:end] = record
        else:
            first = len(memory) - at
            memory[at:], memory[: end - len(memory)] = record[:first], record[first:]
        self.position += len(record)
