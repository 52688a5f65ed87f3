"""What has arrived and was not read: the stream in order, and what came before its turn."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Final

from sentry.net.tcp.intervals import Intervals

SMALL: Final = 2048
"""What is smaller is copied and put together with its neighbours."""
JOINED: Final = 16384
MAX_EARLY: Final = 1024
"""Pieces that came before their turn; what would be more is dropped and sent again."""
MAX_RECENT: Final = 4


def owned(payload: memoryview, small: int = SMALL) -> memoryview:
    """The same bytes, which hold on to no more than twice their size of memory; less than `small`
    are copied."""
    size = len(payload)
    if size < small or memoryview(payload.obj).nbytes > 2 * size:
        return memoryview(bytes(payload))
    return payload


class ReceiveBuffer:
    """Bytes by their place in the stream; `next` is RCV.NXT."""

    __slots__ = (
        "_early", "_early_starts", "_pieces", "_tail", "early", "next", "queued", "read", "recent",
    )  # fmt: skip

    def __init__(self, start: int) -> None:
        self.next = self.read = start
        """What comes next, and what the program reads next."""
        self.queued = 0
        self._pieces: deque[memoryview | bytearray] = deque()
        self._tail: bytearray | None = None
        """The last piece, if it may grow."""
        self._early_starts: list[int] = []
        self._early: list[memoryview] = []
        self.early = Intervals()
        """What came before its turn: the ranges that SACK tells of."""
        self.recent: deque[int] = deque(maxlen=MAX_RECENT)
        """A place in each range that changed last, the newest first."""

    def append(self, payload: memoryview) -> None:
        """The bytes that were next."""
        self._join(payload)
        if self._early:
            self._take_early()

    def _take_early(self) -> None:
        """What came early has its turn now."""
        taken = 0
        for start, piece in zip(self._early_starts, self._early, strict=True):
            if start > self.next:
                break
            fresh = piece[max(self.next - start, 0) :]
            if fresh:
                self._join(fresh)
            taken += 1
        del self._early_starts[:taken], self._early[:taken]
        self.early.forget_below(self.next)

    def _join(self, piece: memoryview) -> None:
        size = len(piece)
        self.next += size
        self.queued += size
        if self._tail is not None and len(self._tail) + size <= JOINED:
            self._tail += piece
        elif size < SMALL:
            self._tail = bytearray(piece)
            self._pieces.append(self._tail)
        else:
            self._tail = None
            self._pieces.append(owned(piece))

    def insert(self, start: int, payload: memoryview) -> bool:
        """Bytes that are not next. False: there are too many pieces, and they are dropped.

        Preconditions: start > next. What was there at the same place gives way, so that a flood of
        overlapping pieces leaves no more than it brings.
        """
        end = start + len(payload)
        starts, pieces = self._early_starts, self._early
        first = bisect_left(starts, start)
        if first and starts[first - 1] + len(pieces[first - 1]) > start:
            before = starts[first - 1] + len(pieces[first - 1])
            if before >= end:
                self._touch(start)
                return True
            payload = payload[before - start :]
            start = before
        last = bisect_left(starts, end)
        if last > first and starts[last - 1] + len(pieces[last - 1]) > end:
            payload = payload[: starts[last - 1] - start]
            last -= 1
        if len(pieces) - (last - first) >= MAX_EARLY:
            return False
        if payload:
            starts[first:last] = [start]
            pieces[first:last] = [owned(payload)]
            self.early.add(start, start + len(payload))
        self._touch(start)
        return True

    def _touch(self, at: int) -> None:
        """The range there is told of first."""
        self.recent.appendleft(at)

    def sacks(self) -> list[tuple[int, int]]:
        """The ranges that came early, those first that changed last: RFC 2018, 4."""
        if not self.early.starts:
            return []
        found: list[tuple[int, int]] = []
        for at in self.recent:
            one = self.early.around(at)
            if one is not None and one not in found:
                found.append(one)
        for one in zip(self.early.starts[:MAX_RECENT], self.early.ends, strict=False):
            if len(found) >= MAX_RECENT:
                break
            if one not in found:
                found.append(one)
        return found

    def take(self, size: int) -> list[memoryview]:
        """Read up to so many bytes."""
        found = []
        pieces = self._pieces
        while size > 0 and pieces:
            piece = pieces[0]
            if piece is self._tail:
                self._tail = None
            view = memoryview(piece)
            if len(view) > size:
                found.append(view[:size])
                pieces[0] = owned(view[size:], 0)  # all such copies are less than the piece was
                self.read += size
                self.queued -= size
                break
            found.append(view)
            pieces.popleft()
            self.read += len(view)
            self.queued -= len(view)
            size -= len(view)
        return found

    def peek(self, size: int, skip: int = 0) -> list[memoryview]:
        """The same bytes, which stay."""
        found = []
        for piece in self._pieces:
            if size <= 0:
                break
            if skip >= len(piece):
                skip -= len(piece)
                continue
            part = (
                memoryview(bytes(piece[skip : skip + size]))
                if piece is self._tail
                else (memoryview(piece)[skip : skip + size])
            )
            skip = 0
            found.append(part)
            size -= len(part)
        return found

    def clear(self) -> None:
        """Nobody will read it."""
        self._pieces.clear()
        self._tail = None
        self._early.clear()
        self._early_starts.clear()
        self.early.clear()
        self.read = self.next
        self.queued = 0
