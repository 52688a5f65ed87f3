"""FILES windows: ranges of guest-physical addresses that show pieces of the host's files.

They are a cache. A piece that nobody uses stays for a while; where there is no room for one that
somebody needs now, one that is used is taken from its users, who fault it in again when they touch
it. So whoever fills the windows takes nothing from others but time.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, Protocol

from sentry.errors import ENOMEM, from_number
from sentry.platform._native import lib
from sentry.platform.constants import RO_WINDOW_GPA, RW_WINDOW_GPA, WINDOW_SPAN
from sentry.wait.steps import Steps

MAX_WINDOWS: Final = 30_000
"""Each splits the reservation around it: two of the 65,530 mappings that the host allows in a
process (vm.max_map_count)."""
MAX_IDLE: Final = 2000
"""Window pieces that stay mapped without users."""
MAX_TAKEN: Final = 1 << 19
"""Bytes for which others may lose their pieces: more is mapped ahead, and can wait."""
LOOKED_AT: Final = 32
"""So many of the oldest pieces are compared: the one with the fewest users is taken."""
LOWEST: Final = 16
HIGHEST: Final = (WINDOW_SPAN - 1).bit_length()


class Owner(Protocol):
    """A file that has pieces: sentry.mm.backing."""

    fd: int

    @property
    def is_crowded(self) -> bool:
        """Those who have its pieces are not looked at in one go."""

    def giving_up(self, piece: WindowRange) -> Steps[None]:
        """Have all users of a piece drop it, and their entries before."""


class WindowRange:
    """A piece of a host file that is mapped into a window; shared by everybody who maps it.

    Without users it stays mapped for a while, so that the next one finds the pages warm.
    """

    __slots__ = (
        "gpa", "kept", "leaves", "mapped", "offset", "owner", "refs", "size", "windows", "writable",
    )  # fmt: skip

    def __init__(
        self, windows: Windows, owner: Owner, gpa: int, size: int, offset: int, writable: bool
    ) -> None:
        self.windows = windows
        self.owner = owner
        self.gpa = gpa
        self.size = size
        self.offset = offset
        self.writable = writable
        self.refs = 1
        self.mapped = True
        self.kept = True
        """The file is open still: the piece may stay mapped without users."""
        self.leaves = False
        """Its users are losing it for another one's sake: it does not stay, and gets no new one."""

    def covers(self, offset: int, length: int) -> bool:
        """Whether this part of the file lies in it."""
        return self.offset <= offset and offset + length <= self.offset + self.size

    def get(self) -> WindowRange:
        """One more user."""
        if self.refs == 0:
            del self.windows.idle[self]
            self.windows.used[self.writable][self] = None
        self.refs += 1
        return self

    def put(self) -> None:
        """One user less. Preconditions: no entry of the user points here any more."""
        self.refs -= 1
        if self.refs:
            return
        del self.windows.used[self.writable][self]
        if self.kept and not self.leaves:
            self.windows.idle[self] = None
            self.windows.evict(MAX_IDLE)
        else:
            self.windows.unmap(self)

    def forget(self) -> None:
        """The file is closed: do not keep the piece once nobody uses it."""
        self.kept = False
        if self.refs == 0 and self.mapped:
            del self.windows.idle[self]
            self.windows.unmap(self)


class Ranges:
    """The addresses of one window, in blocks of powers of two that join again: a buddy system."""

    __slots__ = ("_base", "_free")

    def __init__(self, base: int) -> None:
        self._base = base
        self._free: list[dict[int, None]] = [{} for _ in range(HIGHEST + 1)]
        """Offsets of free blocks by the logarithm of their size."""
        self._free[HIGHEST][0] = None

    def take(self, order: int) -> int | None:
        """A block of 1 << order bytes."""
        for size in range(order, HIGHEST + 1):
            if self._free[size]:
                at, _ = self._free[size].popitem()
                for half in range(size - 1, order - 1, -1):
                    self._free[half][at + (1 << half)] = None
                return self._base + at
        return None

    def give(self, gpa: int, order: int) -> None:
        """It is free again."""
        at = gpa - self._base
        while order < HIGHEST and (other := at ^ (1 << order)) in self._free[order]:
            del self._free[order][other]
            at &= ~(1 << order)
            order += 1
        self._free[order][at] = None


