"""`OverlayFile`: an open regular file of an overlay, which follows the copy-up of its inode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import O_RDONLY, O_RDWR
from sentry.errors import EAGAIN
from sentry.fs.tmpfs.file import TmpOpenFile
from sentry.vfs.dentry import Dentry
from sentry.vfs.file import Caller, Dest, FileDescription, Source
from sentry.vfs.location import Location
from sentry.vfs.regular import RegularFile

if TYPE_CHECKING:
    from sentry.fs.overlay.inode import OverlayInode


class OverlayFile(RegularFile):
    """Reads go to the lower file until there is an upper one; a first write makes it."""

    __slots__ = ("_lower", "_upper")

    def __init__(self, location: Location, flags: int) -> None:
        super().__init__(location, flags)
        self._lower: RegularFile | None = None
        self._upper: TmpOpenFile | None = None

    @property
    def _inode(self) -> OverlayInode:
        inode: Any = self.location.dentry.inode
        return inode  # type: ignore[no-any-return]

    def open_lower(self, caller: Caller) -> None:
        """Open the file below, to read."""
        inode = self._inode
        assert inode.lower is not None
        place = Location(inode.sb.lower, Dentry(None, b"", inode.lower))
        file: Any = inode.lower.open(place, O_RDONLY, caller)
        self._lower = file.incref()

    def release(self) -> None:
        """Close what is below."""
        if self._lower is not None:
            self._lower.decref()
            self._lower = None

    def _above(self) -> TmpOpenFile | None:
        """The upper file, if there is one by now."""
        upper = self._upper
        if upper is None and self._inode.upper is not None:
            place = Location(self.location.mount, Dentry(None, b"", self._inode.upper))
            upper = self._upper = TmpOpenFile(place, O_RDWR)
        return upper

    def _copied(self) -> TmpOpenFile:
        from sentry.fs.overlay.copyup import copied_up  # noqa: PLC0415  copyup knows the inode

        copied_up(self._inode)
        upper = self._above()
        assert upper is not None
        return upper

    def _backing(self) -> RegularFile:
        real = self._above() or self._lower
        if real is None:
            raise EAGAIN("closed")
        return real

    # --- data

    def pread(self, dest: Dest, offset: int) -> int:
        return self._backing().pread(dest, offset)

    @property
    def writes_at_once(self) -> bool:  # type: ignore[override]
        """A copy-up that has begun must not begin again."""
        return self._above() is not None

    def pwrite(self, source: Source, offset: int) -> int:
        return (self._above() or self._copied()).pwrite(source, offset)

    def find(self, offset: int, data: bool, size: int) -> int:
        return self._backing().find(offset, data, size)

    def allocate(self, caller: Caller, mode: int, offset: int, length: int) -> None:
        self._copied().allocate(caller, mode, offset, length)

    @property
    def is_steady(self) -> bool:
        return bool(self._backing().is_steady)

    def mmap_backing(self, writable_shared: bool) -> Any:
        """Frames, or the lower file's descriptor; a mapping that may store is copied up first.

        Raises: NotNow.
        """
        if writable_shared and self._above() is None:
            self._copied()
        real: FileDescription = self._backing()
        return real.mmap_backing(writable_shared)
