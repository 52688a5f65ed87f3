"""Whose scheduling one may change."""

from __future__ import annotations

import errno

from msgspec.structs import replace

from sentry.abi.sched import CLONE_NEWUSER
from tests.world import Program


def test_affinity_asks_for_the_capability_where_the_process_is(task: Program) -> None:
    outside = task.sibling(uid=7)
    task.ok("unshare", CLONE_NEWUSER)
    inside = task.sibling()
    inside.task.creds = replace(task.task.creds, uid=7, euid=7, suid=7)
    mask = task.place(b"\1" + bytes(7))

    assert task.call("sched_setaffinity", inside.task.tid, 8, mask) == 0
    assert task.call("sched_setaffinity", outside.task.tid, 8, mask) == -errno.EPERM
