"""May one task look into another: ptrace(2), "Ptrace access mode checking"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.auth import ptrace
from sentry.errors import EPERM

if TYPE_CHECKING:
    from sentry.kernel.task import Task


def may_access(task: Task, target: Task, *, real: bool) -> bool:
    """PTRACE_MODE_READ and _ATTACH; `real` judges by the real ids, else by the fs ids."""
    if task.group is target.group:
        return True
    return ptrace.may_access(task.creds, target, real=real)


def check_attach(task: Task, target: Task) -> None:
    """PTRACE_MODE_ATTACH_REALCREDS. Raises: EPERM."""
    if not ptrace.may_attach(task, target, real=True):
        raise EPERM(f"{target!r}")


def check_read(task: Task, target: Task) -> None:
    """PTRACE_MODE_READ_FSCREDS, as /proc wants it. Raises: EPERM."""
    if not may_access(task, target, real=False):
        raise EPERM(f"{target!r}")
