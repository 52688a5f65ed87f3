from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from runsc.commands.debug import lines
from sentry.abi import unistd as nr
from sentry.control.answers import Cost
from sentry.control.profile import Profiler
from sentry.kernel.services import Services
from sentry.loop import Loop
from sentry.platform.memory import Counters
from sentry.wait.fiber import Fiber, park, this_fiber


class Machine:
    """Has nothing to wait for."""

    def __init__(self) -> None:
        self.exit_ns = 0
        self.ready: list[tuple[int, int]] = []
        self.waits = 0
        self.ram = SimpleNamespace(counters=lambda: Counters(*[0] * len(Counters._fields)))

    def wait(self, deadline_ns: int | None) -> list[Any]:
        self.waits += 1
        return []

    def watch(self, fd: int, events: int) -> None:
        raise AssertionError

    def events_so_far(self) -> dict[str, int]:
        return {}


def ready(fiber: Fiber) -> None:
    """Nothing: the test runs it."""


@pytest.fixture
def kernel() -> Any:
    async def sleeper(task: Any, *_: int) -> int:
        await this_fiber()
        await park()
        return 7

    calls: list[Any] = [None] * 512
    calls[nr.getppid] = lambda task, *_: 5
    calls[nr.pause] = sleeper
    machine = Machine()
    loop = Loop(machine, lambda *_: None)
    return SimpleNamespace(
        platform=machine, loop=loop, calls=calls, services=Services(), fault_meter=None,
        pids=SimpleNamespace(tasks={}, groups={}),
    )  # fmt: skip


def test_calls_are_counted_by_name_while_it_measures(kernel: Any) -> None:
    plain = kernel.calls
    profiler = Profiler(kernel)

    assert [kernel.calls[nr.getppid](None, *[0] * 6) for _ in range(3)] == [5, 5, 5]
    kernel.loop.turn()
    found = profiler.stop()
    kernel.loop.turn()

    assert {name: cost.count for name, cost in found.calls.items()} == {"getppid": 3}
    assert found.turns == 1
    assert found.elapsed_ns >= found.calls["getppid"].total_ns > 0
    assert kernel.calls is plain
    assert kernel.fault_meter is None
    assert kernel.platform.waits == 2


def test_a_call_that_sleeps_counts_once_and_gives_its_result(kernel: Any) -> None:
    profiler = Profiler(kernel)
    ended: list[Any] = []
    clock: Any = SimpleNamespace(ready=ready, fibers=0, step_ns=0)
    fiber = Fiber(kernel.calls[nr.pause](None), clock, "test", lambda *end: ended.append(end))

    fiber.run()
    fiber.wake()
    fiber.run()

    assert ended == [(7, None)]
    assert profiler.stop().calls["pause"].count == 1


def test_the_report_names_what_was_called(kernel: Any) -> None:
    profiler = Profiler(kernel)
    kernel.calls[nr.getppid](None)

    report = lines(profiler.stop())

    assert any(line.startswith("getppid") for line in report)


def test_the_report_ends_with_what_held_everybody_up(kernel: Any) -> None:
    found = Profiler(kernel).stop()
    steps = {"sendto": Cost(2, 130_000_000, 70_000_000), "close": Cost(1, 900_000_000, 900_000_000)}

    report = lines(msgspec.structs.replace(found, long_steps=steps))

    assert [line.split()[0] for line in report[-2:]] == ["close", "sendto"]
    assert "held up for more than 50 ms" in report[-3]
    assert not any("held up" in line for line in lines(found))
