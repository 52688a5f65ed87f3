"""pidfd_open(2): a descriptor that stands for a process and becomes readable when it ends."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import pidfd
from sentry.abi.fcntl import O_NONBLOCK, O_RDWR
from sentry.abi.pidfd import PIDFD_THREAD
from sentry.abi.poll import EPOLLHUP, EPOLLIN, EPOLLRDNORM
from sentry.abi.stat import PID_FS_MAGIC
from sentry.auth.ptrace import may_access
from sentry.errors import EACCES, EINVAL, ESRCH
from sentry.vfs.file import Caller, FileDescription
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.requests import Requests
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.vfs.vfs import Vfs

_MODE: Final = 0o100700
PIDFDS: Final = Requests(names=(pidfd,))


class PidFile(FileDescription):
    """The process is `group`; with `thread` (PIDFD_THREAD) it stands for that task alone.

    All descriptors of a process have one inode, by which programs see that it is the same process.
    """

    __slots__ = ("group", "thread")
    requests: ClassVar = PIDFDS
    has_read: ClassVar = False
    has_write: ClassVar = False
    splice_read: ClassVar = False
    splice_write: ClassVar = False
    can_poll: ClassVar = True

    def __init__(self, vfs: Vfs, group: Any, nonblock: bool, thread: Any = None) -> None:
        fs = vfs.anon_fs("pidfs", PID_FS_MAGIC)
        who = group if thread is None or thread is group.leader else thread
        inode: Inode | None = who.pid_inode
        if inode is None:
            inode = who.pid_inode = Inode(fs, vfs.new_ino(), _MODE, Owner(0, 0))
        queue: WaitQueue = group.pid_queue
        location = vfs.anon_location(inode, b"anon_inode:[pidfd]")
        flags = O_RDWR | (O_NONBLOCK if nonblock else 0) | (PIDFD_THREAD if thread else 0)
        super().__init__(location, flags, queue)
        self.group = group
        self.thread = thread

    @property
    def can_pread(self) -> bool:
        """It has positions, though nothing to read."""
        return True

    @property
    def can_pwrite(self) -> bool:
        """As for reading."""
        return True

    @property
    def ended(self) -> bool:
        """There is nothing left to signal: the thread, or all threads, are gone."""
        return self.group.is_zombie or (self.thread is not None and self.thread.dead)

    def poll(self) -> int:
        """Readable once every thread is gone; hung up once it was waited for."""
        if not self.ended:
            return 0
        return EPOLLIN | EPOLLRDNORM | (EPOLLHUP if self._is_gone else 0)

    @property
    def _is_gone(self) -> bool:
        """It has ended, and it was waited for or needs not be."""
        if self.thread is not None and self.thread is not self.group.leader:
            return self.ended
        return self.ended and self.group.parent is None

    def fdinfo_in(self, pids: Any) -> str:
        """The Pid lines: pidfd_show_fdinfo()."""
        if self._is_gone:
            return "Pid:\t-1\nNSpid:\t-1\n"
        numbers = pids.numbers(self.group.tgid if self.thread is None else self.thread.tid)
        return f"Pid:\t{numbers[0]}\nNSpid:\t" + "\t".join(map(str, numbers)) + "\n"


def _open_namespace(kind: str, file: PidFile, caller: Caller, argument: int) -> int:
    """A namespace of the process. Raises: EINVAL, ESRCH, EACCES."""
    from sentry.fs.proc.namespaces import namespace_of, open_namespace  # noqa: PLC0415

    if argument:
        raise EINVAL("there is no argument")
    task = file.thread or file.group.leader
    if task is None or task.dead:
        raise ESRCH("the process has ended")
    mine: Any = caller
    if file.group is not mine.group and not may_access(mine.creds, task, real=False):
        raise EACCES(f"process {file.group.tgid}")
    return open_namespace(caller, *namespace_of(task, kind))


for _kind in (
    "cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user",
    "uts",
):  # fmt: skip
    PIDFDS.row(f"PIDFD_GET_{_kind.upper()}_NAMESPACE", partial(_open_namespace, _kind))
