"""Work in steps: short work ends at once, long work lets others run and keeps its lock."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sentry.errors import EINVAL
from sentry.loop import HostOnly, Loop
from sentry.wait import steps
from sentry.wait.again import NotNow, again
from sentry.wait.fiber import Killed, Mode
from sentry.wait.lock import Lock
from sentry.wait.steps import (
    STEP_NS,
    Pace,
    Steps,
    Stepwise,
    WaitingSteps,
    at_once,
    driven,
    in_steps,
)


def spend() -> None:
    """More than a step."""
    until_ns = time.monotonic_ns() + STEP_NS
    while time.monotonic_ns() < until_ns:
        pass


def pieces(count: int, seen: list[str], name: str = "piece", long: bool = True) -> Steps[int]:
    """Work whose every piece fills a step, if it is long."""
    for _ in range(count):
        if long:
            spend()
        seen.append(name)
        yield
    return count


@pytest.fixture()
def loop() -> Loop:
    """A loop that fails the test at any error."""

    def fail(name: object, error: BaseException) -> None:
        raise AssertionError(name) from error

    return Loop(HostOnly(), fail)


def run(loop: Loop, *coros: Any) -> list[Any]:
    """Their results, or what they raise."""
    results: list[Any] = [None] * len(coros)

    def done(at: int) -> Any:
        def end(result: Any, error: BaseException | None) -> None:
            results[at] = error or result

        return end

    for at, coro in enumerate(coros):
        loop.spawn(coro, at, done(at))
    while loop.fibers:
        loop.turn()
    return results


def test_short_work_ends_at_once_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STEP_NS", 1 << 60)  # however busy the host is
    seen: list[str] = []
    lock = Lock()
    assert in_steps(pieces(3, seen, long=False), lock) == 3
    assert lock.holder is None and len(seen) == 3


def test_work_without_a_result_is_0() -> None:
    def nothing() -> Steps[None]:
        yield

    assert in_steps(nothing()) == 0


def test_long_work_does_one_piece_a_step_and_others_run(loop: Loop) -> None:
    seen: list[str] = []
    rest = in_steps(pieces(3, seen))
    assert seen == ["piece"]
    assert run(loop, rest, driven(pieces(2, seen, "other")))[0] == 3
    assert seen[1:] == ["other", "piece", "other", "piece"]


def test_long_work_holds_the_lock_until_its_end(loop: Loop) -> None:
    seen: list[str] = []
    lock = Lock()
    rest = in_steps(pieces(3, seen), lock)
    with pytest.raises(NotNow):
        in_steps(pieces(1, seen, "second", long=False), lock)
    second = again(in_steps, pieces(1, seen, "second", long=False), lock)
    assert run(loop, rest, second) == [3, 1]
    assert seen == ["piece", "piece", "piece", "second"] and lock.holder is None


def test_who_only_waits_until_a_lock_is_free_leaves_the_turn_to_the_next(loop: Loop) -> None:
    lock = Lock()
    rest = in_steps(pieces(2, []), lock)
    seen: list[str] = []

    async def waits() -> None:
        await lock.until_free()

    async def takes(name: str) -> None:
        async with lock:
            await driven(pieces(2, seen, name))

    run(loop, rest, waits(), takes("first"), waits(), takes("second"))
    assert seen == ["first", "first", "second", "second"]
    assert lock.holder is None


def test_work_that_has_to_wait_sleeps_until_that_is_over(loop: Loop) -> None:
    seen: list[str] = []
    lock = Lock()

    def work() -> WaitingSteps[int]:
        while lock.holder is not None:
            seen.append("waits")
            yield lock.until_free
        return 5

    rest = in_steps(pieces(3, seen), lock)
    assert run(loop, rest, driven(work())) == [3, 5]
    assert seen == ["piece", "waits", "piece", "piece"]


def test_an_error_in_a_later_piece_ends_the_call_and_frees_the_lock(loop: Loop) -> None:
    def fails() -> Steps[None]:
        spend()
        yield
        raise EINVAL("later")

    lock = Lock()
    (error,) = run(loop, in_steps(fails(), lock))
    assert isinstance(error, EINVAL) and lock.holder is None


def test_a_kill_ends_work_only_in_its_mode(loop: Loop) -> None:
    ends: list[str] = []

    def work(name: str) -> Steps[int]:
        try:
            yield from pieces(3, [])
        finally:
            ends.append(name)
        return 3

    results: list[Any] = []
    for mode in (Mode.UNINTERRUPTIBLE, Mode.KILLABLE):
        fiber = loop.spawn(
            driven(work(mode.name), mode), mode, lambda r, e: results.append(type(e) if e else r)
        )
        loop.turn()
        fiber.interrupt(Killed(), Mode.KILLABLE)
        while loop.fibers:
            loop.turn()
    assert results == [3, Killed]
    assert ends == ["UNINTERRUPTIBLE", "KILLABLE"]


def test_work_that_is_killed_is_over_before_its_lock_is_free(loop: Loop) -> None:
    lock, held = Lock(), []

    def work() -> Steps[int]:
        try:
            yield from pieces(3, [])
        finally:
            held.append(lock.holder is not None)
        return 3

    errors: list[BaseException | None] = []
    rest: Any = in_steps(work(), lock, Mode.KILLABLE)
    fiber = loop.spawn(rest, "work", lambda result, error: errors.append(error))
    loop.turn()
    fiber.interrupt(Killed(), Mode.KILLABLE)
    while loop.fibers:
        loop.turn()
    assert isinstance(errors[0], Killed)
    assert held == [True] and lock.holder is None


def test_a_stepwise_operation_is_called_or_driven() -> None:
    double = Stepwise(lambda count: pieces(count, [], long=False))
    assert double(4) == 4 and at_once(double.steps(2)) == 2


def test_a_pace_is_over_after_a_step() -> None:
    pace = Pace()
    spend()
    assert pace.over
