"""The client's side of a journal (gofer.p9.journal), put together in C (native/records.h).

The client alone writes the ring; how far the server has come it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gofer.p9.fields import ProtocolError
from gofer.p9.journal import HEADER_SIZE, MAX_FRAME
from sentry.platform._native import ffi, lib

if TYPE_CHECKING:
    import mmap

NAME: Final = lib.record_name
"""Tnamex: fid, fid of the directory, name and its length, mode, uid, gid, time."""
ATTRIBUTES: Final = lib.record_attributes
"""Tsetattrx: fid, name and its length, what is valid, mode, uid, gid, atime, mtime."""
REMOVAL: Final = lib.record_removal
"""Tunlinkat: fid of the directory, name and its length, flags."""
FID: Final = lib.record_fid
"""Tclunk and Trevertx: which of them, fid."""


class JournalFull(Exception):
    """The record does not fit before the reader has come further."""


class JournalWriter:
    """Writes records."""

    __slots__ = ("_memory", "ring")

    def __init__(self, memory: mmap.mmap) -> None:
        """`memory`: the ring, all zeros."""
        found = ffi.from_buffer("uint8_t[]", memory)
        self._memory: object = found
        """Held."""
        self.ring = ffi.new("struct record_ring *")
        """For the functions above, which give the size of the record, or 0: there is no room. Its
        `position` is where the next record begins; what begins before `executed` is done."""
        self.ring.memory, self.ring.capacity = found, len(found)

    @property
    def position(self) -> int:
        """Where the next record begins."""
        return self.ring.position

    @property
    def executed(self) -> int:
        """What begins before this has been carried out."""
        return self.ring.executed

    @property
    def free(self) -> int:
        """Bytes that can be written now."""
        return self.ring.capacity - (self.ring.position - self.ring.executed)

    def append(self, *frames: bytes) -> int:
        """Write records, all of which are there when this returns; where the last one ends.

        Raises: JournalFull; ProtocolError for one that never fits. Then none is there.
        """
        for frame in frames:
            if len(frame) > MAX_FRAME or HEADER_SIZE + len(frame) > self.ring.capacity:
                raise ProtocolError(f"a request of {len(frame)} bytes in a journal")
        if sum(map(len, frames)) + len(frames) * HEADER_SIZE > self.free:
            raise JournalFull
        for frame in frames:
            lib.record_frame(self.ring, frame, len(frame))
        return self.position

    def reached(self, position: int) -> None:
        """The server says that it has come so far. Raises: ProtocolError if it cannot have."""
        if not self.executed <= position <= self.position:
            raise ProtocolError(f"a journal of {self.position} bytes is executed to {position}")
        self.ring.executed = position

    def close(self) -> None:
        """Let go of the memory: nothing fits any more."""
        self.ring.capacity = self.ring.position - self.ring.executed
        self._memory = None
