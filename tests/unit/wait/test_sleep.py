"""A `Retry` behaves the same whether it is its own fiber or a coroutine in somebody else's."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentry.errors import EAGAIN, EPIPE
from sentry.loop import HostOnly, Loop
from sentry.wait.fiber import Fiber, Interrupted, Killed, Mode, RestartNoHand, TimedOut
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import (
    Retry,
    Sleep,
    continued,
    ended,
    instead,
    never,
    no_hand,
    now_or_later,
    until,
)

READ, WRITE = 1, 4
REPOSITORY = Path(__file__).parents[3]


class File:
    """Something to read from, with a count of its uses."""

    def __init__(self) -> None:
        self.queue = WaitQueue()
        self.data: list[int] = []
        self.refs = 1
        self.attempts = 0
        self.broken = False

    def decref(self) -> None:
        self.refs -= 1

    def read(self) -> int:
        self.attempts += 1
        if self.broken:
            raise EPIPE
        if not self.data:
            raise EAGAIN
        return self.data.pop()

    def put(self, value: int) -> None:
        self.data.append(value)
        self.queue.notify(READ)


class Quiet(Retry):
    """A time-out is -1."""

    __slots__ = ()

    def failed(self, error: BaseException) -> Any:
        if isinstance(error, TimedOut):
            return -1
        raise error


class Reader:
    """A read that sleeps."""

    def __init__(self, sleep: Sleep, own_fiber: bool) -> None:
        self.ends: list[tuple[Any, BaseException | None]] = []
        self.loop = Loop(HostOnly(), lambda _name, error: pytest.fail(repr(error)))
        if own_fiber:
            self.fiber: Fiber = sleep
            sleep.begin(self.loop, "reader", self.done)
        else:
            self.fiber = self.loop.fiber(sleep, "reader", self.done)
            self.fiber.run()

    def done(self, result: Any, error: BaseException | None) -> None:
        self.ends.append((result, error))

    def turn(self) -> list[tuple[Any, BaseException | None]]:
        """Let the loop run once; what has come of the read."""
        self.loop.call_soon(lambda: None)
        self.loop.turn()
        return self.ends


Start = Callable[[Sleep], Reader]


@pytest.fixture(params=["fiber", "coroutine"])
def start(request: pytest.FixtureRequest) -> Start:
    return lambda sleep: Reader(sleep, request.param == "fiber")


@pytest.fixture
def file() -> File:
    return File()


def retry(file: File, **options: Any) -> Quiet:
    return Quiet(file.read, file.queue, READ, file, **options)


def test_sleeps_until_there_is_something(file: File, start: Start) -> None:
    reader = start(retry(file))
    assert reader.turn() == []
    assert file.refs == 2
    assert reader.loop.fibers == 1

    file.put(7)

    assert reader.turn() == [(7, None)]
    assert (file.refs, len(file.queue), reader.loop.fibers) == (1, 0, 0)


def test_a_wake_up_for_nothing_is_no_end(file: File, start: Start) -> None:
    reader = start(retry(file))

    file.queue.notify(WRITE)
    file.queue.notify(READ)
    assert reader.turn() == []
    file.put(7)

    assert reader.turn() == [(7, None)]


def test_an_attempt_that_fails_ends_it(file: File, start: Start) -> None:
    reader = start(retry(file))
    file.broken = True

    file.queue.notify(READ)

    ((result, error),) = reader.turn()
    assert result is None
    assert isinstance(error, EPIPE)
    assert (file.refs, len(file.queue), reader.loop.fibers) == (1, 0, 0)


def test_a_signal_ends_it(file: File, start: Start) -> None:
    reader = start(retry(file))

    assert reader.fiber.interrupt(Interrupted())

    ((_, error),) = reader.turn()
    assert isinstance(error, Interrupted)
    assert (file.refs, len(file.queue), reader.loop.fibers) == (1, 0, 0)


def test_of_a_wake_up_and_a_signal_the_first_wins(file: File, start: Start) -> None:
    reader = start(retry(file))

    file.put(7)
    assert not reader.fiber.interrupt(Interrupted())

    assert reader.turn() == [(7, None)]


def test_a_signal_after_a_vain_wake_up_is_not_lost(file: File, start: Start) -> None:
    reader = start(retry(file))

    file.queue.notify(READ)
    assert not reader.fiber.interrupt(Killed(), Mode.KILLABLE)

    ((_, error),) = reader.turn()
    assert isinstance(error, Killed)


def test_the_deadline(file: File, start: Start) -> None:
    reader = start(retry(file, deadline_ns=1))

    reader.turn()

    assert reader.turn() == [(-1, None)]
    assert (file.refs, len(file.queue), reader.loop.timers) == (1, 0, 0)


def test_the_deadline_holds_after_a_vain_wake_up(file: File, start: Start) -> None:
    deadline_ns = Loop(HostOnly(), print).now_ns() + 1_000_000
    reader = start(retry(file, deadline_ns=deadline_ns))

    file.queue.notify(READ)
    while not reader.ends:
        reader.loop.turn()

    assert reader.ends == [(-1, None)]


def test_what_is_made_of_the_result(file: File, start: Start) -> None:
    sleep = continued(continued(retry(file), lambda n: n + 1), lambda n: n * 10)
    assert isinstance(sleep, Sleep)
    reader = start(sleep)

    file.put(7)

    assert reader.turn() == [(80, None)]


def test_as_a_coroutine_it_tries_before_it_sleeps(file: File) -> None:
    sleep = retry(file)
    file.put(7)

    reader = Reader(sleep, False)

    assert reader.ends == [(7, None)]


@pytest.mark.parametrize("first", [True, False])
def test_what_was_tried_sleeps_and_what_was_not_tries(file: File, first: bool) -> None:
    sleep = until(file.read, (file.queue,))
    if not first:
        sleep.tried((file,))
    file.put(7)

    reader = Reader(sleep, True)

    assert file.refs == (1 if first else 2)
    assert reader.turn() == ([(7, None)] if first else [])


def test_now_or_later_gives_what_is_there(file: File) -> None:
    file.put(7)
    assert now_or_later(file.read, (file.queue,)) == 7


def test_now_or_later_sleeps_on_every_queue_with_the_files_in_use(
    file: File, start: Start
) -> None:
    other = WaitQueue()
    reader = start(now_or_later(file.read, (file.queue, other), held=(file,)))
    assert (reader.turn(), file.refs) == ([], 2)

    file.data.append(7)
    other.notify()

    assert reader.turn() == [(7, None)]
    assert (file.refs, len(file.queue), len(other)) == (1, 0, 0)


def test_never_ends_by_its_deadline_or_a_signal(start: Start) -> None:
    late = start(until(never, (), deadline_ns=1).ended(instead(TimedOut, lambda: 5)))
    paused = start(until(never, ()).tried().ended(no_hand))
    late.turn()

    assert paused.fiber.interrupt(Interrupted())

    assert late.turn() == [(5, None)]
    ((_, error),) = paused.turn()
    assert isinstance(error, RestartNoHand)


def test_ends_and_results_follow_in_their_order(file: File, start: Start) -> None:
    sleep = retry(file).then(lambda n: n + 1).ended(lambda finish: finish() * 10)
    reader = start(sleep.then(lambda n: n + 2).ended(lambda finish: [finish()]))

    file.put(7)

    assert reader.turn() == [([82], None)]


def test_an_end_hears_of_the_error(file: File, start: Start) -> None:
    reader = start(retry(file).then(lambda n: n + 1).ended(instead(EPIPE, lambda: -3)))
    file.broken = True

    file.queue.notify(READ)

    assert reader.turn() == [(-3, None)]


def test_an_end_of_a_call_that_needs_no_sleep(file: File) -> None:
    assert ended(lambda: 7, lambda finish: finish() + 1) == 8
    with pytest.raises(EPIPE):
        ended(file.read, instead(EAGAIN, EPIPE))


def test_who_does_without_the_constructor_does_what_it_does() -> None:
    wanted = set(Sleep.__slots__)
    lacking = {}
    for path in sorted((REPOSITORY / "sentry").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                given = {
                    target.attr
                    for target in ast.walk(node)
                    if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
                }
                if {"_after", "_end_by"} <= given and not wanted <= given:
                    lacking[f"{path.name}: {node.lineno}"] = wanted - given
    assert not lacking
