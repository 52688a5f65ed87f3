"""Calls that are made again: answers, locks, sequences."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sentry.errors import EIO
from sentry.wait.again import Call, NotNow, again, begun, finished, kept, settled
from sentry.wait.lock import Lock


async def at_once() -> None:
    """A wait that is over."""


def result_of(coro: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives that never sleeps."""
    try:
        coro.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it sleeps")


def failing_once(then: Callable[[], Any]) -> Callable[[], Any]:
    """An operation that has to wait the first time."""

    def operation() -> Any:
        if kept("seen") is None:
            raise NotNow(at_once, "seen", True)
        return then()

    return operation


def test_operation_is_called_again_and_finds_its_answer() -> None:
    assert result_of(again(failing_once(lambda: (kept("seen"), 7)))) == (True, 7)
    assert kept("seen") is None


def test_lock_is_held_only_while_its_call_sleeps() -> None:
    lock, seen = Lock(), []

    async def look() -> None:
        seen.append(lock.holder)

    def operation() -> int:
        with lock:
            if kept(operation) is None:
                raise NotNow(look, operation, True)
            return 7

    assert result_of(again(operation)) == 7
    assert isinstance(seen[0], Call)
    assert lock.holder is None


def test_lock_is_free_after_a_wait_that_fails() -> None:
    lock = Lock()

    async def broken() -> None:
        raise EIO

    def operation() -> None:
        with lock:
            raise NotNow(broken)

    with pytest.raises(EIO):
        result_of(again(operation))
    assert lock.holder is None


def test_lock_that_a_call_has_let_go_stays_with_who_has_it_next() -> None:
    lock, seen = Lock(), list[Call]()

    async def taken() -> None:
        with pytest.raises(NotNow) as need, lock:
            raise NotNow(at_once)
        seen.append(need.value.call)

    def operation() -> int:
        if kept("second") is not None:
            return 7
        with lock:
            if kept("first") is None:
                raise NotNow(at_once, "first", True)
        raise NotNow(taken, "second", True)

    assert result_of(again(operation)) == 7
    assert lock.holder is seen[0]
    seen[0].close()
    assert lock.holder is None


def test_coroutine_that_starts_anew_does_not_wait_for_its_own_lock() -> None:
    lock, attempts = Lock(), []

    async def operation() -> int:
        with lock:
            attempts.append(lock.holder)
            if len(attempts) < 3:
                raise NotNow(at_once)
            return 7

    assert result_of(finished(NotNow(at_once), operation)) == 7
    assert attempts == [None, None, None]


@pytest.mark.parametrize("how", [settled, begun])
def test_sequence_runs_once_and_its_error_comes_from_the_operation(how: Any) -> None:
    runs = []

    async def work() -> None:
        runs.append(1)
        raise EIO

    def operation() -> str:
        try:
            how("work", work)
        except EIO:
            return "caught"
        return "nothing"

    assert result_of(again(operation)) == "caught"
    assert runs == [1]


@pytest.mark.parametrize("how", [settled, begun])
def test_nothing_of_a_sequence_that_failed_waits_for_the_collector(how: Any) -> None:
    class Held:
        """What a frame of it has."""

    left: list[Any] = []

    async def work() -> None:
        held = Held()
        left.append(weakref.ref(held))
        await at_once()
        raise EIO

    def operation() -> None:
        held = Held()
        left.append(weakref.ref(held))
        how("work", work)

    gc.disable()
    try:
        with pytest.raises(EIO):
            result_of(again(operation))
        assert [ref() for ref in left] == [None] * len(left) and len(left) >= 2
    finally:
        gc.enable()
