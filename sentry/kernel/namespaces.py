"""New namespaces of clone(2) and unshare(2): kernel/nsproxy.c, namespaces(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from sentry.abi.capability import CAP_SETFCAP, CAP_SYS_ADMIN
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUTS,
)
from sentry.auth.userns import MAX_LEVEL, NO_ID, Charge, NamespaceCounts, UserNamespace
from sentry.errors import EINVAL, ENOSPC, EPERM
from sentry.kernel import sysv_ipc
from sentry.kernel.pids import PidNamespace
from sentry.kernel.time_namespace import TimeNamespace
from sentry.vfs.mount import top

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.kernel.kernel import Kernel, Uts
    from sentry.kernel.task import Task
    from sentry.net.stack import Stack
    from sentry.vfs.fs_context import FsContext

OWNED: Final = (
    CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP
    | CLONE_NEWTIME
)  # fmt: skip
"""All kinds but those of users: they belong to a user namespace."""


class CgroupNamespace:
    """All there is of cgroups is one, the root of the hierarchy in every namespace."""

    __slots__ = ("__weakref__", "charge", "owner")

    def __init__(self, owner: UserNamespace | None, charge: Charge) -> None:
        self.owner = owner
        self.charge = charge


class NewNamespaces(Struct):
    """What a task goes to; what is None stays as it is. Mounts come last: `enter`."""

    flags: int
    creds: Credentials
    uts: Uts | None = None
    ipc: Any = None
    net: Stack | None = None
    cgroup: CgroupNamespace | None = None
    pids: PidNamespace | None = None
    time: TimeNamespace | None = None
    mounts_charge: Charge | None = None


def counts(kernel: Kernel) -> NamespaceCounts:
    """How many namespaces each user has."""
    found: NamespaceCounts = kernel.services.setdefault("namespace_counts", NamespaceCounts())
    return found


def new_user_namespace(task: Task) -> Credentials:
    """create_user_ns(): the credentials of who goes there. Raises: ENOSPC, EPERM."""
    creds = task.creds
    parent = creds.user_ns
    if parent is not None and parent.level > MAX_LEVEL:
        raise ENOSPC("user namespaces are too deep")
    charge = counts(task.kernel).take(parent, creds.euid, "user")
    if task.fs.root != top(task.mounts.root.location):
        raise EPERM("in a chroot")
    if parent is not None and NO_ID in (
        parent.uid_map.from_kernel(creds.euid), parent.gid_map.from_kernel(creds.egid)
    ):
        raise EPERM("the ids of the caller are not mapped")
    made = UserNamespace(parent, creds.euid, creds.egid)
    made.charge = charge
    made.maker_had_setfcap = creds.own(CAP_SETFCAP)
    return creds.in_new_namespace(made)


def make(task: Task, flags: int, creds: Credentials) -> NewNamespaces:
    """create_new_namespaces(), for a task with these credentials. Raises: EPERM, ENOSPC, EINVAL."""
    made = NewNamespaces(flags, creds)
    if not flags & OWNED:
        return made
    if not creds.own(CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    kernel, owner = task.kernel, creds.user_ns

    def charge(kind: str) -> Charge:
        return counts(kernel).take(owner, creds.euid, kind)

    if flags & CLONE_NEWNS:
        task.kernel.vfs.budget.check_mounts(len(task.mounts))
        made.mounts_charge = charge("mnt")
    if flags & CLONE_NEWUTS:
        made.uts = task.uts.copy(owner, charge("uts"))
    if flags & CLONE_NEWIPC:
        made.ipc = sysv_ipc.new_namespace(kernel, owner, charge("ipc"))
    if flags & CLONE_NEWPID:
        parent = task.pids_for_children
        if parent is not task.pids:
            raise EINVAL("the children have another PID namespace already")
        made.pids = PidNamespace(parent, kernel.pids, owner)
        made.pids.charge = charge("pid")
    if flags & CLONE_NEWCGROUP:
        made.cgroup = CgroupNamespace(owner, charge("cgroup"))
    if flags & CLONE_NEWNET:
        from sentry.net.stack import Stack  # noqa: PLC0415  few programs unshare

        made.net = Stack(kernel, owner=owner, charge=charge("net"), up=False)
    if flags & CLONE_NEWTIME:
        made.time = TimeNamespace(owner, charge("time"), task.time_for_children)
    return made


def leave(task: Task) -> None:
    """exit_fs(), exit_task_namespaces(): a dead task keeps nothing of where it was.

    It may be waited for yet, but nobody looks at these any more: `live_task` in /proc.
    """
    task.fs = None  # type: ignore[assignment]
    task.mounts = task.kernel.services.get("mounts", task.mounts)
    task.uts = task.kernel.uts
    task.net = task.cgroup_ns = task.time_ns = task.time_for_children = None
    task.pids_for_children = task.pids


def enter(task: Task, new: NewNamespaces, fs: FsContext) -> None:
    """The task (a child that does not run yet, or the caller) is in them from now on."""
    if new.uts is not None:
        task.uts = new.uts
    if new.ipc is not None:
        task.ipc = new.ipc
    if new.net is not None:
        task.net = new.net
    if new.cgroup is not None:
        task.cgroup_ns = new.cgroup
    if new.pids is not None:
        task.pids_for_children = new.pids
    if new.time is not None:
        task.time_for_children = new.time
    if new.flags & CLONE_NEWNS:
        task.mounts = task.mounts.copy([fs], new.creds.user_ns)
        task.mounts.charge = new.mounts_charge
