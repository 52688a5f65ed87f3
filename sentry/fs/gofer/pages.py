"""`FidPages`: what is mapped of a file that there is no descriptor of, over 9P.

It is right for as long as the server tells the same size and time of the last change of it: these
come with each open, each path that is walked and each fstat(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gofer.p9.constants import IO_HEADER_SIZE
from gofer.p9.messages import Rread, Rwrite, Tread, Twrite
from sentry.errors import EIO, Errno
from sentry.fs.gofer.session import expect
from sentry.fs.page_cache import PageCache
from sentry.platform.constants import PAGE_SIZE
from sentry.suppress import suppress
from sentry.wait.again import again
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from gofer.p9.codec import Message
    from sentry.fs.gofer.handles import Handle
    from sentry.fs.gofer.regular import GoferRegular
    from sentry.vfs.interface import Attributes
    from sentry.vfs.vfs import Vfs


class FidPages(PageCache):
    """Those of one file, while it is open."""

    __slots__ = ("_closed", "_file", "_told")

    def __init__(self, file: GoferRegular, ram: Any, vfs: Vfs) -> None:
        super().__init__(ram, file.attributes.size, vfs)
        self._file = file
        self._told = self._stamp(file.attributes)
        self._closed = 0
        """How many have closed the file since somebody sends behind them what is stored."""

    @staticmethod
    def _stamp(attributes: Attributes) -> tuple[int, int]:
        return attributes.size, attributes.mtime_ns

    def seen(self, attributes: Attributes) -> None:
        """The server has told them just now."""
        told = self._stamp(attributes)
        if told != self._told:
            self._told = told
            self.resize(attributes.size)
            self.drop(0, 0)

    def written(self, offset: int, count: int) -> None:
        """The server has taken so many bytes from a write(2)."""
        self.resize(max(self.ram.size, offset + count))
        self.drop(offset, count)

    def closed(self) -> bool:
        """Somebody who may have stored has closed the file. Whether he has to call `sent_behind`:
        there is one at a time, however many a program opens and closes."""
        if not self.tracked:
            return False
        self._closed += 1
        return self._closed == 1

    async def sent_behind(self, handle: Handle) -> None:
        """The server has what was stored until the last of them has closed it."""
        seen = 0
        try:
            while seen < self._closed:
                seen = self._closed
                with suppress(Errno):  # nobody is left to be told
                    await self.write_back(handle)
        finally:
            self._closed = 0

    async def fetch(self, offset: int, size: int) -> bytes:
        handle = self._file.read_handle or self._file.write_handle
        if handle is None:
            raise EIO("nobody has it open")
        self._file.sb.handles.use(handle)  # others may close it before the last piece is here
        try:
            return await self._pieces(handle, offset, size)
        finally:
            self._file.release(handle)

    async def _pieces(self, handle: Handle, offset: int, size: int) -> bytes:
        whole = self._most // PAGE_SIZE * PAGE_SIZE
        size, data = min(size, whole or PAGE_SIZE), b""
        while len(data) < size:
            wanted = min(size - len(data), self._most)
            request = Tread(handle.fid, offset + len(data), wanted)
            some = expect(await again(self._ask, request), Rread).data[:wanted]
            if not some:
                break
            data += some
        return data

    async def store(self, handle: Handle, offset: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            some = data[done : done + self._most]
            request = Twrite(handle.fid, offset + done, some)
            count = expect(await again(self._ask, request), Rwrite).count
            self._file.changed()
            if not 0 < count <= len(some):
                raise EIO("nothing was written, or more than there was")
            done += count

    @property
    def _most(self) -> int:
        return self._file.sb.session.msize - IO_HEADER_SIZE

    def _ask(self, request: Message) -> Message:
        return self._file.sb.session.reply(self, request, mode=Mode.KILLABLE, slow=True)
