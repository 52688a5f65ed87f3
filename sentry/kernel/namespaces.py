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
from sentry.auth.userns import MAX_LEVEL, NO_ID, Charge, UserNamespace
from sentry.errors import EINVAL, ENOSPC, EPERM
from sentry.kernel.ipc_namespace import IpcNamespace
from sentry.kernel.kernel import Namespaces
from sentry.kernel.nsproxy import CgroupNamespace, TimeNamespace, Uts
from sentry.kernel.pids import PidNamespace
from sentry.net.namespace import NetNamespace
from sentry.vfs import mount_copies
from sentry.vfs.mount import top
from sentry.vfs.mounts import HeldMounts, MountNamespace

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task
    from sentry.vfs.fs_context import FsContext
    from sentry.vfs.mount import Mount
    from sentry.wait.steps import Steps

OWNED: Final[int] = (
    CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP
    | CLONE_NEWTIME
)  # fmt: skip
"""All kinds but those of users: they belong to a user namespace."""


class NewNamespaces(Struct, frozen=True):
    """Where a task goes to. Mounts come last: `enter`."""

    flags: int
    creds: "Credentials"
    made: dict[str, Any]
    """Fields of `Namespaces`; what is not there stays as it is."""
    mounts_charge: Charge | None = None

    @property
    def pids(self) -> PidNamespace | None:
        """A new one for the child, or for the children to come."""
        return self.made.get("pids_for_children")


class CopiedMounts(Struct, frozen=True):
    """Those of a new namespace."""

    held: HeldMounts
    by_old: dict[int, Mount]
    """By the ids of the originals: roots and working directories move there."""


def first(kernel: Kernel, mounts: MountNamespace) -> Namespaces:
    """Those of the sandbox."""
    time = TimeNamespace()
    return Namespaces(
        CgroupNamespace(kernel.cgroups),
        IpcNamespace(kernel, sysctls=kernel.services.sysctls), HeldMounts(mounts),
        NetNamespace(kernel, kernel.services.sysctls), kernel.pids, time, time, kernel.uts,
    )  # fmt: skip


def beside(
    kernel: Kernel,
    container: Container,
    root: Mount,
    names: tuple[bytes, bytes],
    shared: dict[str, Namespaces],
) -> Namespaces:
    """Those of a further container: of `shared` kinds another one's, the rest its own.

    `names` are those of its machine. The clocks are the sandbox's. Raises: ENOSPC.
    """

    def charge(kind: str) -> Charge:
        return kernel.services.namespace_counts.take(None, 0, kind)

    vfs, time = kernel.vfs, kernel.first.time
    mounts = MountNamespace(root, vfs.mount_ids, vfs.budget)
    cgroup = CgroupNamespace(container.cgroup, None, charge("cgroup"))
    held = HeldMounts(mounts, charge("mnt"))
    if (of_pids := shared.get("pid")) is not None:
        pids = of_pids.pids_for_children
    else:
        pids = PidNamespace(None, kernel.pids, None)
        pids.charge = charge("pid")
    if (of_names := shared.get("uts")) is not None:
        uts = of_names.uts
    else:
        uts = Uts(*names)
        uts.charge = charge("uts")
    if (of_ipc := shared.get("ipc")) is not None:
        ipc = of_ipc.ipc
    else:
        vfs.budget.check_ipc_namespaces()
        ipc = IpcNamespace(kernel, None, charge("ipc"))
    if (of_net := shared.get("network")) is not None:
        net = of_net.net
    else:
        net = NetNamespace(kernel, {}, None, charge("net"))
    return Namespaces(cgroup, ipc, held, net, pids, time, time, uts)


def new_user_namespace(task: Task) -> Credentials:
    """create_user_ns(): the credentials of who goes there. Raises: ENOSPC, EPERM."""
    creds = task.creds
    parent = creds.user_ns
    if parent is not None and parent.level > MAX_LEVEL:
        raise ENOSPC("user namespaces are too deep")
    charge = task.kernel.services.namespace_counts.take(parent, creds.euid, "user")
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
    if not flags & OWNED:
        return NewNamespaces(flags, creds, {})
    if not creds.own(CAP_SYS_ADMIN):
        raise EPERM("CAP_SYS_ADMIN")
    kernel, owner, now = task.kernel, creds.user_ns, task.ns
    made: dict[str, Any] = {}
    mounts_charge: Charge | None = None

    def charge(kind: str) -> Charge:
        return kernel.services.namespace_counts.take(owner, creds.euid, kind)

    if flags & CLONE_NEWNS:
        kernel.vfs.budget.check_mounts(len(task.mounts))
        mounts_charge = charge("mnt")
    if flags & CLONE_NEWUTS:
        made["uts"] = now.uts.copy(owner, charge("uts"))
    if flags & CLONE_NEWIPC:
        kernel.vfs.budget.check_ipc_namespaces()
        made["ipc"] = IpcNamespace(kernel, owner, charge("ipc"))
    if flags & CLONE_NEWPID:
        parent = now.pids_for_children
        if parent is not task.pids:
            raise EINVAL("the children have another PID namespace already")
        pids = made["pids_for_children"] = PidNamespace(parent, kernel.pids, owner)
        pids.charge = charge("pid")
    if flags & CLONE_NEWCGROUP:
        made["cgroup"] = CgroupNamespace(task.group.cgroup, owner, charge("cgroup"))
    if flags & CLONE_NEWNET:
        made["net"] = NetNamespace(kernel, {}, owner, charge("net"))
    if flags & CLONE_NEWTIME:
        made["time_for_children"] = TimeNamespace(owner, charge("time"), now.time_for_children)
    return NewNamespaces(flags, creds, made, mounts_charge)


def leave(task: Task) -> None:
    """exit_fs(), exit_task_namespaces(): a dead task keeps nothing of where it was.

    It may be waited for yet, but nobody looks at these any more: `live_task` in /proc.
    """
    task.fs = None  # type: ignore[assignment]
    task.ns = task.kernel.first


def copied_mounts(task: Task, new: NewNamespaces) -> Steps[CopiedMounts | None]:
    """A copy of the caller's mounts, if one is asked for, below their lock. Raises: ENOSPC."""
    if not new.flags & CLONE_NEWNS:
        return None
    held = task.ns.mounts  # nobody dissolves it meanwhile
    copy = mount_copies.copy_namespace.steps(held.mounts, new.creds.user_ns)
    mounts, by_old = yield from copy
    return CopiedMounts(HeldMounts(mounts, new.mounts_charge), by_old)


def enter(task: Task, new: NewNamespaces, fs: FsContext, copied: CopiedMounts | None) -> None:
    """The task (a child that does not run yet, or the caller) is in them from now on."""
    made = new.made
    if copied is not None:
        fs.move_to(copied.by_old)
        made = {**made, "mounts": copied.held}
    if made:
        task.ns = task.ns.but(**made)
