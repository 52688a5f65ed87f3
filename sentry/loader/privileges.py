"""Rights of the new program: set-id bits, file capabilities, what stands against them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.abi.mount import MS_NOSUID
from sentry.auth.credentials import Credentials
from sentry.auth.execve import after_exec, parse_file_caps
from sentry.auth.permissions import MAY_READ, may_access
from sentry.errors import ENODATA, EOPNOTSUPP

if TYPE_CHECKING:
    from sentry.auth.execve import FileCaps
    from sentry.kernel.task import Task

CAPABILITY_XATTR = b"security.capability"


async def new_credentials(task: Task, file: Any) -> tuple[Credentials, bool]:
    """The credentials that `file` runs with, and AT_SECURE. Raises: EPERM."""
    inode = file.inode
    untrusted = bool(file.location.mount.flags & MS_NOSUID) or task.no_new_privs or traced(task)
    caps = None if untrusted else await file_caps(inode)
    return after_exec(
        task.creds, inode.mode, (inode.uid, inode.gid), caps, no_set_id=untrusted
    )


async def file_caps(inode: Any) -> FileCaps | None:
    """The program's file capabilities, if there are any."""
    try:
        return parse_file_caps(await inode.getxattr(CAPABILITY_XATTR))
    except (ENODATA, EOPNOTSUPP):
        return None


def traced(task: Task) -> bool:
    """Somebody without CAP_SYS_PTRACE traces the task: ptrace(2), LSM_UNSAFE_PTRACE."""
    tracer = getattr(task.trace, "tracer", None)
    return tracer is not None and not tracer.creds.has(CAP_SYS_PTRACE)


def may_be_dumped(creds: Credentials, file: Any) -> bool:
    """would_dump(): whoever may not read a program may not look at its memory either."""
    inode = file.inode
    return may_access(creds, inode.mode, inode.uid, inode.gid, MAY_READ)
