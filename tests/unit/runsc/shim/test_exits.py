"""In which order ends are told."""

from __future__ import annotations

import os
from typing import cast

import pytest

from runsc.shim import exits
from runsc.shim import messages as m
from runsc.shim.exits import Exits
from runsc.shim.loop import Loop
from runsc.shim.messages import TaskStatus
from runsc.shim.options import Settings
from runsc.shim.publisher import Publisher
from runsc.shim.streams import Streams
from runsc.shim.tasks import Process, Task, Tasks


class Told:
    """Takes events."""

    def __init__(self) -> None:
        self.events: list[m.Message] = []

    def publish(self, event: m.Message) -> None:
        self.events.append(event)

    @property
    def ends(self) -> list[tuple[str, int]]:
        return [(e.id, e.exit_status) for e in self.events if isinstance(e, m.TaskExit)]


class World:
    """A container with pid 10, and an `exec` with pid 20."""

    def __init__(self) -> None:
        self.told = Told()
        tasks = Tasks()
        self.exits = Exits(Loop(lambda pid, status: None), tasks, cast(Publisher, self.told))
        self.init, self.added = _process("", 10), _process("e", 20)
        self.task = tasks.by_id["c"] = Task("c", "/b", Settings("/r"), self.init)
        self.task.execs["e"] = self.added


def _process(exec_id: str, pid: int) -> Process:
    made = Process(exec_id, Streams())
    made.pid, made.status = pid, TaskStatus.RUNNING
    return made


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3 << 8, 3), (9, 137), (15, 143)])
def test_an_end_has_the_exit_code_of_a_shell(world: World, status: int, code: int) -> None:
    world.exits.reaped(20, status)

    assert world.told.ends == [("e", code)]
    assert (world.added.status, world.added.exit_status) == (TaskStatus.STOPPED, code)
    assert world.added.exited.settled


def test_the_first_process_is_told_of_last(world: World) -> None:
    world.exits.reaped(10, 0)
    assert world.told.ends == []
    assert world.init.status == TaskStatus.RUNNING

    world.exits.reaped(20, 9)

    assert world.told.ends == [("e", 137), ("c", 0)]


def test_an_end_during_the_start_is_told_after_it(world: World) -> None:
    world.added.busy = True
    world.exits.reaped(20, 1 << 8)
    assert world.told.ends == []

    world.exits.settled(world.task, world.added)

    assert world.told.ends == [("e", 1)]


def test_the_pid_may_be_known_only_after_the_end(world: World) -> None:
    world.init.busy, world.init.pid = True, 0
    world.added.status = TaskStatus.STOPPED
    world.exits.reaped(30, 2 << 8)

    world.init.pid = 30
    world.exits.settled(world.task, world.init)

    assert world.told.ends == [("c", 2)]


def test_others_that_end_meanwhile_are_not_taken_for_it(world: World) -> None:
    world.exits.reaped(30, 0)
    world.init.busy = True
    world.exits.reaped(31, 0)
    world.exits.settled(world.task, world.init)

    world.added.busy, world.added.pid = True, 31
    world.exits.settled(world.task, world.added)

    assert world.told.ends == []


def test_an_earlier_process_with_its_number_is_not_taken_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is being made others end, whose numbers the host uses again."""
    starts = iter([7, 9])
    monkeypatch.setattr(exits, "began", lambda _: next(starts))
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    world.added.busy, world.added.pid = True, 0
    world.exits.reaped(30, 0)
    world.added.pid, world.added.began = 30, 9
    world.exits.kill(world.added)
    assert killed == [30]

    world.init.busy = True  # so that what has been seen is remembered
    world.exits.settled(world.task, world.added)
    assert (world.told.ends, world.added.status) == ([], TaskStatus.RUNNING)

    world.added.busy = True
    world.exits.reaped(30, 3 << 8)
    world.exits.kill(world.added)
    world.exits.settled(world.task, world.added)
    assert world.told.ends == [("e", 3)]
    assert killed == [30]


def test_it_is_told_once(world: World) -> None:
    world.exits.reaped(20, 0)
    world.exits.reaped(20, 0)

    assert world.told.ends == [("e", 0)]
