"""What the entry code may answer by itself: the ids of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentry.kernel.task import Task


FAST: Final = frozenset({24, 39, 102, 104, 107, 108, 186})
"""What the entry code of the guest answers by itself, unless somebody is interested: sched_yield,
getpid, getuid, getgid, geteuid, getegid, gettid."""
INTERPOSED: Final[set[int]] = set()
"""Calls that somebody is interested in: kept by sentry.syscalls.interposing."""


def hears_fast_calls() -> bool:
    """Somebody is interested in what else never reaches the kernel."""
    return not FAST.isdisjoint(INTERPOSED)


def child_identity(task: Task) -> None:
    """Tell the entry code what it may answer by itself: nothing of a task that is observed."""
    c = task.creds
    ids = (c.uid, c.euid, c.gid, c.egid)
    if c.user_ns is not None:
        uid, gid = c.shown_uid, c.shown_gid
        ids = (uid(c.uid), uid(c.euid), gid(c.gid), gid(c.egid))
    pid = 0 if task.observers or hears_fast_calls() else task.own_pid
    task.ctx.set_fast(pid, task.own_tid, ids)
