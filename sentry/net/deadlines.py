"""`Deadlines`: which of many things is due first. Knows no clock."""

from __future__ import annotations

from _heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

K = TypeVar("K")
SPARE: Final = 64
"""Entries of the heap that may be stale, beside one for each that is not."""


def earlier(one_ns: int | None, other_ns: int | None) -> int | None:
    """The first of two points of time, where None is never."""
    if one_ns is None or (other_ns is not None and other_ns < one_ns):
        return other_ns
    return one_ns


class Deadlines(Generic[K]):
    """A deadline for each key; setting one costs O(log n), and no more memory than two each."""

    __slots__ = ("_at", "_heap", "_turn")

    def __init__(self) -> None:
        self._at: dict[K, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._turn = 0

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: K, deadline_ns: int) -> None:
        """It is due then, and no more when it was before."""
        self._turn += 1
        self._at[key] = deadline_ns, self._turn
        heappush(self._heap, (deadline_ns, self._turn, key))
        if len(self._heap) > 2 * len(self._at) + SPARE:
            self._heap = [(*place, each) for each, place in self._at.items()]
            heapify(self._heap)

    def drop(self, key: K) -> None:
        """It is not due any more, if it was."""
        self._at.pop(key, None)

    def first_ns(self) -> int | None:
        """When something is due next."""
        while self._heap:
            deadline_ns, turn, key = self._heap[0]
            if self._at.get(key) == (deadline_ns, turn):
                return deadline_ns
            heappop(self._heap)
        return None

    def take_due(self, now_ns: int) -> K | None:
        """One that is due, which then has no deadline."""
        first_ns = self.first_ns()
        if first_ns is None or first_ns > now_ns:
            return None
        key = heappop(self._heap)[2]
        del self._at[key]
        return key
