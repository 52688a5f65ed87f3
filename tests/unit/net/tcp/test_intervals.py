"""Ranges against a set of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.tcp.intervals import Intervals

NUMBER = st.integers(0, 60)
RANGE = st.tuples(NUMBER, st.integers(1, 15)).map(lambda one: (one[0], one[0] + one[1]))
STEPS = st.lists(st.tuples(st.just("add"), RANGE) | st.tuples(st.just("below"), NUMBER))


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {number for start, end in ranges for number in range(start, end)}


@given(STEPS, RANGE, NUMBER)
def test_as_a_set(steps: list, probe: tuple[int, int], at: int) -> None:  # type: ignore[type-arg]
    made, model = Intervals(), set[int]()
    for kind, what in steps:
        if kind == "add":
            new = numbers([what]) - model
            assert numbers(made.add(*what)) == new
            model |= new
        else:
            made.forget_below(what)
            model = {number for number in model if number >= what}
        found = list(zip(made.starts, made.ends, strict=True))
        assert numbers(found) == model and made.total == len(model)
        assert all(a[1] < b[0] for a, b in pairwise(found))

    assert numbers(made.gaps(*probe)) == numbers([probe]) - model
    around = made.around(at)
    assert (around is not None) == (at in model)
    if around is not None:
        assert at in range(*around) and numbers([around]) <= model


def test_clear_leaves_nothing() -> None:
    made = Intervals()
    made.add(1, 5)
    made.clear()

    assert (len(made), made.total, made.around(2)) == (0, 0, None)
