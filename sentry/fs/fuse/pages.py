"""`Pages`: what of a server's file is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi import fuse as f
from sentry.abi.fuse import FUSE_READ, FUSE_WRITE, FUSE_WRITE_CACHE, FUSE_WRITE_OUT
from sentry.errors import EIO
from sentry.fs.fuse.connection import MAX_PAGES
from sentry.fs.page_cache import ALL, PageCache
from sentry.platform.constants import PAGE_SIZE
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.fs.fuse.handle import Handle
    from sentry.fs.fuse.regular import FuseRegular


class Pages(PageCache):
    """Those of one file, while it is mapped."""

    __slots__ = ("_file",)

    def __init__(self, file: FuseRegular, ram: Any) -> None:
        super().__init__(ram, file.attributes.size, file.sb.vfs)
        self._file = file

    async def fetch(self, offset: int, size: int) -> bytes:
        most = min(self._file.sb.connection.max_read // PAGE_SIZE, MAX_PAGES) * PAGE_SIZE
        handle = self._file.reader()
        with handle.held():
            return await again(self._read, handle, offset, min(size, most))

    def _read(self, handle: Handle, offset: int, size: int) -> bytes:
        body = f.FUSE_READ_IN.pack(handle.fh, offset, size, 0, 0, handle.flags, 0)
        request = self._file.ask((self, offset), FUSE_READ, body, size, is_variable=True)
        data: bytes = request.once(bytes)
        return data

    async def write_back(self, handle: Handle, offset: int = 0, count: int = ALL) -> None:
        with handle.held():
            await super().write_back(handle, offset, count)

    async def store(self, handle: Handle, offset: int, data: bytes) -> None:
        self._file.version += 1
        await again(self._write, handle, offset, data)

    def _write(self, handle: Handle, offset: int, data: bytes) -> None:
        head = f.FUSE_WRITE_IN.pack(
            handle.fh, offset, len(data), FUSE_WRITE_CACHE, 0, handle.flags, 0
        )
        request = self._file.ask((self, offset), FUSE_WRITE, head + data, FUSE_WRITE_OUT.size)
        if request.once(FUSE_WRITE_OUT.unpack).size != len(data):
            raise EIO("a short write")
