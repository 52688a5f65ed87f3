"""Whose scheduling one may change, and how."""

from __future__ import annotations

import errno
import struct

from msgspec.structs import replace

from sentry.abi.resource import PRIO_PROCESS
from sentry.abi.sched import (
    CLONE_NEWUSER,
    SCHED_BATCH,
    SCHED_FIFO,
    SCHED_FLAG_KEEP_PARAMS,
    SCHED_RR,
)
from tests.world import Program


def test_affinity_asks_for_the_capability_where_the_process_is(task: Program) -> None:
    outside = task.sibling(uid=7)
    task.ok("unshare", CLONE_NEWUSER)
    inside = task.sibling()
    inside.task.creds = replace(task.task.creds, uid=7, euid=7, suid=7)
    mask = task.place(b"\1" + bytes(7))

    assert task.call("sched_setaffinity", inside.task.tid, 8, mask) == 0
    assert task.call("sched_setaffinity", outside.task.tid, 8, mask) == -errno.EPERM


def test_parameters_that_are_kept_are_those_of_the_policy_before(task: Program) -> None:
    def change(policy: int, nice: int, priority: int) -> int:
        attr = struct.pack("<2IQiI3Q", 48, policy, SCHED_FLAG_KEEP_PARAMS, nice, priority, 0, 0, 0)
        return task.call("sched_setattr", 0, task.place(attr), 0)

    task.ok("setpriority", PRIO_PROCESS, 0, 5)
    assert change(SCHED_BATCH, -20, 99) == -errno.EINVAL
    assert change(SCHED_BATCH, -20, 0) == 0
    assert task.ok("getpriority", PRIO_PROCESS, 0) == 20 - 5
    assert change(SCHED_FIFO, 0, 50) == 0
    assert change(SCHED_RR, 0, 60) == 0
    param = task.buffer(4)
    task.ok("sched_getparam", 0, param)
    assert struct.unpack("<i", task.read(param, 4)) == (50,)
