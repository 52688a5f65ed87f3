"""fanotify(7): a group of marks, and the queue of what happened there. fs/notify/fanotify/.

As in a kernel without CONFIG_FANOTIFY_ACCESS_PERMISSIONS nobody is asked whether something may be
done: marks for that are refused, and so are answers (EINVAL).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi.fanotify import (
    FAN_EPIDFD,
    FAN_MARK_EVICTABLE,
    FAN_MARK_IGNORED_SURV_MODIFY,
    FAN_MODIFY,
    FAN_NOFD,
    FAN_NONBLOCK,
    FAN_ONDIR,
    FAN_Q_OVERFLOW,
    FAN_REPORT_FD_ERROR,
    FAN_REPORT_FID,
    FAN_REPORT_PIDFD,
    FAN_REPORT_TID,
    FAN_UNLIMITED_MARKS,
    FAN_UNLIMITED_QUEUE,
)
from sentry.abi.fcntl import O_CLOEXEC, O_LARGEFILE, O_NONBLOCK, O_RDWR
from sentry.abi.poll import EPOLLIN, EPOLLRDNORM
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.errors import EAGAIN, EINVAL, EMFILE, ENOENT, ENOSPC, ESRCH, Errno
from sentry.fs.fanotify_event import FID_BITS, PIDFD_SIZE, Event, pidfd_record
from sentry.fs.fanotify_mark import EVENTS, IGNORING, FanotifyMark, Holder, applies
from sentry.fs.pidfd import PidFile
from sentry.vfs.file import Caller, Dest, Source, StreamFile
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.handles import remember
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.marks import EVENT_FLAGS, Found, Happening
from sentry.vfs.open import open_unheard
from sentry.vfs.requests import Requests, put_int
from sentry.wait.again import Keeping, again, kept
from sentry.wait.sleep import Retry, until
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.auth.userns import UserNamespace
    from sentry.vfs.file import Result
    from sentry.vfs.vfs import Vfs
    from sentry.wait.steps import Steps

MAX_GROUPS: Final = 1024
"""Ceilings of the sandbox: groups,"""
MAX_MARKS: Final = 65_536
"""marks,"""
MAX_QUEUED: Final = 131_072
"""events of a group with FAN_UNLIMITED_QUEUE,"""
MAX_EVENTS: Final = 262_144
"""and of all groups, which may hear of the same things: beyond it theirs are lost, which they hear
of, as where Linux has no memory."""
MAX_READ: Final = 65_536
"""Bytes of a read, in which the kernel does nothing else; what is beyond stays in the queue."""
_READABLE: Final = EPOLLIN | EPOLLRDNORM


FANOTIFY: Final = Requests()
FANOTIFY.row("FIONREAD", put_int(lambda file: file.unread))


class FanotifyFile(StreamFile):
    """An open group."""

    requests: ClassVar = FANOTIFY
    __slots__ = (
        "_event_flags", "_events", "_is_closed", "_mergeable", "_of", "_overflown", "_sees", "_uid",
        "_vfs", "max_queued", "mode", "unread", "user_ns",
    )  # fmt: skip
    read_flags = False
    splice_read = False
    splice_write = False
    seeks_nowhere = True

    def __init__(
        self, vfs: Vfs, creds: Credentials, flags: int, event_flags: int,
        limits: tuple[int, int], sees: bool,
    ) -> None:  # fmt: skip
        """`limits`: groups of a user, events in the queue. `sees`: it may know who did something.

        Raises: EMFILE."""
        counts, uid = vfs.fanotify, creds.euid
        mine = counts.groups_of.get(uid, 0)
        if counts.groups >= MAX_GROUPS or mine >= limits[0]:
            raise EMFILE("too many groups")
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
        location = vfs.anon_location(inode, b"anon_inode:[fanotify]")
        super().__init__(location, O_RDWR | (O_NONBLOCK if flags & FAN_NONBLOCK else 0))
        counts.groups += 1
        counts.groups_of[uid] = mine + 1
        self._vfs = vfs
        self._uid = uid
        self.user_ns: UserNamespace | None = creds.user_ns
        """Where it was made."""
        self.mode = flags
        """FAN_*, as it was made with."""
        self._event_flags = event_flags | O_LARGEFILE
        self._sees = sees
        self.max_queued = MAX_QUEUED if flags & FAN_UNLIMITED_QUEUE else limits[1]
        self._events: deque[Event] = deque()
        self._mergeable: dict[object, Event] = {}
        self.unread = 0
        """FIONREAD."""
        self._of: dict[Holder, FanotifyMark] = {}
        self._is_closed = False
        self._overflown = False
        """That events were lost is in the queue."""

    # --- marks

    def mark(self, holder: Holder, mask: int, how: int, limit: int) -> None:
        """Add to a mark, which is made if there is none. Raises: EEXIST, ENOSPC."""
        known = self._of.get(holder)
        if known is None:
            known = self._new_mark(holder, how, limit)
        known.add(mask, how)

    def _new_mark(self, holder: Holder, how: int, limit: int) -> FanotifyMark:
        counts, is_counted = self._vfs.fanotify, not self.mode & FAN_UNLIMITED_MARKS
        mine = counts.marks_of.get(self._uid, 0)
        if counts.marks >= MAX_MARKS or (is_counted and mine >= limit):
            raise ENOSPC("too many marks")
        fs = holder if isinstance(holder, FileSystem) else holder.fs
        made = FanotifyMark(self.drop, holder, fs)
        made.how = how & FAN_MARK_EVICTABLE
        if holder.marks is None:
            holder.marks = {}
        self._of[holder] = holder.marks[self] = made
        fs.watched.add(made)
        fs.marked += 1
        counts.marks += 1
        if is_counted:
            counts.marks_of[self._uid] = mine + 1
        return made

    def unmark(self, holder: Holder, mask: int, how: int, kept: int) -> None:
        """Take from a mark, which goes when nothing but `kept` is left of it. Raises: ENOENT."""
        known = self._of.get(holder)
        if known is None:
            raise ENOENT("no mark")
        if how & IGNORING:
            known.ignored &= ~mask | kept
        else:
            known.mask &= ~mask | kept
        if not (known.mask | known.ignored) & ~kept:
            self.drop(known)

    def flushing(self, kind: type[Holder]) -> Steps[None]:
        """All marks of inodes, of mounts or of file systems go."""
        for holder in [each for each in self._of if isinstance(each, kind)]:
            mark = self._of.get(holder)
            if mark is not None:
                self.drop(mark)
            yield

    def drop(self, mark: FanotifyMark) -> None:
        """It ends."""
        holder, counts = mark.holder, self._vfs.fanotify
        if self._of.get(holder) is not mark:
            return
        del self._of[holder]
        mark.fs.watched.discard(mark)
        mark.fs.marked -= 1
        counts.marks -= 1
        if not self.mode & FAN_UNLIMITED_MARKS:
            _count_down(counts.marks_of, self._uid)
        if holder.marks is not None:
            holder.marks.pop(self, None)
            if not holder.marks:
                holder.marks = None

    def release(self) -> None:
        """Closed."""
        counts = self._vfs.fanotify
        counts.groups -= 1
        _count_down(counts.groups_of, self._uid)
        self._is_closed = True
        counts.events -= len(self._events)
        self._events.clear()
        self._mergeable.clear()
        self._vfs.leftovers.begin(list(self._of.values()), self.drop)

    # --- what happens

    def happened(self, what: Happening, marks: Found) -> None:
        """fanotify_group_event_mask(), fanotify_handle_event()."""
        mode, on_dir = self.mode & FID_BITS, what.mask & FAN_ONDIR
        wanted = ignored = matched = 0
        for kind, mark in marks:
            assert isinstance(mark, FanotifyMark)
            if what.mask & FAN_MODIFY and not mark.how & FAN_MARK_IGNORED_SURV_MODIFY:
                mark.ignored = 0
            ignored |= mark.ignores(kind, on_dir)
            if applies(mark.mask, kind, on_dir):
                wanted |= mark.mask
                matched |= 1 << kind
        mask = what.mask & wanted & ~ignored
        if self._is_closed or not mask & EVENTS or not self._can_tell(what, mode):
            return
        task = self._vfs.task
        group = task.group if task is not None else None
        number = 0
        if task is not None:
            number = task.tid if self.mode & FAN_REPORT_TID else task.group.tgid
        event = Event(mask if mode else mask & ~EVENT_FLAGS, number, group)
        if mode:
            event.of_handles(what, mode, matched)
        else:
            assert what.place is not None
            event.of_place(what.place)
        self._queue(event)

    def _can_tell(self, what: Happening, mode: int) -> bool:
        """There is something to open, or whose handle can be told."""
        if not mode:
            return what.place is not None and (what.inode.is_regular or what.inode.is_dir)
        return bool(mode & FAN_REPORT_FID or what.directory is not None or what.inode.is_dir)

    def _queue(self, event: Event) -> None:
        """fsnotify_insert_event(), fanotify_merge()."""
        counts = self._vfs.fanotify
        if len(self._events) >= self.max_queued or counts.events >= MAX_EVENTS:
            if self._overflown:
                return
            self._overflown = True
            event = Event(FAN_Q_OVERFLOW, 0, None)
        elif (old := self._mergeable.get(event.key)) is not None:
            old.mask |= event.mask
            return
        else:
            self._mergeable[event.key] = event
        self._events.append(event)
        counts.events += 1
        self.unread += event.size(self._extra)
        self.queue.notify(_READABLE)

    @property
    def _extra(self) -> int:
        return PIDFD_SIZE if self.mode & FAN_REPORT_PIDFD else 0

    # --- reading

    def _next(self, room: int) -> Event:
        """Raises: EAGAIN, EINVAL if it does not fit."""
        if not self._events:
            raise EAGAIN("no events")
        event = self._events[0]
        size = event.size(self._extra)
        if size > room:
            raise EINVAL(f"an event of {size} bytes")
        self._events.popleft()
        self._vfs.fanotify.events -= 1
        self.unread -= size
        if self._mergeable.get(event.key) is event:
            del self._mergeable[event.key]
        if event.mask & FAN_Q_OVERFLOW:
            self._overflown = False
        return event

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """As many whole events as fit into the buffer and MAX_READ.

        Raises: EAGAIN, EINVAL, and why a file cannot be opened.
        """
        waits = not self.flags & O_NONBLOCK
        if not self._events and not waits:
            raise EAGAIN("no events")
        if not self.mode & FID_BITS:
            return self._read_opening(caller, dest)
        attempt = partial(self._take, caller, dest)
        try:
            return attempt()
        except EAGAIN:
            return Retry(attempt, self.queue, _READABLE, self)

    def _take(self, caller: Caller, dest: Dest) -> int:
        data, opened = kept((self, "events")) or (b"", ())
        while True:
            try:
                event = self._next(min(dest.count, MAX_READ) - len(data))
            except (EAGAIN, EINVAL):
                if not data:
                    raise
                break
            for dentry in event.known():
                remember(caller.kernel.vfs.dentries, dentry)
            pidfd = self._pidfd(caller, event)
            opened += (pidfd,)
            data += event.pack(FAN_NOFD, self._pid(caller, event), _record(pidfd))
        try:
            with Keeping((self, "events"), (data, opened)):
                return dest.put(data)
        except Errno:
            _close(caller, opened)
            raise

    async def _read_opening(self, caller: Caller, dest: Dest) -> int:
        """The same, with a descriptor for each."""
        with self.held():
            while not self._events:
                await until(self._check_events, [self.queue], _READABLE)
            done, pace = 0, Pace()
            while True:
                await pace.rest()
                try:
                    event = self._next(dest.count)
                    fd = await self._opened(caller, event)
                except Errno:
                    if not done:
                        raise
                    return done
                pidfd = self._pidfd(caller, event)
                packed = event.pack(fd, self._pid(caller, event), _record(pidfd))
                try:
                    done += await again(dest.put, packed)
                except BaseException:
                    _close(caller, (fd, pidfd))
                    raise

    def _check_events(self) -> None:
        if not self._events:
            raise EAGAIN("no events")

    async def _opened(self, caller: Caller, event: Event) -> int:
        """create_fd(). Raises: EMFILE, and why the file cannot be opened: the event is lost."""
        if event.place is None:
            return FAN_NOFD
        limit, flags = caller.rlimit(RLIMIT_NOFILE), self._event_flags
        try:
            caller.files.free_from(0, limit)
            file = await again(open_unheard, caller, event.place, flags & ~O_CLOEXEC)
            try:
                return caller.files.install(file, limit, cloexec=bool(flags & O_CLOEXEC))
            except BaseException:
                file.incref().decref()
                raise
        except Errno as error:
            if self.mode & FAN_REPORT_FD_ERROR:
                return -error.number
            raise

    def _pid(self, caller: Caller, event: Event) -> int:
        """Who did it, as the reader knows it; who may not know that knows itself."""
        if not self._sees and event.process is not caller.group:
            return 0
        return int(caller.pids.of(event.who)) if event.who else 0

    def _pidfd(self, caller: Caller, event: Event) -> int | None:
        """For its process, or what stands for none, if that is asked for."""
        if not self.mode & FAN_REPORT_PIDFD:
            return None
        group = event.process
        try:
            if group is None or caller.kernel.pids.groups.get(group.tgid) is not group:
                raise ESRCH("the process is gone")
            if not self._pid(caller, event):
                raise ESRCH("the reader does not see it")
            limit = caller.rlimit(RLIMIT_NOFILE)
            caller.files.free_from(0, limit)
            return caller.files.install(PidFile(self._vfs, group, False), limit, cloexec=True)
        except Errno as error:
            if self.mode & FAN_REPORT_FD_ERROR:
                return -error.number
            return FAN_NOFD if isinstance(error, ESRCH) else FAN_EPIDFD

    def write(self, caller: Caller, source: Source, rwf: int = 0) -> Result:
        """An answer, and nobody has asked. Raises: EINVAL."""
        raise EINVAL("no permission events")

    def poll(self) -> int:
        """Readable while there are events."""
        return _READABLE if self._events else 0

    def fdinfo(self) -> Iterator[str]:
        """fanotify_show_fdinfo()."""
        yield f"fanotify flags:{self.mode:x} event-flags:{self._event_flags:x}\n"
        for mark in list(self._of.values()):
            if self._of.get(mark.holder) is mark:
                yield mark.shown()


def _record(pidfd: int | None) -> bytes:
    return b"" if pidfd is None else pidfd_record(pidfd)


def _close(caller: Caller, opened: Iterable[int | None]) -> None:
    """What was opened for a reader who never hears of it."""
    for fd in opened:
        if fd is not None and fd >= 0:
            caller.files.close(caller, fd)


def _count_down(counts: dict[int, int], uid: int) -> None:
    left = counts.get(uid, 0) - 1
    if left > 0:
        counts[uid] = left
    else:
        counts.pop(uid, None)


def group_of(file: Any) -> FanotifyFile:
    """Raises: EINVAL."""
    if not isinstance(file, FanotifyFile):
        raise EINVAL("not a group of fanotify")
    return file
