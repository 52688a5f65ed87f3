"""Writes in place as long as the disk keeps up."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.fs.gofer.pace import MAX_IN_PLACE, RESPITE, SLOW_NS, Pace


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(pace: Pace, clock: Clock, took_ns: int) -> bool:
    """Whether a write was made in place."""
    began = pace.begin(4096)
    if began:
        clock.ns += took_ns
        pace.end(began)
    return bool(began)


def test_quick_writes_stay_in_place(clock: Clock) -> None:
    pace = Pace(clock)

    assert all(write(pace, clock, SLOW_NS) for _ in range(3))


def test_slow_write_is_followed_by_a_time_without(clock: Clock) -> None:
    pace = Pace(clock)
    assert write(pace, clock, 2 * SLOW_NS)

    clock.ns += RESPITE * 2 * SLOW_NS - 1
    assert not write(pace, clock, 0)
    clock.ns += 1
    assert write(pace, clock, 0)


def test_large_write_is_not_made_in_place(clock: Clock) -> None:
    pace: Any = Pace(clock)

    assert pace.begin(MAX_IN_PLACE)
    assert not pace.begin(MAX_IN_PLACE + 1)
