"""What holds up the kernel thread is counted by its name, and told while it lasts."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from sentry.abi import unistd as nr
from sentry.boot.sandbox import alarms
from sentry.control import watchdog
from sentry.control.answers import Cost
from sentry.control.watchdog import (
    COLLECTION,
    LONG_NS,
    LOOK_NS,
    TESTED_NS,
    TOLD_NS,
    Alarm,
    Watchdog,
)
from sentry.loop import HostOnly, Loop
from sentry.wait.fiber import park
from tests.world import World

SHORT_NS, ENOUGH_NS = LONG_NS // 4, 2 * LONG_NS
"""Looks are some milliseconds apart."""


class Thread:
    """Its CPU time, which is what has been worked, and the looks of it."""

    def __init__(self) -> None:
        self.now_ns = 1
        self.look: Callable[[FrameType], None] = lambda _: None

    def work(self, ns: int) -> None:
        for _ in range(ns // LOOK_NS):
            self.now_ns += LOOK_NS
            self.look(sys._getframe())

    def ticks(self, interval_ns: int, look: Callable[[FrameType], None]) -> SimpleNamespace:
        assert interval_ns == LOOK_NS
        self.look = look
        return SimpleNamespace(stop=lambda: None)


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Thread:
    made = Thread()
    monkeypatch.setattr(watchdog, "Ticks", made.ticks)
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(thread_time_ns=lambda: made.now_ns))
    return made


def work(ns: int) -> None:
    """So much CPU time of this thread of the host's."""
    end_ns = time.thread_time_ns() + ns
    while time.thread_time_ns() < end_ns:
        pass


@pytest.fixture
def loop() -> Loop:
    return Loop(HostOnly(), lambda what, error: pytest.fail(f"{what}: {error!r}"))


@pytest.fixture
def told() -> list[str]:
    """What came by an alarm."""
    return []


@pytest.fixture
def dog(loop: Loop, thread: Thread, told: list[str]) -> Iterator[Watchdog]:
    made = Watchdog(loop, Alarm(ENOUGH_NS, told.append))
    yield made
    made.stop()


def run(loop: Loop, *callbacks: Any) -> None:
    """One turn."""
    for callback in callbacks:
        loop.call_soon(callback)
    loop.turn()


def steps(loop: Loop, dog: Watchdog) -> dict[str, Cost]:
    """Asked in a step, as the control server does."""
    found: list[dict[str, Cost]] = []
    run(loop, lambda: found.append(dog.long_steps()))
    return found[0]


def test_a_long_callback_is_counted_by_its_name(loop: Loop, dog: Watchdog, thread: Thread) -> None:
    def slow() -> None:
        thread.work(ENOUGH_NS)

    run(loop, slow, lambda: None, slow)

    (name, cost), *others = steps(loop, dog).items()
    assert name.endswith("slow") and not others
    assert cost.count == 2
    assert cost.longest_ns > LONG_NS


def test_look_while_a_step_is_counted_counts_nothing(
    loop: Loop, dog: Watchdog, monkeypatch: pytest.MonkeyPatch, thread: Thread
) -> None:
    add = dog._add

    def interrupted(name: str, spent_ns: int) -> None:
        dog._look(None)
        add(name, spent_ns)

    run(loop, lambda: thread.work(ENOUGH_NS))
    monkeypatch.setattr(dog, "_add", interrupted)

    (cost,) = steps(loop, dog).values()
    assert cost.count == 1


def test_a_tick_that_comes_while_it_looks_does_not_make_it_look_again(loop: Loop) -> None:
    """On a slow machine, where a look takes longer than until the next tick."""
    looks = 0

    class Slow:
        def since_ns(self) -> int:
            nonlocal looks
            looks += 1
            assert looks < 3
            dog._look(None)
            looks -= 1
            return 0

    dog = Watchdog(loop, standstill=Slow())
    dog.stop()
    dog._look(None)

    assert looks == 0


def test_many_short_steps_are_no_long_one(loop: Loop, dog: Watchdog, thread: Thread) -> None:
    async def pieces() -> None:
        for _ in range(6):
            thread.work(SHORT_NS)
            await park(deadline_ns=0)

    def short() -> None:
        thread.work(SHORT_NS)

    fiber = loop.spawn(pieces(), "pieces")
    run(loop, *[short] * 6)
    while loop.fibers:
        fiber.wake()
        loop.turn()

    assert steps(loop, dog) == {}


