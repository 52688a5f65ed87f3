"""pidfd_open(2), pidfd_getfd(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.errors import EBADF, EINVAL, ESRCH
from sentry.fs.pidfd import PidFile
from sentry.fs.proc.process import PidDirectory
from sentry.kernel import access
from sentry.kernel.task import Task
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Fd, Int, Pid, UInt

if TYPE_CHECKING:
    from sentry.kernel.thread_group import ThreadGroup



def open_pidfd(task: Task, group: ThreadGroup, nonblock: bool = False) -> int:
    """A new descriptor for a process, close-on-exec. EMFILE."""
    file = PidFile(task.kernel.vfs, group, nonblock)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=True)


def group_of(task: Task, fd: int) -> ThreadGroup:
    """The process of a pidfd, or of an open /proc/PID. EBADF."""
    file = task.files.get(fd & 0xFFFFFFFF)
    if isinstance(file, PidFile):
        group: ThreadGroup = file.group
        return group
    inode = file.inode
    if isinstance(inode, PidDirectory) and not inode.subject.is_thread:
        group = inode.subject.group
        return group
    raise EBADF(f"fd {fd} is no pidfd")


@syscall(434)
def sys_pidfd_open(task: Task, pid: Pid, flags: UInt) -> int:
    """pidfd_open(2): the id of a process, not of a thread that does not lead one."""
    if flags & ~O_NONBLOCK or pid <= 0:
        raise EINVAL("flags or pid")
    group = task.kernel.pids.groups.get(pid)
    if group is None:
        if pid in task.kernel.pids.tasks:
            raise EINVAL(f"{pid} is a thread")
        raise ESRCH(f"pid {pid}")
    return open_pidfd(task, group, bool(flags & O_NONBLOCK))


@syscall(438)
def sys_pidfd_getfd(task: Task, fd: Fd, target: Int, flags: UInt) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor, with the rights of ptrace attach."""
    if flags:
        raise EINVAL("flags")
    group = group_of(task, fd)
    if not group.tasks:
        raise ESRCH("the process is gone")
    access.check_attach(task, group.tasks[0])
    file = group.tasks[0].files.get_raw(target & 0xFFFFFFFF)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=True)
