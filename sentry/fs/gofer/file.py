"""`GoferFile`: an open regular file of a Gofer.

With a donated descriptor data moves between the host's page cache and user memory without the
Gofer; without one it goes over 9P.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gofer.p9.constants import IO_HEADER_SIZE
from gofer.p9.messages import Rread, Rwrite, Tread, Twrite
from sentry.errors import EDQUOT, ENOSPC, EOPNOTSUPP, from_host
from sentry.fs.gofer.session import expect
from sentry.vfs.attributes import check_size_limit
from sentry.vfs.file import Caller, Dest, Source
from sentry.vfs.regular import RegularFile
from sentry.wait.again import NotNow, kept
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from sentry.fs.gofer.handles import Handle
    from sentry.fs.gofer.pages import FidPages
    from sentry.fs.gofer.regular import GoferRegular
    from sentry.vfs.location import Location


KILLABLE = Mode.KILLABLE
CROWDED: Final = 4096
"""Bytes of a write where it has to wait until it is sent: of many, each holds so much memory."""


class GoferFile(RegularFile):
    """One description; the handle is shared with others of the same inode."""

    __slots__ = ("_handle", "_listener", "_may_store")
    flushes: ClassVar = True

    def __init__(self, location: Location, flags: int, handle: Handle) -> None:
        super().__init__(location, flags)
        file = self._file
        self._handle = handle
        self._listener = file.listener()
        self._may_store = self.readable and self.writable
        if self._may_store:
            file.mappers += 1

    @property
    def _file(self) -> GoferRegular:
        inode: Any = self.inode
        return inode  # type: ignore[no-any-return]

    def release(self) -> None:
        file = self._file
        pages = file.pages
        if self._may_store:
            file.mappers -= 1
        if pages is not None and self._may_store and pages.closed():
            file.sb.after_close(_release_later(file, pages, self._handle))
        else:
            file.release(self._handle)

    # --- data

    def pread(self, dest: Dest, offset: int) -> int:
        if self._handle.fd >= 0:
            return self._handle.read(dest, offset)
        self._file.write_back(offset, dest.count)
        session = self._file.sb.session
        limit = session.msize - IO_HEADER_SIZE
        done, before = kept((self, Tread, offset)) or (0, dest)
        if before is not dest:
            dest.skip(done)
        try:
            while dest.count:
                request = Tread(self._handle.fid, offset + done, min(dest.count, limit))
                key = self, offset + done
                data = expect(session.reply(key, request, mode=KILLABLE, slow=True), Rread).data
                if not data:
                    break
                done += dest.put(data)
        except NotNow as need:
            need.call.answers[self, Tread, offset] = done, dest
            raise
        return done

    @property
    def writes_at_once(self) -> bool:  # type: ignore[override]
        """A request that was sent must not be sent again."""
        return self._handle.fd >= 0

    def pwrite(self, source: Source, offset: int) -> int:
        file, handle = self._file, self._handle
        file.drop_file_caps()
        file.settle_times()
        if handle.fd >= 0:
            try:
                return handle.write(source, offset)
            except (ENOSPC, EDQUOT):
                if file.sb.journal is not None:
                    file.sb.journal.full()
                raise
            finally:
                if handle.remote:
                    file.changed()
        file.write_back(offset, source.count)
        session = file.sb.session
        limit = CROWDED if session.crowded else session.msize - IO_HEADER_SIZE
        done, limit, before = kept((self, Twrite, offset)) or (0, limit, source)
        if before is not source:
            source.skip(done)
        try:
            while source.count:
                data = source.peek(min(source.count, limit))
                request = Twrite(handle.fid, offset + done, data)
                key = self, offset + done
                reply = session.reply(key, request, mode=KILLABLE, slow=True)
                written = min(expect(reply, Rwrite).count, len(data))  # who serves may say anything
                source.skip(len(data))
                done += written
                if written < len(data):
                    break
        except NotNow as need:
            need.call.answers[self, Twrite, offset] = done, limit, source
            raise
        file.written(offset, done)
        return done

    def find(self, offset: int, data: bool, size: int) -> int:
        """The host knows where the holes are; the position of its descriptor is nobody's."""
        if self._handle.fd < 0 or self._handle.remote:
            return super().find(offset, data, size)
        try:
            return os.lseek(self._handle.fd, offset, os.SEEK_DATA if data else os.SEEK_HOLE)
        except OSError as error:
            raise from_host(error) from error

    # --- the rest

    def sync(self, data_only: bool) -> None:
        self._file.write_back()
        self._file.sync(data_only, self._listener)

    def settle(self) -> None:
        self._file.write_back()
        self._file.sb.settle()
        if self._listener is not None:
            self._listener.hear()

    def flush(self, caller: Caller) -> None:
        if self._listener is not None:
            self._listener.hear()

    def tell_refused(self) -> None:
        if self._listener is not None:
            self._listener.hear_all()

    def allocate(self, caller: Caller, mode: int, offset: int, length: int) -> None:
        if mode or self._handle.fd < 0:
            raise EOPNOTSUPP(f"fallocate mode {mode:#x}")
        if offset + length > self.size_now():
            check_size_limit(caller, offset + length)
        self._file.settle_times()
        self._handle.allocate(offset, length)
        self._file.drop_file_caps()
        self._file.changed()

    @property
    def is_steady(self) -> bool:
        return self._handle.fd >= 0

    def mmap_backing(self, writable_shared: bool) -> Any:
        windows = self._file.sb.windows
        if windows is None or self._handle.fd < 0:
            return self._file.mapped(writable_shared)
        return self._handle.backing(windows)


async def _release_later(file: GoferRegular, pages: FidPages, handle: Handle) -> None:
    """What was stored comes before."""
    try:
        await pages.sent_behind(handle)
    finally:
        file.release(handle)
