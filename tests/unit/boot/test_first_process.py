"""The first process of a container that is added, whose program is loaded in steps."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sentry.boot import first_process
from sentry.boot.first_process import load_further
from sentry.config import ContainerConfig, ProcessConfig, StartError
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel.container import Container
from sentry.kernel.namespaces import beside
from sentry.wait.fiber import Mode, park
from tests.unit.state.test_others import Two
from tests.world import World


def test_namespace_of_another_container_that_ends_meanwhile_takes_nobody_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World() as world:
        kernel, two, third = world.kernel, Two(world), Container()
        root = world.vfs.new_mount(TmpFs.make(world.vfs, "mode=0755"))
        third.ns = beside(kernel, third, root, (b"third", b""), {"pid": two.container.ns})

        async def start_program(*_: Any) -> None:
            two.second.begin("exit_group", 0)
            while not third.pids.ended or third.pids.init is not None:
                await park(Mode.KILLABLE, 0)

        monkeypatch.setattr(first_process, "start_program", start_program)
        monkeypatch.setattr(first_process, "put_under_observation", lambda *_: None)
        before = len(kernel.pids.tasks)
        one, two_, three = (os.open(os.devnull, os.O_RDWR) for _ in range(3))
        config = ContainerConfig("third", ProcessConfig((b"x",)), stdio=(one, two_, three))
        with pytest.raises(StartError, match="PID namespace"):
            world.run(load_further(kernel, config, third))
        assert len(kernel.pids.tasks) == before - 1
