"""unshare(2): descriptors, root and working directory, mounts of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.sched import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
)
from sentry.errors import EINVAL, EPERM
from sentry.kernel.sysv_ipc import leave_semaphores, new_namespace, task_exits
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Size

if TYPE_CHECKING:
    from sentry.kernel.task import Task

OTHER_NAMESPACES = (
    CLONE_NEWCGROUP | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWTIME | CLONE_NEWUSER
)
OF_A_PROCESS = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM
KNOWN = OF_A_PROCESS | OTHER_NAMESPACES | CLONE_FILES | CLONE_FS | CLONE_NEWNS | CLONE_NEWUTS
KNOWN |= CLONE_SYSVSEM | CLONE_NEWIPC


@syscall(272, partial="of the namespaces those of mounts, IPC and the machine's names")
def sys_unshare(task: Task, flags: Size) -> None:
    """unshare(2): check_unshare_flags(), ksys_unshare()."""
    if flags & ~KNOWN:
        raise EINVAL(f"flags {flags:#x}")
    if flags & OF_A_PROCESS and len(task.group.tasks) > 1:
        raise EINVAL("the process has several threads")
    namespaces = flags & (OTHER_NAMESPACES | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
    if flags & CLONE_NEWUSER or (namespaces and not task.creds.has(CAP_SYS_ADMIN)):
        raise EPERM("namespaces")
    if namespaces & OTHER_NAMESPACES:
        raise EINVAL("this kind of namespace is not supported")
    if flags & (CLONE_FS | CLONE_NEWNS):
        task.fs = task.fs.copy()
    if flags & CLONE_FILES and task.files.users > 1:
        task.files.users -= 1
        task.files = task.files.copy()
    if flags & CLONE_NEWIPC:
        ipc = new_namespace(task.kernel)
        task_exits(task)
        task.ipc = ipc
    elif flags & CLONE_SYSVSEM:
        leave_semaphores(task)
    if flags & CLONE_NEWUTS:
        task.uts = task.uts.copy()
    if flags & CLONE_NEWNS:
        task.mounts = task.mounts.copy([task.fs])
