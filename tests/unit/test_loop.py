"""The loop: timers, descriptors, fibers, what is idle, what goes wrong."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Any

import pytest

from sentry import loop as loop_module
from sentry.clock import MAX_NS
from sentry.kernel.thread_group import Usage
from sentry.loop import WORK, Charged, HostOnly, Loop
from sentry.wait.fiber import park


class Machine(HostOnly):
    """Gives back what a test puts in, and notes until when it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.exits: list[Any] = []
        self.deadlines: list[int | None] = []

    def wait(self, deadline_ns: int | None) -> Sequence[Any]:
        self.deadlines.append(deadline_ns)
        super().wait(0)
        came, self.exits = self.exits, []
        return came


class Context:
    """An exit; its owner is itself."""

    def __init__(self) -> None:
        self.owner, self.sys_time_ns, self.seen = self, 0, 0
        self.used = Usage()

    def on_exit(self, context: Any) -> None:
        self.seen += 1


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def errors() -> list[tuple[object, BaseException]]:
    """What went wrong."""
    return []


@pytest.fixture
def loop(
    machine: Machine,
    errors: list[tuple[object, BaseException]],
    monkeypatch: pytest.MonkeyPatch,
) -> Loop:
    monkeypatch.setattr(loop_module, "TURN_NS", 1 << 62)  # however busy the host is
    return Loop(machine, lambda what, error: errors.append((what, error)))


def test_timers_fire_in_their_order_once_they_are_due(loop: Loop) -> None:
    fired: list[str] = []
    now = loop.now_ns()
    loop.call_at(now - 1, lambda: fired.append("second"))
    loop.call_at(now - 2, lambda: fired.append("first"))
    loop.call_at(now + 10**15, lambda: fired.append("never"))
    loop.turn()
    loop.turn()
    assert fired == ["first", "second"]
    assert loop.timers == 1


def test_cancelled_timer_neither_fires_nor_is_waited_for(loop: Loop, machine: Machine) -> None:
    fired: list[str] = []
    timer = loop.call_at(loop.now_ns() - 1, lambda: fired.append("x"))
    timer.cancel()
    timer.cancel()
    loop.turn()
    assert not fired
    assert machine.deadlines == [None]


def test_many_cancelled_timers_do_not_pile_up(loop: Loop) -> None:
    kept = loop.call_at(loop.now_ns() + 10**15, lambda: None)
    for _ in range(1000):
        loop.call_at(loop.now_ns() + 10**15, lambda: None).cancel()
    assert loop.timers == 1
    assert len(loop._timers) < 200
    kept.cancel()
    assert loop.timers == 0


def test_what_is_soon_is_not_waited_for_and_comes_in_the_next_turn(
    loop: Loop, machine: Machine
) -> None:
    seen: list[int] = []

    def again() -> None:
        seen.append(len(seen))
        if len(seen) < 3:
            loop.call_soon(again)

    loop.call_soon(again)
    loop.turn()
    assert seen == [0]
    loop.turn()
    loop.turn()
    loop.turn()
    assert seen == [0, 1, 2]
    assert machine.deadlines == [0, 0, 0, None]


async def note(seen: list[str], what: str) -> None:
    seen.append(what)


def test_exit_waits_for_one_of_each_kind_of_what_takes_long(
    loop: Loop, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "TURN_NS", 0)
    seen: list[str] = []
    for number in "12":
        loop.call_at(0, lambda number=number: seen.append(f"timer {number}"))
        loop.call_soon(lambda number=number: seen.append(f"callback {number}"))
        loop.spawn(note(seen, f"fiber {number}"), "test")
    loop.turn()
    assert seen == ["timer 1", "callback 1", "fiber 1"]
    context = Context()
    machine.exits.append(context)
    loop.turn()
    assert context.seen == 1
    assert seen[3:] == ["timer 2", "callback 2", "fiber 2"]
    assert machine.deadlines == [0, 0]


def test_loop_with_something_left_to_do_is_not_idle(loop: Loop) -> None:
    idle: list[bool] = []
    loop.on_idle = lambda: idle.append(True)
    loop._rest_at = 1
    loop.call_soon(lambda: None)
    loop.turn()
    assert not idle
    loop.turn()
    assert idle


def test_descriptor_is_told_while_it_is_ready(loop: Loop) -> None:
    reader, writer = os.pipe()
    seen: list[int] = []
    loop.watch(reader, select.EPOLLIN, seen.append)
    loop.turn()
    os.write(writer, b"x")
    loop.turn()
    loop.turn()
    assert seen == [select.EPOLLIN, select.EPOLLIN]
    loop.watch(reader, 0)
    loop.turn()
    assert (len(seen), loop.watches) == (2, 0)
    os.close(reader)
    os.close(writer)


def test_what_was_ready_under_a_number_is_not_told_to_who_has_it_since(loop: Loop) -> None:
    ends = [os.pipe() for _ in range(3)]
    quiet, told = ends[2][0], list[str]()

    def replace(mine: int, other: int) -> None:
        told.append("first")
        loop.watch(mine, 0)
        loop.watch(other, 0)
        os.dup2(quiet, other)
        loop.watch(other, select.EPOLLIN, lambda _: told.append("second"))

    one, two = ends[0][0], ends[1][0]
    loop.watch(one, select.EPOLLIN, lambda _: replace(one, two))
    loop.watch(two, select.EPOLLIN, lambda _: replace(two, one))
    for _, writer in ends[:2]:
        os.write(writer, b"x")
    loop.turn()
    assert told == ["first"]
    loop.turn()
    os.write(ends[2][1], b"x")
    loop.turn()
    assert told == ["first", "second"]
    for end in ends:
        for fd in end:
            os.close(fd)


