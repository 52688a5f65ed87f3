"""`LayeredFile`: an open regular file of an overlay, which follows the copy-up of its inode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sentry.abi.fcntl import O_RDONLY, O_RDWR
from sentry.fs.layers.listing import Listing
from sentry.fs.layers.stack import UPPER
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.interface import DirEntry
from sentry.vfs.regular import RegularFile

if TYPE_CHECKING:
    from sentry.fs.layers.stack import Lowers, Stack
    from sentry.vfs.dirents import Entry
    from sentry.vfs.file import Caller, Dest, Source
    from sentry.vfs.interface import Inode
    from sentry.vfs.location import Location


class Layered(Protocol):
    """What is open: `LayeredInode`."""

    @property
    def upper(self) -> Inode | None: ...
    @property
    def lowers(self) -> Lowers: ...
    @property
    def stack(self) -> Stack: ...
    def copied(self) -> Inode: ...


class LayeredListing(DirectoryFile):
    """An open directory."""

    __slots__ = ()

    def release(self) -> None:
        """Who opens it last lets go of what it lists."""
        inode: Any = self.inode
        if not inode.open_count:
            inode.listing = None
        super().release()

    def goes_on(self, entries: list[Entry]) -> None:
        """As before; it counts."""
        inode: Any = self.inode
        self._listing = Listing([DirEntry(*entry) for entry in entries], inode.fs.budget)


class LayeredFile(RegularFile):
    """Reads go to the lower file until there is an upper one; a first write makes it."""

    __slots__ = ("_lower", "_of", "_upper")
    nowait = False

    def __init__(self, location: Location, flags: int, of: Layered) -> None:
        super().__init__(location, flags)
        self._of = of
        self._lower: RegularFile | None = None
        self._upper: RegularFile | None = None

    def open_real(self) -> None:
        """Open the file that is read. Raises: NotNow, as it does."""
        self._real()

    def release(self) -> None:
        """Close both."""
        for real in (self._lower, self._upper):
            if real is not None:
                real.decref()
        self._lower = self._upper = None

    def _above(self) -> RegularFile | None:
        """The upper file, if there is one by now."""
        if self._upper is None and self._of.upper is not None:
            self._upper = self._opened(UPPER, self._of.upper, O_RDWR)
        return self._upper

    def _opened(self, number: int, real: Inode, flags: int) -> RegularFile:
        nobody: Any = None
        file: Any = real.open(self._of.stack.place(number, real), flags, nobody)
        return file.incref()  # type: ignore[no-any-return]

    def _real(self) -> RegularFile:
        real = self._above() or self._lower
        if real is None:
            real = self._lower = self._opened(*self._of.lowers[0], O_RDONLY)
        return real

    def _copied(self) -> RegularFile:
        self._of.copied()
        real = self._above()
        assert real is not None
        return real

    def copied_since(self, backing: Any) -> Inode | None:
        """The lower file, if a mapping of this shows it and not the copy. Raises: NotNow."""
        above: Any = self._above()
        if above is None or backing is above.mmap_backing(False):
            return None
        return None if self._lower is None else self._lower.inode

    def backing_below(self, number: int, lower: Inode) -> Any:
        """What that showed. Raises: NotNow."""
        if self._lower is None:
            self._lower = self._opened(number, lower, O_RDONLY)
        real: Any = self._lower
        return real.mmap_backing(False)

    # --- data

    def pread(self, dest: Dest, offset: int) -> int:
        return self._real().pread(dest, offset)

    @property
    def writes_at_once(self) -> bool:  # type: ignore[override]
        """A copy-up that has begun must not begin again."""
        return self._of.upper is not None

    def pwrite(self, source: Source, offset: int) -> int:
        return (self._above() or self._copied()).pwrite(source, offset)

    def find(self, offset: int, data: bool, size: int) -> int:
        return self._real().find(offset, data, size)

    def allocate(self, caller: Caller, mode: int, offset: int, length: int) -> None:
        self._copied().allocate(caller, mode, offset, length)

    @property
    def is_steady(self) -> bool:
        return bool(self._real().is_steady)

    def mmap_backing(self, writable_shared: bool) -> Any:
        """Of the upper or the lower file; a mapping that may store is copied up first.

        Raises: NotNow.
        """
        real: Any = self._copied() if writable_shared else self._real()
        return real.mmap_backing(writable_shared)

    def sync(self, data_only: bool) -> None:
        """Nothing of a lower file waits to be written."""
        above = self._above()
        if above is not None and not self._of.stack.volatile:
            above.sync(data_only)
