"""Handles: open files of the host, by donated descriptors, or by fids where there are too many.

What they cost the kernel thread depends on where the host keeps the file (`Storage`): where a call
can wait, `HostIO` makes it, and attributes come from the Gofer.

An inode has at most one handle to read and one to read and write, shared by all its open files. A
handle without users stays for the next open (exclusive mode), and its inode with it; the oldest are
closed first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.fcntl import RWF_NOWAIT
from sentry.abi.stat import (
    BTRFS_SUPER_MAGIC,
    EXT4_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
    RAMFS_MAGIC,
    SQUASHFS_MAGIC,
    TMPFS_MAGIC,
    XFS_SUPER_MAGIC,
)
from sentry.errors import EAGAIN, ENFILE, EOPNOTSUPP, Errno, from_host
from sentry.mm.backing import HostBacking
from sentry.vfs.budget import Budget
from sentry.wait.again import kept, settled
from sentry.wait.steps import at_once

if TYPE_CHECKING:
    from sentry.fs.gofer.pace import Pace
    from sentry.platform.host_io import HostIO
    from sentry.platform.windows import Windows
    from sentry.vfs.file import Caller, Dest, Source
    from sentry.vfs.interface import Attributes
    from sentry.wait.steps import Steps, WaitingSteps

T = TypeVar("T")


class Storage(Enum):
    """Where the host keeps a file."""

    MEMORY = 0
    """Nothing waits."""
    DISK = 1
    """Data waits for a disk; attributes and holes do not."""
    REMOTE = 2
    """Everything may wait for a server, as long as that likes."""


_STORAGE: Final = {
    TMPFS_MAGIC: Storage.MEMORY,
    RAMFS_MAGIC: Storage.MEMORY,
    EXT4_SUPER_MAGIC: Storage.DISK,
    XFS_SUPER_MAGIC: Storage.DISK,
    BTRFS_SUPER_MAGIC: Storage.DISK,
    F2FS_SUPER_MAGIC: Storage.DISK,
    SQUASHFS_MAGIC: Storage.DISK,
    OVERLAYFS_SUPER_MAGIC: Storage.DISK,
}


def storage_of(fs_type: int) -> Storage:
    """By f_type of statfs(2)."""
    return _STORAGE.get(fs_type, Storage.REMOTE)


class Keyed(Protocol):
    """A file of the host."""

    key: tuple[int, int]
    """st_dev and st_ino."""


class Place(Protocol):
    """An attachment."""

    handles: HandleCache
    io: HostIO | None
    pace: Pace
    read_pace: Pace
    storage: tuple[int, Storage]
    """The device that its root lies on, and what that is."""


def storage_at(place: Place, inode: Keyed) -> Storage:
    """Where the host keeps it; what is mounted below the root of the attachment is unknown."""
    dev, storage = place.storage
    return storage if inode.key[0] == dev else Storage.REMOTE


class Owner(Keyed, Protocol):
    """An inode that has handles: sentry.fs.gofer.regular."""

    attributes: Attributes

    @property
    def sb(self) -> Place: ...
    def release(self, handle: Handle) -> None: ...
    def drop_handle(self, handle: Handle) -> None: ...


class Handle:
    """One open file of the host; `fd` is -1 if only `fid` is open."""

    __slots__ = (
        "_backing", "_nowait", "_pace", "_read_pace", "changing", "fd", "fid", "io", "owner",
        "remote", "users", "writable",
    )  # fmt: skip

    def __init__(self, owner: Owner, fd: int, fid: int, writable: bool) -> None:
        self.owner: Owner | None = owner
        """None after `close`: what is open keeps its inode."""
        self.fd = fd
        self.fid = fid
        self.writable = writable
        self.users = 0
        self.changing = 0
        """Threads that may change it now: one whose caller was killed for ever, for nobody hears of
        its end."""
        place = owner.sb
        storage = storage_at(place, owner)
        io = place.io if storage is not Storage.MEMORY else None
        self.io: HostIO | None = io.at(owner.key[0]) if io is not None else None
        """Who has to wait for data; None: nobody."""
        self.remote = self.io is not None and storage is Storage.REMOTE
        """All may have to wait, for attributes too."""
        self._nowait = storage is Storage.DISK
        self._pace = place.pace if storage is Storage.DISK else None
        self._read_pace = place.read_pace if storage is Storage.DISK else None
        self._backing: HostBacking | None = None

    def read(self, dest: Dest, offset: int) -> int:
        """What the host has in memory, or where it does not say, what it is quick to give (`Pace`);
        the rest by a thread. Raises: NotNow."""
        if self.io is None:
            return dest.from_host(self.fd, offset)
        done = 0
        while self._nowait and kept((self, offset)) is None:
            try:
                n = dest.from_host(self.fd, offset + done, RWF_NOWAIT)
            except EAGAIN:
                break
            except EOPNOTSUPP:
                self._nowait = False
                break
            except Errno:
                if not done:
                    raise
                return done
            done += n
            if not n or not dest.count:
                return done
        pace = self._read_pace
        if pace is not None and not self._nowait and kept((self, offset)) is None:
            began_ns = pace.begin(dest.count)
            if began_ns:
                try:
                    return dest.from_host(self.fd, offset)
                finally:
                    pace.end(began_ns)
        filled, done = settled((self, offset), partial(self._fill, self.io, dest, offset, done))
        if filled is not dest:  # another attempt's buffer, over the same memory
            dest.skip(done)
        return done

    async def _fill(
        self, io: HostIO, dest: Dest, offset: int, done: int
    ) -> tuple[Dest, int]:
        try:
            done += await io.fill(self.fd, dest, offset + done)
        except Errno:
            if not done:
                raise
        return dest, done

    def write(self, source: Source, offset: int) -> int:
        """Write where that does not wait, as far as one can tell (`Pace`), else by a thread.

        Raises: NotNow.
        """
        io, pace = self.io, self._pace
        if io is None:
            return source.to_host(self.fd, offset)
        began_ns = 0
        if pace is not None and kept((self, offset)) is None:
            began_ns = pace.begin(source.count)
        if pace is None or not began_ns:
            work = partial(io.drain, self.fd, source, offset)
            return settled((self, offset), partial(self._by_thread, work))
        try:
            return source.to_host(self.fd, offset)
        finally:
            pace.end(began_ns)

    def truncate(self, size: int) -> None:
        """ftruncate(2). Raises: NotNow."""
        if self.io is not None:
            work = partial(self.io.truncate, self.fd, size)
            settled((self, "truncate"), partial(self._by_thread, work))
            return
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise from_host(error) from error

    def allocate(self, offset: int, length: int) -> None:
        """fallocate(2), mode 0. Raises: NotNow."""
        if self.io is not None:
            work = partial(self.io.allocate, self.fd, offset, length)
            settled((self, "allocate"), partial(self._by_thread, work))
            return
        try:
            os.posix_fallocate(self.fd, offset, length)
        except OSError as error:
            raise from_host(error) from error

    async def _by_thread(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """A change, during which attributes are not what they were, and which may have to wait for
        a thread: until then, the descriptor stays this file's."""
        owner = self.owner
        assert owner is not None
        owner.sb.handles.use(self)
        self.changing += 1
        try:
            done = await work()
        except Errno:
            self.changing -= 1
            raise
        else:
            self.changing -= 1
            return done
        finally:
            owner.release(self)

    def backing(self, windows: Windows) -> HostBacking:
        """What mappings of the file are made of."""
        if self._backing is None:
            size = self._last_size if self.remote else None
            device = self.owner.key[0] if self.owner is not None else None
            self._backing = HostBacking(windows, self.fd, self.writable, size, device)
        return self._backing

    @property
    def is_mapped(self) -> bool:
        """It has been, at least."""
        return self._backing is not None

    def empty(self) -> bool:
        """ftruncate(2) to nothing, if it does not take long."""
        began_ns = self._pace.begin(0) if self._pace is not None else 1
        if not began_ns:
            return False
        try:
            os.ftruncate(self.fd, 0)
        except OSError:
            return False
        finally:
            if self._pace is not None:
                self._pace.end(began_ns)
        return True

    def cutting(self, size: int) -> WaitingSteps[None]:
        """The file was truncated: who maps it loses what lay behind."""
        if self._backing is not None:
            yield from self._backing.cutting(size)

    def _last_size(self) -> int:
        return self.owner.attributes.size if self.owner is not None else 0

    def close(self, closed: Callable[[], object]) -> None:
        """Give the descriptor back, and call `closed` then. The fid is the owner's to clunk."""
        self.owner = None
        if self._backing is not None:
            self._backing.close()
            self._backing = None
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        if self.io is not None and self.remote:
            self.io.close_fd(fd, closed)
        else:
            os.close(fd)
            closed()


