"""Pages of an image become frames of RAM again: see pages.py."""

from __future__ import annotations

import os
import zlib
from array import array
from typing import TYPE_CHECKING, Final

from sentry.errors import EBUSY
from sentry.platform._native import ffi, lib
from sentry.platform.constants import PAGE_SIZE
from sentry.platform.frames import frames_of, runs, write_frames
from sentry.state.pages import LAYER, LISTED, MAX_LAYERS, PIECE_PAGES, Damaged, Remembered
from sentry.wait.steps import Pace, at_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sentry.config import PagesConfig, RestoreConfig
    from sentry.platform.memory import Ram
    from sentry.state.records import Run
    from sentry.wait.steps import Steps

BLOCK_PAGES: Final = 512
"""What is mapped at a time: `Ram.adopt`."""
COUNTED: Final = 1 << 12
"""Pages of a run that are counted in a step."""
MAX_USES: Final = 1 << 25
"""Pages of all objects together, those that several have counted with each."""


class Loaded:
    """Frames for the pages of an image. Some are in somebody's hands by now: of a file in RAM.

    All others have one reference until `let_go`.
    """

    def __init__(self, ram: Ram, image: RestoreConfig) -> None:
        """Raises: Damaged."""
        if not 0 < len(image.layers) <= MAX_LAYERS:
            raise Damaged("it builds on too many others")
        for layer in image.layers:
            if os.fstat(layer.fd).st_size != layer.pages * PAGE_SIZE:
                raise Damaged("the file of pages has another size")
            if len(layer.checks) != -(-layer.pages // PIECE_PAGES):
                raise Damaged("the file of pages has another number of pieces")
        _check_origins(image)
        self._ram = ram
        self._image = image
        self.frames = array("Q", bytes(8 * (image.pages + 1)))
        """By number; 0 is none."""
        self.uses = array("L", bytes(array("L").itemsize * (image.pages + 1)))
        """By how many pages of objects each is used."""
        self._hashes = array("Q", bytes(8 * image.pages))
        self._owned = bytearray(image.pages + 1)
        """By number: it is of a file in RAM."""
        self.mapped = self._map() if image.background else 0
        """So many of the first pages are there, though nobody has read them."""
        self._mine: list[int] = []
        self._left = MAX_USES

    def _map(self) -> int:
        """Pages show what is in the file, as far as they fill blocks of RAM. Raises: ENOMEM."""
        layer = self._image.layers[0]
        if len(self._image.layers) > 1:
            return 0
        try:
            first = self._ram.adopt(layer.fd, layer.pages)
        except EBUSY:  # what lies on a disk is in the way
            return 0
        if not first:
            return 0
        count = layer.pages & ~(BLOCK_PAGES - 1)
        end = first + count * PAGE_SIZE
        self.frames[1 : count + 1] = array("Q", range(first, end, PAGE_SIZE))
        return count

    def own(self, number: int, count: int) -> None:
        """These pages are those of a file in RAM. Raises: Damaged."""
        if any(self._owned[number : number + count]):
            raise Damaged(f"pages from {number} on belong to two files")
        self._owned[number : number + count] = b"\1" * count

    def claim(self, count: int) -> None:
        """So many pages more are somebody's. Raises: Damaged."""
        self._left -= count
        if self._left < 0:
            raise Damaged("more pages than a sandbox has")

    def count(self, found: Iterable[Run]) -> None:
        """These runs are somebody's. Raises: Damaged."""
        at_once(self.counting(found))

    def counting(self, found: Iterable[Run]) -> Steps[None]:
        """The same in steps: a run may be of all pages, and there may be many."""
        most, uses = len(self.frames), self.uses
        for run in found:
            self.claim(run.count)
            if not run.frame:
                continue
            if run.frame + run.count > most:
                raise Damaged(f"there is no page {run.frame + run.count - 1}")
            end = run.frame + run.count
            for first in range(run.frame, end, COUNTED):
                for number in range(first, min(first + COUNTED, end)):
                    uses[number] += 1
                yield

    async def read(self) -> None:
        """Fill all frames: those that nobody owns are made. Raises: Damaged, ENOMEM, OSError."""
        frames, pace = self.frames, Pace()
        self._mine = [number for number in range(1, self.mapped + 1) if not self._owned[number]]
        for start in range(1, len(frames), LISTED):
            end = min(start + LISTED, len(frames))
            some = [number for number in range(start, end) if not frames[number]]
            made = array("Q", bytes(8 * len(some)))
            try:
                self._ram.fill(made, 0, len(made))
            finally:
                for number, gpa in zip(some, made, strict=True):
                    frames[number] = gpa
                    if gpa:
                        self._mine.append(number)
            await pace.rest()
        layers = self._image.layers
        if len(layers) == 1:
            await self._read_all(layers[0], pace)
            return
        wanted: list[list[tuple[int, int, int]]] = [[] for _ in layers]
        for number, at, index, count in _numbered(self._image):
            wanted[at].append((number, index, count))
            await pace.rest()
        for layer, some_of_it in zip(layers, wanted, strict=True):
            await self._read_some(layer, some_of_it, pace)

    async def _read_all(self, layer: PagesConfig, pace: Pace) -> None:
        """A snapshot that builds on no other: its pages go where they belong."""
        frames, hashes = self.frames, self._hashes
        for piece, wanted in enumerate(layer.checks):
            first = 1 + piece * PIECE_PAGES
            if first <= self.mapped:
                continue
            some = frames[first : first + PIECE_PAGES]
            check, at = 0, (first - 1) * PAGE_SIZE
            for _, gpa, count in runs(some):
                # SAFETY: frames that we, or files that we have made, hold.
                view = ffi.buffer(lib.frame_host(gpa), count * PAGE_SIZE)
                at += _read(layer.fd, memoryview(view), at)
                check = 0 if layer.hashed else zlib.crc32(view, check)
            if layer.hashed:
                # SAFETY: both have so many; the frames have been filled.
                found = array("Q", bytes(8 * len(some)))
                lib.frames_hash(frames_of(some), len(some), frames_of(found))
                hashes[first - 1 : first - 1 + len(some)] = found
                check = zlib.crc32(found)
            if check != wanted:
                raise Damaged(f"pages {first} to {first + PIECE_PAGES - 1} are damaged")
            await pace.rest()

    async def _read_some(
        self, layer: PagesConfig, wanted: list[tuple[int, int, int]], pace: Pace
    ) -> None:
        """One of several: each piece that has one of the pages is looked at as a whole."""
        pieces: dict[int, list[tuple[int, int, int]]] = {}
        for number, index, count in wanted:
            for first, start, some in _by_piece(number, index, count):
                pieces.setdefault(start // PIECE_PAGES, []).append((first, start, some))
                await pace.rest()
        for piece, parts in sorted(pieces.items()):
            begin = piece * PIECE_PAGES
            count = min(PIECE_PAGES, layer.pages - begin)
            data, hashes = bytearray(count * PAGE_SIZE), array("Q", bytes(8 * count))
            _read(layer.fd, memoryview(data), begin * PAGE_SIZE)
            # SAFETY: both have so many pages.
            lib.pages_hash(ffi.from_buffer("uint8_t[]", data), count, frames_of(hashes))
            is_good = layer.looked_at or zlib.crc32(hashes) == layer.checks[piece]
            if not layer.hashed or not is_good:
                raise Damaged(f"pages {begin + 1} to {begin + count} of a file are damaged")
            for number, start, some in parts:
                at = start - begin
                part = memoryview(data)[at * PAGE_SIZE : (at + some) * PAGE_SIZE]
                write_frames(self.frames[number : number + some], 0, part)
                self._hashes[number - 1 : number - 1 + some] = hashes[at : at + some]
            await pace.rest()

    def remembered(self) -> Remembered | None:
        """For a snapshot that builds on this one. Preconditions: all are read."""
        image = self._image
        if self.mapped or not image.snapshot or not all(layer.hashed for layer in image.layers):
            return None
        places = array("Q")
        for layer, index, count in image.origins:
            places.extend(range(layer * LAYER + index, layer * LAYER + index + count))
        split = lib.ram_used()
        numbers = array("I", bytes(4 * (split + lib.store_used())))
        # SAFETY: the arrays have so many.
        lib.numbers_put(
            ffi.from_buffer("uint32_t[]", numbers), split, len(numbers),
            frames_of(self.frames) + 1, image.pages,
        )  # fmt: skip
        return Remembered(
            image.snapshot, numbers, split, self._hashes, places, len(image.layers),
            bytearray(split),
        )  # fmt: skip

    def let_go(self) -> None:
        """Whoever has a use for a frame holds it by now."""
        mine, self._mine = self._mine, []
        gpas = array("Q", (self.frames[number] for number in mine))
        self._ram.put_list(gpas, 0, len(gpas))


def _check_origins(image: RestoreConfig) -> None:
    """Each page is somewhere. Raises: Damaged."""
    left = image.pages
    for layer, index, count in image.origins:
        left -= count
        if layer >= len(image.layers) or count < 1 or left < 0:
            raise Damaged("pages that are nowhere")
        if index + count > image.layers[layer].pages:
            raise Damaged("pages behind the end of a file")
    if left:
        raise Damaged("pages that are nowhere")
    alone = ((0, 0, image.pages),) if image.pages else ()
    if len(image.layers) == 1 and image.origins != alone:
        raise Damaged("pages in another order than in their file")


def _numbered(image: RestoreConfig) -> Iterator[tuple[int, int, int, int]]:
    """(number of the first page, layer, index, how many)"""
    number = 1
    for layer, index, count in image.origins:
        yield number, layer, index, count
        number += count


def _by_piece(number: int, index: int, count: int) -> Iterator[tuple[int, int, int]]:
    """The parts of a run that lie in one piece of the file each."""
    while count:
        some = min(count, PIECE_PAGES - index % PIECE_PAGES)
        yield number, index, some
        number, index, count = number + some, index + some, count - some


def _read(fd: int, view: memoryview, at: int) -> int:
    done = 0
    while done < len(view):
        some = os.preadv(fd, [view[done:]], at + done)
        if not some:
            raise Damaged("the file of pages ends early")
        done += some
    return done