def test_error_in_a_callback_is_logged_and_the_others_come(
    loop: Loop, errors: list[tuple[object, BaseException]]
) -> None:
    seen: list[str] = []
    loop.call_soon(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    loop.call_soon(lambda: seen.append("soon"))
    loop.call_at(0, lambda: {}["x"])
    loop.call_at(1, lambda: seen.append("timer"))
    loop.turn()
    assert seen == ["timer", "soon"]
    assert {type(error) for _, error in errors} == {ZeroDivisionError, KeyError}


def test_error_of_who_hears_of_an_end_is_logged_and_the_others_come(
    loop: Loop, errors: list[tuple[object, BaseException]]
) -> None:
    seen: list[str] = []
    loop.spawn(note(seen, "first"), "one", lambda result, error: {}["x"])
    loop.spawn(note(seen, "second"), "other")
    loop.turn()
    assert seen == ["first", "second"]
    assert [what for what, _ in errors] == ["one"]
    assert loop.fibers == 0


def test_coroutine_runs_to_its_sleep_and_tells_its_end(
    loop: Loop, errors: list[tuple[object, BaseException]]
) -> None:
    ended: list[Any] = []

    async def sleeper() -> str:
        return "woken" if await park() else "expired"

    async def broken() -> None:
        raise KeyError("x")

    fiber = loop.spawn(sleeper(), "sleeper", lambda *end: ended.append(end))
    loop.spawn(broken(), "broken")
    loop.turn()
    assert (ended, loop.fibers) == ([], 1)
    fiber.wake()
    loop.turn()
    assert ended == [("woken", None)]
    assert loop.fibers == 0
    assert [what for what, _ in errors] == ["broken"]


def test_idle_is_told_once_until_something_happens_again(
    loop: Loop, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, idle = [10**12], []
    monkeypatch.setattr("sentry.loop.time.monotonic_ns", lambda: clock[0])
    loop.on_idle = lambda: idle.append(clock[0])
    for _ in range(2):
        machine.exits.append(Context())
        loop.turn()
        loop.turn()
        rest_at = machine.deadlines[-1]
        assert rest_at is not None and rest_at > clock[0]
        told = len(idle)
        clock[0] = rest_at
        loop.turn()
        loop.turn()
        assert len(idle) == told + 1
        assert machine.deadlines[-1] is None


def test_owner_is_charged_and_work_is_looked_at_now_and_then(
    loop: Loop, machine: Machine
) -> None:
    looks: list[int] = []
    loop.on_work = lambda exited: looks.append(len(exited))
    context = Context()
    for _ in range(WORK):
        assert not looks
        machine.exits.append(context)
        loop.turn()
    assert (context.seen, looks) == (WORK, [1])
    assert context.sys_time_ns > 0


class Owner(Charged):
    """A thread of a process."""

    def __init__(self, used: Usage) -> None:
        self.sys_time_ns, self.used = 0, used


def test_crowd_of_one_process_that_is_ready_goes_on_in_turns_with_others(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CROWD", 2)
    seen: list[str] = []

    async def note(what: str) -> None:
        seen.append(what)

    crowd, other = Usage(), Usage()
    for number in range(10):
        loop.spawn(note(f"crowd {number}"), Owner(crowd))
    loop.spawn(note("other 0"), Owner(other))
    loop.spawn(note("other 1"), Owner(other))
    loop.spawn(note("kernel"), "kernel")
    while len(seen) < 13:
        loop.turn()
    assert seen[:8] == [
        "crowd 0", "crowd 1", "crowd 2", "other 0", "kernel", "crowd 3", "other 1", "crowd 4",
    ]  # fmt: skip
    assert [what for what in seen if what.startswith("crowd")] == [
        f"crowd {number}" for number in range(10)
    ]


def test_run_ends_with_the_turn_in_which_it_is_stopped(loop: Loop) -> None:
    seen: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: seen.append("same turn"))
    loop.run()
    assert seen == ["same turn"]


def test_timer_of_a_far_future_is_waited_for_as_any(errors: list[Any]) -> None:
    """epoll_wait(2) has 31 bits of milliseconds."""
    loop = Loop(HostOnly(), lambda what, error: errors.append((what, error)))
    loop.call_at(1 << 62, lambda: None)
    told = os.eventfd(1)
    loop.watch(told, select.EPOLLIN, lambda _events: loop.watch(told, 0))
    loop.turn()
    os.close(told)
    assert errors == []


@pytest.mark.parametrize(("at_ns", "waited_ns"), [(1 << 80, MAX_NS), (-(1 << 80), 0), (-1, 0)])
def test_timer_beyond_all_clocks_is_waited_for_with_what_a_machine_can_count(
    loop: Loop, machine: Machine, at_ns: int, waited_ns: int
) -> None:
    """setsockopt(SO_RCVTIMEO) takes 2^63 / 1000 seconds."""
    loop.call_at(at_ns, lambda: None)
    loop.turn()
    assert machine.deadlines == [waited_ns]
