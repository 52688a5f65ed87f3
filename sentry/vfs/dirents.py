"""`Dirents`: a directory's entries as getdents64(2) gives them, made once; `DirentSink`: a buffer.

Directories that know when they change keep theirs, so that to list one again is to copy bytes.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Final

from sentry.ahead import mypyc_attr
from sentry.errors import EINVAL
from sentry.platform.dirents import pack
from sentry.wait.steps import Steps

Entry = tuple[bytes, int, int]
"""A `DirEntry`: name, inode number, S_IFMT bits."""
_DIRENT = struct.Struct("<QqHB")
"""struct linux_dirent64 without the name."""
PIECE: Final = 1024
"""So many records are made in one go to come to a position."""
FEW: Final = 4
"""So many are made as fast one by one."""
MOST: Final = 1 << 62
"""More than there ever are."""
SMALLEST: Final = 24
"""Bytes of a record."""
NAME_COST: Final = 64
"""Bytes that a name costs which is held: a bytes object of 24 and its place in a list."""
FIRST: Final = 2
"""The position of the first name; before it are `.` and `..`."""


@lru_cache(64)
def _packer(room: int) -> struct.Struct:
    """struct linux_dirent64 with so much room for the name, its NUL and the padding."""
    return struct.Struct(f"<QqHB{room}s")


def dirent(entry: Entry, following: int) -> bytes:
    """struct linux_dirent64; `following` is the position after it."""
    name, ino, kind = entry
    size = (_DIRENT.size + len(name) + 8) & ~7
    return _packer(size - _DIRENT.size).pack(ino, following, size, kind >> 12, name)


def split(records: bytes) -> list[Entry]:
    """What some struct linux_dirent64 say."""
    found: list[Entry] = []
    at = 0
    while at < len(records):
        ino, _, size, kind = _DIRENT.unpack_from(records, at)
        name = records[at + _DIRENT.size : at + size].split(b"\0", 1)[0]
        found.append((name, ino, kind << 12))
        at += size
    return found


def as_old(records: bytearray) -> bytearray:
    """struct linux_dirent: of the same size, with the type in the last byte."""
    result, at = bytearray(), 0
    while at < len(records):
        end = at + _DIRENT.unpack_from(records, at)[2]
        result += records[at : at + 18] + records[at + 19 : end] + records[at + 18 : at + 19]
        at = end
    return result


@mypyc_attr(allow_interpreted_subclasses=True)
class Dirents:
    """The entries of one moment, as records as far as they are read."""

    __slots__ = ("_data", "_ends", "_first", "_left", "_names")

    def __init__(self, entries: Iterable[Entry], first: int = FIRST, names: int = 0) -> None:
        """`first` is the position of the first one; `names`: so many are held until they are read,
        as far as that is known."""
        self._first = first
        self._names = names
        self._left: Iterator[Entry] = iter(entries)
        self._data = bytearray()
        self._ends = array("Q")

    def _make(self, count: int, size: int) -> None:
        """At least so many records of at least so many bytes together, if there are."""
        data, ends = self._data, self._ends
        while len(ends) < count or len(data) < size:
            more = max(count - len(ends), (size - len(data)) // SMALLEST + 1)
            entries = list(islice(self._left, min(more, PIECE)))
            if len(entries) > FEW:
                pack(entries, len(ends) + self._first, data, ends)
                continue
            for entry in entries:
                data += dirent(entry, len(ends) + self._first + 1)
                ends.append(len(data))
            if len(entries) < more:
                self._left = iter(())  # the entries need not be kept any more
                return

    def __len__(self) -> int:
        """How many are made by now."""
        return len(self._ends)

    @property
    def size(self) -> int:
        """About so many bytes of the Sentry's memory."""
        made = len(self._ends)
        return len(self._data) + 8 * made + NAME_COST * max(self._names - made, 0)

    def name(self, index: int) -> bytes | None:
        """That of a record, if it is made."""
        ends = self._ends
        if index >= len(ends):
            return None
        [(name, _, _)] = split(bytes(self._data[ends[index - 1] if index else 0 : ends[index]]))
        return name

    def reach(self, index: int) -> Steps[None]:
        """Make the records before a position."""
        before = -1
        while before < len(self._ends) < index:
            before = len(self._ends)
            self._make(min(index, before + PIECE), 0)
            yield

    def all(self) -> Steps[list[Entry]]:
        """Those that were made, and all others."""
        yield from self.reach(MOST)
        found: list[Entry] = []
        for first in range(0, len(self._ends), PIECE):
            start = self._ends[first - 1] if first else 0
            end = self._ends[min(first + PIECE, len(self._ends)) - 1]
            found += split(bytes(self._data[start:end]))
            yield
        return found

    def records(self, index: int, room: int) -> tuple[bytearray, int]:
        """Those from `index` on that fit into `room` bytes, and how many these are.

        Raises: EINVAL if there is one and it does not fit.
        """
        ends = self._ends
        self._make(index, 0)
        if index > len(ends):
            return bytearray(), 0
        start = ends[index - 1] if index else 0
        self._make(index + 1, start + room + 1)
        stop = bisect_right(ends, start + room, index)
        if stop == index:
            if index < len(ends):
                raise EINVAL("the buffer is too small for one entry")
            return bytearray(), 0
        return self._data[start : ends[stop - 1]], stop - index


class DirentSink:
    """Collects records up to `count` bytes: struct linux_dirent64, or linux_dirent if `old`."""

    __slots__ = ("count", "data", "old")

    def __init__(self, count: int, old: bool = False) -> None:
        self.count = count
        self.data = b""
        self.old = old

    def add(self, entries: Dirents, index: int) -> int:
        """Append those from `index` on that fit; how many. Raises: EINVAL if not even one ever."""
        try:
            records, added = entries.records(index, self.count - len(self.data))
        except EINVAL:
            if not self.data:
                raise
            return 0
        self.data += as_old(records) if self.old else records
        return added

    def cut(self, room: int, position: int) -> tuple[int, int]:
        """Keep the entries that lie within `room` bytes: how many bytes, and where to go on.

        `position`: where the first entry was.
        """
        kept, data = 0, self.data
        while kept < len(data):
            _, following, size, _ = _DIRENT.unpack_from(data, kept)
            if kept + size > room:
                break
            kept, position = kept + size, following
        self.data = data[:kept]
        return kept, position
