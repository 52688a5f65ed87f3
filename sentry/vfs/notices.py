"""Signals about a file: its owner (F_SETOWN), O_ASYNC, and dnotify. fs/fcntl.c, fs/notify/dnotify/.

The kernel sends them (`Vfs.send_io`); here is who is to get one, and when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import (
    DN_ACCESS,
    DN_ATTRIB,
    DN_CREATE,
    DN_DELETE,
    DN_MODIFY,
    DN_MULTISHOT,
    DN_RENAME,
    F_OWNER_PID,
    O_ASYNC,
)
from sentry.abi.inotify import (
    IN_ACCESS,
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLMSG,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDBAND,
    EPOLLRDNORM,
    EPOLLWRBAND,
    EPOLLWRNORM,
)
from sentry.abi.signal import POLL_ERR, POLL_HUP, POLL_IN, POLL_MSG, POLL_OUT, POLL_PRI
from sentry.errors import ENOTDIR
from sentry.vfs.watches import Watches
from sentry.wait.queue import ALL

if TYPE_CHECKING:
    from sentry.vfs.file import Caller, FileDescription, Files
    from sentry.vfs.interface import Inode
    from sentry.vfs.vfs import Vfs

BAND: Final = {
    POLL_IN: EPOLLIN | EPOLLRDNORM,
    POLL_OUT: EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND,
    POLL_MSG: EPOLLIN | EPOLLRDNORM | EPOLLMSG,
    POLL_ERR: EPOLLERR,
    POLL_PRI: EPOLLPRI | EPOLLRDBAND,
    POLL_HUP: EPOLLHUP | EPOLLERR,
}
"""si_band of a code: band_table, fs/fcntl.c."""
_IN: Final = EPOLLIN | EPOLLRDNORM
_OUT: Final = EPOLLOUT | EPOLLWRNORM
DIRECTORY_EVENTS: Final = {
    DN_ACCESS: IN_ACCESS,
    DN_MODIFY: IN_MODIFY,
    DN_CREATE: IN_CREATE | IN_MOVED_TO,
    DN_DELETE: IN_DELETE | IN_MOVED_FROM,
    DN_RENAME: IN_MOVED_FROM,
    DN_ATTRIB: IN_ATTRIB,
}


def set_owner(caller: Caller, file: FileDescription, kind: int, number: int) -> None:
    """f_modown(): with the rights of who asked, which decide whether a signal may be sent."""
    file.owner = (kind, number)
    file.owner_ids = (caller.creds.uid, caller.creds.euid) if number else (0, 0)


def own_by_default(caller: Caller, file: FileDescription) -> None:
    """Who asks for notices becomes the owner, unless there is one."""
    if not file.owner[1]:
        set_owner(caller, file, F_OWNER_PID, caller.group.tgid)


class AsyncNotice:
    """O_ASYNC on one description: a signal whenever it becomes ready."""

    __slots__ = ("_file", "_vfs", "fd", "wants_room")
    mask: int = ALL
    exclusive: bool = False

    def __init__(self, vfs: Vfs, file: FileDescription, fd: int) -> None:
        self._vfs = vfs
        self._file = file
        self.fd = fd
        self.wants_room = file.async_room or not file.poll() & EPOLLOUT
        """Sockets tell of room only if there was none."""
        file.queue.enter(self)

    def drop(self) -> None:
        """O_ASYNC is off, or the file is closed."""
        self._file.queue.remove(self)
        self._file.async_notice = None

    def callback(self, events: int) -> None:
        """The file may be ready."""
        file, code = self._file, 0
        if events == ALL:
            events = EPOLLHUP
        if events & EPOLLHUP and not file.async_room and file.poll() & EPOLLHUP:
            code = POLL_HUP
        elif events & EPOLLPRI:
            code = POLL_PRI
        elif events & _IN and file.readable:
            code = POLL_IN
        elif events & _OUT and file.writable and self.wants_room:
            code = POLL_OUT
            self.wants_room = file.async_room
        if code:
            send_io(self._vfs, file, self.fd, code)


def send_io(vfs: Vfs, file: FileDescription, fd: int, code: int) -> None:
    """send_sigio()."""
    if file.owner[1] and vfs.send_io is not None:
        vfs.send_io(file, fd, code, BAND[code])


def set_async(caller: Caller, file: FileDescription, fd: int, *, on: bool) -> None:
    """Turn O_ASYNC on or off; the caller knows that the file can do it."""
    if file.async_notice is not None:
        file.async_notice.drop()
    if on:
        file.before_async(caller)
        file.async_notice = AsyncNotice(caller.kernel.vfs, file, fd)
        file.flags |= O_ASYNC
    else:
        file.flags &= ~O_ASYNC


class DirectoryNotice:
    """dnotify: what a process wants to hear of a directory it has open."""

    __slots__ = ("_inode", "_vfs", "fd", "file", "mask", "table", "wanted")

    def __init__(self, vfs: Vfs, file: FileDescription, table: Files) -> None:
        self._vfs = vfs
        self._inode: Inode = file.inode
        self.file = file
        self.table = table
        self.fd = -1
        self.wanted = 0
        self.mask = 0

    def want(self, fd: int, wanted: int) -> None:
        """Add DN_* events."""
        self.fd = fd
        self.wanted |= wanted
        for bit, mask in DIRECTORY_EVENTS.items():
            if wanted & bit:
                self.mask |= mask

    def hook(self) -> None:
        """Listen."""
        inode = self._inode
        if inode.watches is None:
            inode.watches = Watches()
        inode.watches.add_notice(self, self._vfs.loop.call_for_each)
        inode.fs.watched.add(self)

    def event(self, mask: int, cookie: int, name: bytes, gone: bool) -> None:
        """One event; without DN_MULTISHOT it is the last."""
        if not mask & self.mask or self.file.dnotify is not self:
            return
        send_io(self._vfs, self.file, self.fd, POLL_MSG)
        if not self.wanted & DN_MULTISHOT:
            self.removed()

    def unmounted(self) -> None:
        """The file system is gone."""
        self.removed()

    def removed(self) -> None:
        """Stop listening."""
        inode = self._inode
        if self.file.dnotify is self:
            self.file.dnotify = None
        if inode.watches is not None and inode.watches.drop_notice(self):
            inode.fs.watched.discard(self)
            if not inode.watches:
                inode.watches = None


def set_dnotify(caller: Caller, file: FileDescription, fd: int, wanted: int) -> None:
    """fcntl_dirnotify(). Raises: ENOTDIR."""
    known: Any = file.dnotify
    if not wanted & ~DN_MULTISHOT:
        if known is not None:
            known.removed()
        return
    if not file.inode.is_dir:
        raise ENOTDIR("not a directory")
    own_by_default(caller, file)
    if known is None:
        known = file.dnotify = DirectoryNotice(caller.kernel.vfs, file, caller.files)
        known.hook()
    known.want(fd, wanted)
