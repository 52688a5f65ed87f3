"""`VmaList`: the VMAs of an address space in address order.

A list of runs, each of some hundred VMAs, so that what one change moves does not grow with their
number; in a run two parallel lists, start addresses and VMAs, searched by bisection. A run knows a
bound on the gaps between its VMAs, so that whoever looks for free addresses passes over it; whoever
looks at its VMAs has it settled before (`vma_run`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

from sentry.mm.vma import Vma
from sentry.mm.vma_run import Run
from sentry.platform.memory import Ram

RUN_MAX: Final = 256


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
        for at in range(len(self._runs)):
            yield from self._run(at).vmas

    def find(self, addr: int) -> Vma | None:
        """The VMA that contains `addr`."""
        run = self._runs[bisect_right(self._firsts, addr) - 1]
        if run.tied:
            run.settle()
        index = bisect_right(run.starts, addr) - 1
        if index >= 0 and addr < run.vmas[index].end:
            return run.vmas[index]
        return None

    def after(self, addr: int) -> Vma | None:
        """The first VMA that ends above `addr`."""
        at = bisect_right(self._firsts, addr)
        run = self._run(at - 1)
        index = bisect_right(run.starts, addr)
        if index and addr < run.vmas[index - 1].end:
            return run.vmas[index - 1]
        if index < len(run.vmas):
            return run.vmas[index]
        return self._run(at).vmas[0] if at < len(self._runs) else None

    def before(self, addr: int) -> Vma | None:
        """The last VMA that starts below `addr`."""
        run = self._run(max(bisect_left(self._firsts, addr) - 1, 0))
        index = bisect_left(run.starts, addr) - 1
        return run.vmas[index] if index >= 0 else None

    def piece(self, start: int, end: int) -> tuple[list[Vma], int]:
        """The first VMAs that have an address in [start, end), those of one run, and where the
        others begin: so that a step need not settle all runs."""
        at = bisect_right(self._firsts, start)
        run = self._run(at - 1)
        first = bisect_right(run.starts, start) - 1
        if first < 0 or run.vmas[first].end <= start:
            first += 1
        behind = min(self._firsts[at], end) if at < len(self._firsts) else end
        return run.vmas[first : bisect_left(run.starts, end)], behind

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """All VMAs that have an address in [start, end)."""
        found, start = self.piece(start, end)
        while start < end:
            more, start = self.piece(start, end)
            found += more
        return found

    def backed(self, start: int = 0, end: int = 1 << 64) -> Iterator[Vma]:
        """Of the VMAs in a range those that may have a file, or be special: what is lent has not,
        and is not (`Run`)."""
        first = bisect_right(self._firsts, start) - 1
        for run in self._runs[first : bisect_left(self._firsts, end)]:
            if not run.tied:
                low = max(bisect_right(run.starts, start) - 1, 0)
                for vma in run.vmas[low : bisect_left(run.starts, end)]:
                    if vma.end > start:
                        yield vma

    def backed_piece(self, start: int) -> tuple[list[Vma], int]:
        """The same in pieces: those of the run at `start`, and where the next one begins; 0: there
        is none. Who goes on after a while finds all that have stayed where they were."""
        at = bisect_right(self._firsts, start)
        run = self._runs[at - 1]
        behind = self._firsts[at] if at < len(self._firsts) else 0
        return [] if run.tied else list(run.vmas), behind

    def free(self, start: int, end: int) -> bool:
        """Nothing lies in [start, end)."""
        found = self.after(start)
        return found is None or found.start >= end

    def _run(self, at: int) -> Run:
        run = self._runs[at]
        if run.tied:
            run.settle()
        return run

    # --- fork, and the end

    @property
    def runs(self) -> list[Run]:
        """All runs, which may be tied."""
        return list(self._runs)

    def borrow(self, run: Run) -> None:
        """Append a parent's run, which can be lent and lies behind all that is here."""
        self._append(run.lend())
        self._size += len(run.starts)
        self._ram.vmas += len(run.starts)

    def append(self, vma: Vma) -> None:
        """Add one that lies behind all others."""
        run = self._runs[-1]
        if run.tied or len(run.starts) >= RUN_MAX:
            self._append(Run([vma.start], [vma], 0))
        else:
            run.starts.append(vma.start)
            run.vmas.append(vma)
            run.opened(len(run.starts) - 1)
        self._size += 1
        self._ram.vmas += 1

    def _append(self, run: Run) -> None:
        if not self._size:
            self._runs = [run]
            return
        self._runs.append(run)
        self._firsts.append(run.starts[0])

    def take_last(self, most: int) -> list[Vma]:
        """Take out some of the last ones: those that are borrowed are just given back."""
        run, found = self._runs[-1], list[Vma]()
        if run.is_borrowed:
            gone = len(run.starts)
            run.give_back()
            run.starts = []
        else:
            if run.tied:
                run.settle()
            found = run.vmas[-most:]
            gone = len(found)
            del run.vmas[-most:], run.starts[-most:]
        if not run.starts and len(self._runs) > 1:
            del self._runs[-1], self._firsts[-1]
        self._size -= gone
        self._ram.vmas -= gone
        return found

    # --- changes

    def add(self, vma: Vma) -> None:
        """Insert; the range must be free."""
        at = bisect_right(self._firsts, vma.start) - 1
        run = self._run(at)
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
        run = self._run(at)
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
        run = self._run(at)
        index = bisect_left(run.starts, vma.start)
        run.starts[index] = vma.start = start
        if index:
            run.opened(index)
        elif at:
            self._firsts[at] = start

    def end_at(self, vma: Vma, end: int) -> None:
        """Change where a VMA ends (nothing may lie between)."""
        vma.end = end
        run = self._run(bisect_right(self._firsts, vma.start) - 1)
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
            if highest >= run.seen[index - 1].end:
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
            start = run.seen[-1].end
        lowest = (start + align - 1) & -align
        return lowest if lowest + length <= high else None
