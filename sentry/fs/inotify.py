"""inotify(7): a queue of what happened to watched files. fs/notify/inotify/."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Final

from sentry.abi.fcntl import O_RDONLY
from sentry.abi.inotify import (
    IN_ALL_EVENTS,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_NONBLOCK,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
)
from sentry.abi.poll import EPOLLIN, EPOLLRDNORM
from sentry.errors import EAGAIN, EEXIST, EINVAL, EMFILE, ENOSPC
from sentry.vfs.file import Dest, StreamFile
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.requests import Requests, put_int
from sentry.vfs.watches import Watches
from sentry.wait.again import NotNow

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
    from sentry.vfs.vfs import Vfs

MAX_QUEUED: Final = 16_384
"""Ceiling of fs.inotify.max_queued_events."""
MAX_INSTANCES: Final = 1024
"""Ceiling of the sandbox (fs.inotify.max_user_instances is 128 for each user)."""
MAX_WATCHES: Final = 65_536
"""Ceiling of the sandbox (fs.inotify.max_user_watches)."""
_EVENT: Final = struct.Struct("<iIII")
KEPT: Final = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT
OVERFLOW: Final = _EVENT.pack(-1, IN_Q_OVERFLOW, 0, 0)


def most_queued(kernel: Kernel) -> int:
    """fs.inotify.max_queued_events, for a new instance."""
    wanted = kernel.services.sysctls.get("fs/inotify/max_queued_events", MAX_QUEUED)
    return min(int(wanted), MAX_QUEUED)


class InodeWatch:
    """One watch of one inode."""

    __slots__ = ("inode", "mask", "owner", "wd")

    def __init__(self, owner: InotifyFile, wd: int, inode: Inode, mask: int) -> None:
        self.owner = owner
        self.wd = wd
        self.inode = inode
        self.mask = mask

    def event(self, mask: int, cookie: int, name: bytes, gone: bool) -> None:
        """Queue it, if it is wanted."""
        if not mask & self.mask & IN_ALL_EVENTS or (gone and self.mask & IN_EXCL_UNLINK):
            return
        self.owner.queue_event(self.wd, mask, cookie, name)
        if self.mask & IN_ONESHOT:
            self.owner.remove(self)

    def unmounted(self) -> None:
        """The file system is gone."""
        self.owner.queue_event(self.wd, IN_UNMOUNT | (IN_ISDIR if self.inode.is_dir else 0), 0, b"")
        self.owner.remove(self)

    def removed(self) -> None:
        """The inode is gone."""
        self.owner.remove(self)


INOTIFY: Final = Requests()
INOTIFY.row("FIONREAD", put_int(lambda file: file.unread))


class InotifyFile(StreamFile):
    """An open inotify instance."""

    requests: ClassVar = INOTIFY
    __slots__ = (
        "_bytes", "_events", "_max_queued", "_next", "_of", "_overflown", "_vfs", "watches"
    )  # fmt: skip
    read_flags: ClassVar = False
    splice_read: ClassVar = False
    splice_write: ClassVar = False
    seeks_nowhere: ClassVar = True
    can_async: ClassVar = True

    def __init__(self, vfs: Vfs, flags: int, max_queued: int) -> None:
        if vfs.inotify_instances >= MAX_INSTANCES:
            raise EMFILE("too many instances")
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
        location = vfs.anon_location(inode, b"anon_inode:inotify")
        super().__init__(location, O_RDONLY | flags & IN_NONBLOCK)
        self._vfs = vfs
        vfs.inotify_instances += 1
        self._events: deque[bytes] = deque()
        self._max_queued = max_queued
        self._overflown = False
        """That events were lost is in the queue."""
        self._bytes = 0
        self._next = 1
        self.watches: dict[int, InodeWatch] = {}
        self._of: dict[Inode, InodeWatch] = {}

    # --- watches

    def watch(self, inode: Inode, mask: int) -> int:
        """A new watch, or another mask of an old one. Raises: EEXIST, ENOSPC."""
        known = self._of.get(inode)
        if known is not None:
            if mask & IN_MASK_CREATE:
                raise EEXIST("watched already")
            if mask & IN_MASK_ADD:
                known.mask |= mask & KEPT
            else:
                known.mask = mask & KEPT
            return known.wd
        if self._vfs.inotify_watches >= MAX_WATCHES:
            raise ENOSPC("too many watches")
        watch = InodeWatch(self, self._next, inode, mask & KEPT)
        self._next += 1
        self.watches[watch.wd] = self._of[inode] = watch
        if inode.watches is None:
            inode.watches = Watches()
        inode.watches.items[watch] = None
        inode.fs.watched.add(watch)
        self._vfs.inotify_watches += 1
        return watch.wd

    def remove(self, watch: InodeWatch) -> None:
        """The watch ends; its reader is told."""
        if self.watches.get(watch.wd) is watch:
            self._unhook(watch)
            self.queue_event(watch.wd, IN_IGNORED, 0, b"")

    def _unhook(self, watch: InodeWatch) -> None:
        if self.watches.get(watch.wd) is not watch:
            return
        del self.watches[watch.wd], self._of[watch.inode]
        inode = watch.inode
        inode.fs.watched.discard(watch)
        self._vfs.inotify_watches -= 1
        if inode.watches is not None:
            del inode.watches.items[watch]
            if not inode.watches:
                inode.watches = None

    def release(self) -> None:
        """Closed."""
        self._vfs.inotify_instances -= 1
        self._vfs.leftovers.begin(self.watches.values(), self._unhook)

    # --- events

    def queue_event(self, wd: int, mask: int, cookie: int, name: bytes) -> None:
        """Append an event unless it repeats the last one, but for the cookie: event_compare()."""
        padded = name + bytes(16 - len(name) % 16) if name else b""
        event = _EVENT.pack(wd, mask & ~0x07000000 | mask & IN_ISDIR, cookie, len(padded)) + padded
        if len(self._events) >= self._max_queued:
            if self._overflown:
                return
            self._overflown, event = True, OVERFLOW
        elif self._events and _without_cookie(self._events[-1]) == _without_cookie(event):
            return
        self._append(event)
        self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def _append(self, event: bytes) -> None:
        self._events.append(event)
        self._bytes += len(event)

    def refill(self, events: Iterable[bytes]) -> None:
        """What waited when a snapshot was made."""
        for event in events:
            self._append(event)
            self._overflown |= event == OVERFLOW

    def receive(self, dest: Dest) -> int:
        """As many whole events as fit. Raises: EINVAL when not even one does."""
        if not self._events:
            raise EAGAIN("no events")
        done = 0
        while self._events and len(self._events[0]) <= dest.count:
            event = self._events.popleft()
            self._bytes -= len(event)
            self._overflown &= event != OVERFLOW
            try:
                done += dest.put(event)
            except NotNow:
                self._events.appendleft(event)
                self._bytes += len(event)
                self._overflown |= event == OVERFLOW
                if not done:
                    raise
                break
        if not done:
            raise EINVAL("too small for one event")
        return done

    def poll(self) -> int:
        """Readable while there are events."""
        return EPOLLIN | EPOLLRDNORM if self._events else 0

    @property
    def unread(self) -> int:
        """FIONREAD."""
        return self._bytes

    def fdinfo(self) -> Iterator[str]:
        """One line for each watch."""
        for w in list(self.watches.values()):
            if w.wd in self.watches:
                yield (
                    f"inotify wd:{w.wd:x} ino:{w.inode.ino:x} sdev:{w.inode.fs.dev:x} "
                    f"mask:{w.mask:x} ignored_mask:0\n"
                )


def _without_cookie(event: bytes) -> bytes:
    return event[:8] + event[12:]
