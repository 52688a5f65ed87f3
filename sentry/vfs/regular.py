"""`RegularFile`: files with positions, and the rules that are the same for all of them.

A file system gives `pread` and `pwrite`, which raise NotNow where the bytes are not in memory. This
class keeps the position, O_APPEND, RLIMIT_FSIZE with its SIGXFSZ, the largest offset, set-id bits
dropped by a write, access times and inotify. A write that has to sleep is a sequence of steps, made
once, with the inode's lock, so two appends cannot get the same offset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from sentry.abi.fcntl import (
    O_APPEND,
    O_DSYNC,
    O_NOATIME,
    RWF_APPEND,
    RWF_DSYNC,
    RWF_NOAPPEND,
    RWF_NOWAIT,
    RWF_SYNC,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
from sentry.abi.inotify import IN_ACCESS, IN_MODIFY
from sentry.abi.resource import RLIMIT_FSIZE
from sentry.abi.signal import SIGXFSZ
from sentry.ahead import mypyc_attr
from sentry.auth.permissions import drop_set_id
from sentry.errors import EAGAIN, EFBIG, EINVAL, ENXIO
from sentry.mm.buffers import UserBuffer
from sentry.mm.errors import NeedsFault
from sentry.vfs.file import Caller, Dest, FileDescription, Result, Source
from sentry.vfs.interface import Changes
from sentry.vfs.pieces import in_pieces, is_long
from sentry.vfs.watches import tell
from sentry.wait.again import NotNow, again

MAX_OFFSET: Final = (1 << 63) - 1


@mypyc_attr(allow_interpreted_subclasses=True)
class RegularFile(FileDescription):
    """An open regular file."""

    __slots__ = ()
    can_direct: ClassVar = True
    seekable: ClassVar = True

    writes_at_once: ClassVar = True
    """`pwrite` has begun nothing when it raises NotNow."""

    # --- what a file system gives

    def pread(self, dest: Dest, offset: int) -> int:
        """Read as much as there is room for; 0 at or past the end. Raises: NotNow."""
        raise EINVAL("no read")

    def pwrite(self, source: Source, offset: int) -> int:
        """Write `source.count` bytes; the file grows. Raises: NotNow, ENOSPC."""
        raise EINVAL("no write")

    def pread_cached(self, dest: Dest, offset: int) -> int:
        """RWF_NOWAIT: `pread` of what is in memory. Raises: EAGAIN where nothing is."""
        room = dest.count
        try:
            return self.pread(dest, offset)
        except NeedsFault:
            raise
        except NotNow:
            if dest.count == room:
                raise EAGAIN("needs I/O") from None
            return room - dest.count

    def size_now(self) -> int:
        """The size. Raises: NotNow."""
        return self.stat().size

    # --- reading

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2)."""
        lock = self.inode.lock
        if lock.holder is not None:  # the position of a long read or write is not known yet
            lock.check()
        pread = self.pread_cached if rwf & RWF_NOWAIT else self.pread
        if is_long(dest):
            return self._read_on(pread, dest)
        n = pread(dest, self.position)
        self.position += n
        self._was_read(n)
        return n

    async def _read_on(self, pread: Callable[[Dest, int], int], dest: Dest) -> int:
        """A long read(2): the lock is for the position, as f_pos_lock."""
        with self.held():
            async with self.inode.lock:
                n = await in_pieces(pread, dest, self.position)
                self.position += n
            self._was_read(n)
            return n

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """pread(2)."""
        pread = self.pread_cached if rwf & RWF_NOWAIT else self.pread
        if is_long(dest):
            return self._read_on_at(pread, dest, offset)
        n = pread(dest, offset)
        self._was_read(n)
        return n

    async def _read_on_at(
        self, pread: Callable[[Dest, int], int], dest: Dest, offset: int
    ) -> int:
        with self.held():
            n = await in_pieces(pread, dest, offset)
            self._was_read(n)
            return n

    def _was_read(self, n: int) -> None:
        if not self.flags & O_NOATIME and not self.location.mount.no_atime:
            self.inode.accessed()
        if n and self.inode.fs.watched:
            tell(self.location, IN_ACCESS)

    def was_mapped(self) -> None:
        """A mapping counts as an access: generic_file_mmap()."""
        self._was_read(0)

    # --- writing

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2)."""
        return self._write(caller, source, None, rwf)

    def write_at(self, caller: Caller, source: Source, offset: int, rwf: int = 0) -> Result:
        """pwrite(2). With O_APPEND the bytes go to the end all the same, as on Linux."""
        return self._write(caller, source, offset, rwf)

    def _write(self, caller: Caller, source: Source, offset: int | None, rwf: int) -> Result:
        if not source.count:
            return 0
        inode = self.location.dentry.inode
        plain = not rwf and not self.flags & (O_APPEND | O_DSYNC)
        durable = not plain and (self.flags & O_DSYNC or rwf & (RWF_DSYNC | RWF_SYNC))
        # Behind a write that sleeps: its end of the file, its position are not known yet.
        at_once = not durable and inode.lock.holder is None and self.writes_at_once
        at_once = at_once and not is_long(source)
        if at_once and not inode.mode & 0o6000:
            try:
                end = None if plain or not self._appends(rwf) else self.size_now()
                at = self._place(caller, source, offset, end)
                n = self.pwrite(source, at)
            except NeedsFault:
                raise
            except NotNow:
                if rwf & RWF_NOWAIT:
                    raise EAGAIN("needs I/O") from None
            else:
                if offset is None:
                    self.position = at + n
                if inode.fs.watched:
                    tell(self.location, IN_MODIFY)
                return n
        elif rwf & RWF_NOWAIT and not self.writes_at_once:
            raise EAGAIN("needs I/O")
        return self._write_slowly(caller, source, offset, rwf)

    async def _write_slowly(
        self, caller: Caller, source: Source, offset: int | None, rwf: int
    ) -> int:
        inode = self.inode
        with self.held():
            async with inode.lock:
                end = None
                if self._appends(rwf):
                    end = await again(self.size_now)
                at = self._place(caller, source, offset, end)
                bits = drop_set_id(caller.creds, inode.mode, inode.gid)
                if bits is not None:
                    await again(inode.setattr, Changes(mode=bits))
                if isinstance(source, UserBuffer):  # a page of it may have to be fetched midway
                    n = await in_pieces(self.pwrite, source, at)
                else:
                    n = await again(self.pwrite, source, at)
                if offset is None:
                    self.position = at + n
            if inode.fs.watched:
                tell(self.location, IN_MODIFY)
            if self.flags & O_DSYNC or rwf & (RWF_DSYNC | RWF_SYNC):
                await again(self.sync, True)
            return n

    def _appends(self, rwf: int) -> bool:
        return bool((self.flags & O_APPEND and not rwf & RWF_NOAPPEND) or rwf & RWF_APPEND)

    def _place(
        self, caller: Caller, source: Source, offset: int | None, end: int | None
    ) -> int:
        """Where the bytes go, which are made fewer."""
        at = end if end is not None else self.position if offset is None else offset
        shorten(caller, source, at)
        return at

    # --- the position

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """lseek(2)."""
        self.inode.lock.check()
        if whence == SEEK_SET:
            return self._seek_to(offset)
        if whence == SEEK_CUR:
            return self._seek_to(self.position + offset)
        if whence not in (SEEK_END, SEEK_DATA, SEEK_HOLE):
            raise EINVAL(f"whence {whence}")
        size = self.size_now()
        if whence == SEEK_END:
            return self._seek_to(size + offset)
        if offset < 0 or offset >= size:
            raise ENXIO(f"{offset} is past the end")
        return self._seek_to(self.find(offset, whence == SEEK_DATA, size))

    def find(self, offset: int, data: bool, size: int) -> int:
        """The next data or hole from `offset` on; without holes the end is the only one."""
        return offset if data else size

    def _seek_to(self, offset: int) -> int:
        if not 0 <= offset <= MAX_OFFSET:
            raise EINVAL(f"offset {offset}")
        self.position = offset
        return offset

    # --- the rest

    def sync(self, data_only: bool) -> None:
        """Nothing to do for a file in memory."""


def shorten(caller: Caller, source: Source, at: int) -> None:
    """To what a file may hold: generic_write_checks(), mm/filemap.c. Raises: EFBIG."""
    limit = caller.rlimit(RLIMIT_FSIZE)
    if at + source.count > limit:
        if at >= limit:
            caller.send_signal(SIGXFSZ)
            raise EFBIG(f"RLIMIT_FSIZE is {limit}")
        source.count = limit - at
    if at + source.count > MAX_OFFSET:
        if at >= MAX_OFFSET:
            raise EFBIG("beyond the largest offset")
        source.count = MAX_OFFSET - at
