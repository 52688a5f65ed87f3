"""How many changes a file system has room for."""

from __future__ import annotations

import pytest

from gofer.p9.room import MOST, room_for


@pytest.mark.parametrize(
    ("told", "room"),
    [
        ((0, 0, 0, 0), MOST),
        ((1000, 1000, 0, 0), 495),
        ((1000, 10, 0, 0), 0),
        ((1000, 5, 0, 0), 0),
        ((0, 0, 1000, 500), 490),
        ((1000, 1000, 1000, 11), 1),
        ((1000, 12, 1000, 500), 1),
    ],
)
def test_one_percent_stays_free(told: tuple[int, int, int, int], room: int) -> None:
    """Of blocks, two a change, and of inodes; none of what has no bound."""
    assert room_for(*told) == room
