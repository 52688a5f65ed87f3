from __future__ import annotations

import pytest

from runsc.values import Value


class Point(Value):
    x: int
    y: int = 5
    name: str = ""


def test_fields_are_given_by_place_or_name_and_have_defaults() -> None:
    made = Point(1, name="a")

    assert (made.x, made.y, made.name) == (1, 5, "a")
    assert made == Point(x=1, y=5, name="a")
    assert made != Point(1)
    assert made != (1, 5, "a")


def test_changed_is_another_one() -> None:
    made = Point(1)

    assert made.changed(y=7) == Point(1, 7)
    assert made == Point(1)


@pytest.mark.parametrize("given", [{}, {"y": 1}, {"x": 1, "z": 2}])
def test_missing_and_unknown_fields_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point"):
        Point(**given)  # type: ignore[arg-type]


def test_too_many_values_are_refused() -> None:
    with pytest.raises(TypeError, match="4 values"):
        Point(1, 2, "a", 4)  # type: ignore[call-arg]