class Windows:
    """The two FILES windows."""

    def __init__(self) -> None:
        self._ranges = {False: Ranges(RO_WINDOW_GPA), True: Ranges(RW_WINDOW_GPA)}
        self._at: dict[int, WindowRange] = {}
        self.idle: dict[WindowRange, None] = {}
        """Mapped pieces without users, the oldest first;"""
        self.used: dict[bool, dict[WindowRange, None]] = {False: {}, True: {}}
        """and with users, of each window."""
        self.mapped = 0
        """Pieces that are mapped, the idle ones included."""
        self.bytes = 0
        self.taken = 0
        """Pieces that were taken from their users so far."""
        self.closed = False
        """The memory has ended and all pieces with it: their addresses may be another's now."""

    def map(self, owner: Owner, offset: int, size: int, writable: bool) -> WindowRange:
        """Map a page-aligned piece of a host file. Raises: ENOMEM, what mmap(2) raises."""
        if self.mapped >= MAX_WINDOWS:
            self.evict(len(self.idle) // 2)
        if self.mapped >= MAX_WINDOWS:
            raise ENOMEM("too many file mappings")
        order = _order(size)
        ranges = self._ranges[writable]
        gpa = ranges.take(order)
        if gpa is None and self.idle:
            self.evict(0)
            gpa = ranges.take(order)
        if gpa is None:
            raise ENOMEM("the window is full")
        error = lib.window_map(gpa, size, owner.fd, offset)
        if error:
            ranges.give(gpa, order)
            raise from_number(-error)
        self.mapped += 1
        self.bytes += size
        piece = self._at[gpa] = WindowRange(self, owner, gpa, size, offset, writable)
        self.used[writable][piece] = None
        return piece

    def in_the_way(self, size: int, writable: bool) -> list[WindowRange]:
        """Pieces of others in whose place one could be mapped. Raises: ENOMEM for a large one."""
        if size > MAX_TAKEN:
            raise ENOMEM("too much to take from others")
        some = self.used[writable] or self.used[not writable]
        oldest = min(
            islice(some, LOOKED_AT), key=lambda piece: (piece.leaves, piece.refs), default=None
        )
        if oldest is None:
            return []
        room = max(1 << _order(size), 1 << _order(oldest.size))
        start = oldest.gpa & -room
        places = range(start, start + room, 1 << LOWEST)
        return [self._at[gpa] for gpa in places if gpa in self._at]

    def taking_away(self, pieces: list[WindowRange]) -> Steps[None]:
        """Whoever uses these pieces has to map them anew, where nobody is about to do so."""
        for piece in pieces:
            if not piece.refs:
                if piece.mapped:
                    piece.forget()
                continue
            piece.leaves = True
            try:
                yield from piece.owner.giving_up(piece)
                self.taken += 1
            finally:
                piece.leaves = False

    def evict(self, keep: int) -> None:
        """Unmap the oldest idle pieces, all but `keep`."""
        while len(self.idle) > keep:
            piece = next(iter(self.idle))
            del self.idle[piece]
            self.unmap(piece)

    def unmap(self, piece: WindowRange) -> None:
        """Give the host mapping and the range back."""
        error = 0 if self.closed else lib.window_unmap(piece.gpa, piece.size)
        if error:
            raise from_number(-error)
        piece.mapped = False
        self.mapped -= 1
        self.bytes -= piece.size
        del self._at[piece.gpa]
        self._ranges[piece.writable].give(piece.gpa, _order(piece.size))


def _order(size: int) -> int:
    if size <= 0 or size > WINDOW_SPAN:
        raise ENOMEM("no window that large")
    return max(LOWEST, (size - 1).bit_length())