EVICTED: Final = 128
"""One part in so many of the idle ones is closed at once."""
SPARE: Final = 8
"""One part in so many is left to who has CAP_SYS_ADMIN, who may go beyond fs.file-max on Linux
(alloc_empty_file(), fs/file_table.c): programs are mapped from what can be opened here."""


def _is_privileged(caller: Caller | None) -> bool:
    return caller is not None and caller.creds.has(CAP_SYS_ADMIN)


class HandleCache:
    """The bounds on open files of the host, shared by the file systems of a sandbox.

    Those with a descriptor count in `budget`, too, beside all else that has one.
    """

    def __init__(
        self, limit: int = 8192, budget: Budget | None = None, bare_limit: int = 1 << 17
    ) -> None:
        self.limit = limit
        self.bare_limit = bare_limit
        """Of those without, which cost the Gofer a descriptor."""
        self.open = 0
        self.bare = 0
        self.budget = budget if budget is not None else Budget()
        self.budget.idle_files = self
        self._idle: dict[Handle, None] = {}

    def __len__(self) -> int:
        return self.open

    @property
    def kept(self) -> int:
        """Descriptors without users, for the next open."""
        return sum(1 for handle in self._idle if handle.fd >= 0)

    def room(self, caller: Caller | None = None) -> bool:
        """Whether one more descriptor may be asked for; the last ones are for the privileged."""
        spare = 0 if _is_privileged(caller) else self.limit // SPARE
        if self._beyond(1 + spare) <= 0:
            return True
        self.evict(1)
        return self._beyond(1 + spare) <= 0

    def _beyond(self, more: int) -> int:
        """How many there would be too many if there were so many more."""
        here, sandbox = self.open + more - self.limit, more - self.budget.host_room
        return here if here > sandbox else sandbox

    def check(self, caller: Caller) -> None:
        """One more without a descriptor. Raises: ENFILE."""
        spare = 0 if _is_privileged(caller) else self.bare_limit // SPARE
        if self.bare + spare >= self.bare_limit:
            raise ENFILE("the ceiling of open files of the host")

    def opened(self, handle: Handle) -> None:
        """A handle was made."""
        if handle.fd >= 0:
            self.open += 1
            self.budget.host_descriptors += 1
        else:
            self.bare += 1

    def hold(self, count: int) -> None:
        """So many descriptors more, or fewer, that are of no handle yet."""
        self.open += count
        self.budget.host_descriptors += count

    def use(self, handle: Handle) -> None:
        """One more open file needs it."""
        handle.users += 1
        self._idle.pop(handle, None)

    def idle(self, handle: Handle) -> None:
        """It is kept, but may be closed."""
        self._idle[handle] = None
        if (beyond := self._beyond(0)) > 0:
            self.evict(beyond)

    def close(self, handle: Handle) -> None:
        """It is not needed any more."""
        self._idle.pop(handle, None)
        if handle.fd >= 0:
            self.open -= 1
            self.budget.host_descriptors -= 1
            self.budget.closing += 1
        else:
            self.bare -= 1
        handle.close(self._closed)

    def take(self, handle: Handle, full: bool) -> int:
        """Its descriptor, for another file, emptied if it is `full`; -1 if that takes long: it is
        closed then."""
        if full and not handle.empty():
            self.close(handle)
            return -1
        self._idle.pop(handle, None)
        self.hold(-1)
        fd, handle.fd, handle.owner = handle.fd, -1, None
        return fd

    def _closed(self) -> None:
        self.budget.closing -= 1

    def evict(self, count: int) -> None:
        """Close the handles that have been idle longest: of many some more, so that one does not
        look for the first of them, past all that are gone, for each new one."""
        for handle in list(islice(self._idle, count + len(self._idle) // EVICTED)):
            assert handle.owner is not None
            handle.owner.drop_handle(handle)

    def forget(self, fs: object) -> None:
        """See `forgetting`."""
        at_once(self.forgetting(fs))

    def forgetting(self, fs: object) -> Steps[None]:
        """A file system was unmounted: close what nobody uses."""
        for handle in list(self._idle):
            owner = handle.owner
            if owner is not None and owner.sb is fs and handle in self._idle:
                owner.drop_handle(handle)
                yield


class Timers(Protocol):
    """What `Lingering` needs of the loop."""

    def now_ns(self) -> int: ...
    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Any: ...


LINGER_NS: Final = 1_000_000_000
MAX_LINGERING: Final = 256


class Lingering:
    """Handles without users of files that are the host's, too: kept for a second or two.

    Longer would keep the blocks of files that the host has removed.
    """

    def __init__(self, handles: HandleCache, timers: Timers) -> None:
        self._handles = handles
        self._timers = timers
        self._young: set[Handle] = set()
        self._old: set[Handle] = set()
        self._armed = False

    def add(self, handle: Handle) -> None:
        """It has no users any more."""
        self._handles.idle(handle)
        self._young.add(handle)
        if len(self._young) > MAX_LINGERING:
            self.turn()
        if not self._armed:
            self._armed = True
            self._timers.call_at(self._timers.now_ns() + LINGER_NS, self._tick)

    def _tick(self) -> None:
        self.turn()
        self._armed = bool(self._old)
        if self._armed:
            self._timers.call_at(self._timers.now_ns() + LINGER_NS, self._tick)

    def turn(self) -> None:
        """Close what was not used since the last turn."""
        late, self._old, self._young = self._old - self._young, self._young, set()
        for handle in late:
            if not handle.users and handle.owner is not None:
                handle.owner.drop_handle(handle)
