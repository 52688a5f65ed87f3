"""Limits of memory of containers beside others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sentry.abi.ptrace import PTRACE_O_TRACEEXIT, PTRACE_SEIZE
from sentry.kernel.container import Container
from sentry.kernel.container_memory import IDLE_NS, MemoryLimits
from sentry.platform.constants import PAGE_SIZE
from tests.world import Program, World


@pytest.fixture
def world() -> Iterator[World]:
    with World(stepped=True) as made:
        yield made


class Beside:
    """A container beside the first one, with a program in it."""

    def __init__(self, world: World, limit: int) -> None:
        self.world = world
        self.container = made = Container()
        made.ns = world.kernel.first
        made.memory_limit = limit
        made.on_end = lambda status: None
        world.kernel.further.append(made)
        self.limits = MemoryLimits(world.kernel)
        self.program = world.program()
        made.cgroup.take(self.program.task.group)

    def look(self) -> None:
        context: Any = self.program.context
        self.limits.look([context])

    def wait(self) -> None:
        """Until the next look."""
        self.world.loop.advance(self.world.loop.now_ns() + 2 * IDLE_NS)

    def grow(self, pages: int) -> Program:
        """Map and touch so many pages."""
        where = self.program.ok("mmap", 0, pages * PAGE_SIZE, 3, 0x22, -1, 0)
        for page in range(pages):
            self.program.write(where + page * PAGE_SIZE, b"x")
        return self.program


def test_who_exceeds_the_limit_is_killed_and_others_are_not(world: World) -> None:
    beside = Beside(world, 64 * PAGE_SIZE)
    other = world.program()
    beside.look()
    assert not beside.program.task.group.exiting

    beside.grow(2000)
    beside.wait()

    assert beside.program.task.group.exit_status == 9
    assert beside.container.oom_kills == 1
    assert not other.task.group.exiting
    assert world.kernel.container.oom_kills == 0


def test_who_ends_already_is_hurried_and_nobody_else_is_killed(world: World) -> None:
    beside = Beside(world, 64 * PAGE_SIZE)
    tracer = beside.program
    child = beside.grow(2000).fork()
    beside.container.cgroup.take(child.task.group)
    tracer.ok("ptrace", PTRACE_SEIZE, child.task.group.tgid, 0, PTRACE_O_TRACEEXIT)
    child.begin("exit_group", 3)
    world.settle()
    assert child.task.group.exiting and child.task.group.tasks

    beside.look()

    world.settle()
    assert not child.task.group.tasks and child.task.group.exit_status == 3 << 8
    assert not tracer.task.group.exiting and beside.container.oom_kills == 0

    beside.wait()

    assert tracer.task.group.exit_status == 9 and beside.container.oom_kills == 1


def test_nothing_is_watched_that_cannot_exceed_it(world: World) -> None:
    beside = Beside(world, 1 << 40)
    before = world.loop.timers

    beside.look()

    assert world.loop.timers == before


def test_looks_go_on_while_it_might(world: World) -> None:
    beside = Beside(world, 500 * PAGE_SIZE)
    beside.look()
    beside.wait()
    assert not beside.program.task.group.exiting

    beside.grow(1000)
    beside.wait()

    assert beside.program.task.group.exiting


def test_much_that_is_promised_is_looked_at_soon(world: World) -> None:
    Beside(world, 64 * PAGE_SIZE)
    world.loop.work_left = 20

    world.program().ok("mmap", 0, 1000 * PAGE_SIZE, 3, 0x22, -1, 0)

    assert world.loop.work_left == 1
