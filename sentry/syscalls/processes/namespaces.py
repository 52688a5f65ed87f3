"""unshare(2), setns(2): namespaces, and what else a task may stop sharing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_SYS_ADMIN, CAP_SYS_CHROOT
from sentry.abi.sched import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VM,
)
from sentry.errors import EINVAL, EPERM, ESRCH, EUSERS
from sentry.fs.pidfd import PidFile
from sentry.fs.proc.namespaces import CLONE_FLAGS, KINDS, NamespaceInode
from sentry.kernel import access, namespaces, time_namespace
from sentry.kernel.sysv_ipc import leave_segments, leave_semaphores
from sentry.syscalls.credentials.ids import commit
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Fd, Size, UInt
from sentry.vfs.file import Result
from sentry.wait.lock import Lock
from sentry.wait.steps import in_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.kernel.namespaces import NewNamespaces
    from sentry.kernel.task import Task
    from sentry.wait.steps import WaitingSteps

OF_A_PROCESS = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM
KNOWN = OF_A_PROCESS | namespaces.OWNED | CLONE_NEWUSER | CLONE_FILES | CLONE_FS | CLONE_SYSVSEM


@syscall(272)
def sys_unshare(task: Task, flags: Size) -> Result:
    """unshare(2): check_unshare_flags(), ksys_unshare()."""
    if flags & CLONE_NEWUSER:
        flags |= CLONE_THREAD | CLONE_FS
    if flags & CLONE_NEWNS:
        flags |= CLONE_FS
    if flags & ~KNOWN:
        raise EINVAL(f"flags {flags:#x}")
    if flags & OF_A_PROCESS and len(task.group.tasks) > 1:
        raise EINVAL("the process has several threads")
    if task.mm.users > 1 and (
        flags & CLONE_VM or (flags & CLONE_SIGHAND and task.group.actions.users > 1)
    ):
        raise EINVAL("another process has the same memory, or handlers")
    alone = task.files.users == 1
    if flags & CLONE_FILES and not alone:
        task.files.check_copy()
    if flags & CLONE_NEWNS:
        task.mounts.lock.check()
    creds = namespaces.new_user_namespace(task) if flags & CLONE_NEWUSER else task.creds
    new = namespaces.make(task, flags, creds)
    return in_steps(unshared(task, new), task.mounts.lock if flags & CLONE_NEWNS else None)


def unshared(task: Task, new: NewNamespaces) -> WaitingSteps[None]:
    """The task is elsewhere, when all that can fail has been done. Raises: ENOSPC."""
    going: list[object] = []
    flags = new.flags
    copied = yield from namespaces.copied_mounts(task, new)
    if flags & CLONE_FS:
        task.fs = task.fs.copy()
    if flags & CLONE_FILES and task.files.users > 1:
        yield from task.unshare_files()
    if flags & CLONE_NEWIPC:
        going += leave_semaphores(task), leave_segments(task)
    elif flags & CLONE_SYSVSEM:
        going.append(leave_semaphores(task))
    namespaces.enter(task, new, task.fs, copied)
    if new.creds is not task.creds:
        commit(task, new.creds)
    yield from until_gone(going)


def until_gone(going: list[object]) -> WaitingSteps[None]:
    """What it has left there has been given back: the locks of what still goes on."""
    for each in going:
        while isinstance(each, Lock) and each.holder is not None:
            yield each.until_free


# --- setns


class Joining:
    """What a setns(2) is to do: struct nsset. Nothing happens before all of it is allowed."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.creds = task.creds
        """Those of the user namespace that is joined, if one is."""
        self.steps: list[Callable[[Task], object]] = []

    def check_admin(self, owner: Any) -> None:
        """Capable in the namespace's owner, and where one will be. Raises: EPERM."""
        mine = self.task.creds
        if not all(mine.has_in(ns, CAP_SYS_ADMIN) for ns in (owner, self.creds.user_ns)):
            raise EPERM("CAP_SYS_ADMIN")

    def set(self, name: str, value: Any) -> None:
        """Another one of its `Namespaces`."""

        def step(task: Task) -> None:
            task.ns = task.ns.but(**{name: value})

        self.steps.append(step)


