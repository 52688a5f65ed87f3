"""What is due first, against a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.deadlines import SPARE, Deadlines

KEYS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 50)),
        st.tuples(st.just("drop"), KEYS, st.just(0)),
        st.tuples(st.just("due"), st.just(0), st.integers(0, 50)),
    ),
    max_size=60,
)


@given(STEPS)
def test_deadlines_are_those_of_a_dictionary(steps: list[tuple[str, int, int]]) -> None:
    made: Deadlines[int] = Deadlines()
    model: dict[int, int] = {}
    for step, key, at in steps:
        if step == "set":
            made.set(key, at)
            model[key] = at
        elif step == "drop":
            made.drop(key)
            model.pop(key, None)
        else:
            taken = made.take_due(at)
            first = min(model.values(), default=at + 1)
            assert (taken is None) == (first > at)
            if taken is not None:
                assert model.pop(taken) == first
        assert made.first_ns() == min(model.values(), default=None)
        assert len(made) == len(model)


def test_setting_one_again_and_again_takes_no_more_memory() -> None:
    made: Deadlines[str] = Deadlines()
    for at in range(10_000):
        made.set("same", at)
    assert len(made._heap) <= 2 + SPARE
