"""Open ends of pipes and FIFOs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, cast

from sentry.abi.fcntl import O_ACCMODE, O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY
from sentry.abi.limits import PIPE_BUF
from sentry.abi.poll import EPOLLERR, EPOLLHUP
from sentry.abi.signal import SIGPIPE
from sentry.abi.stat import PIPEFS_MAGIC
from sentry.errors import EAGAIN, EFAULT, EINVAL, ENXIO, EPIPE
from sentry.fs.pipe.buffer import READABLE, WRITABLE, Pipe
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.file import (
    READ_EVENTS,
    Caller,
    Dest,
    Result,
    Source,
    StreamFile,
    WriteRest,
)
from sentry.vfs.interface import Attributes, Inode, Owner
from sentry.vfs.mount import MountUse
from sentry.vfs.open import WAITED
from sentry.vfs.requests import Requests, put_int
from sentry.wait.again import NotNow, kept
from sentry.wait.sleep import Retry, until

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import Vfs


class PipeInode(Inode):
    """The inode of a pipe without a name."""

    __slots__ = ("created_ns",)

    def __init__(self, vfs: Vfs, owner: Owner) -> None:
        super().__init__(vfs.anon_fs("pipefs", PIPEFS_MAGIC), vfs.new_ino(), 0o010600, owner)
        self.created_ns = vfs.now_ns()

    def stat(self) -> Attributes:
        """fstat(2)."""
        at = self.created_ns
        return Attributes(
            self.ino, self.mode, 1, self.uid, self.gid, 0, 0, 0, 4096, at, at, at
        )


PIPES: Final = Requests()
PIPES.row("FIONREAD", put_int(lambda file: file.pipe.size))


class PipeFile(StreamFile):
    """An open end."""

    requests: ClassVar = PIPES
    __slots__ = ("named", "pipe", "seen_writes")
    can_async: ClassVar = True
    can_direct: ClassVar = True
    tells: ClassVar = 0xFFFF

    def __init__(self, location: Location, flags: int, pipe: Pipe) -> None:
        super().__init__(location, flags, pipe.queue)
        self.pipe = pipe
        self.named = not isinstance(self.inode, PipeInode)
        """A FIFO: reads and writes show in its times."""
        self.seen_writes = -1
        """`write_opens` when opened without a writer: no hang-up before one came."""
        pipe.open_end(self.readable, self.writable)

    @property
    def nowait(self) -> bool:  # type: ignore[override]
        """RWF_NOWAIT is for pipes without a name."""
        return not self.named

    def release(self) -> None:
        """Closed: the other side learns of it."""
        self.pipe.close_end(self.readable, self.writable)
        inode = self.location.dentry.inode
        if inode.fifo is self.pipe and not self.pipe.readers and not self.pipe.writers:
            inode.fifo = None

    def receive(self, dest: Dest) -> int:
        """Read what is there."""
        n = self.pipe.read_into(dest)
        if self.named and n and not self.location.mount.no_atime:
            self.inode.accessed()
        return n

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2): of an empty pipe without an attempt that is bound to fail."""
        pipe = self.pipe
        if pipe.size or not pipe.writers or self.flags & O_NONBLOCK or rwf or not dest.count:
            return super().read(caller, dest, rwf)
        return self.receive_sleep(dest)

    def receive_sleep(self, dest: Dest) -> PipeRead:
        """One of those who sleep is woken for what a write brings: pipe_read()."""
        return PipeRead(self, dest)

    def send_sleep(self, caller: Caller, source: Source, sent: int) -> PipeWrite:
        """And one for the room that a read leaves: pipe_write()."""
        return PipeWrite(self, caller, source, sent)

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2): of memory that ends within a page, only whole pages."""
        if source.count < source.wanted:
            source.count &= ~(PAGE_SIZE - 1)
            if not source.count:
                raise EFAULT("less than a page")
        return super().write(caller, source, rwf)

    def send(self, caller: Caller, source: Source) -> int:
        """Write what fits. Raises: EPIPE, with SIGPIPE."""
        if not source.count:
            return 0
        pipe = self.pipe
        if not pipe.readers:
            caller.send_signal(SIGPIPE)
            raise EPIPE("nobody reads")
        if self.named:
            self.inode.touched()
        if not self.flags & O_DIRECT:
            count = pipe.fits(source.count)
            pipe.push(source.get(count))
            return count
        done = 0
        while source.count:
            count = min(source.count, PIPE_BUF)
            if pipe.room < count:
                if done:
                    return done
                raise EAGAIN("full")
            pipe.push(source.get(count), packet=True)
            done += count
        return done

    def poll(self) -> int:
        """pipe_poll()."""
        pipe, ready = self.pipe, 0
        if self.readable:
            if pipe.size:
                ready |= READABLE
            if not pipe.writers and self.seen_writes != pipe.write_opens:
                ready |= EPOLLHUP
        if self.writable:
            if pipe.room >= PIPE_BUF or (pipe.room > 0 and pipe.capacity <= PIPE_BUF):
                ready |= WRITABLE
            if not pipe.readers:
                ready |= EPOLLERR
        return ready


class PipeRead(Retry):
    """Asleep at an empty pipe. Whoever was woken and leaves something wakes the next."""

    __slots__ = ("_dest", "_file")

    def __init__(self, file: PipeFile, dest: Dest) -> None:
        self.deadline_ns = None  # what Retry.__init__ does, without the call
        self.in_program_time = False
        self._after = self._end_by = self._inner = None
        self._queue = file.queue
        self._held = self._file = file
        self.mask, self.exclusive = READ_EVENTS, True
        self._dest = dest

    def attempt(self) -> int:
        """Read what is there. Raises: EAGAIN."""
        pipe = self._file.pipe
        try:
            return self._file.receive(self._dest)
        finally:
            if pipe.size:
                pipe.queue.notify(READABLE)


class PipeWrite(WriteRest):
    """Asleep at a full pipe, likewise."""

    __slots__ = ()

    def __init__(self, file: PipeFile, caller: Caller, source: Source, sent: int) -> None:
        super().__init__(file, caller, source, sent)
        self.exclusive = True

    def attempt(self) -> int:
        """As much as goes. Raises: EAGAIN while it is not all."""
        try:
            sent = super().attempt()
        except EAGAIN:
            raise
        except BaseException:
            self._wake_next()
            raise
        self._wake_next()
        return sent

    def _wake_next(self) -> None:
        pipe = cast("PipeFile", self._file).pipe
        if pipe.room > 0:
            pipe.queue.notify(WRITABLE)


def new_pipe(vfs: Vfs, creds: Credentials, flags: int) -> tuple[PipeFile, PipeFile]:
    """pipe2(2): the ends for reading and for writing. `flags`: O_NONBLOCK, O_DIRECT."""
    inode = PipeInode(vfs, Owner(creds.fsuid, creds.fsgid))
    location = vfs.anon_location(inode, b"pipe:[%d]" % inode.ino)
    pipe = inode.fifo = Pipe(vfs, creds)
    return (
        PipeFile(location, O_RDONLY | flags & O_NONBLOCK, pipe),
        PipeFile(location, O_WRONLY | flags, pipe),
    )


def open_fifo(location: Location, flags: int, caller: Caller) -> PipeFile:
    """Open a FIFO: wait for the other side unless O_NONBLOCK or O_RDWR. fifo(7), fifo_open()."""
    inode = location.dentry.inode
    opened: PipeFile | None = kept(WAITED)
    if opened is not None:  # the other side has come
        return opened
    access = flags & O_ACCMODE
    if access not in (O_RDONLY, O_WRONLY, O_RDWR):
        raise EINVAL("access mode 3")
    pipe: Pipe | None = inode.fifo
    if pipe is None:
        pipe = inode.fifo = Pipe(caller.kernel.vfs, caller.creds)
    if isinstance(inode, PipeInode):
        # /proc/self/fd/N of a pipe: no waiting for a partner
        return PipeFile(location, flags, pipe)
    if access == O_WRONLY and flags & O_NONBLOCK and not pipe.readers:
        if not pipe.writers:
            inode.fifo = None
        raise ENXIO("nobody reads")
    file = PipeFile(location, flags, pipe)
    if access == O_RDWR:
        return file
    if access == O_RDONLY and not pipe.writers and flags & O_NONBLOCK:
        file.seen_writes = pipe.write_opens
        return file
    if (access == O_RDONLY and pipe.writers) or (access == O_WRONLY and pipe.readers):
        return file
    raise _waiting(file, access)


def _waiting(file: PipeFile, access: int) -> NotNow:
    need = NotNow(partial(_until_partner, file, access), WAITED, file)
    need.call.hold_files(file)
    need.call.hold(MountUse(file.location.mount))
    return need


async def _until_partner(file: PipeFile, access: int) -> None:
    pipe = file.pipe
    before = pipe.write_opens if access == O_RDONLY else pipe.read_opens

    def partner() -> None:
        now = pipe.write_opens if access == O_RDONLY else pipe.read_opens
        if now == before:
            raise EAGAIN("no partner yet")

    await until(partner, (pipe.queue,))
