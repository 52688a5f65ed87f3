"""What file mappings are made of: `HostBacking` (a donated descriptor) or `RamFile`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from sentry.errors import ENOMEM
from sentry.mm.errors import NeedsFault
from sentry.mm.ramfile import Mapper, lost_by_all
from sentry.platform.windows import MAX_TAKEN, WindowRange, Windows
from sentry.suppress import suppress
from sentry.wait.steps import Steps, WaitingSteps, at_once, driven

WHOLE_FILE: Final = 16 << 20
"""Files up to this size get one window piece for everybody."""
PIECE: Final = 64 << 20
"""Larger ones are cut into pieces of this size."""
MANY: Final = 4096
"""Mappings of all who map a file."""


class MappedFile(Protocol):
    """The open file behind a mapping (a vfs FileDescription), as this room sees it."""

    readable: bool
    writable: bool

    @property
    def has_max_offset(self) -> bool: ...

    def incref(self) -> Any: ...
    def decref(self) -> None: ...
    def mmap_backing(self, writable_shared: bool) -> Any: ...
    def settle(self) -> None: ...


class HostBacking:
    """A host file, mapped through a FILES window. The owner keeps `fd` open while it is used.

    `writable`: the descriptor is O_RDWR, so that shared mappings can store. `known_size` is asked
    instead of the host where fstat(2) may wait.
    """

    __slots__ = ("_known_size", "_pieces", "_windows", "device", "fd", "mappers", "writable")

    def __init__(
        self,
        windows: Windows,
        fd: int,
        writable: bool,
        known_size: Callable[[], int] | None = None,
        device: int | None = None,
    ) -> None:
        self._known_size = known_size
        self._windows = windows
        self.fd = fd
        self.writable = writable
        self.device = device
        """st_dev of the host, where calls on it may wait."""
        self._pieces: list[WindowRange] = []
        self.mappers: dict[Mapper, int] = {}
        """Address spaces with VMAs of this file, and how many."""

    @property
    def size(self) -> int:
        """Size of the file now."""
        return self._known_size() if self._known_size else os.fstat(self.fd).st_size

    def check(self, writable: bool) -> None:
        """Whether the host lets it be mapped, which only a try tells. Raises: ENODEV, what else the
        host says; not ENOMEM, which may pass."""
        if self._pieces or not self.size:
            return
        with suppress(ENOMEM, NeedsFault):
            self.window(0, 4096, writable and self.writable).put()

    def window(self, offset: int, length: int, writable: bool) -> WindowRange:
        """A window piece that covers this part of the file, with a reference for the caller.

        Raises: ENOMEM, what the host says; NeedsFault where many have to give up pieces before.
        """
        self._pieces = [piece for piece in self._pieces if piece.mapped]
        for piece in self._pieces:
            if not piece.leaves and piece.writable == writable and piece.covers(offset, length):
                return piece.get()
        start, end = offset, offset + length
        size = (self.size + 4095) & ~4095
        if end <= size <= WHOLE_FILE:
            start, end = 0, size
        elif end <= size:
            start &= ~(PIECE - 1)
            end = min(size, max(end, start + PIECE))
        try:
            piece = self._windows.map(self, start, end - start, writable)
        except ENOMEM:
            if length > MAX_TAKEN:
                raise
            pieces = self._windows.in_the_way(length, writable)
            room = self._windows.taking_away(pieces)
            if any(piece.owner.is_crowded for piece in pieces):
                raise NeedsFault(partial(driven, room)) from None
            at_once(room)
            piece = self._windows.map(self, offset, length, writable)
        self._pieces.append(piece)
        return piece

    @property
    def is_crowded(self) -> bool:
        """Those who have its pieces are not looked at in one go."""
        return sum(len(mapper.vmas) for mapper in self.mappers) > MANY

    def giving_up(self, piece: WindowRange) -> Steps[None]:
        """Another file gets the place of this piece: it is mapped again where it is touched."""
        return lost_by_all(self.mappers, lambda mapper: mapper.losing_window(self, piece))

    def cutting(self, size: int) -> WaitingSteps[None]:
        """The file was truncated: whoever maps it loses what lay behind, private copies, too, a
        mapping a piece. Nobody maps more of it meanwhile: the host says how long it is."""
        start = (size + 4095) & ~4095
        return lost_by_all(self.mappers, lambda mapper: mapper.losing(self, start))

    def close(self) -> None:
        """The descriptor goes: pieces that nobody maps go with it."""
        for piece in self._pieces:
            piece.forget()
        self._pieces = []
