from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.control.orders import ForkOrder
from sentry.errors import EBUSY, EINVAL
from sentry.fork.order import PLAIN
from sentry.fork.parent import Forks


class Running:
    """A sandbox with a task that is in ring 3 until `stand`."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.stand: Callable[[], object] = lambda: None
        task = SimpleNamespace(work=0, fiber=None, stopped=False, dead=False, ctx=self)
        group = SimpleNamespace(
            tasks=[task], exiting=False, cgroup=SimpleNamespace(freezing=False),
            container=SimpleNamespace(holds=lambda _: False),
        )  # fmt: skip
        container = SimpleNamespace(init=group, copied=False, processes=lambda: [group])
        self.kernel: Any = SimpleNamespace(
            container=container, further=[], exit_status=None, held=[],
            loop=SimpleNamespace(now_ns=lambda: 0), finish=lambda _: None,
        )  # fmt: skip
        group.kernel = self.kernel
        operations: Any = SimpleNamespace(waits_for_start=False, has_terminals=False)
        machine: Any = None
        config: Any = SimpleNamespace(link=None)
        self.forks = Forks(self.kernel, machine, config, operations)

    def stop(self, callback: Callable[[], object]) -> None:
        self.stand = callback


def descriptors(count: int) -> list[int]:
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]


def test_who_is_about_to_give_way_is_not_forked_nor_gives_way_again() -> None:
    running = Running()
    successor, other = os.pipe()
    running.forks.give_way([successor], running.told.append)
    with pytest.raises(EBUSY):
        running.forks.ask(ForkOrder(), descriptors(PLAIN), running.told.append)
    with pytest.raises(EBUSY):
        running.forks.give_way(descriptors(1), running.told.append)
    running.stand()
    assert running.told == [""] and running.forks.place.is_left
    for fd in (successor, other):
        os.close(fd)


def test_who_has_nobody_to_give_way_to_goes_on() -> None:
    running = Running()
    successor, other = os.pipe()
    running.forks.give_way([successor], running.told.append)
    os.close(other)
    running.stand()
    assert running.told == ["who was to go on has ended"]
    assert not running.kernel.container.copied and not running.forks.place.is_left
    successor, other = os.pipe()
    running.forks.give_way([successor], running.told.append)
    running.stand()
    assert running.told[1:] == [""]
    for fd in (successor, other):
        os.close(fd)


def test_only_of_a_template_one_takes_a_place() -> None:
    running = Running()
    with pytest.raises(EINVAL):
        running.forks.ask(ForkOrder(succeeds=True), descriptors(PLAIN + 1), running.told.append)
    assert not running.kernel.container.copied


def test_what_comes_before_the_first_fork_comes_once_and_not_for_one_that_is_refused() -> None:
    running = Running()
    prepared: list[int] = []
    running.forks.prepare = lambda: prepared.append(1)
    with pytest.raises(EINVAL):
        running.forks.ask(ForkOrder(succeeds=True), descriptors(PLAIN + 1), running.told.append)
    assert prepared == []
    for _ in range(2):
        running.forks.ask(ForkOrder(), descriptors(PLAIN), running.told.append)
    assert prepared == [1]
