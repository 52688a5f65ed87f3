"""Several who stand before one call: their order, and that the table is as before in the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sentry.abi import unistd
from sentry.errors import EPERM
from sentry.syscalls import table  # noqa: F401  all declarations
from sentry.syscalls.interposing import Place, interpose
from sentry.syscalls.registry import CALLS, TABLE, Declaration, Handler
from tests.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made
    for number in (unistd.close, unistd.wait4, unistd.write):
        for place in Place:
            interpose(number, place, None)


class Layer:
    """Writes down its name, and hands on."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told

    def around(self, _declaration: Declaration, handler: Handler) -> Handler:
        def call(task: Any, *values: Any) -> Any:
            self.told.append(self.name)
            return handler(task, *values)

        return call


def test_who_decides_comes_before_who_injects_whoever_came_first(world: World) -> None:
    told: list[str] = []
    interpose(unistd.close, Place.POLICY, Layer("policy", told).around)
    interpose(unistd.close, Place.INJECTION, Layer("injection", told).around)
    assert world.program().call("close", 77) == -9
    assert told == ["policy", "injection"]


def test_one_who_goes_leaves_the_other(world: World) -> None:
    told: list[str] = []
    interpose(unistd.close, Place.INJECTION, Layer("injection", told).around)
    interpose(unistd.close, Place.POLICY, Layer("policy", told).around)
    interpose(unistd.close, Place.INJECTION, None)
    world.program().call("close", 77)
    assert told == ["policy"]


def test_nobody_left_means_the_call_as_it_was(world: World) -> None:
    before = list(CALLS)
    interpose(unistd.write, Place.POLICY, Layer("policy", []).around)
    assert [n for n, call in enumerate(CALLS) if call is not before[n]] == [unistd.write]
    interpose(unistd.write, Place.POLICY, None)
    program = world.program()
    program.call("write", 77, 0, 0)
    assert CALLS[unistd.write] is TABLE[unistd.write].call  # type: ignore[union-attr]


def test_an_error_in_the_place_of_the_call_is_its_result(world: World) -> None:
    def refuse(_declaration: Declaration, _handler: Handler) -> Handler:
        def call(_task: Any, *_values: Any) -> Any:
            raise EPERM("not here")

        return call

    program = world.program()
    interpose(unistd.close, Place.POLICY, refuse)
    assert program.call("close", 0) == -1


def test_a_call_that_is_a_coroutine_runs_through_all(world: World) -> None:
    told: list[str] = []
    interpose(unistd.wait4, Place.POLICY, Layer("policy", told).around)
    assert world.program().call("wait4", -1, 0, 0, 0) == -10
    assert told == ["policy"]
