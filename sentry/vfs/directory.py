"""`DirectoryFile`: an open directory, made of a listing.

The listing is taken at the first read and again after a rewind, so that a program that removes what
it reads (rm -r) sees every name once. The position is an index into it, with `.` and `..` first.
What all of them cost is bounded (`Budget.keep_text`): who has lost his takes it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sentry.abi.fcntl import SEEK_CUR, SEEK_END, SEEK_SET
from sentry.abi.inotify import IN_ACCESS
from sentry.abi.stat import S_IFDIR
from sentry.ahead import mypyc_attr
from sentry.errors import EINVAL, EISDIR, ENOENT, ENOMEM
from sentry.vfs.dirents import FIRST, Dirents, DirentSink, Entry
from sentry.vfs.file import Caller, Dest, FileDescription, Result, Source
from sentry.vfs.interface import DirEntry
from sentry.vfs.watches import tell
from sentry.wait.again import begun
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.vfs.location import Location


@mypyc_attr(allow_interpreted_subclasses=True)
class DirectoryFile(FileDescription):
    """An open directory of any file system."""

    __slots__ = ("_last", "_listing")
    read_flags: ClassVar = False
    splice_read: ClassVar = False
    seekable: ClassVar = True
    seeks_from_end: ClassVar = False
    """SEEK_END counts from a size that is always 0: generic_file_llseek() of /proc and /sys."""

    def __init__(self, location: Location, flags: int) -> None:
        super().__init__(location, flags)
        self._listing: Dirents | None = None
        self._last: tuple[int, bytes | None] | None = None
        """Of a listing that was lost: how many were read, and the last of them."""

    def entries(self, caller: Caller, dest: DirentSink) -> int:
        """getdents64(2). Raises: ENOENT once the directory has been removed; ENOMEM if the listing
        was lost, and another stands for other names by now."""
        if self.location.dentry.unlinked:
            raise ENOENT("the directory has been removed")
        position = self.position
        if position == 0:
            self._last = None
        if self._listing is None or position == 0:
            self._listing = self._list(caller)
        listing, last = self._listing, self._last
        reached = max(position - FIRST, last[0] if last is not None else 0)
        if reached > len(listing):
            begun((listing, "reached"), lambda: driven(listing.reach(reached)))
        if last is not None:
            if listing.name(last[0] - 1) != last[1]:
                self._listing = None
                raise ENOMEM("the listing was lost, and names have gone since")
            self._last = None
        if not self.location.mount.no_dir_atime:
            self.inode.accessed()
        if self.inode.fs.watched:
            tell(self.location, IN_ACCESS)
        if position < FIRST:
            position += dest.add(self._dots(), position)
        if position >= FIRST:
            position += dest.add(listing, position - FIRST)
        if self.counted is not None:
            self.counted.keep_text(self, listing.size)
        self.position = position
        return len(dest.data)

    def forget_text(self) -> None:
        """The listing is taken again by who reads on."""
        read, listing = self.position - FIRST, self._listing
        if listing is not None and 0 < read <= len(listing):
            self._last = read, listing.name(read - 1)
        self._listing = None

    def release(self) -> None:
        """Nobody reads it any more."""
        if self.counted is not None:
            self.counted.drop_text(self)
        super().release()

    def _list(self, caller: Caller) -> Dirents:
        """What is there now."""
        return self.inode.dirents()

    def goes_on(self, entries: list[Entry]) -> None:
        """It is read on, and these were the names when that began. Raises: ENOMEM."""
        self._listing = Dirents(entries)

    def _dots(self) -> Dirents:
        """`.` and `..`."""
        inode, parent = self.inode, self.location.dentry.parent
        above = inode if parent is None else parent.inode
        here, there = DirEntry(b".", inode.ino, S_IFDIR), DirEntry(b"..", above.ino, S_IFDIR)
        return Dirents((here, there), first=0)

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

    def sync(self, data_only: bool) -> None:
        """fsync of a directory."""
        if not self.inode.fs.can_sync:
            raise EINVAL("nothing to sync")
