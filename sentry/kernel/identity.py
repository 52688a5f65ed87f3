"""What the entry code may answer by itself: the ids of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentry.kernel.task import Task


def child_identity(task: Task) -> None:
    """Tell the entry code what it may answer by itself: nothing of a task that is observed."""
    c = task.creds
    ids = (c.uid, c.euid, c.gid, c.egid)
    if c.user_ns is not None:
        uid, gid = c.shown_uid, c.shown_gid
        ids = (uid(c.uid), uid(c.euid), gid(c.gid), gid(c.egid))
    watch = task.kernel.watch
    hidden = task.observers or (watch is not None and watch.hears_fast_calls)
    pid = 0 if hidden else task.own_pid
    task.ctx.set_fast(pid, task.own_tid, ids)
