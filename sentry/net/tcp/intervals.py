"""Sets of sequence numbers as ranges: work on them is by what changes, not by what they hold."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Intervals:
    """Half-open ranges in order; those that touch are one."""

    __slots__ = ("ends", "starts", "total")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.total = 0
        """How many numbers are in it."""

    def __len__(self) -> int:
        return len(self.starts)

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add a range; the parts of it that are new, in order."""
        starts, ends = self.starts, self.ends
        first, last = bisect_left(ends, start), bisect_right(starts, end)
        if first == last:
            starts.insert(first, start)
            ends.insert(first, end)
            self.total += end - start
            return [(start, end)]
        gaps = []
        at = start
        for index in range(first, last):
            if starts[index] > at:
                gaps.append((at, starts[index]))
            at = max(at, ends[index])
        if at < end:
            gaps.append((at, end))
        starts[first:last] = [min(start, starts[first])]
        ends[first:last] = [max(end, ends[last - 1])]
        self.total += sum(b - a for a, b in gaps)
        return gaps

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of a range that are not in it, in order."""
        found = []
        at = start
        for index in range(bisect_right(self.ends, start), bisect_left(self.starts, end)):
            if self.starts[index] > at:
                found.append((at, self.starts[index]))
            at = self.ends[index]
        if at < end:
            found.append((at, end))
        return found

    def around(self, at: int) -> tuple[int, int] | None:
        """The range that a number is in."""
        index = bisect_right(self.ends, at)
        if index < len(self.starts) and self.starts[index] <= at:
            return self.starts[index], self.ends[index]
        return None

    def forget_below(self, floor: int) -> None:
        """Nothing below it is in it any more."""
        gone = bisect_right(self.ends, floor)
        if gone:
            self.total -= sum(self.ends[:gone]) - sum(self.starts[:gone])
            del self.starts[:gone], self.ends[:gone]
        if self.starts and self.starts[0] < floor:
            self.total -= floor - self.starts[0]
            self.starts[0] = floor

    def clear(self) -> None:
        """Nothing is in it."""
        self.starts.clear()
        self.ends.clear()
        self.total = 0
