"""Frames of RAM as pages of a snapshot: each once, whoever has it, and none that is all zeros.

Pages have numbers, from 1 on; number 0 is any page of zeros. They lie in a file in the order of
their numbers. A snapshot that builds on another one of the same sandbox writes only those whose
frames have other bytes than then: of each there is a hash (XXH64). Where the host tells what has
been stored to since (native/changes.c), only that is read; else all of memory is. Of each
PIECE_PAGES in a file there is a CRC-32 of their hashes, for
what a disk has made of them.
"""

from __future__ import annotations

import os
import zlib
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.platform._native import ffi, lib
from sentry.platform.constants import PAGE_SIZE
from sentry.platform.frames import frames_of, runs
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
RUNS: Final = 1024
"""Runs of places that are found together."""
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
    numbers: array[int]
    """Of the pages, by frame: those of RAM, `split` many, then those of a disk."""
    split: int
    hashes: array[int]
    """Of the pages, by their numbers from 1 on, as are"""
    places: array[int]
    layers: int
    same: bytearray
    """A byte for each frame of RAM: 1 if it has the bytes of then for certain."""


class Written(NamedTuple):
    """What has come of a snapshot's pages."""

    own: int
    """How many are in its file."""
    origins: list[Origin]
    checks: list[int]


class Saved:
    """Numbers for the frames that objects have. `last` is what there is of the last snapshot, on
    which this one may build."""

    def __init__(self, last: Remembered | None = None, *, builds: bool = True) -> None:
        self._last = last
        self._before = last if builds else None
        self._looked = 0
        """So many frames of RAM have been looked at."""
        self._hashes = array("Q")
        self._places = array("Q")
        self._numbers = array("I")
        self._frames = array("Q")
        """By number, from 1 on; there is room for all."""
        self._it = it = ffi.new("struct numbering *")
        self._grow()
        if last is not None:
            # SAFETY: `last` lives as long as this does, and its arrays keep their lengths.
            it.before = ffi.from_buffer("uint32_t[]", last.numbers)
            it.before_split, it.before_room = last.split, len(last.numbers)
            it.same = ffi.from_buffer("uint8_t[]", last.same)
            it.before_hashes = frames_of(last.hashes)

    @property
    def pages(self) -> int:
        """How many have a number."""
        return self._it.pages

    def _grow(self) -> None:
        """Room for all frames that were ever used."""
        it, old = self._it, self._numbers
        more = lib.ram_used() - it.split
        self._numbers = old[: it.split] + array("I", bytes(4 * more)) + old[it.split :]
        it.split += more
        self._numbers.extend(bytes(it.split + lib.store_used() - len(self._numbers)))
        it.room = len(self._numbers)
        self._frames.frombytes(bytes(8 * (it.room - len(self._frames))))
        # SAFETY: both live as long as this does, or until the next time.
        it.numbers = ffi.from_buffer("uint32_t[]", self._numbers)
        it.frames = frames_of(self._frames)

    async def look(self, pace: Pace) -> None:
        """Which frames have changed since the last snapshot: the others need not be read.

        Preconditions: all who write stand still; no frame has a number yet.
        """
        before = bytearray() if self._last is None else self._last.same
        split = self._it.split
        before[split:] = bytes(len(before[split:]))  # nobody looks at those
        for start in range(0, split, lib.CHANGES_FRAMES):
            same = bytearray(b"\1" * min(lib.CHANGES_FRAMES, split - start))
            # SAFETY: so many there are from there on.
            if lib.changes_since(start, len(same), ffi.from_buffer("uint8_t[]", same)):
                before[:] = bytes(len(before))
                return
            # now, for it is told once, and whoever asked for this snapshot may go away meanwhile
            old = before[start : start + len(same)]
            both = _number(old) & _number(same[: len(old)])
            before[start : start + len(old)] = both.to_bytes(len(old), "little")
            await pace.rest()
        self._looked = split

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
        runs_of = array("Q", bytes(24 * len(gpas)))
        # SAFETY: there is room for a run for each frame.
        count = lib.numbers_of(self._it, frames_of(gpas), len(gpas), zeros, frames_of(runs_of))
        if count < 0:  # some that are new
            self._grow()
            count = lib.numbers_of(self._it, frames_of(gpas), len(gpas), zeros, frames_of(runs_of))
        assert count >= 0
        end = 3 * count
        found = zip(runs_of[:end:3], runs_of[1:end:3], runs_of[2:end:3], strict=True)
        return [Run(first + page, number, many) for page, number, many in found]

    async def write(self, fd: int) -> Written:
        """Write those that have changed. Raises: OSError."""
        pace, before, pages = Pace(), self._before, self.pages
        self._hashes = array("Q", bytes(8 * pages))
        self._places = array("Q", bytes(8 * pages))
        new, step = array("Q"), array("Q", bytes(8 * HASHED))
        layer = LAYER * (0 if before is None else before.layers)
        places = ffi.NULL if before is None else frames_of(before.places)
        for start in range(0, pages, HASHED):
            some = min(HASHED, pages - start)
            # SAFETY: all have so many; the frames have bytes.
            count = lib.numbers_place(
                self._it, start, some, places, layer + len(new), frames_of(self._hashes),
                frames_of(self._places), frames_of(step),
            )  # fmt: skip
            new += step[:count]
            await pace.rest()
        checks = []
        for start in range(0, len(new), PIECE_PAGES):
            piece = new[start : start + PIECE_PAGES]
            data, hashes = bytearray(), array("Q", bytes(8 * len(piece)))
            for _, gpa, count in runs(array("Q", (self._frames[index] for index in piece))):
                # SAFETY: frames that somebody holds.
                data += ffi.buffer(lib.frame_host(gpa), count * PAGE_SIZE)
            # SAFETY: both have so many pages.
            lib.pages_hash(ffi.from_buffer("uint8_t[]", data), len(piece), frames_of(hashes))
            for index, found in zip(piece, hashes, strict=True):
                self._hashes[index] = found  # of what is written, whoever changes it meanwhile
            _write(fd, memoryview(data), start * PAGE_SIZE)
            checks.append(zlib.crc32(hashes))
            await pace.rest()
        return Written(len(new), origins(self._places), checks)

    def remembered(self) -> Remembered:
        """For the next one. Preconditions: it is written."""
        before, split = self._before, self._it.split
        layers = 1 if before is None else before.layers + 1
        same = bytearray(b"\1" * self._looked + bytes(split - self._looked))
        name = os.urandom(NAME_BYTES).hex()
        return Remembered(name, self._numbers, split, self._hashes, self._places, layers, same)


def check_of(data: bytes) -> int:
    """The CRC-32 of a piece of so many whole pages, as a manifest has it."""
    hashes = array("Q", bytes(len(data) // PAGE_SIZE * 8))
    # SAFETY: both have so many pages.
    lib.pages_hash(ffi.from_buffer("uint8_t[]", data), len(hashes), frames_of(hashes))
    return zlib.crc32(hashes)


def origins(places: array[int]) -> list[Origin]:
    """Runs of pages that are one after the other in a file."""
    found: list[Origin] = []
    some, after = array("Q", bytes(16 * RUNS)), ffi.new("uint64_t *")
    while after[0] < len(places):
        # SAFETY: there is room for RUNS.
        count = lib.places_runs(frames_of(places), len(places), after, frames_of(some), RUNS)
        pairs = zip(some[: 2 * count : 2], some[1 : 2 * count : 2], strict=True)
        found += [(*divmod(first, LAYER), many) for first, many in pairs]
    return found


def _number(flags: bytearray) -> int:
    return int.from_bytes(flags, "little")


def _write(fd: int, view: memoryview, at: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwritev(fd, [view[done:]], at + done)
