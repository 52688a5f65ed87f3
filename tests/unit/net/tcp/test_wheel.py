"""Deadlines in a wheel, against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.tcp.wheel import MOST_AT_ONCE, TICK_NS, Wheel

KEY = st.integers(0, 8)
STEPS = st.lists(
    st.tuples(st.just("set"), KEY, st.integers(0, 50))
    | st.tuples(st.just("drop"), KEY, st.just(0))
    | st.tuples(st.just("due"), KEY, st.integers(0, 50))
)


@given(STEPS)
def test_as_a_dictionary(steps: list[tuple[str, int, int]]) -> None:
    made, model = Wheel[int](), dict[int, int]()
    for kind, key, at in steps:
        if kind == "set":
            made.set(key, at * TICK_NS)
            model[key] = at
        elif kind == "drop":
            made.drop(key)
            model.pop(key, None)
        else:
            due = {key for key, when in model.items() if when <= at}
            assert set(made.due(at * TICK_NS)) == due
            model = {key: when for key, when in model.items() if when > at}
        first = min(model.values(), default=None)
        assert made.next_ns() == (None if first is None else first * TICK_NS)


def test_nothing_is_due_too_early() -> None:
    made = Wheel[str]()
    made.set("one", 5 * TICK_NS + 1)

    assert made.due(5 * TICK_NS + 2) == []
    assert made.due(6 * TICK_NS) == ["one"]


def test_not_all_of_many_are_due_at_once() -> None:
    made = Wheel[int]()
    for key in range(MOST_AT_ONCE + 1):
        made.set(key, TICK_NS)

    assert len(made.due(TICK_NS)) == MOST_AT_ONCE
    assert made.next_ns() == TICK_NS
    assert len(made.due(TICK_NS)) == 1


def test_keys_that_come_and_go_leave_nothing() -> None:
    made = Wheel[int]()
    for key in range(10_000):
        made.set(key, (key % 7) * TICK_NS)
        made.drop(key)

    assert made.next_ns() is None
    assert len(made._ticks) <= 7
