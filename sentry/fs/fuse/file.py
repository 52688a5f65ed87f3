"""`FuseFile`: an open regular file of a server. fs/fuse/file.c."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import fuse as f
from sentry.abi.fcntl import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    SEEK_DATA,
    SEEK_HOLE,
)
from sentry.abi.fuse import (
    FOPEN_DIRECT_IO,
    FOPEN_NOFLUSH,
    FOPEN_NONSEEKABLE,
    FOPEN_STREAM,
    FUSE_COPY_FILE_RANGE,
    FUSE_FALLOCATE,
    FUSE_FLUSH,
    FUSE_FSYNC,
    FUSE_LSEEK,
    FUSE_LSEEK_OUT,
    FUSE_READ,
    FUSE_WRITE,
    FUSE_WRITE_OUT,
)
from sentry.errors import EAGAIN, EIO, ENOSYS, EOPNOTSUPP, ESPIPE, Errno
from sentry.fs.fuse.ahead import ReadAhead
from sentry.fs.fuse.locks import ServerLocks, has_flocks, has_records
from sentry.fs.fuse.regular import sync_handle
from sentry.fs.fuse.requests import ioctl
from sentry.fs.page_cache import ALL
from sentry.vfs.attributes import check_size_limit
from sentry.vfs.regular import RegularFile
from sentry.wait.again import NotNow, begun, kept
from sentry.wait.fiber import Mode
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until

if TYPE_CHECKING:

    from sentry.fs.fuse.handle import Handle
    from sentry.fs.fuse.regular import FuseRegular
    from sentry.fs.fuse.request import Request
    from sentry.vfs.file import Caller, Dest, FileDescription, Result, Source
    from sentry.vfs.interface import Attributes
    from sentry.vfs.location import Location

ALLOCATE_MODES: Final = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE


class FuseFile(RegularFile):
    """One description, which is one open file of the server's."""

    __slots__ = ("_ahead", "_flushed", "handle")
    flushes: ClassVar = True
    writes_at_once = False
    can_poll = True

    def __init__(self, location: Location, flags: int, handle: Handle) -> None:
        super().__init__(location, flags)
        self.handle = handle
        self._flushed: Flushed | None = None
        """What the close(2) of now waits for."""
        self._ahead = ReadAhead(self._file)

    @property
    def _file(self) -> FuseRegular:
        inode: Any = self.handle.inode
        return inode  # type: ignore[no-any-return]

    @property
    def seekable(self) -> bool:  # type: ignore[override]
        """The server may say that there are no positions."""
        return not self.handle.open_flags & (FOPEN_NONSEEKABLE | FOPEN_STREAM)

    @property
    def _is_direct(self) -> bool:
        return bool(self.handle.open_flags & FOPEN_DIRECT_IO)

    # --- data

    def pread(self, dest: Dest, offset: int) -> int:
        file, connection = self._file, self._file.sb.connection
        self._write_back(offset, dest.count)
        size = None if self._is_direct else file.getattr(self.handle).size
        key = self, FUSE_READ, offset
        done, before, version = kept(key) or (0, dest, file.version)
        if before is not dest:
            dest.skip(done)
        try:
            while dest.count:
                wanted = min(dest.count, connection.max_read)
                if size is not None:
                    wanted = min(wanted, size - offset - done)
                if wanted <= 0:
                    break
                at = offset + done
                data = b"" if size is None else self._ahead.find(at, wanted)
                is_end = False
                if not data:
                    asked = wanted
                    if size is not None and at == self._ahead.following:
                        asked = min(connection.max_read, size - at)
                    data = self._read(at, asked)
                    is_end = len(data) < wanted
                    if len(data) > wanted:
                        self._ahead.keep(at, data, version)
                        data = data[:wanted]
                done += dest.put(data)
                if is_end:
                    break
        except NotNow as need:
            need.call.answers[key] = done, dest, version
            raise
        self._ahead.following = offset + done
        return done

    def _read(self, offset: int, size: int) -> bytes:
        body = f.FUSE_READ_IN.pack(self.handle.fh, offset, size, 0, 0, self.flags, 0)
        request = self._ask((self, offset, FUSE_READ), FUSE_READ, body, size, is_variable=True)
        data: bytes = request.once(bytes)
        return data

    def pwrite(self, source: Source, offset: int) -> int:
        file, connection = self._file, self._file.sb.connection
        self._write_back(offset, source.count)
        file.check_capabilities()
        key = self, FUSE_WRITE, offset
        done, before = kept(key) or (0, source)
        if before is not source:
            source.skip(done)
        try:
            while source.count:
                data = source.peek(min(source.count, connection.max_write))
                at = offset + done
                head = f.FUSE_WRITE_IN.pack(self.handle.fh, at, len(data), 0, 0, self.flags, 0)
                request = self._ask(
                    (self, at, FUSE_WRITE), FUSE_WRITE, head + data, FUSE_WRITE_OUT.size
                )
                written = request.once(partial(self._written, at, len(data)))
                source.skip(written)
                done += written
                if written < len(data):
                    break
        except NotNow as need:
            need.call.answers[key] = done, source
            raise
        except Errno:
            if not done:
                raise
        if not done and not self._is_direct:
            raise EIO("nothing was written")
        return done

    def _written(self, offset: int, size: int, data: bytes) -> int:
        count: int = FUSE_WRITE_OUT.unpack(data).size
        if count > size:
            raise EIO("more was written than there was")
        self._file.written(offset, count)
        return count

    def _write_back(self, offset: int, count: int) -> None:
        """What was stored into mappings of these bytes comes before."""
        pages, writer = self._file.pages, self._file.writer()
        if pages is None or writer is None:
            return
        key = self, "stores", offset
        if kept(key) is not None or pages.has_tracked(offset, count):
            begun(key, lambda: pages.write_back(writer, offset, count))

    def find(self, offset: int, data: bool, size: int) -> int:
        """SEEK_DATA, SEEK_HOLE: fuse_lseek()."""
        lacks = self._file.sb.connection.lacks
        if FUSE_LSEEK in lacks:
            return super().find(offset, data, size)
        whence = SEEK_DATA if data else SEEK_HOLE
        body = f.FUSE_LSEEK_IN.pack(self.handle.fh, offset, whence, 0)
        try:
            request = self._ask((self, FUSE_LSEEK), FUSE_LSEEK, body, FUSE_LSEEK_OUT.size)
            found: int = request.once(FUSE_LSEEK_OUT.unpack).offset
        except ENOSYS:
            lacks.add(FUSE_LSEEK)
            return super().find(offset, data, size)
        return found

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        if not self.seekable:
            raise ESPIPE("no positions")
        return super().seek(caller, offset, whence)

    # --- the rest

    def stat(self) -> Attributes:
        self._file.sb.check_allowed()
        return self._file.getattr(self.handle)

    def size_now(self) -> int:
        return self._file.getattr(self.handle).size

    def settle(self) -> None:
        self._write_back(0, ALL)

    def sync(self, data_only: bool) -> None:
        self._write_back(0, ALL)
        sync_handle(self.handle, FUSE_FSYNC, data_only)

    def allocate(self, caller: Caller, mode: int, offset: int, length: int) -> None:
        lacks = self._file.sb.connection.lacks
        if mode & ~ALLOCATE_MODES or FUSE_FALLOCATE in lacks:
            raise EOPNOTSUPP(f"mode {mode:#x}")
        if not mode & FALLOC_FL_KEEP_SIZE and offset + length > self._file.attributes.size:
            check_size_limit(caller, offset + length)
        self._write_back(offset, length)
        body = f.FUSE_FALLOCATE_IN.pack(self.handle.fh, offset, length, mode, 0)
        try:
            self._ask((self, FUSE_FALLOCATE), FUSE_FALLOCATE, body).once(len)
        except ENOSYS:
            lacks.add(FUSE_FALLOCATE)
            raise EOPNOTSUPP("the server cannot") from None
        self._file.written(offset, 0 if mode & FALLOC_FL_KEEP_SIZE else length)
        self._file.drop_pages(offset, length)

    def copy_range(
        self, offset: int, target: FileDescription, goal: int, count: int
    ) -> int | None:
        file = self._file
        lacks = file.sb.connection.lacks
        if not isinstance(target, FuseFile) or FUSE_COPY_FILE_RANGE in lacks:
            return None
        self._write_back(offset, count)
        body = f.FUSE_COPY_FILE_RANGE_IN.pack(
            self.handle.fh, offset, target.handle.inode.nodeid, target.handle.fh, goal,
            min(count, 0xFFFFF000), 0,
        )  # fmt: skip
        try:
            request = self._ask(
                (self, FUSE_COPY_FILE_RANGE, offset), FUSE_COPY_FILE_RANGE, body,
                FUSE_WRITE_OUT.size,
            )  # fmt: skip
            copied: int = request.once(partial(target._written, goal, count))
        except ENOSYS:
            lacks.add(FUSE_COPY_FILE_RANGE)
            return None
        except EOPNOTSUPP:
            return None
        return copied

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        return ioctl(self.handle, caller, request, argument)

    @property
    def is_steady(self) -> bool:
        return False

    def mmap_backing(self, writable_shared: bool) -> Any:
        return self._file.backing(self.handle, writable_shared)

    def record_locks(self) -> ServerLocks | None:
        return ServerLocks(self.handle) if has_records(self.handle) else None

    def flocks(self) -> ServerLocks | None:
        return ServerLocks(self.handle) if has_flocks(self.handle) else None

    def _ask(
        self, key: tuple[object, ...], opcode: int, body: bytes, size: int = 0,
        *, is_variable: bool = False,
    ) -> Request:
        return self._file.ask(key, opcode, body, size, is_variable=is_variable)

    # --- the end

    @property
    def lingers(self) -> bool:
        return self._flushed is not None

    def linger_on(self, caller: Caller) -> Result:
        flushed, self._flushed = self._flushed, None
        return 0 if flushed is None else flushed.wait()

    def flush(self, caller: Caller) -> None:
        file, handle = self._file, self.handle
        connection, pages = file.sb.connection, file.pages
        tracked = pages is not None and pages.tracked
        owner = connection.owner_of(caller.files)
        if not tracked and (FUSE_FLUSH in connection.lacks or handle.open_flags & FOPEN_NOFLUSH):
            self._flushed = None
            return
        flushed = self._flushed = Flushed()
        if tracked:
            handle.hold()
            file.sb.vfs.loop.spawn(_flush_later(handle, owner, flushed), "flush")
        else:
            handle.flush(owner, flushed.done)

    def release(self) -> None:
        file, pages = self._file, self._file.pages
        self._ahead.drop_ahead()
        if pages is not None and pages.tracked and self.handle.writes:
            file.sb.vfs.loop.spawn(_release_later(self.handle), "release")
            return
        file.closed(self.handle)
        self.handle.release()


