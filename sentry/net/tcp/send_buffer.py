"""What a program has sent and nobody has acknowledged: bytes by their place in the stream."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

BLOCK: Final = 16384
"""Small writes are put together in blocks of so many bytes."""
SMALL: Final = 4096
"""What is no smaller is kept as it came, and so is what is alone."""


class SendBuffer:
    """Pieces in order. They go out as slices; nothing of them is copied or changed later."""

    __slots__ = ("_block", "_pieces", "_starts", "end", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        """What is acknowledged."""
        self.end = start
        """Where the next byte will be."""
        self._starts: list[int] = []
        self._pieces: list[memoryview] = []
        self._block: memoryview | None = None
        """Room for more behind the last piece, which lies before it in the same memory."""

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, data: memoryview) -> None:
        """More, whose memory does not change any more."""
        if self._block is not None:
            data = self._fill(self._block, data)
        if not data:
            return
        if len(data) >= SMALL or not self._pieces:
            self._add(data)
            return
        block, alone = memoryview(bytearray(BLOCK)), data[:0]
        if len(self._pieces) == 1 and len(self._pieces[0]) < SMALL:
            alone, self.end = self._pieces.pop(), self._starts.pop()
        self._add(block[:0])
        self._fill(block, alone)
        self._fill(block[len(alone) :], data)

    def _add(self, piece: memoryview) -> None:
        self._starts.append(self.end)
        self._pieces.append(piece)
        self.end += len(piece)

    def _fill(self, block: memoryview, data: memoryview) -> memoryview:
        """Copy what there is room for behind the last piece; what is left."""
        taken = min(len(block), len(data))
        block[:taken] = data[:taken]
        self._block = block[taken:] or None
        whole = memoryview(block.obj)
        self._pieces[-1] = whole[: BLOCK - len(block) + taken]
        self.end += taken
        return data[taken:]

    def slices(self, at: int, size: int) -> list[memoryview]:
        """The bytes from a place on. Preconditions: they are there."""
        index = bisect_right(self._starts, at) - 1
        skip = at - self._starts[index]
        piece = self._pieces[index]
        if len(piece) - skip >= size:
            return [piece[skip : skip + size]]
        found = []
        while size > 0:
            part = self._pieces[index][skip : skip + size]
            found.append(part)
            size -= len(part)
            skip = 0
            index += 1
        return found

    def acknowledge(self, up_to: int) -> None:
        """Forget what is below."""
        self.start = up_to
        if up_to >= self.end:
            self._starts.clear()
            self._pieces.clear()
            self._block = None
            return
        gone = bisect_right(self._starts, up_to) - 1
        if gone > 0:
            del self._starts[:gone], self._pieces[:gone]
