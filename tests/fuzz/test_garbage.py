"""What a program had goes with it: no cycle of the kernel's objects waits for the collector.

A look at all objects takes too long where a program has made very many, so cycles would stay until
memory runs out. Each resource of the scaling test is made n times and 2n times, its program ends,
and what the collector finds then must not be more for more.
"""

from __future__ import annotations

import gc

import pytest

from tests.fuzz.resources import RESOURCES
from tests.fuzz.scaling import Resource, TimedBench, unhurried
from tests.world import World

N = 24


def left_by(resource: Resource, n: int) -> int:
    """Objects that only the collector finds."""
    with World() as world:
        world.unwatch()
        first = world.program()
        bench = TimedBench(world, n)
        gc.collect()
        resource(bench)
        ended = [g for g in world.kernel.pids.groups.values() if g is not first.task.group]
        for group in ended:
            group.exit(9)
        while any(group.tasks for group in ended):
            world.settle()
        world.settle()
        del bench, ended, group
        return gc.collect()


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.__name__)
def test_nothing_waits_for_the_collector(resource: Resource) -> None:
    with unhurried():
        left_by(resource, N)
        few, many = left_by(resource, N), left_by(resource, 2 * N)

    assert many - few < N
