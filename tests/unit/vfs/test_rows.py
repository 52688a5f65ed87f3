"""Registries of what has a number, and those that stand on others."""

from __future__ import annotations

import pytest

from sentry.vfs.rows import Rows


def test_a_number_is_declared_once() -> None:
    rows: Rows[int, str] = Rows()
    rows.declare(1, "one")
    with pytest.raises(TypeError):
        rows.declare(1, "another")
    assert rows.declared == ["one"]


def test_what_a_registry_lacks_it_has_from_those_below() -> None:
    low: Rows[int, str] = Rows()
    high = Rows(low)
    low.declare(1, "low")
    assert high.find(1) == high[1] == "low"
    assert high.declared == []


def test_own_rows_come_first_then_the_first_base() -> None:
    one: Rows[int, str] = Rows()
    two: Rows[int, str] = Rows()
    top = Rows(one, two)
    for rows, name in ((one, "one"), (two, "two"), (top, "top")):
        rows.declare(1, name)
    one.declare(2, "one")
    two.declare(2, "two")
    assert (top.find(1), top.find(2)) == ("top", "one")
    assert top.everything() == {1: "top", 2: "one"}


def test_a_row_that_comes_later_is_found() -> None:
    low: Rows[int, str] = Rows()
    high = Rows(low)
    assert high.find(1) is None
    low.declare(1, "late")
    assert high.find(1) == "late"


def test_numbers_of_nobody_leave_nothing_behind() -> None:
    rows: Rows[int, str] = Rows(Rows())
    for number in range(1000):
        assert rows.find(number) is None
    assert not rows
