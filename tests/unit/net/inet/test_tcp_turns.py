"""Who waits for room on a link."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sentry.net.inet.tcp_turns import TURNS, Turns


def waiting(index: int) -> Any:
    class One(SimpleNamespace):
        __hash__ = object.__hash__

    return One(index=index, waits_at=None)


def test_who_has_waited_longest_is_first_on_each_link() -> None:
    turns, here, there = Turns(), [waiting(1) for _ in range(TURNS + 2)], waiting(2)
    for one in (*here, there):
        turns.wait(one)
    assert turns.first(1) == here[:TURNS] and turns.first(2) == [there] and turns.first(3) == []
    turns.stop(here[0])
    turns.wait(here[0])
    turns.stop(here[1])
    assert turns.first(1) == here[2 : TURNS + 2] and len(turns) == TURNS + 2


def test_who_goes_by_another_link_meanwhile_waits_where_it_did() -> None:
    turns, one = Turns(), waiting(1)
    turns.wait(one)
    one.index = 2
    turns.stop(one)
    turns.stop(one)
    assert not turns and one.waits_at is None


def test_nothing_is_kept_of_a_link_where_nobody_waits() -> None:
    turns = Turns()
    for index in range(100):
        one = waiting(index)
        turns.wait(one)
        turns.stop(one)
    assert not turns._waiting
