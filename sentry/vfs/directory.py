"""`DirectoryFile`: an open directory, made of a listing.

The listing is taken at the first read and again after a rewind, so that a program that removes what
it reads (rm -r) sees every name once. The position is an index into it, with `.` and `..` first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sentry.abi.fcntl import SEEK_CUR, SEEK_END, SEEK_SET
from sentry.abi.inotify import IN_ACCESS
from sentry.abi.stat import S_IFDIR
from sentry.ahead import mypyc_attr
from sentry.errors import EINVAL, EISDIR, ENOENT
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

    __slots__ = ("_listing",)
    read_flags: ClassVar = False
    splice_read: ClassVar = False
    seekable: ClassVar = True
    seeks_from_end: ClassVar = False
    """SEEK_END counts from a size that is always 0: generic_file_llseek() of /proc and /sys."""

    def __init__(self, location: Location, flags: int) -> None:
        super().__init__(location, flags)
        self._listing: Dirents | None = None

    def entries(self, caller: Caller, dest: DirentSink) -> int:
        """getdents64(2). Raises: ENOENT once the directory has been removed."""
        if self.location.dentry.unlinked:
            raise ENOENT("the directory has been removed")
        if self._listing is None or self.position == 0:
            self._listing = self._list(caller)
        position, listing = self.position, self._listing
        if position - FIRST > len(listing):
            begun((self, "listing"), lambda: driven(listing.reach(position - FIRST)))
        if not self.location.mount.no_dir_atime:
            self.inode.accessed()
        if self.inode.fs.watched:
            tell(self.location, IN_ACCESS)
        if position < FIRST:
            position += dest.add(self._dots(), position)
        if position >= FIRST:
            position += dest.add(listing, position - FIRST)
        self.position = position
        return len(dest.data)

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
