"""`GoferFile`: an open regular file of a Gofer.

With a donated descriptor data moves between the host's page cache and user memory without the
Gofer; without one it goes over 9P.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gofer.p9.constants import IO_HEADER_SIZE
from gofer.p9.messages import Rread, Rwrite, Tread, Twrite
from sentry.errors import ENODEV, EOPNOTSUPP, from_host
from sentry.fs.gofer.session import expect
from sentry.vfs.file import Caller, Dest, Source
from sentry.vfs.interface import NeedsIO
from sentry.vfs.regular import RegularFile

if TYPE_CHECKING:
    from sentry.fs.gofer.handles import Handle
    from sentry.fs.gofer.regular import GoferRegular
    from sentry.vfs.dentry import Location


class GoferFile(RegularFile):
    """One description; the handle is shared with others of the same inode."""

    __slots__ = ("_handle",)

    def __init__(self, location: Location, flags: int, handle: Handle) -> None:
        super().__init__(location, flags)
        self._handle = handle

    @property
    def _file(self) -> GoferRegular:
        inode: Any = self.inode
        owner = self._handle.owner()
        return owner if owner is not None else inode

    def release(self) -> None:
        self._file.release(self._handle)

    # --- data

    def pread(self, dest: Dest, offset: int) -> int:
        if self._handle.fd < 0:
            raise NeedsIO
        return self._handle.read_now(dest, offset)

    def pwrite(self, source: Source, offset: int) -> int:
        if self._handle.fd < 0:
            raise NeedsIO
        return self._handle.write_now(source, offset)

    async def pread_io(self, dest: Dest, offset: int) -> int:
        if self._handle.fd >= 0 and self._handle.io is None:
            return self.pread(dest, offset)
        if self._handle.fd >= 0 and self._handle.io is not None:
            return await self._handle.io.fill(self._handle.fd, dest, offset)
        session = self._file.fs.session
        limit = session.msize - IO_HEADER_SIZE
        done = 0
        while dest.count:
            request = Tread(self._handle.fid, offset + done, min(dest.count, limit))
            data = expect(await session.call_slow(request), Rread).data
            if not data:
                break
            done += dest.put(data)
        return done

    async def pwrite_io(self, source: Source, offset: int) -> int:
        if self._handle.fd >= 0:
            return await self._write_out(source, offset)
        session = self._file.fs.session
        limit = session.msize - IO_HEADER_SIZE
        done = 0
        while source.count:
            data = source.get(min(source.count, limit))
            request = Twrite(self._handle.fid, offset + done, data)
            written = expect(await session.call_slow(request), Rwrite).count
            done += written
            if written < len(data):
                break
        self._file.changed()
        return done

    async def _write_out(self, source: Source, offset: int) -> int:
        handle = self._handle
        if handle.io is None:
            return self.pwrite(source, offset)
        try:
            return await handle.io.drain(handle.fd, source, offset)
        finally:
            if handle.remote:
                self._file.changed()

    def find(self, offset: int, data: bool, size: int) -> int:
        """The host knows where the holes are; the position of its descriptor is nobody's."""
        if self._handle.fd < 0 or self._handle.remote:
            return super().find(offset, data, size)
        try:
            return os.lseek(self._handle.fd, offset, os.SEEK_DATA if data else os.SEEK_HOLE)
        except OSError as error:
            raise from_host(error) from error

    # --- the rest

    async def sync(self, data_only: bool) -> None:
        await self._file.sync(data_only)

    async def allocate(self, caller: Caller, mode: int, offset: int, length: int) -> None:
        if mode or self._handle.fd < 0:
            raise EOPNOTSUPP(f"fallocate mode {mode:#x}")
        if self._handle.io is not None:
            await self._handle.io.allocate(self._handle.fd, offset, length)
            self._file.changed()
            return
        try:
            os.posix_fallocate(self._handle.fd, offset, length)
        except OSError as error:
            raise from_host(error) from error

    def mmap_backing(self, writable_shared: bool) -> Any:
        windows = self._file.fs.windows
        if windows is None or self._handle.fd < 0:
            raise ENODEV("no descriptor to map")
        return self._handle.backing(windows)
