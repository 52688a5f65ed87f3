"""What a task may stop sharing."""

from __future__ import annotations

import errno

from sentry.abi.sched import CLONE_FS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM
from sentry.abi.signal import SIGCHLD
from tests.world import Program


def test_memory_and_handlers_of_two_processes_stay_shared(task: Program) -> None:
    assert task.call("unshare", CLONE_VM | CLONE_SIGHAND | CLONE_THREAD) == 0
    other = task._made(task.ok("clone", CLONE_VM | SIGCHLD, 0, 0, 0, 0))
    for one in (task, other):
        assert one.call("unshare", CLONE_VM) == -errno.EINVAL
        assert one.call("unshare", CLONE_SIGHAND) == 0
    other.begin("exit_group", 0)
    task.world.settle()
    assert task.call("unshare", CLONE_VM) == 0
    task._made(task.ok("clone", CLONE_VM | CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0))
    assert task.call("unshare", CLONE_SIGHAND) == -errno.EINVAL
    assert task.call("unshare", CLONE_FS) == 0
