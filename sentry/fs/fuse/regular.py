"""`FuseRegular`: regular files of a server. fs/fuse/file.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import fuse as f
from sentry.abi.fcntl import O_ACCMODE, O_WRONLY
from sentry.abi.fuse import (
    FOPEN_DIRECT_IO,
    FOPEN_KEEP_CACHE,
    FUSE_AUTO_INVAL_DATA,
    FUSE_FSYNC_FDATASYNC,
)
from sentry.errors import EIO, ENODATA, ENODEV, ENOSYS, EOPNOTSUPP
from sentry.fs.fuse.handle import Handle, open_handle
from sentry.fs.fuse.inode import FuseInode
from sentry.fs.fuse.pages import Pages
from sentry.vfs.interface import Attributes, Changes
from sentry.wait.again import begun

if TYPE_CHECKING:
    from sentry.fs.fuse.mounted import MountedFs
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location


CAPABILITY: Final = b"security.capability"


class FuseRegular(FuseInode):
    """A regular file."""

    __slots__ = (
        "_fresh", "_may_have_capabilities", "_readers", "_writers", "pages", "version",
    )  # fmt: skip

    def __init__(
        self, fs: MountedFs, nodeid: int, generation: int, attributes: Attributes
    ) -> None:
        super().__init__(fs, nodeid, generation, attributes)
        self._readers: dict[Handle, None] = {}
        self._writers: dict[Handle, None] = {}
        """Of its open files, those to read from, and those to write to."""
        self.pages: Pages | None = None
        """While it is mapped."""
        self.version = 0
        """Counts what is known to have changed its data."""
        self._may_have_capabilities = True
        """security.capability was not asked for, or set since."""
        self._fresh: Handle | None = None
        """What CREATE has opened, for the open(2) that made it."""

    def __del__(self) -> None:
        if self.pages is not None:
            self.pages.close()
        super().__del__()

    # --- open files

    def made(self, handle: Handle) -> None:
        """CREATE has made and opened it."""
        if self._fresh is not None:
            self._fresh.release()
        self._fresh = handle

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        from sentry.fs.fuse.file import FuseFile  # noqa: PLC0415  which needs this class

        handle = self._fresh
        if handle is not None and (handle.flags ^ flags) & O_ACCMODE == 0:
            self._fresh = None
        else:
            handle = open_handle(self, flags)
        if not handle.open_flags & (FOPEN_KEEP_CACHE | FOPEN_DIRECT_IO):
            self.drop_pages(0, 0)
        if handle.flags & O_ACCMODE != O_WRONLY:
            self._readers[handle] = None
        if handle.writes:
            self._writers[handle] = None
        return FuseFile(location, flags, handle)

    def closed(self, handle: Handle) -> None:
        """An open file is gone, and with the last one what was mapped."""
        self._readers.pop(handle, None)
        self._writers.pop(handle, None)
        if self._fresh is not None:
            self._fresh.release()
            self._fresh = None
        is_open = self._readers or self._writers
        if self.pages is not None and not is_open and not self.pages.mapped:
            self.pages.close()
            self.pages = None

    def reader(self) -> Handle:
        """An open file to read from. Raises: EIO."""
        for handle in self._readers:
            return handle
        raise EIO("nobody has it open")

    def writer(self) -> Handle | None:
        return next(iter(self._writers), None)

    # --- attributes

    def seen(self, attributes: Attributes, expires_ns: int) -> None:
        before = self.attributes
        super().seen(attributes, expires_ns)
        resized = before.size != attributes.size
        if self.pages is not None:
            self.pages.resize(attributes.size)
        changed = resized or before.mtime_ns != attributes.mtime_ns
        if changed and self.sb.connection.flags & FUSE_AUTO_INVAL_DATA:
            self.drop_pages(0, 0)
        elif resized:
            self.version += 1

    def setattr(self, changes: Changes) -> None:
        pages, writer = self.pages, self.writer()
        if changes.size is not None:
            self.check_capabilities()
        if changes.size is not None and pages is not None and writer is not None:
            begun((self, "stores"), lambda: pages.write_back(writer))
        super().setattr(changes)

    def check_capabilities(self) -> None:
        """The data is about to change: file capabilities are taken off, if there are any."""
        if self._may_have_capabilities:
            self.drop_file_caps()

    def drop_file_caps(self) -> None:
        try:
            if self.getxattr(CAPABILITY):
                self.removexattr(CAPABILITY)
        except (ENODATA, EOPNOTSUPP):
            self._may_have_capabilities = False

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        self._may_have_capabilities = True
        super().setxattr(name, value, flags)

    def written(self, offset: int, count: int) -> None:
        """The server has taken so many bytes: fuse_write_update_attr()."""
        end = offset + count
        if end > self.attributes.size:
            self.attributes = self.attributes._replace(size=end)
        self.expire()
        self.version += 1
        if self.pages is not None and count:
            self.pages.resize(self.attributes.size)
            self.pages.drop(offset, count)

    def drop_pages(self, offset: int, length: int) -> None:
        """What is in memory of it may be something else now."""
        self.version += 1
        if self.pages is not None:
            self.pages.drop(offset, length)

    # --- mappings

    def backing(self, handle: Handle, stores: bool) -> object:
        """What a mapping shows: fuse_file_mmap(). Raises: ENODEV, shared and FOPEN_DIRECT_IO."""
        if stores and handle.open_flags & FOPEN_DIRECT_IO:
            raise ENODEV("direct I/O")
        if self.pages is None:
            make = self.sb.vfs.ram_file
            if make is None:
                raise ENODEV("no memory for files")
            self.pages = Pages(self, make())
        if stores:
            self.pages.track()
        return self.pages.ram


def sync_handle(handle: Handle, opcode: int, data_only: bool) -> None:
    """FSYNC, FSYNCDIR: fuse_fsync_common()."""
    lacks = handle.inode.sb.connection.lacks
    if opcode in lacks:
        return
    body = f.FUSE_FSYNC_IN.pack(handle.fh, FUSE_FSYNC_FDATASYNC if data_only else 0, 0)
    try:
        handle.inode.ask((handle, opcode), opcode, body).once(len)
    except ENOSYS:
        lacks.add(opcode)
