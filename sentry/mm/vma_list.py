"""`VmaList`: the VMAs of an address space in address order.

A list of runs, each of some hundred VMAs, so that what one change moves does not grow with their
number; in a run two parallel lists, start addresses and VMAs, searched by bisection. A run knows a
bound on the gaps between its VMAs, so that whoever looks for free addresses passes over it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

from sentry.mm.vma import Vma
from sentry.platform.memory import Ram

RUN_MAX: Final = 256


class Run:
    """Neighbours in the list. None is empty, but for the only one."""

    __slots__ = ("starts", "vmas", "widest")

    def __init__(self, starts: list[int], vmas: list[Vma], widest: int) -> None:
        self.starts = starts
        self.vmas = vmas
        self.widest = widest
        """No gap between two of them has more bytes."""

    def opened(self, index: int) -> None:
        """The gap before the VMA at this index may have become wider."""
        if 0 < index < len(self.starts):
            self.widest = max(self.widest, self.starts[index] - self.vmas[index - 1].end)

    def highest(self, below: int, length: int, align: int) -> int | None:
        """The highest address for `length` bytes between two of the first `below` ones."""
        if self.widest < length:
            return None
        starts, vmas, widest = self.starts, self.vmas, 0
        for index in range(below - 1, 0, -1):
            start, floor = starts[index], vmas[index - 1].end
            widest = max(widest, start - floor)
            found = (start - length) & -align
            if found >= floor:
                return found
        if below == len(starts):
            self.widest = widest
        return None

    def lowest(self, above: int, length: int, align: int) -> int | None:
        """The lowest address for `length` bytes between two of those from `above` on."""
        if self.widest < length:
            return None
        starts, vmas = self.starts, self.vmas
        for index in range(above + 1, len(starts)):
            found = (vmas[index - 1].end + align - 1) & -align
            if found + length <= starts[index]:
                return found
        return None


class VmaList:
    """All VMAs of an address space, in order; they do not overlap."""

    __slots__ = ("_firsts", "_ram", "_runs", "_size")

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self._runs = [Run([], [], 0)]
        self._firsts = [0]
        """Where the first VMA of a run starts; 0 for the first run."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Vma]:
        for run in self._runs:
            yield from run.vmas

    def find(self, addr: int) -> Vma | None:
        """The VMA that contains `addr`."""
        run = self._runs[bisect_right(self._firsts, addr) - 1]
        index = bisect_right(run.starts, addr) - 1
        if index >= 0 and addr < run.vmas[index].end:
            return run.vmas[index]
        return None

    def after(self, addr: int) -> Vma | None:
        """The first VMA that ends above `addr`."""
        at = bisect_right(self._firsts, addr)
        run = self._runs[at - 1]
        index = bisect_right(run.starts, addr)
        if index and addr < run.vmas[index - 1].end:
            return run.vmas[index - 1]
        if index < len(run.vmas):
            return run.vmas[index]
        return self._runs[at].vmas[0] if at < len(self._runs) else None

    def before(self, addr: int) -> Vma | None:
        """The last VMA that starts below `addr`."""
        run = self._runs[max(bisect_left(self._firsts, addr) - 1, 0)]
        index = bisect_left(run.starts, addr) - 1
        return run.vmas[index] if index >= 0 else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """All VMAs that have an address in [start, end)."""
        at = bisect_right(self._firsts, start)
        run = self._runs[at - 1]
        first = bisect_right(run.starts, start) - 1
        if first < 0 or run.vmas[first].end <= start:
            first += 1
        found = run.vmas[first : bisect_left(run.starts, end)]
        while at < len(self._runs) and self._firsts[at] < end:
            run = self._runs[at]
            found += run.vmas[: bisect_left(run.starts, end)]
            at += 1
        return found

    def free(self, start: int, end: int) -> bool:
        """Nothing lies in [start, end)."""
        found = self.after(start)
        return found is None or found.start >= end

    # --- changes

    def add(self, vma: Vma) -> None:
        """Insert; the range must be free."""
        at = bisect_right(self._firsts, vma.start) - 1
        run = self._runs[at]
        starts = run.starts
        index = bisect_left(starts, vma.start)
        starts.insert(index, vma.start)
        run.vmas.insert(index, vma)
        if not index:
            run.opened(1)
        elif index == len(starts) - 1:
            run.opened(index)
        self._size += 1
        self._ram.vmas += 1
        if len(starts) > RUN_MAX:
            self._split(at)

    def _split(self, at: int) -> None:
        run, half = self._runs[at], RUN_MAX // 2
        self._runs.insert(at + 1, Run(run.starts[half:], run.vmas[half:], run.widest))
        self._firsts.insert(at + 1, run.starts[half])
        del run.starts[half:], run.vmas[half:]

    def remove(self, vma: Vma) -> None:
        """Take out."""
        at = bisect_right(self._firsts, vma.start) - 1
        run = self._runs[at]
        index = bisect_left(run.starts, vma.start)
        del run.starts[index], run.vmas[index]
        self._size -= 1
        self._ram.vmas -= 1
        if index:
            run.opened(index)
        elif not run.starts and len(self._runs) > 1:
            del self._runs[at], self._firsts[at]
            self._firsts[0] = 0
        elif at:
            self._firsts[at] = run.starts[0]

    def start_at(self, vma: Vma, start: int) -> None:
        """Change where a VMA starts (nothing may lie between)."""
        at = bisect_right(self._firsts, vma.start) - 1
        run = self._runs[at]
        index = bisect_left(run.starts, vma.start)
        run.starts[index] = vma.start = start
        if index:
            run.opened(index)
        elif at:
            self._firsts[at] = start

    def end_at(self, vma: Vma, end: int) -> None:
        """Change where a VMA ends (nothing may lie between)."""
        vma.end = end
        run = self._runs[bisect_right(self._firsts, vma.start) - 1]
        run.opened(bisect_right(run.starts, vma.start))

    # --- free ranges

    def gap_below(self, end: int, length: int, low: int, align: int) -> int | None:
        """The highest aligned address in [low, end - length] with `length` free bytes."""
        for at in range(max(bisect_left(self._firsts, end) - 1, 0), -1, -1):
            run = self._runs[at]
            index = bisect_left(run.starts, end)
            if not index:
                continue
            highest = (end - length) & -align
            if highest >= run.vmas[index - 1].end:
                return highest if highest >= low else None
            found = run.highest(index, length, align)
            if found is not None:
                return found if found >= low else None
            end = run.starts[0]
        highest = (end - length) & -align
        return highest if highest >= low else None

    def gap_above(self, start: int, length: int, high: int, align: int) -> int | None:
        """The lowest aligned address from `start` on with `length` free bytes below `high`."""
        inside = self.find(start)
        if inside is not None:
            start = inside.end
        for at in range(bisect_right(self._firsts, start) - 1, len(self._runs)):
            run = self._runs[at]
            index = bisect_left(run.starts, start)
            if index == len(run.starts):
                continue
            lowest = (start + align - 1) & -align
            if lowest + length <= run.starts[index]:
                return lowest if lowest + length <= high else None
            found = run.lowest(index, length, align)
            if found is not None:
                return found if found + length <= high else None
            start = run.vmas[-1].end
        lowest = (start + align - 1) & -align
        return lowest if lowest + length <= high else None
