"""A file system that is set up through a descriptor, step by step."""

from __future__ import annotations

import errno
from typing import Any

from sentry.abi.mount import FSCONFIG_CMD_CREATE
from sentry.errors import EINVAL
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.wait.again import begun
from sentry.wait.fiber import Mode, park
from tests.world import Program, World


def context(world: World, task: Program, *, fails: bool) -> int:
    """Of a type that has to ask somebody before it has its file system, or has none."""

    async def asked() -> TmpFs:
        await park(Mode.KILLABLE, 0)
        if fails:
            raise EINVAL("no file system")
        return TmpFs.make(world.vfs)

    def make(*_: Any) -> TmpFs:
        return begun(context, asked)

    world.vfs.types[b"asking"] = make
    return task.ok("fsopen", b"asking", 0)


def test_type_that_has_to_wait_before_it_has_its_file_system(world: World, task: Program) -> None:
    fd = context(world, task, fails=False)
    assert task.call("fsconfig", fd, FSCONFIG_CMD_CREATE, 0, 0, 0) == 0
    task.ok("fsmount", fd, 0, 0)


def test_context_that_has_failed_cannot_be_used_again(world: World, task: Program) -> None:
    fd = context(world, task, fails=True)
    assert task.call("fsconfig", fd, FSCONFIG_CMD_CREATE, 0, 0, 0) == -errno.EINVAL
    assert task.call("fsconfig", fd, FSCONFIG_CMD_CREATE, 0, 0, 0) == -errno.EBUSY
