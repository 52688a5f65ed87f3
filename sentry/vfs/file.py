"""`FileDescription`: an open file (struct file), and the `Caller` on whose behalf this room acts.

A description is shared by the descriptors that dup(2), fork(2) and SCM_RIGHTS made of it. It counts
its users: `release` runs when the last one closes. An operation that sleeps holds a use of its own,
as Linux does, so a close in another thread does not pull the file away from under it.

`read`, `write`, `read_at`, `write_at` and `ioctl` give a number, or a coroutine when they have to
sleep (`Result`): what is ready must not pay for a coroutine. `settle` makes both the same.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

from sentry.abi.fcntl import (
    O_ACCMODE,
    O_APPEND,
    O_DIRECT,
    O_NOATIME,
    O_NONBLOCK,
    O_PATH,
    O_RDONLY,
    O_WRONLY,
    RWF_NOWAIT,
)
from sentry.abi.inotify import IN_CLOSE_NOWRITE, IN_CLOSE_WRITE
from sentry.abi.mount import MS_NOEXEC
from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDNORM, EPOLLWRNORM
from sentry.ahead import mypyc_attr
from sentry.errors import (
    EAGAIN,
    EBADF,
    EINVAL,
    EISDIR,
    ENODEV,
    ENOTDIR,
    EOPNOTSUPP,
    ESPIPE,
    Errno,
)
from sentry.vfs.requests import NONE, Requests
from sentry.vfs.watches import tell, tell_if_gone
from sentry.wait.again import NotNow
from sentry.wait.fiber import Interrupted
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import Retry, never

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.auth.userns import UserNamespace
    from sentry.vfs.budget import Budget
    from sentry.vfs.dentry import Dentry
    from sentry.vfs.interface import Attributes, Inode
    from sentry.vfs.location import Location
    from sentry.vfs.locks import RecordLock, Request
    from sentry.vfs.mount import Mount

T = TypeVar("T")
Result = int | Coroutine[Any, Any, int]
"""A number now, or a coroutine that gives it."""

READ_EVENTS: Final = EPOLLIN | EPOLLRDNORM | EPOLLHUP | EPOLLERR
WRITE_EVENTS: Final = EPOLLOUT | EPOLLWRNORM | EPOLLHUP | EPOLLERR
ALWAYS_READY: Final = EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM
"""What poll says of a file that cannot be polled: DEFAULT_POLLMASK, include/linux/poll.h."""
SETFL_MASK: Final = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME
"""What F_SETFL changes; O_ASYNC is `notices.set_async`."""


class Dest(Protocol):
    """Where a read puts its bytes."""

    count: int
    """How many bytes there is room for."""
    wanted: int
    """How many the program has room for, also where the rest cannot be written."""

    def put(self, data: bytes | bytearray | memoryview) -> int: ...
    def zero(self, n: int) -> int: ...
    def skip(self, n: int) -> None: ...
    def from_host(self, fd: int, offset: int | None, flags: int = 0) -> int: ...


class Source(Protocol):
    """Where a write takes its bytes from."""

    count: int
    """How many bytes are left."""
    wanted: int
    """How many the program gave, also where the rest cannot be read."""

    def get(self, n: int) -> bytes: ...
    def peek(self, n: int) -> bytes: ...
    def skip(self, n: int) -> None: ...
    def to_host(self, fd: int, offset: int | None, flags: int = 0) -> int: ...


class AsyncNotice(Protocol):
    """O_ASYNC: sentry.vfs.notices."""

    wants_room: bool

    def drop(self) -> None: ...


class ServerLocks(Protocol):
    """Locks of an open file that its file system keeps: sentry.fs.fuse.locks."""

    def get(self, caller: Caller, request: Request) -> RecordLock | None: ...
    def set(self, caller: Caller, request: Request, wait: bool) -> int: ...
    def flock(self, caller: Caller, file: object, exclusive: bool | None, wait: bool) -> int: ...


class DirectoryNotice(Protocol):
    """F_NOTIFY: sentry.vfs.notices."""

    @property
    def table(self) -> object: ...
    def removed(self) -> None: ...


class Files(Protocol):
    """Descriptors: sentry.vfs.fd_table."""

    def get(self, fd: int) -> FileDescription: ...
    def get_raw(self, fd: int) -> FileDescription: ...
    def free_from(self, lowest: int, limit: int) -> int: ...
    def install(
        self, file: FileDescription, limit: int, *, cloexec: bool = False, lowest: int = 0
    ) -> int: ...
    def close(self, caller: Caller, fd: int) -> FileDescription: ...


class Start(Protocol):
    """Where path walks start: sentry.vfs.fs_context."""

    root: Location
    cwd: Location
    umask: int


class Mounts(Protocol):
    """A mount namespace: sentry.vfs.mounts."""

    @property
    def owner(self) -> UserNamespace | None: ...
    def __iter__(self) -> Iterator[Mount]: ...
    @property
    def budget(self) -> Any: ...
    def is_mount_point(self, dentry: Dentry) -> bool: ...
    def name_has_gone(self, dentry: Dentry) -> None: ...


class Caller(Protocol):
    """The task, as this room sees it."""

    creds: Credentials
    mm: Any
    group: Any
    pids: Any
    ns: Any
    """Its namespaces."""
    judge: Any
    """Who decides on what its call comes to, if somebody does: sentry.kernel.watching.Judging."""

    @property
    def fs(self) -> Start: ...
    @property
    def files(self) -> Files: ...
    @property
    def mounts(self) -> Mounts: ...
    @property
    def kernel(self) -> Any: ...
    def rlimit(self, resource: int) -> int: ...
    def send_signal(self, signo: int) -> None: ...


class Use:
    """One of an open file, as long as this is entered."""

    __slots__ = ("_file",)

    def __init__(self, file: FileDescription) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._file.refs += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.decref()


@mypyc_attr(allow_interpreted_subclasses=True)
class FileDescription:
    """An open file. Subclasses override what their kind can do; the rest fails as Linux lets it."""

    __slots__ = (
        "async_notice",
        "counted",
        "created",
        "creds",
        "dnotify",
        "epolls",
        "flags",
        "location",
        "owner",
        "owner_ids",
        "owner_signal",
        "position",
        "queue",
        "readable",
        "refs",
        "writable",
    )

    can_poll: ClassVar = False
    """poll and epoll work on it; else it is always ready, and epoll_ctl gives EPERM."""
    flushes: ClassVar = False
    """`flush` does something."""
    tells: ClassVar = 0
    """Of these EPOLL* events the queue hears before anybody can see that they hold: who has found
    that they do not need not ask again until then."""
    seekable: ClassVar = False
    """pread, pwrite, lseek work; else ESPIPE."""
    seeks_nowhere: ClassVar = False
    """lseek(2) does nothing on it, and says so: noop_llseek()."""
    has_read: ClassVar = True
    has_write: ClassVar = True
    """read(2), write(2) and the like do something; else EINVAL."""
    read_flags: ClassVar = True
    write_flags: ClassVar = True
    """preadv2(2), pwritev2(2) take flags: the file has a read_iter, a write_iter."""
    nowait: ClassVar = True
    """RWF_NOWAIT is one of them."""
    splice_read: ClassVar = True
    splice_write: ClassVar = True
    """splice(2) and sendfile(2) work from it, to it."""
    can_direct: ClassVar = False
    """O_DIRECT may be set."""
    can_async: ClassVar = False
    """O_ASYNC works on it."""
    secret: ClassVar = False
    """memfd_secret(2): neither read nor sealed."""
    async_room: ClassVar = True
    """O_ASYNC tells of every new room; sockets tell of it only if there was none."""
    write_sealed: ClassVar = False
    """F_SEAL_WRITE: shared mappings can only read."""
    requests: ClassVar[Requests] = NONE
    """ioctl(2) requests beyond those that work on every descriptor."""

    @property
    def can_pread(self) -> bool:
        """pread(2) is for it; else ESPIPE."""
        return self.seekable

    @property
    def can_pwrite(self) -> bool:
        """pwrite(2) is for it; else ESPIPE."""
        return self.seekable

    def __init__(self, location: Location, flags: int, queue: WaitQueue | None = None) -> None:
        self.location = location
        self.created = False
        """Opening made the file: F_CREATED_QUERY."""
        self.flags = flags
        """Access mode and status flags, as F_GETFL shows them."""
        access = flags & O_ACCMODE
        self.readable = access not in (O_WRONLY, O_ACCMODE) and not flags & O_PATH
        self.writable = access not in (O_RDONLY, O_ACCMODE) and not flags & O_PATH
        self.position = 0
        self.queue = queue if queue is not None else WaitQueue()
        """Notified with EPOLL* events when readiness may have changed."""
        self.refs = 0
        self.creds: Credentials | None = None
        """Who opened it (f_cred), where that matters."""
        self.owner: tuple[int, int] = (0, 0)
        """F_SETOWN_EX: (type, id)."""
        self.owner_ids = (0, 0)
        """Real and effective user of who set the owner."""
        self.owner_signal = 0
        """F_SETSIG; 0 is SIGIO."""
        self.async_notice: AsyncNotice | None = None
        """O_ASYNC is on."""
        self.dnotify: DirectoryNotice | None = None
        """F_NOTIFY."""
        self.epolls: dict[Any, Any] | None = None
        """Epoll items that watch it, to be dropped at release."""
        self.counted: Budget | None = None
        """It counts there, and keeps its mount busy (open for writing, programs from running)."""

    @property
    def inode(self) -> Inode:
        """The file."""
        return self.location.dentry.inode

    @property
    def no_exec(self) -> bool:
        """It lies on a noexec mount: nothing can be mapped to run."""
        mount = self.location.mount
        return bool(mount.flags & MS_NOEXEC) or mount.fs.nameless

    @property
    def has_max_offset(self) -> bool:
        """Mappings of it end at the largest offset; those of devices know none: file_mmap_ok()."""
        return self.inode.is_regular

    # --- life

    def incref(self) -> FileDescription:
        """One more user."""
        self.refs += 1
        return self

    def decref(self) -> None:
        """One user less; the last one releases the file."""
        self.refs -= 1
        if self.refs == 0:
            if self.epolls:
                items = list(self.epolls.values())
                items[0].file_closes(items)
            self._closed()
            self.release()

    def let_go(self) -> None:
        """A call that was asleep with it has ended: sentry.wait.again."""
        self.decref()

    def count(self, budget: Budget) -> None:
        """It was opened through a name: its mount and inode know until the last close."""
        mount, dentry = self.location
        inode = dentry.inode
        self.counted = budget
        budget.files += 1
        mount.open_files += 1
        inode.open_count += 1
        if inode.is_regular:
            if self.writable:
                mount.writers += 1
                inode.write_count += 1
            elif self.readable:
                inode.read_count += 1

    def _closed(self) -> None:
        mount, dentry = self.location
        inode = dentry.inode
        if self.async_notice is not None:
            self.async_notice.drop()
        if inode.locks is not None:
            inode.locks.release_description(self)
        if self.counted is not None:
            self.counted.files -= 1
            mount.open_files -= 1
            inode.open_count -= 1
            if inode.is_regular:
                if self.writable:
                    mount.writers -= 1
                    inode.write_count -= 1
                elif self.readable:
                    inode.read_count -= 1
            if inode.fs.watched and not self.flags & O_PATH:
                tell(self.location, IN_CLOSE_WRITE if self.writable else IN_CLOSE_NOWRITE)
            if inode.fs.watched and not inode.open_count:
                tell_if_gone(inode)

    def held(self) -> Use:
        """A use for the length of an operation that sleeps."""
        return Use(self)

    def release(self) -> None:
        """Nobody uses it any more."""

    @property
    def lingers(self) -> bool:
        """close(2) of it does not end at once."""
        return False

    def linger_on(self, caller: Caller) -> Result:
        """Until it does. Preconditions: it `lingers`."""
        return 0

    def flush(self, caller: Caller) -> None:
        """A descriptor of it is being closed, if it `flushes` (network file systems write back).

        Raises: what close(2) tells; the descriptor is closed all the same.
        """

    def settle(self) -> None:
        """msync(2): its inode is where everybody sees it. Raises: NotNow, what fsync(2) tells."""

    def tell_refused(self) -> None:
        """syncfs(2): "EIO", since Linux 5.8. Raises: why something of its file system did not get
        to the disk, once for each description."""

    # --- data

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2): at the position, which moves."""
        raise EINVAL("no read")

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2): at the position, or the end with O_APPEND; the position moves."""
        raise EINVAL("no write")

    def read_at(self, caller: Caller, dest: Dest, offset: int, rwf: int = 0) -> Result:
        """pread(2)."""
        raise ESPIPE("no positions")

    def write_at(self, caller: Caller, source: Source, offset: int, rwf: int = 0) -> Result:
        """pwrite(2)."""
        raise ESPIPE("no positions")

    def seek(self, caller: Caller, offset: int, whence: int) -> Result:
        """lseek(2)."""
        if self.seeks_nowhere:
            return self.position
        raise ESPIPE("no positions")

    def entries(self, caller: Caller, dest: Any) -> int:
        """getdents64(2): `dest` is a `vfs.dirents.DirentSink`."""
        raise ENOTDIR("not a directory")

    def sync(self, data_only: bool) -> None:
        """fsync(2), fdatasync(2)."""
        raise EINVAL("cannot be synced")

    def allocate(self, caller: Caller, mode: int, offset: int, length: int) -> None:
        """fallocate(2); the arguments are checked."""
        raise EOPNOTSUPP("no fallocate")

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """ioctl(2) requests of its kind."""
        result: Result = self.requests.answer(self, caller, request, argument)
        return result

    def copy_range(
        self, offset: int, target: FileDescription, goal: int, count: int
    ) -> int | None:
        """copy_file_range(2) by the file system itself: how many bytes; None: it does not."""
        return None

    def record_locks(self) -> ServerLocks | None:
        """Who keeps the locks of fcntl(2) on it, if its file system does."""
        return None

    def flocks(self) -> ServerLocks | None:
        """And those of flock(2)."""
        return None

    def mmap_backing(self, writable_shared: bool) -> Any:
        """What a mapping of the file is made of (RamFile or HostBacking). Raises: ENODEV."""
        raise ENODEV("cannot be mapped")

    @property
    def is_steady(self) -> bool:
        """While nobody writes to it, what is read is what is mapped: no server makes it up."""
        return True

    def check_mapping(self, offset: int, length: int) -> None:
        """It may be mapped like this, as far as that depends on the file. Raises: EINVAL."""

    def was_mapped(self) -> None:
        """mmap(2) has mapped it."""

    def stat(self) -> Attributes:
        """fstat(2)."""
        return self.inode.stat()

    # --- readiness and status

    def poll(self) -> int:
        """EPOLL* events that hold right now."""
        return ALWAYS_READY

    def set_flags(self, caller: Caller, flags: int) -> None:
        """fcntl(F_SETFL): `flags` has only bits of SETFL_MASK."""
        self.flags = self.flags & ~SETFL_MASK | flags

    def before_async(self, caller: Caller) -> None:
        """O_ASYNC is being turned on."""

    def fdinfo_in(self, pids: Any) -> str | Iterator[str]:
        """`fdinfo`, with process ids as a PID namespace has them."""
        return self.fdinfo()

    def fdinfo(self) -> str | Iterator[str]:
        """Extra lines of /proc/self/fdinfo/N; one by one where there may be many."""
        return ""


@mypyc_attr(allow_interpreted_subclasses=True)
class StreamFile(FileDescription):
    """A file without positions: pipes, sockets, eventfds. Subclasses give the plain attempts."""

    __slots__ = ()
    can_poll: ClassVar = True

    def receive(self, dest: Dest) -> int:
        """Read what is there; EAGAIN when nothing is and more may come. 0 is the end."""
        raise EINVAL("no read")

    def send(self, caller: Caller, source: Source) -> int:
        """Write what fits now; EAGAIN when nothing does."""
        raise EINVAL("no write")

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """read(2): sleep until there is something, unless O_NONBLOCK."""
        try:
            return self.receive(dest)
        except EAGAIN:
            if self.flags & O_NONBLOCK or rwf & RWF_NOWAIT:
                raise
        return self.receive_sleep(dest)

    def receive_sleep(self, dest: Dest) -> Retry:
        """`receive` has nothing to give now: sleep until it has."""
        return Retry(partial(self.receive, dest), self.queue, READ_EVENTS, self)

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """write(2): sleep until all is written, unless O_NONBLOCK."""
        nonblock = self.flags & O_NONBLOCK or rwf & RWF_NOWAIT
        try:
            done = self.send(caller, source)
        except EAGAIN:
            if nonblock:
                raise
            return self.send_sleep(caller, source, 0)
        if not source.count or nonblock:
            return done
        rest = self.send_sleep(caller, source, done)
        try:
            return rest.attempt()
        except EAGAIN:
            return rest
        except (Errno, NotNow) as error:
            return rest.failed(error)

    def send_sleep(self, caller: Caller, source: Source, sent: int) -> WriteRest:
        """Not all goes now: sleep until it does."""
        return WriteRest(self, caller, source, sent)


class WriteRest(Retry):
    """What a write could not do at once."""

    goes_on: ClassVar = False
    __slots__ = ("_caller", "_file", "_sent", "_source")

    def __init__(self, file: StreamFile, caller: Caller, source: Source, sent: int) -> None:
        super().__init__(never, file.queue, WRITE_EVENTS, file)
        self._caller = caller
        self._file = file
        self._source = source
        self._sent = sent

    def attempt(self) -> int:
        """As much as goes. Raises: EAGAIN while it is not all."""
        while self._source.count:
            self._sent += self._file.send(self._caller, self._source)
        return self._sent

    def failed(self, error: BaseException) -> int:
        """What was written counts: a call that is made again would write it again."""
        if self._sent and isinstance(error, Errno | Interrupted | NotNow):
            return self._sent
        raise error


def check_ends(source: FileDescription, target: FileDescription) -> None:
    """generic_file_rw_checks() of a copy between files. Raises: EISDIR, EINVAL, EBADF."""
    if source.inode.is_dir or target.inode.is_dir:
        raise EISDIR("a directory")
    if not source.inode.is_regular or not target.inode.is_regular:
        raise EINVAL("not a regular file")
    if not source.readable or not target.writable or target.flags & O_APPEND:
        raise EBADF("not open that way")
