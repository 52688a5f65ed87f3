"""Whose limits one may look at and change."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

from msgspec.structs import replace

from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.resource import RLIMIT_CORE
from sentry.abi.sched import CLONE_NEWUSER
from tests.world import Program


def test_prlimit_asks_for_the_capability_where_the_process_is(task: Program) -> None:
    outside = task.sibling(uid=7)
    task.ok("unshare", CLONE_NEWUSER)
    inside = task.sibling()
    inside.task.creds = replace(task.task.creds, uid=7, euid=7, suid=7)
    limit = task.place(struct.pack("<2Q", 0, 0))

    assert task.call("prlimit64", inside.task.tid, RLIMIT_CORE, limit, 0) == 0
    assert task.call("prlimit64", outside.task.tid, RLIMIT_CORE, limit, 0) == -errno.EPERM

    effective = task.task.creds.effective & ~(1 << CAP_SYS_RESOURCE)
    task.task.creds = replace(task.task.creds, effective=effective)
    assert task.call("prlimit64", inside.task.tid, RLIMIT_CORE, 0, limit) == -errno.EPERM


def test_prlimit_tells_what_was_before_when_the_page_is_there(
    task: Program, fetched_first: Callable[[int], None]
) -> None:
    old, new = task.buffer(16), task.place(struct.pack("<2Q", 7, 8))
    task.ok("setrlimit", RLIMIT_CORE, task.place(struct.pack("<2Q", 5, 9)))
    fetched_first(old)
    assert task.begin("prlimit64", 0, RLIMIT_CORE, new, old).wait() == 0
    assert struct.unpack("<2Q", task.read(old, 16)) == (5, 9)