def join_user(to: Joining, namespace: Any) -> None:
    """userns_install()."""
    task = to.task
    if namespace is task.creds.user_ns:
        raise EINVAL("the caller's own")
    if len(task.group.tasks) > 1 or is_shared(task):
        raise EINVAL("several threads, or a shared root")
    if not task.creds.has_in(namespace, CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    to.creds = task.creds.in_new_namespace(namespace)


def is_shared(task: Task) -> bool:
    """fs->users: somebody else has the same root and working directory (CLONE_FS)."""
    return any(
        other is not task and not other.dead and other.fs is task.fs
        for other in task.kernel.pids.tasks.values()
    )


def join_mounts(to: Joining, namespace: Any) -> None:
    """mntns_install()."""
    to.check_admin(namespace.owner)
    if not to.task.creds.has_in(to.creds.user_ns, CAP_SYS_CHROOT):
        raise EPERM("CAP_SYS_CHROOT")
    if is_shared(to.task):
        raise EINVAL("a shared root")
    to.set("mounts", namespace)
    to.steps.append(lambda task: task.fs.enter(namespace.mounts))


def join_ipc(to: Joining, namespace: Any) -> None:
    """ipcns_install()."""
    to.check_admin(namespace.owner)
    to.steps += [leave_semaphores, leave_segments]
    to.set("ipc", namespace)


def join_pids(to: Joining, namespace: Any) -> None:
    """pidns_install(): for the children to come, and only downwards."""
    to.check_admin(namespace.owner)
    if not to.task.pids.contains(namespace):
        raise EINVAL("not the caller's namespace or one below")
    to.set("pids_for_children", namespace)


def join_time(to: Joining, namespace: Any) -> None:
    """timens_install()."""
    if len(to.task.group.tasks) > 1:
        raise EUSERS("several threads")
    to.check_admin(namespace.owner)
    to.steps.append(lambda task: time_namespace.join(task, namespace))
    to.set("time_for_children", namespace)


def join_plain(name: str) -> Callable[[Joining, Any], None]:
    """A kind that only needs the capability."""

    def join(to: Joining, namespace: Any) -> None:
        to.check_admin(namespace.owner)
        to.set(name, namespace)

    return join


JOIN: Final[dict[str, Callable[[Joining, Any], None]]] = {
    "user": join_user,
    "mnt": join_mounts,
    "uts": join_plain("uts"),
    "ipc": join_ipc,
    "pid": join_pids,
    "cgroup": join_plain("cgroup"),
    "net": join_plain("net"),
    "time": join_time,
}
"""In the order in which several are joined: validate_nsset()."""


@syscall(308)
def sys_setns(task: Task, fd: Fd, kinds: UInt) -> Result:
    """setns(2): by an open namespace, or by a pidfd and several kinds."""
    file = task.files.get(fd)
    inode = file.inode
    wanted: list[tuple[str, Any]] = []
    if isinstance(inode, NamespaceInode):
        if kinds and kinds != CLONE_FLAGS[inode.kind_name]:
            raise EINVAL("another kind of namespace")
        wanted.append((inode.kind_name, inode.namespace))
    elif isinstance(file, PidFile):
        if not kinds or kinds & ~(namespaces.OWNED | CLONE_NEWUSER):
            raise EINVAL(f"kinds {kinds:#x}")
        target = file.group.leader
        if target is None or target.dead:
            raise ESRCH("it has ended")
        if not access.may_access(task, target, real=True):
            raise EPERM("another's process")
        wanted += [(k, KINDS[k][1](target)) for k in JOIN if kinds & CLONE_FLAGS[k]]
    else:
        raise EINVAL("not a namespace")
    to = Joining(task)
    for kind, namespace in wanted:
        JOIN[kind](to, namespace)
    going = [step(task) for step in to.steps]
    if to.creds is not task.creds:
        commit(task, to.creds)
    return in_steps(until_gone(going))
