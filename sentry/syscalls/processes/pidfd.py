"""pidfd_open(2), pidfd_getfd(2), process_mrelease(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.pidfd import PIDFD_THREAD
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
    from sentry.vfs.file import FileDescription


def target_of(task: Task, fd: int) -> tuple[ThreadGroup, Task | None, FileDescription]:
    """The process of a pidfd or of an open /proc/PID, and the thread if it means one. EBADF."""
    file = task.files.get(fd & 0xFFFFFFFF)
    if isinstance(file, PidFile):
        return file.group, file.thread, file
    inode = file.inode
    if isinstance(inode, PidDirectory) and not inode.subject.is_thread:
        return inode.subject.group, None, file
    raise EBADF(f"fd {fd} is no pidfd")


def group_of(task: Task, fd: int) -> ThreadGroup:
    """The process of a pidfd. EBADF."""
    return target_of(task, fd)[0]


@syscall(434)
def sys_pidfd_open(task: Task, pid: Pid, flags: UInt) -> int:
    """pidfd_open(2): the id of a process; with PIDFD_THREAD of any thread."""
    if flags & ~(O_NONBLOCK | PIDFD_THREAD) or pid <= 0:
        raise EINVAL("flags or pid")
    pids = task.pids
    group, thread = pids.group(pid), None
    if flags & PIDFD_THREAD:
        thread = pids.task_or_zombie(pid)
        group = thread.group if thread is not None else None
    elif group is None and pids.task(pid) is not None:
        raise EINVAL(f"{pid} is a thread")
    if group is None:
        raise ESRCH(f"pid {pid}")
    file = PidFile(task.kernel.vfs, group, bool(flags & O_NONBLOCK), thread)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=True)


@syscall(438)
def sys_pidfd_getfd(task: Task, fd: Fd, target: Int, flags: UInt) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor, with the rights of ptrace attach."""
    if flags:
        raise EINVAL("flags")
    group, thread, _ = target_of(task, fd)
    owner = thread or group.leader
    if owner is None or owner.dead:
        raise ESRCH("the process is gone")
    access.check_attach(task, owner)
    file = owner.files.get_raw(target & 0xFFFFFFFF)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=True)


@syscall(448)
def sys_process_mrelease(task: Task, fd: Fd, flags: UInt) -> None:
    """process_mrelease(2): a dying process gives its memory back at once in any case."""
    if flags:
        raise EINVAL("flags")
    group = group_of(task, fd)
    if not group.tasks:
        raise ESRCH("the process is gone")
    if not group.exiting:
        raise EINVAL("the process is not dying")
