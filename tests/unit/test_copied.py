"""Copies of objects: as `copy` makes them."""

from __future__ import annotations

from sentry.copied import copied


class Slotted:
    __slots__ = ("left_out", "parts")

    def __init__(self, parts: list[int]) -> None:
        self.parts = parts


class Mixed(Slotted):
    """With a dictionary besides."""

    def __init__(self, parts: list[int]) -> None:
        super().__init__(parts)
        self.name = "a"


def test_attributes_are_the_same_objects() -> None:
    one = Mixed([1])

    other = copied(one)

    assert type(other) is Mixed and other is not one
    assert other.parts is one.parts and other.name == "a"
    assert not hasattr(other, "left_out")


def test_the_first_does_not_see_what_the_copy_gets() -> None:
    one = Mixed([1])

    other = copied(one)
    other.name, other.parts = "b", [2]

    assert (one.name, one.parts) == ("a", [1])
