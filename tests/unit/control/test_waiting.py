"""Who waits for the end of a process, or for memory to run out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sentry.control.waiting import OomWait, Wait
from tests.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def test_the_end_of_a_process_is_told_once_and_a_zombie_at_once(world: World) -> None:
    parent = world.program()
    child = parent.fork()
    told: list[int] = []
    gone: list[Wait] = []
    wait = Wait(child.task.group, told.append, gone.append)
    wait.look()
    assert told == []

    child.begin("exit_group", 3)
    world.settle()

    assert (told, gone) == ([0x300], [wait])
    assert len(child.task.group.pid_queue) == 0
    Wait(child.task.group, told.append, gone.append).look()
    assert told == [0x300, 0x300]
    status = parent.buffer(4)
    assert parent.ok("wait4", child.task.tid, status, 0, 0) == child.task.tid


def test_what_is_given_up_is_told_nothing(world: World) -> None:
    parent = world.program()
    child = parent.fork()
    told: list[int] = []
    wait = Wait(child.task.group, told.append, lambda _: None)
    oom = OomWait(world.kernel, world.kernel.container, 0, lambda: told.append(1))
    wait.abandon()
    oom.abandon()

    child.begin("exit_group", 3)
    world.kernel.container.killed()
    world.settle()

    assert told == []
    assert len(world.kernel.container.oom_queue) == 0


def test_the_end_of_the_sandbox_is_that_of_its_first_process_and_kills_others(
    world: World,
) -> None:
    told: list[int] = []
    for program in (world.init, world.program()):
        wait = Wait(program.task.group, told.append, lambda _: None)
        wait.finish(world.kernel.init, 0x500)

    assert told == [0x500, 9]


def test_memory_that_runs_out_once_more_is_told(world: World) -> None:
    told: list[str] = []
    container = world.kernel.container
    container.killed()
    OomWait(world.kernel, container, 1, lambda: told.append("next")).look()
    OomWait(world.kernel, container, 0, lambda: told.append("before")).look()
    world.settle()
    assert told == ["before"]
    container.killed(0)
    world.settle()
    assert told == ["before"]
    container.killed(2)
    world.settle()

    assert told == ["before", "next"]
    assert container.oom_kills == 3
