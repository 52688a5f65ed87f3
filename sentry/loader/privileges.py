"""Rights of the new program: set-id bits, file capabilities, what stands against them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.abi.mount import MS_NOSUID
from sentry.auth.credentials import Credentials
from sentry.auth.execve import after_exec, parse_file_caps
from sentry.auth.permissions import MAY_READ, may_access
from sentry.auth.userns import NO_ID, is_inside
from sentry.errors import ENODATA, EOPNOTSUPP

if TYPE_CHECKING:
    from sentry.auth.execve import FileCaps
    from sentry.kernel.task import Task

CAPABILITY_XATTR = b"security.capability"


async def new_credentials(task: Task, file: Any) -> tuple[Credentials, bool]:
    """The credentials that `file` runs with, and AT_SECURE. Raises: EPERM."""
    inode = file.inode
    untrusted = bool(file.location.mount.flags & MS_NOSUID) or task.no_new_privs or traced(task)
    creds = task.creds
    untrusted = untrusted or not is_inside(creds.user_ns, file.location.mount.fs.owner)
    caps = None if untrusted else await file_caps(inode)
    if caps is not None and not counts(creds, caps):
        caps = None
    ids = (inode.uid, inode.gid)
    ns = creds.user_ns
    unknown = ns is not None and NO_ID in (
        ns.uid_map.from_kernel(ids[0]), ns.gid_map.from_kernel(ids[1])
    )
    mode = inode.mode & ~0o6000 if unknown else inode.mode
    return after_exec(creds, mode, ids, caps, no_set_id=untrusted)


def counts(creds: Credentials, caps: FileCaps) -> bool:
    """rootid_owns_currentns(): its root is root here, or in a namespace above."""
    ns = creds.user_ns
    while ns is not None:
        if ns.uid_map.from_kernel(caps.root_uid) == 0:
            return True
        ns = ns.parent
    return caps.root_uid == 0


async def file_caps(inode: Any) -> FileCaps | None:
    """The program's file capabilities, if there are any."""
    try:
        return parse_file_caps(await inode.getxattr(CAPABILITY_XATTR))
    except (ENODATA, EOPNOTSUPP):
        return None


def traced(task: Task) -> bool:
    """Somebody without CAP_SYS_PTRACE traces the task: ptrace(2), LSM_UNSAFE_PTRACE."""
    tracer = getattr(task.trace, "tracer", None)
    return tracer is not None and not tracer.creds.has_in(task.creds.user_ns, CAP_SYS_PTRACE)


def may_be_dumped(creds: Credentials, file: Any) -> bool:
    """would_dump(): whoever may not read a program may not look at its memory either."""
    inode = file.inode
    return may_access(creds, inode.mode, inode.uid, inode.gid, MAY_READ)
