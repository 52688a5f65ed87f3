"""`HostFile`: a donated descriptor as an open file.

The flags of the descriptor are never changed (O_NONBLOCK on a terminal would change the caller's
shell). Reads and writes ask not to wait (RWF_NOWAIT); where the host does not know how to do that,
a poll comes first and pieces are small.

Opening it again (/dev/stdout, /proc/self/fd/N) gives another description of the same descriptor: a
second open file of the host cannot be had. So positions are shared, and O_TRUNC does nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat as modes
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi.fcntl import (
    F_GETPIPE_SZ,
    O_ACCMODE,
    O_APPEND,
    O_NONBLOCK,
    O_RDONLY,
    O_RDWR,
    RWF_NOWAIT,
)
from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDNORM, EPOLLWRNORM
from sentry.abi.signal import SIGPIPE
from sentry.abi.stat import S_IFIFO, S_IFREG, S_IFSOCK
from sentry.errors import EACCES, EAGAIN, ENXIO, EOPNOTSUPP, EPIPE, ESPIPE, Errno, from_host
from sentry.fs.host.terminal import FILES, TERMINALS
from sentry.mm.buffers import KernelSource, UserBuffer
from sentry.platform.host_io import PIECE
from sentry.vfs.file import (
    READ_EVENTS,
    WRITE_EVENTS,
    Caller,
    Dest,
    FileDescription,
    Result,
    Source,
    StreamFile,
)
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Attributes, Changes, Inode, Owner
from sentry.vfs.regular import shorten
from sentry.wait.again import NotNow, again
from sentry.wait.fiber import Interrupted
from sentry.wait.host_queue import HostQueue
from sentry.wait.queue import ALL
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.platform.host_io import HostIO
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import Vfs

ROOT: Final = Owner(0, 0)
TERMINAL_PIECE: Final = 512
"""Bytes written to a terminal after a poll said that there is room."""


def _can_wait(fd: int) -> bool:
    """It is of a kind that poll(2) works on."""
    return modes.S_IFMT(os.fstat(fd).st_mode) in (S_IFIFO, S_IFSOCK) or os.isatty(fd)


class HostInode(Inode):
    """What fstat(2) says of the descriptor. Its owner is kept here: the host's means nothing.

    So is its number: descriptors of one object of the host have one number, but not the host's.
    """

    __slots__ = (
        "_closes", "_key", "_known", "_numbers", "_vfs", "fd", "number", "queue", "users",
    )  # fmt: skip

    opens_itself: ClassVar = True

    def __init__(self, fs: FileSystem, vfs: Vfs, fd: int, owner: Owner, closes: bool) -> None:
        status = os.fstat(fd)
        self._key = status.st_dev, status.st_ino
        self._vfs = vfs
        self._numbers = vfs.donated_inos
        vfs.donated.add(self)
        number = self._numbers.setdefault(self._key, [vfs.new_ino(), 0])
        number[1] += 1
        super().__init__(fs, number[0], status.st_mode & ~0o7777 | 0o620, owner)
        self.rdev = status.st_rdev
        self.fd = fd
        self.number = -1
        """Of standard input, output and error of the container (0, 1, 2) which one it is."""
        self.users = 0
        """Open descriptions."""
        self._closes = closes
        self._known = status
        self.queue = HostQueue(vfs.loop, fd, _can_wait(fd))

    def stat(self) -> Attributes:
        """fstat(2) of the host; after the last close what it was at first."""
        s = self._known if self.fd < 0 else os.fstat(self.fd)
        return Attributes(
            self.ino, self.mode, 1, self.uid, self.gid, self.rdev, s.st_size, s.st_blocks,
            s.st_blksize, s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns,
        )  # fmt: skip

    def setattr(self, changes: Changes) -> None:
        """Mode and owner change for the sandbox only. Raises: what ftruncate(2) does."""
        if changes.size is not None:
            try:
                os.ftruncate(self.fd, changes.size)
            except OSError as error:
                raise from_host(error) from None
        if changes.mode is not None:
            self.mode = self.mode & ~0o7777 | changes.mode
        self.uid = self.uid if changes.uid is None else changes.uid
        self.gid = self.gid if changes.gid is None else changes.gid

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """open(2) of /proc/self/fd/N. Raises: ENXIO for sockets, EACCES beyond what was donated."""
        if self.kind == S_IFSOCK or self.fd < 0:
            raise ENXIO("no second open file of it")
        donated_access = fcntl.fcntl(self.fd, fcntl.F_GETFL) & O_ACCMODE
        if donated_access not in (O_RDWR, flags & O_ACCMODE):
            raise EACCES("donated for less")
        return HostFile(location, self.fd, flags, self.queue, caller.kernel.vfs.host_io)

    def cut(self, null: int, silent: int) -> None:
        """In a forked sandbox: nobody is at its other end. What is written is gone, as in `null`
        (/dev/null); who reads waits, as in `silent` (a pipe). A file to read stays."""
        if self.fd < 0:
            return
        access = fcntl.fcntl(self.fd, fcntl.F_GETFL) & O_ACCMODE
        if self.kind == S_IFREG and access == O_RDONLY:
            return
        is_read = self.kind == S_IFIFO and access == O_RDONLY
        self.lead_to(silent if is_read else null)

    def lead_to(self, fd: int) -> None:
        """Be this file of the host from now on."""
        self.queue.close()
        os.dup2(fd, self.fd, inheritable=False)
        if _can_wait(fd):
            self.queue.reopen()
        self.queue.notify(ALL)

    def closed(self) -> None:
        """A description less. The last one of a descriptor that `exec` brought closes it."""
        self.users -= 1
        if self._closes and not self.users and self.fd >= 0:
            self.queue.close()
            fd, self.fd = self.fd, -1
            os.close(fd)
            self._vfs.donated.discard(self)
            number = self._numbers[self._key]
            number[1] -= 1
            if not number[1]:
                del self._numbers[self._key]


class HostFile(StreamFile):
    """An open donated descriptor."""

    __slots__ = ("_io", "_nowait", "fd", "host_queue", "is_regular", "is_terminal")

    def __init__(
        self, location: Location, fd: int, flags: int, queue: HostQueue, io: HostIO | None
    ) -> None:
        super().__init__(location, flags, queue)
        self.fd = fd
        self.host_queue = queue
        self.is_regular = modes.S_ISREG(location.dentry.inode.mode)
        self.is_terminal = os.isatty(fd)
        self._nowait = RWF_NOWAIT
        self._io: HostIO | None = None
        """Who reads and writes, if that may wait although a poll said that it would not."""
        if io is not None and (self.is_regular or self.is_terminal):
            status = os.fstat(fd)
            self._io = io.at(status.st_dev if self.is_regular else ("terminal", status.st_rdev))
        if isinstance(self.inode, HostInode):
            self.inode.users += 1

    def release(self) -> None:
        """Nobody uses it any more."""
        if isinstance(self.inode, HostInode):
            self.inode.closed()

    @property
    def seekable(self) -> bool:  # type: ignore[override]
        """A regular file has positions: those of the host's descriptor."""
        return self.is_regular

    @property
    def can_poll(self) -> bool:  # type: ignore[override]
        """Not on a regular file."""
        return not self.is_regular

    def pipe_size(self) -> int:
        """fcntl(F_GETPIPE_SZ). Raises: EBADF for what is no pipe."""
        try:
            return fcntl.fcntl(self.fd, F_GETPIPE_SZ)
        except OSError as error:
            raise from_host(error) from None

    # --- data

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2)."""
        if self._io is None:
            return super().read(caller, dest, rwf)
        return self._read_elsewhere(self._io, dest, rwf)

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2)."""
        if self.is_regular:
            self._shorten(caller, source, None)
        if self._io is None:
            return super().write(caller, source, rwf)
        return self._write_elsewhere(self._io, source, rwf)

    def _shorten(self, caller: Caller, source: Source, offset: int | None) -> None:
        """To what the file may hold for this process. Raises: EFBIG."""
        if not source.count:
            return
        if self.flags & O_APPEND:
            offset = self.inode.stat().size
        elif offset is None:
            offset = os.lseek(self.fd, 0, os.SEEK_CUR)
        shorten(caller, source, offset)

    async def _read_elsewhere(self, io: HostIO, dest: Dest, rwf: int) -> int:
        """A disk may be slow; from a terminal, somebody else may read what was there."""
        with self.held():
            if not self.is_regular:
                await self._until_ready(EPOLLIN, READ_EVENTS, rwf)
            data = await io.read(self.fd, dest.count, None) if dest.count else b""
            if not data or not isinstance(dest, UserBuffer):
                return dest.put(data)
            await again(lambda: dest.part(len(data)).put(data))  # they cannot be read twice
            dest.skip(len(data))
            return len(data)

    async def _write_elsewhere(self, io: HostIO, source: Source, rwf: int) -> int:
        """A disk may be slow; a terminal says that there is room, but not how much."""
        done, piece = 0, PIECE if self.is_regular else TERMINAL_PIECE
        with self.held():
            try:
                while source.count:
                    if not self.is_regular:
                        await self._until_ready(EPOLLOUT, WRITE_EVENTS, rwf)
                    done += await io.write(self.fd, source, piece, None)
            except (Errno, Interrupted, NotNow):  # made again it would write all again
                if not done:
                    raise
        return done

    async def _until_ready(self, event: int, wanted: int, rwf: int) -> None:
        def check() -> None:
            if not self.host_queue.ready() & (event | EPOLLHUP | EPOLLERR):
                raise EAGAIN("not ready")

        if self.flags & O_NONBLOCK or rwf & RWF_NOWAIT:
            check()
        else:
            await until(check, (self.queue,), wanted)

    def receive(self, dest: Dest) -> int:
        """Read what is there."""
        if not dest.count:
            return 0
        if self.is_regular:
            return dest.from_host(self.fd, None)
        if self._nowait:
            try:
                return dest.from_host(self.fd, None, self._nowait)
            except EAGAIN:
                self.host_queue.arm(EPOLLIN)
                raise
            except EOPNOTSUPP:
                self._nowait = 0
        if not self.host_queue.ready() & (EPOLLIN | EPOLLHUP | EPOLLERR):
            raise EAGAIN("nothing there")
        return dest.from_host(self.fd, None)

    def send(self, caller: Caller, source: Source) -> int:
        """Write what fits."""
        try:
            return self._send(source)
        except EPIPE:
            caller.send_signal(SIGPIPE)
            raise

    def _send(self, source: Source) -> int:
        if self.is_regular:
            return source.to_host(self.fd, None)
        if self._nowait:
            try:
                return source.to_host(self.fd, None, self._nowait)
            except EAGAIN:
                self.host_queue.arm(EPOLLOUT)
                raise
            except EOPNOTSUPP:
                self._nowait = 0
        if not self.host_queue.ready() & (EPOLLOUT | EPOLLHUP | EPOLLERR):
            raise EAGAIN("no room")
        return source.to_host(self.fd, None)

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """pread(2) of a regular file."""
        if not self.is_regular:
            raise ESPIPE("no positions")
        if self._io is None:
            return dest.from_host(self.fd, offset)
        done = 0
        while self._nowait:
            try:
                got = dest.from_host(self.fd, offset + done, self._nowait)
            except EAGAIN:
                break
            except EOPNOTSUPP:
                self._nowait = 0
                break
            except Errno:
                if not done:
                    raise
                return done
            done += got
            if not got or not dest.count:
                return done
        return self._fill(self._io, dest, offset, done)

    async def _fill(self, io: HostIO, dest: Dest, offset: int, done: int) -> int:
        """The rest of it."""
        with self.held():
            try:
                done += await io.fill(self.fd, dest, offset + done)
            except Errno:
                if not done:
                    raise
        return done

    def write_at(self, caller: Caller, source: Source, offset: int, rwf: int = 0) -> Result:
        """pwrite(2) of a regular file."""
        if not self.is_regular:
            raise ESPIPE("no positions")
        self._shorten(caller, source, offset)
        if self._io is not None:
            return self._drain(self._io, source, offset)
        return source.to_host(self.fd, offset)

    async def _drain(self, io: HostIO, source: Source, offset: int) -> int:
        with self.held():
            return await io.drain(self.fd, source, offset)

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """lseek(2): of the descriptor that the caller of the sandbox shares with us."""
        if not self.is_regular:
            raise ESPIPE("no positions")
        try:
            return os.lseek(self.fd, offset, whence)
        except OSError as error:
            raise from_host(error) from None

    def sync(self, data_only: bool) -> None:
        """Left to the host."""

    # --- readiness

    def poll(self) -> int:
        """What the host says."""
        events = self.host_queue.ready()
        if events & EPOLLIN:
            events |= EPOLLRDNORM
        if events & EPOLLOUT:
            events |= EPOLLWRNORM
        if not self.readable:
            events &= ~(EPOLLIN | EPOLLRDNORM)
        if not self.writable:
            events &= ~(EPOLLOUT | EPOLLWRNORM)
        return events

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """Those of a terminal, or FIONREAD."""
        requests = TERMINALS if self.is_terminal else FILES
        result: Result = requests.answer(self, caller, request, argument)
        return result

    async def when_written(self, request: int, data: bytes) -> int:
        """A request of a terminal that is for when all that was written is out, for which the host
        waits as long as nobody reads it: TCSBRK, or settings by TCSETSW or TCSETSF."""
        assert self._io is not None  # of terminals
        with self.held():
            await self._io.ioctl(self.fd, request, KernelSource(data))
        return 0


def donated(
    vfs: Vfs, fd: int, flags: int, owner: Owner = ROOT, *, closes: bool = False, number: int = -1
) -> HostFile:
    """An open file for a descriptor that the caller of the sandbox gave; `number`: HostInode's.

    It stays open as long as the sandbox lives, or, if it `closes`, as long as a program uses it.
    """
    fs = vfs.anon_fs("host", 0x50495045)
    inode = HostInode(fs, vfs, fd, owner, closes)
    inode.number = number
    kind, rdev = inode.kind, inode.rdev
    if kind == S_IFIFO:
        label = b"pipe:[%d]" % inode.ino
    elif kind == S_IFSOCK:
        label = b"socket:[%d]" % inode.ino
    elif os.isatty(fd):
        is_pts = os.major(rdev) in range(136, 144)
        label = b"/dev/pts/%d" % os.minor(rdev) if is_pts else b"/dev/tty"
    else:
        label = b"/dev/null" if rdev == 0x103 else b"host:[%d]" % inode.ino
    location = vfs.anon_location(inode, label)
    file = HostFile(location, fd, flags & (O_ACCMODE | O_APPEND), inode.queue, vfs.host_io)
    if file.is_terminal and vfs.terminal is None and not closes:
        vfs.terminal = file
    return file
