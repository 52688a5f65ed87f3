"""Who owns the files of a process, and who may look into it."""

from __future__ import annotations

from typing import Any

from sentry.auth.ptrace import may_access
from sentry.auth.userns import NO_ID
from sentry.errors import EACCES, ENOENT
from sentry.fs.proc.registry import Subject, View
from sentry.vfs.interface import Owner


def owner_of(subject: Subject) -> Owner:
    """task_dump_owner(): the effective ids, but root where the process is not dumpable."""
    task = subject.task
    if subject.group.dumpable != 1 and not task.dead:
        ns = subject.group.exec_user_ns
        if ns is None:
            return Owner(0, 0)
        ids = (ns.uid_map.to_kernel(0), ns.gid_map.to_kernel(0))
        return Owner(*(0 if number == NO_ID else number for number in ids))
    return Owner(task.creds.euid, task.creds.egid)


def may_read(caller: Any, subject: Subject) -> bool:
    """PTRACE_MODE_READ_FSCREDS."""
    task = subject.task
    if caller.group is subject.group:
        return True
    return may_access(caller.creds, task, real=False)


def opener_may_read(view: View) -> bool:
    """The same of who opened the file, as it was then: it may have become somebody else since, and
    the file may have come to others."""
    caller, creds = view.caller, view.creds
    itself = caller.group is view.subject.group and caller.creds is creds
    return itself or may_access(creds, view.subject.task, real=False)


def check_read(caller: Any, subject: Subject) -> None:
    """Raises: EACCES."""
    if not may_read(caller, subject):
        raise EACCES(f"process {subject.id}")


def live_task(subject: Subject) -> Any:
    """The thread, if it has not ended. Raises: ENOENT."""
    task = subject.task
    if not task.dead:
        return task
    raise ENOENT(f"process {subject.id} has ended")
