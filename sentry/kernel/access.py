"""May one task look into another: ptrace(2), "Ptrace access mode checking"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SYS_PTRACE
from sentry.errors import EPERM

if TYPE_CHECKING:
    from sentry.kernel.task import Task


def may_access(task: Task, target: Task, *, real: bool) -> bool:
    """PTRACE_MODE_READ and _ATTACH; `real` judges by the real ids, else by the fs ids."""
    if task.group is target.group:
        return True
    mine, theirs = task.creds, target.creds
    uid, gid = (mine.uid, mine.gid) if real else (mine.fsuid, mine.fsgid)
    if mine.has(CAP_SYS_PTRACE):
        return True
    same = uid == theirs.uid == theirs.euid == theirs.suid
    same = same and gid == theirs.gid == theirs.egid == theirs.sgid
    if not same or target.group.dumpable != 1:
        return False
    return not theirs.permitted & ~mine.permitted


def check_attach(task: Task, target: Task) -> None:
    """PTRACE_MODE_ATTACH_REALCREDS. Raises: EPERM."""
    if not may_access(task, target, real=True):
        raise EPERM(f"{target!r}")


def check_read(task: Task, target: Task) -> None:
    """PTRACE_MODE_READ_FSCREDS, as /proc wants it. Raises: EPERM."""
    if not may_access(task, target, real=False):
        raise EPERM(f"{target!r}")
