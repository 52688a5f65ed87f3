"""Frames of RAM as pages of a snapshot: each once, whoever has it, and none that is all zeros.

Pages have numbers, from 1 on; number 0 is any page of zeros. They lie in a file in the order of
their numbers. A snapshot that builds on another one of the same sandbox writes only those whose
frames have other bytes than then: of each there is a hash (XXH64), so all of memory is read, and
what has changed is written. Of each PIECE_PAGES in a file there is a CRC-32 of their hashes, for
what a disk has made of them.
"""

from __future__ import annotations

import os
import zlib
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.platform._native import ffi, lib
from sentry.platform.constants import PAGE_SIZE
from sentry.platform.memory import frames_of, runs
from sentry.state.records import Run
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.platform.memory import AddressSpace

PIECE_PAGES: Final = 256
"""What is written, read and checked at a time."""
HASHED: Final = 2048
"""Frames that are hashed at a time, in about a millisecond."""
LISTED: Final = 1 << 16
"""Pages of a mapping that are looked at together."""
LAYER: Final = 1 << 40
"""A place of a page: its layer of the chain times this, and its index in that layer's file."""
MAX_LAYERS: Final = 64
NAME_BYTES: Final = 16

Origin = tuple[int, int, int]
"""(layer, index of the first one in its file, how many)"""


class Damaged(Exception):
    """The image is not what was written."""


class Remembered(NamedTuple):
    """What the last snapshot has of memory, for one that builds on it."""

    name: str
    numbers: dict[int, int]
    """By frame."""
    hashes: array[int]
    """Of the pages, by their numbers from 1 on, as are"""
    places: array[int]
    layers: int


class Written(NamedTuple):
    """What has come of a snapshot's pages."""

    own: int
    """How many are in its file."""
    origins: list[Origin]
    checks: list[int]


class Saved:
    """Numbers for the frames that objects have. It may build on one `before`.

    Raises: Damaged, if that has too many layers.
    """

    def __init__(self, before: Remembered | None = None) -> None:
        self._numbers: dict[int, int] = {}
        self.frames = array("Q")
        """By number, from 1 on."""
        self._before = before
        self._hashes = array("Q")
        self._places = array("Q")

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

    async def write(self, fd: int) -> Written:
        """Write those that have changed. Raises: OSError."""
        pace, layer = Pace(), 0 if self._before is None else self._before.layers
        await self._hash(pace)
        new, hashes = array("Q"), array("Q")
        for start in range(0, len(self.frames), HASHED):
            self._place(start, new, hashes, layer * LAYER)
            await pace.rest()
        checks = []
        for start in range(0, len(new), PIECE_PAGES):
            at = start * PAGE_SIZE
            for _, gpa, count in runs(new[start : start + PIECE_PAGES]):
                # SAFETY: frames that somebody holds, all of whom stand still.
                view = ffi.buffer(lib.frame_host(gpa), count * PAGE_SIZE)
                at += _write(fd, memoryview(view), at)
            checks.append(zlib.crc32(hashes[start : start + PIECE_PAGES]))
            await pace.rest()
        return Written(len(new), origins(self._places), checks)

    def remembered(self) -> Remembered:
        """For the next one. Preconditions: it is written."""
        layers = 1 if self._before is None else self._before.layers + 1
        name = os.urandom(NAME_BYTES).hex()
        return Remembered(name, self._numbers, self._hashes, self._places, layers)

    async def _hash(self, pace: Pace) -> None:
        frames = self.frames
        self._hashes = array("Q", bytes(8 * len(frames)))
        for start in range(0, len(frames), HASHED):
            some = min(HASHED, len(frames) - start)
            # SAFETY: both arrays have so many; the frames hold bytes, and nobody writes to them.
            lib.frames_hash(frames_of(frames) + start, some, frames_of(self._hashes) + start)
            await pace.rest()

    def _place(self, start: int, new: array[int], hashes: array[int], layer: int) -> None:
        """Where some of the pages are, those that are new after all that were."""
        before = self._before
        some = slice(start, start + HASHED)
        if before is None:
            new += self.frames[some]
            hashes += self._hashes[some]
            self._places.extend(range(start, len(new)))
            return
        numbers, old, places = before.numbers, before.hashes, before.places
        for gpa, found in zip(self.frames[some], self._hashes[some], strict=True):
            number = numbers.get(gpa)
            if number is not None and old[number - 1] == found:
                self._places.append(places[number - 1])
                continue
            self._places.append(layer + len(new))
            new.append(gpa)
            hashes.append(found)


def origins(places: array[int]) -> list[Origin]:
    """Runs of pages that are one after the other in a file."""
    found: list[Origin] = []
    first = count = 0
    for place in places:
        if count and place == first + count:
            count += 1
            continue
        if count:
            found.append((*divmod(first, LAYER), count))
        first, count = place, 1
    if count:
        found.append((*divmod(first, LAYER), count))
    return found


def _write(fd: int, view: memoryview, at: int) -> int:
    done = 0
    while done < len(view):
        done += os.pwritev(fd, [view[done:]], at + done)
    return done