async def _flush_later(handle: Handle, owner: int, flushed: Flushed) -> None:
    await _stores_written(handle)
    handle.flush(owner, flushed.done)
    handle.let_go()


async def _release_later(handle: Handle) -> None:
    await _stores_written(handle)
    inode: Any = handle.inode
    inode.closed(handle)
    handle.release()


async def _stores_written(handle: Handle) -> None:
    inode: Any = handle.inode
    if inode.pages is not None and inode.writer() is not None:
        try:
            await inode.pages.write_back(inode.writer())
        except Errno:
            return  # nobody is left to be told


class Flushed:
    """The end of a close(2), for who waits for it."""

    __slots__ = ("_error", "_is_done", "_queue")

    def __init__(self) -> None:
        self._is_done = False
        self._error: Errno | None = None
        self._queue = WaitQueue()

    def done(self, request: Request) -> None:
        """The server has answered."""
        self._is_done, self._error = True, request.error
        self._queue.notify()

    def _check(self) -> None:
        if not self._is_done:
            raise EAGAIN("not answered")

    def _result(self, _: object) -> int:
        if self._error is not None:
            raise self._error
        return 0

    def wait(self) -> Result:
        """What close(2) gives, or its rest."""
        if self._is_done:
            return self._result(None)
        return until(self._check, (self._queue,), mode=Mode.KILLABLE).tried().then(self._result)
