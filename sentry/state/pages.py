"""Frames of RAM as pages of a snapshot: each once, whoever has it, and none that is all zeros.

Pages lie in one file in the order of their numbers, from 1 on; number 0 is any page of zeros. Of
each PIECE_PAGES there is a CRC-32, for what a disk has made of them.
"""

from __future__ import annotations

import os
import zlib
from array import array
from typing import TYPE_CHECKING, Final

from sentry.platform._native import ffi, lib
from sentry.platform.constants import PAGE_SIZE
from sentry.platform.memory import frames_of, runs
from sentry.state.records import Run
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sentry.platform.memory import AddressSpace, Ram

PIECE_PAGES: Final = 256
"""What is written, read and checked at a time."""
MAX_USES: Final = 1 << 25
"""Pages of all objects together, those that several have counted with each."""
LISTED: Final = 1 << 16
"""Pages of a mapping that are looked at together."""


class Damaged(Exception):
    """The image is not what was written."""


class Saved:
    """Numbers for the frames that objects have."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self.frames = array("Q")
        """By number, from 1 on."""

    def of_mapping(self, space: AddressSpace, start: int, pages: int) -> list[Run]:
        """Those of its own that a mapping has."""
        found: list[Run] = []
        gpas = array("Q", bytes(8 * min(pages, LISTED)))
        end = start + pages * PAGE_SIZE
        at = max(start, space.next(start, end))
        while at < end:
            first = (at - start) // PAGE_SIZE
            some = min(LISTED, pages - first)
            # SAFETY: the array has room for LISTED, or for all of the mapping's pages.
            lib.aspace_list(space.native, at, some, frames_of(gpas))
            found += self.numbered(gpas[:some], first, zeros=False)
            at += some * PAGE_SIZE
            at = max(at, space.next(at, end)) if at < end else end
        return found

    def numbered(self, gpas: array[int], first: int, *, zeros: bool) -> list[Run]:
        """Runs of the frames of pages from `first` on; with `zeros` those, too."""
        holds = ffi.new("uint8_t[]", len(gpas))
        # SAFETY: `holds` has a byte for each frame.
        lib.frames_hold(frames_of(gpas), len(gpas), holds)
        has = bytes(ffi.buffer(holds))
        numbers, frames = self._numbers, self.frames
        found: list[Run] = []
        page = number = count = 0
        for at, gpa in enumerate(gpas):
            if not gpa or not (has[at] or zeros):
                continue
            mine = 0
            if has[at]:
                mine = numbers.get(gpa, 0)
                if not mine:
                    frames.append(gpa)
                    mine = numbers[gpa] = len(frames)
            if count and page + count == at and mine == (number + count if number else 0):
                count += 1
                continue
            if count:
                found.append(Run(first + page, number, count))
            page, number, count = at, mine, 1
        if count:
            found.append(Run(first + page, number, count))
        return found

    async def write(self, fd: int) -> list[int]:
        """Write all of them; the CRC of each piece. Raises: OSError."""
        pace, checks = Pace(), []
        for start in range(0, len(self.frames), PIECE_PAGES):
            check, at = 0, start * PAGE_SIZE
            for _, gpa, count in runs(self.frames[start : start + PIECE_PAGES]):
                # SAFETY: frames that somebody holds, all of whom stand still.
                view = ffi.buffer(lib.frame_host(gpa), count * PAGE_SIZE)
                at += _write(fd, memoryview(view), at)
                check = zlib.crc32(view, check)
            checks.append(check)
            await pace.rest()
        return checks


def _write(fd: int, view: memoryview, at: int) -> int:
    done = 0
    while done < len(view):
        done += os.pwritev(fd, [view[done:]], at + done)
    return done


class Loaded:
    """Frames for the pages of an image. `owned` are in somebody's hands by now: of a file in RAM.

    All others have one reference until `let_go`.
    """

    def __init__(self, ram: Ram, fd: int, pages: int, checks: Sequence[int]) -> None:
        """Raises: Damaged."""
        if os.fstat(fd).st_size != pages * PAGE_SIZE:
            raise Damaged("the file of pages has another size")
        if len(checks) != -(-pages // PIECE_PAGES):
            raise Damaged("the file of pages has another number of pieces")
        self._ram = ram
        self._fd = fd
        self._checks = checks
        self.frames = array("Q", bytes(8 * (pages + 1)))
        """By number; 0 is none."""
        self.uses = array("L", bytes(array("L").itemsize * (pages + 1)))
        """By how many pages of objects each is used."""
        self._mine: list[int] = []
        self._left = MAX_USES

    def claim(self, count: int) -> None:
        """So many pages more are somebody's. Raises: Damaged."""
        self._left -= count
        if self._left < 0:
            raise Damaged("more pages than a sandbox has")

    def count(self, found: Iterable[Run]) -> None:
        """These runs are somebody's. Raises: Damaged."""
        most = len(self.frames)
        for run in found:
            self.claim(run.count)
            if not run.frame:
                continue
            if run.frame + run.count > most:
                raise Damaged(f"there is no page {run.frame + run.count - 1}")
            for number in range(run.frame, run.frame + run.count):
                self.uses[number] += 1

    async def read(self) -> None:
        """Fill all frames: those that nobody owns are made. Raises: Damaged, ENOMEM, OSError."""
        frames, pace = self.frames, Pace()
        empty = [number for number in range(1, len(frames)) if not frames[number]]
        for start in range(0, len(empty), LISTED):
            some = empty[start : start + LISTED]
            made = array("Q", bytes(8 * len(some)))
            try:
                self._ram.fill(made, 0, len(made))
            finally:
                for number, gpa in zip(some, made, strict=True):
                    frames[number] = gpa
                    if gpa:
                        self._mine.append(number)
            await pace.rest()
        for piece, wanted in enumerate(self._checks):
            first = 1 + piece * PIECE_PAGES
            check, at = 0, (first - 1) * PAGE_SIZE
            for _, gpa, count in runs(frames[first : first + PIECE_PAGES]):
                # SAFETY: frames that we, or files that we have made, hold.
                view = ffi.buffer(lib.frame_host(gpa), count * PAGE_SIZE)
                at += _read(self._fd, memoryview(view), at)
                check = zlib.crc32(view, check)
            if check != wanted:
                raise Damaged(f"pages {first} to {first + PIECE_PAGES - 1} are damaged")
            await pace.rest()

    def let_go(self) -> None:
        """Whoever has a use for a frame holds it by now."""
        mine, self._mine = self._mine, []
        gpas = array("Q", (self.frames[number] for number in mine))
        self._ram.put_list(gpas, 0, len(gpas))


def _read(fd: int, view: memoryview, at: int) -> int:
    done = 0
    while done < len(view):
        some = os.preadv(fd, [view[done:]], at + done)
        if not some:
            raise Damaged("the file of pages ends early")
        done += some
    return done
