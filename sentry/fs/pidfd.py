"""pidfd_open(2): a descriptor that stands for a process and becomes readable when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_NONBLOCK, O_RDWR
from sentry.abi.poll import EPOLLHUP, EPOLLIN, EPOLLRDNORM
from sentry.vfs.file import FileDescription
from sentry.vfs.interface import Inode, Owner
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.vfs.vfs import Vfs

PIDFS_MAGIC: Final = 0x50494446
_MODE: Final = 0o100600


class PidFile(FileDescription):
    """The process is `group`; any object with `is_zombie`, `pid_queue` and `tgid` will do."""

    __slots__ = ("group",)
    can_poll = True

    def __init__(self, vfs: Vfs, group: Any, nonblock: bool) -> None:
        fs = vfs.anon_fs("pidfs", PIDFS_MAGIC)
        inode = Inode(fs, vfs.new_ino(), _MODE, Owner(0, 0))
        queue: WaitQueue = group.pid_queue
        location = vfs.anon_location(inode, b"anon_inode:[pidfd]")
        super().__init__(location, O_RDWR | (O_NONBLOCK if nonblock else 0), queue)
        self.group = group

    def poll(self) -> int:
        """Readable once every thread is gone; hung up once it was waited for."""
        if not self.group.is_zombie:
            return 0
        gone = self.group.parent is None
        return EPOLLIN | EPOLLRDNORM | (EPOLLHUP if gone else 0)

    def fdinfo(self) -> str:
        """The Pid line."""
        pid = -1 if self.group.is_zombie and self.group.parent is None else self.group.tgid
        return f"Pid:\t{pid}\nNSpid:\t{pid}\n"
