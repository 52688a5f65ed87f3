"""Making processes: what happens to the caller while its memory is copied."""

from __future__ import annotations

import pytest

from sentry.abi.signal import SIGKILL
from tests.world import AREA, World

PAGE = 4096
PIECES = 100


def test_who_is_killed_while_it_forks_has_no_more_children(monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        program = world.program()
        for at in range(AREA, AREA + PIECES * 2 * PAGE, 2 * PAGE):
            program.ok("mprotect", at, PAGE, 1)
        before = set(world.kernel.pids.groups) - {program.task.group.tgid}
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
        monkeypatch.setattr("sentry.mm.fork.LEND", 2 * PIECES + 1000)  # each is a step

        fork = program.begin("fork")
        world.loop.turn()
        assert not fork.done
        program.task.group.exit(SIGKILL)
        fork.wait()

        assert program.task.dead
        assert set(world.kernel.pids.groups) - {program.task.group.tgid} == before
