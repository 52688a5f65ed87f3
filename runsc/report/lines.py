"""Figures over time in bounded memory, whatever times and how many of them come."""

from __future__ import annotations

from typing import Final

POINTS: Final = 240
"""Of one line. Twice as many, and each two become one."""
MAX_NS: Final = 1 << 62
"""What is told may have any time: beyond it counts as there."""


class Rate:
    """How often something happened: a count for each stretch of time, which grows."""

    def __init__(self, step_ns: int = 10_000_000) -> None:
        self.step_ns = step_ns
        self.counts: dict[int, int] = {}

    def add(self, at_ns: int) -> None:
        """Once, so long after the beginning."""
        at_ns = min(max(at_ns, 0), MAX_NS)
        while at_ns // self.step_ns >= POINTS:
            self.step_ns *= 2
            counts: dict[int, int] = {}
            for index, count in self.counts.items():
                counts[index // 2] = counts.get(index // 2, 0) + count
            self.counts = counts
        index = at_ns // self.step_ns
        self.counts[index] = self.counts.get(index, 0) + 1

    def values(self) -> list[tuple[int, float]]:
        """(ns after the beginning, times a second), without a gap."""
        last = max(self.counts, default=-1)
        each = 1e9 / self.step_ns
        return [(n * self.step_ns, self.counts.get(n, 0) * each) for n in range(last + 1)]


class Level:
    """How much of something there was: of many neighbours in time the highest."""

    def __init__(self) -> None:
        self.values: list[tuple[int, float]] = []

    def add(self, at_ns: int, value: float) -> None:
        """At this time after the beginning; one before the last is where that is."""
        last = self.values[-1][0] if self.values else 0
        self.values.append((min(max(at_ns, last), MAX_NS), value))
        if len(self.values) >= 2 * POINTS:
            pairs = zip(self.values[::2], self.values[1::2], strict=True)
            self.values = [max(pair, key=lambda each: each[1]) for pair in pairs]
