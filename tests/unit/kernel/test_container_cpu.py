"""CPU quotas of containers beside others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sentry.kernel import pause
from sentry.kernel.container import Container
from sentry.kernel.container_cpu import IDLE_NS, CpuQuotas
from tests.world import World

MS = 1_000_000


@pytest.fixture
def world() -> Iterator[World]:
    with World(stepped=True) as made:
        yield made


class Beside:
    """A container beside the first one, which may use 20 ms of 100."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.container = made = Container()
        made.ns = world.kernel.first
        made.cpu_quota = 20_000, 100_000
        made.on_end = lambda status: None
        world.kernel.further.append(made)
        self.quotas = CpuQuotas(world.kernel)
        self.program = world.program()
        made.cgroup.take(self.program.task.group)
        self.context: Any = self.program.context
        self.quotas.look([self.context])

    def run(self, used_ms: int, ms: int) -> bool:
        """It computes, time goes on; whether it stands still then."""
        self.context.cpu_ns += used_ms * MS
        self.world.loop.advance(ms * MS)
        return self.program.task.stopped


def test_who_has_used_the_quota_stands_still_until_the_period_ends(world: World) -> None:
    beside = Beside(world)

    assert not beside.run(19, 50)
    assert beside.run(1, 20)
    assert beside.run(0, 20)
    assert not beside.run(0, 20)


def test_what_is_used_beyond_it_is_owed(world: World) -> None:
    beside = Beside(world)

    assert beside.run(50, 99)
    assert beside.run(0, 100)
    assert not beside.run(0, 20)
    assert not beside.run(9, 20)
    assert beside.run(1, 20)


def test_who_is_held_otherwise_stays_so(world: World) -> None:
    beside = Beside(world)
    pause.pause(beside.container, lambda: None)

    assert beside.run(30, 50)
    pause.resume(beside.container)
    assert beside.run(0, 10)
    pause.pause(beside.container, lambda: None)
    assert beside.run(0, 100)
    pause.resume(beside.container)
    assert not beside.program.task.stopped


def test_who_is_killed_does_not_wait_for_the_period(world: World) -> None:
    beside = Beside(world)
    assert beside.run(30, 50)

    beside.program.task.group.exit(9)
    beside.run(0, 1)

    assert beside.program.task.dead


def test_idle_one_is_looked_at_seldom_and_found_when_it_runs(world: World) -> None:
    beside = Beside(world)
    assert not beside.run(0, 150)

    assert not beside.run(30, 50)
    beside.run(0, IDLE_NS // MS)
    assert not beside.run(0, 300)
    beside.quotas.look([beside.context])
    assert beside.run(30, 50)


def test_quota_that_is_taken_away_holds_nobody(world: World) -> None:
    beside = Beside(world)
    assert beside.run(30, 50)

    beside.container.cpu_quota = 0, 100_000

    assert not beside.run(0, 60)


def test_the_first_container_is_the_hosts_affair(world: World) -> None:
    quotas = CpuQuotas(world.kernel)
    Beside(world)
    before = world.loop.timers
    world.kernel.container.cpu_quota = 20_000, 100_000

    context: Any = world.program().context
    quotas.look([context])

    assert world.loop.timers == before