def test_a_step_that_waits_for_the_host_is_not_long(loop: Loop) -> None:
    dog = Watchdog(loop)
    run(loop, lambda: time.sleep(2 * LONG_NS / 1e9))

    assert steps(loop, dog) == {}
    dog.stop()


def test_what_runs_while_the_loop_waits_is_no_step(
    dog: Watchdog, loop: Loop, thread: Thread
) -> None:
    wait = loop._machine.wait

    def emulate(deadline_ns: int | None) -> Any:
        thread.work(ENOUGH_NS)
        return wait(0)

    vars(loop._machine)["wait"] = emulate
    run(loop, lambda: None)

    assert steps(loop, dog) == {}


def test_an_alarm_comes_once_while_the_step_goes_on(
    loop: Loop, dog: Watchdog, told: list[str], thread: Thread
) -> None:
    at_the_end: list[int] = []

    def endless() -> None:
        thread.work(3 * ENOUGH_NS)
        at_the_end.append(len(told))

    run(loop, endless)

    assert at_the_end == [1] and len(told) == 1
    first, *stack = told[0].splitlines()
    assert first.startswith("The kernel thread is held up: ") and first.endswith("endless")
    assert stack[0].endswith(" work") and stack[1].endswith(" endless") and len(stack) == 2


def test_a_fiber_has_the_name_that_it_was_given(loop: Loop, dog: Watchdog, thread: Thread) -> None:
    async def slow() -> None:
        thread.work(ENOUGH_NS)

    loop.spawn(slow(), "mounting")
    loop.turn()

    assert set(steps(loop, dog)) == {"mounting"}


def test_the_log_is_not_written_in_the_middle_of_a_line(
    loop: Loop, dog: Watchdog, told: list[str], monkeypatch: pytest.MonkeyPatch, thread: Thread
) -> None:
    monkeypatch.setattr(watchdog, "log", sys.modules[__name__])  # whose `work` it is that runs

    run(loop, lambda: thread.work(2 * ENOUGH_NS))

    assert not any(" work" in text for text in told)  # after it, it may be
    assert steps(loop, dog)


def test_the_collector_counts_by_itself(
    loop: Loop, dog: Watchdog, told: list[str], thread: Thread
) -> None:
    def collect() -> None:
        for phase in ("start", "stop"):
            gc.callbacks[-1](phase, {})
            thread.work(ENOUGH_NS if phase == "start" else 0)

    run(loop, collect)

    assert set(steps(loop, dog)) == {COLLECTION}
    assert COLLECTION in told[0]


def test_a_system_call_is_told_with_its_task_and_fails_the_test_of_a_world(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.world.STEPS_ARE_BOUNDED", True)
    monkeypatch.setattr("tests.world.Standstill", lambda _: None)  # this machine may do so here

    def sys_getppid(*_: object) -> int:
        work(TESTED_NS + ENOUGH_NS)
        return 1

    world = World()
    program = world.program()
    world.kernel.calls = [*world.kernel.calls]
    world.kernel.calls[nr.getppid] = sys_getppid

    program.call("getppid")

    dog = world._watchdog
    assert dog is not None and set(dog.long_steps()) == {"getppid"}
    with pytest.raises(AssertionError, match=f"ms of getppid of <task {program.task.tid} of"):
        world.close()


def test_a_task_outside_of_a_handler_is_told_by_its_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        program = world.program()
        monkeypatch.setattr("sentry.kernel.dispatch.fault", lambda *_: work(ENOUGH_NS))

        program._fault(4)

        dog = world._watchdog
        assert dog is not None and set(dog.long_steps()) == {"(fault)"}


def test_the_log_and_the_tests_hear_of_it_at_their_own_times(tmp_path: Path) -> None:
    with (tmp_path / "steps").open("wb") as file:
        log: Any = SimpleNamespace(write=None)
        found = alarms(log, file.fileno())
        found[1].tell("slow\n")

    assert [alarm.limit_ns for alarm in found] == [TOLD_NS, TESTED_NS]
    assert (tmp_path / "steps").read_text() == "slow\n"
    assert len(alarms(log, -1)) == 1
