"""Rights of the new program: set-id bits, file capabilities, what stands against them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.abi.mount import MS_NOSUID
from sentry.auth.credentials import Credentials
from sentry.auth.execve import after_exec, parse_file_caps
from sentry.auth.file_caps import counts_for
from sentry.auth.permissions import MAY_READ
from sentry.auth.userns import NO_ID, is_inside, kernel_id
from sentry.errors import ENODATA, EOPNOTSUPP
from sentry.vfs.access import allows
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.auth.execve import FileCaps
    from sentry.auth.userns import UserNamespace
    from sentry.kernel.task import Task

CAPABILITY_XATTR = b"security.capability"


async def new_credentials(task: Task, file: Any) -> tuple[Credentials, bool]:
    """The credentials that `file` runs with, and AT_SECURE. Raises: EPERM."""
    inode = file.inode
    creds, mount = task.creds, file.location.mount
    untrusted = not may_set_id(task, mount)
    caps = None if untrusted else await file_caps(inode)
    if caps is not None and not counts_for(creds, kernel_id(inode.fs.owner, caps.root_uid)):
        caps = None
    ids = (inode.uid, inode.gid)
    plain = untrusted or not knows(creds.user_ns, inode)
    mode = inode.mode & ~0o6000 if plain else inode.mode
    return after_exec(
        creds, mode, ids, caps,
        no_new_privs=task.no_new_privs,
        unsafe=lambda: traced(task) or shares_root(task),
    )  # fmt: skip


def may_set_id(task: Task, mount: Any) -> bool:
    """mnt_may_suid(): a mount of the task's own namespace, and no foreign file system."""
    if mount.flags & MS_NOSUID or mount.namespace is not task.mounts:
        return False
    return is_inside(task.creds.user_ns, mount.fs.owner)


async def file_caps(inode: Any) -> FileCaps | None:
    """The program's file capabilities, if there are any."""
    try:
        return parse_file_caps(await again(inode.getxattr, CAPABILITY_XATTR))
    except (ENODATA, EOPNOTSUPP):
        return None


def traced(task: Task) -> bool:
    """Somebody without CAP_SYS_PTRACE traces the task: ptrace(2), LSM_UNSAFE_PTRACE."""
    tracer = task.trace.tracer if task.trace is not None else None
    return tracer is not None and not tracer.creds.has_in(task.creds.user_ns, CAP_SYS_PTRACE)


def shares_root(task: Task) -> bool:
    """check_unsafe_exec(): another process has the same root and working directory (CLONE_FS)."""
    return any(
        other.fs is task.fs and other.group is not task.group and not other.dead
        for other in task.kernel.pids.tasks.values()
    )


def knows(ns: UserNamespace | None, inode: Any) -> bool:
    """privileged_wrt_inode_uidgid(): owner and group have numbers in the namespace."""
    return ns is None or NO_ID not in (
        ns.uid_map.from_kernel(inode.uid), ns.gid_map.from_kernel(inode.gid)
    )  # fmt: skip


def would_dump(creds: Credentials, files: list[Any]) -> tuple[bool, UserNamespace | None]:
    """Who may not read the program or its loader may not look at its memory.

    Says whether all can be read, and the user namespace in which CAP_SYS_PTRACE helps where not:
    one that knows the owners. Raises: NotNow.
    """
    readable, ns = True, creds.user_ns
    for inode in (file.inode for file in files):
        if not allows(creds, inode, MAY_READ):
            readable = False
            while ns is not None and not knows(ns, inode):
                ns = ns.parent
    return readable, ns


def unchanged(old: Credentials, new: Credentials) -> bool:
    """Nobody has become somebody else, nor gained anything: begin_new_exec(), commit_creds()."""
    return (
        (old.euid, old.egid) == (old.uid, old.gid)
        and (old.euid, old.egid, old.fsuid, old.fsgid)
        == (new.euid, new.egid, new.fsuid, new.fsgid)
        and not new.permitted & ~old.permitted
    )
