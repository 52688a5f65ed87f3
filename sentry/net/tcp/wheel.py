"""Many deadlines that need not be kept to the moment, each set and dropped at the same cost."""

from __future__ import annotations

from _heapq import heappop, heappush
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
TICK_NS: Final = 100_000_000
MOST_AT_ONCE: Final = 256


class Wheel(Generic[Key]):
    """Keys by the tick in which their time is over, never before it is."""

    __slots__ = ("_slots", "_ticks", "_where")

    def __init__(self) -> None:
        self._slots: dict[int, dict[Key, None]] = {}
        self._ticks: list[int] = []
        """A heap of those that have a slot: each of them once, until it has passed."""
        self._where: dict[Key, int] = {}

    def set(self, key: Key, at_ns: int) -> None:
        """When it is due; what was set before does not count any more."""
        self.drop(key)
        tick = -(-at_ns // TICK_NS)
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = {}
            heappush(self._ticks, tick)
        slot[key] = None
        self._where[key] = tick

    def drop(self, key: Key) -> None:
        """It is never due."""
        tick = self._where.pop(key, None)
        if tick is not None:
            del self._slots[tick][key]

    def next_ns(self) -> int | None:
        """When to look for what is due. None: there is nothing."""
        if not self._where:
            return None
        while not self._slots[self._ticks[0]]:
            del self._slots[heappop(self._ticks)]
        return self._ticks[0] * TICK_NS

    def due(self, now_ns: int) -> list[Key]:
        """What is due and is not set any more: not too much at once."""
        found: list[Key] = []
        while len(found) < MOST_AT_ONCE:
            at_ns = self.next_ns()
            if at_ns is None or at_ns > now_ns:
                break
            slot = self._slots[self._ticks[0]]
            for key in list(slot)[: MOST_AT_ONCE - len(found)]:
                self.drop(key)
                found.append(key)
        return found
