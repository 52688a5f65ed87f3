"""Time that goes on from timer to timer: whom it waits for."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any

import pytest

from sentry.control.answers import ClockState
from sentry.control.timing import Advancing
from sentry.wait.fiber import Mode
from tests.world import SteppedLoop

HOUR_NS = 3600 * 10**9
SLEEPS = Namespace(parked=True, mode=Mode.INTERRUPTIBLE)


class Machine:
    """There is nothing but time."""

    again = False
    ready: list[tuple[int, int]] = []  # noqa: RUF012

    def wait(self, deadline_ns: int | None) -> tuple[()]:
        return ()

    def watch(self, fd: int, events: int) -> None:
        """Nothing is watched."""


class Task(Namespace):
    """One of them."""

    __hash__ = object.__hash__


class World:
    """A kernel with one task."""

    def __init__(self) -> None:
        self.loop = SteppedLoop(Machine(), lambda what, error: None)
        self.container = Namespace(stands=False)
        self.task = self.new_task()
        group = Namespace(ending=False, container=self.container, tasks=[self.task])
        self.group = group
        self.pids = Namespace(tasks={7: self.task}, groups={7: group})
        self.kernel: Any = Namespace(
            loop=self.loop, clock=self.loop.programs, pids=self.pids, held=set()
        )
        self.done: list[ClockState] = []

    @staticmethod
    def new_task() -> Any:
        return Task(tid=7, dead=False, stopped=False, trace=None, fiber=SLEEPS)

    def advance(self) -> None:
        self.loop.programs.run_at(0)
        Advancing(self.kernel, HOUR_NS, self.done.append)
        self.turn()

    def turn(self) -> None:
        for _ in range(5):
            self.loop.turn()


@pytest.fixture
def world() -> World:
    return World()


def test_who_sleeps_is_not_waited_for(world: World) -> None:
    world.advance()
    assert len(world.done) == 1


def test_number_of_who_has_ended_may_be_anothers(world: World) -> None:
    world.task.fiber = None
    world.advance()
    assert world.done == []
    world.task.dead = True
    world.pids.tasks[7] = world.group.tasks[0] = world.new_task()
    world.turn()
    assert len(world.done) == 1


def test_what_is_held_from_outside_is_waited_for(world: World) -> None:
    """Paused, copied, or out of CPU time: it could not do what its timers are for."""
    world.container.stands = world.task.stopped = True
    world.advance()
    assert world.done == []
    world.container.stands = world.task.stopped = False
    world.turn()
    assert len(world.done) == 1
