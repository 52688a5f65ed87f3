"""`DirectoryFile`: an open directory, made of a listing; how entries get into a user's buffer.

The listing is taken at the first read and again after a rewind, so that a program that removes what
it reads (rm -r) sees every name once. The position is an index into it, with `.` and `..` first.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sentry.abi.eventfd import IN_ACCESS
from sentry.abi.fcntl import SEEK_CUR, SEEK_END, SEEK_SET
from sentry.errors import EINVAL, EISDIR, ENOENT
from sentry.vfs.file import Caller, Dest, FileDescription, Result, Source
from sentry.vfs.interface import DirEntry
from sentry.vfs.watches import tell

if TYPE_CHECKING:
    from sentry.vfs.dentry import Location

_DIRENT64 = struct.Struct("<QqHB")
_DIRENT = struct.Struct("<QQH")
SMALLEST: Final = 24
"""Bytes of an entry with a short name."""


@lru_cache(64)
def _packer(room: int) -> struct.Struct:
    """struct linux_dirent64 with so much room for the name, its NUL and the padding."""
    return struct.Struct(f"<QqHB{room}s")


class DirentSink:
    """Collects struct linux_dirent64, or struct linux_dirent where `old`, up to `count` bytes."""

    __slots__ = ("count", "data", "old")

    def __init__(self, count: int, old: bool = False) -> None:
        self.count = count
        self.data = bytearray()
        self.old = old

    def add(self, entry: DirEntry, next_offset: int) -> bool:
        """Append one entry; False when it does not fit. Raises: EINVAL if it never can."""
        name = entry.name
        if self.old:
            size = (18 + len(name) + 2 + 7) & ~7
            raw = _DIRENT.pack(entry.ino, next_offset, size) + name
            raw = raw.ljust(size - 1, b"\0") + bytes((entry.kind >> 12,))
        else:
            size = (19 + len(name) + 1 + 7) & ~7
            raw = _DIRENT64.pack(entry.ino, next_offset, size, entry.kind >> 12) + name
            raw = raw.ljust(size, b"\0")
        if len(self.data) + size > self.count:
            if not self.data:
                raise EINVAL("the buffer is too small for one entry")
            return False
        self.data += raw
        return True

    def add_all(self, entries: Sequence[DirEntry], next_offset: int) -> int:
        """Append entries as long as they fit; how many. Raises: EINVAL as `add`."""
        if self.old:
            added = 0
            for entry in entries:
                if not self.add(entry, next_offset + added):
                    break
                added += 1
            return added
        data, count, offset = self.data, self.count, next_offset
        for name, ino, kind in entries:
            size = (len(name) + 27) & ~7  # 19 bytes before the name, and its NUL
            if len(data) + size > count:
                if not data:
                    raise EINVAL("the buffer is too small for one entry")
                break
            data += _packer(size - 19).pack(ino, offset, size, kind >> 12, name)
            offset += 1
        return offset - next_offset


    def cut(self, room: int, position: int) -> tuple[int, int]:
        """Keep the entries that lie within `room` bytes: how many bytes, and where to go on.

        `position`: where the first entry was.
        """
        kept, data = 0, self.data
        while kept < len(data):
            _, following, size = _DIRENT.unpack_from(data, kept)
            if kept + size > room:
                break
            kept, position = kept + size, following
        self.data = data[:kept]
        return kept, position


class DirectoryFile(FileDescription):
    """An open directory of any file system."""

    __slots__ = ("_listing",)
    read_flags = False
    splice_read = False
    seekable = True
    seeks_from_end = False
    """SEEK_END counts from a size that is always 0: generic_file_llseek() of /proc and /sys."""

    def __init__(self, location: Location, flags: int) -> None:
        super().__init__(location, flags)
        self._listing: Sequence[DirEntry] | None = None

    async def entries(self, caller: Caller, dest: DirentSink) -> int:
        """getdents64(2). Raises: ENOENT once the directory has been removed."""
        if self.location.dentry.unlinked:
            raise ENOENT("the directory has been removed")
        if self._listing is None or self.position == 0:
            self._listing = await self.inode.entries()
        if not self.location.mount.no_dir_atime:
            self.inode.accessed()
        if self.inode.fs.watched:
            tell(self.location.dentry, IN_ACCESS)
        position, listing = self.position, self._listing
        while position < 2:
            if position == 0:
                entry = DirEntry(b".", self.inode.ino, 0o040000)
            else:
                parent = self.location.dentry.parent
                inode = parent.inode if parent is not None else self.inode
                entry = DirEntry(b"..", inode.ino, 0o040000)
            if not dest.add(entry, position + 1):
                break
            position += 1
        if position >= 2:
            first = position - 2
            fits = dest.count // SMALLEST  # no more than that
            position += dest.add_all(listing[first : first + fits], position + 1)
        self.position = position
        return len(dest.data)

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2) of a directory."""
        raise EISDIR("a directory")

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """pread(2) of a directory."""
        raise EISDIR("a directory")

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """Never reached: directories are not opened for writing."""
        raise EISDIR("a directory")

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """lseek(2): telldir, seekdir, rewinddir; dcache_dir_lseek()."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence != SEEK_SET and not (whence == SEEK_END and self.seeks_from_end):
            raise EINVAL(f"whence {whence}")
        if not 0 <= offset < 1 << 63:
            raise EINVAL(f"offset {offset}")
        self.position = offset
        return offset

    async def sync(self, data_only: bool) -> None:
        """fsync of a directory."""
        if not self.inode.fs.can_sync:
            raise EINVAL("nothing to sync")

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """What the inode can do."""
        return self.inode.ioctl(caller, request, argument)
