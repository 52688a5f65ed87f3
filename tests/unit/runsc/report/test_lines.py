"""Figures over time in bounded memory."""

from __future__ import annotations

from runsc.report.lines import POINTS, Level, Rate


def test_a_rate_counts_and_shows_gaps() -> None:
    rate = Rate(step_ns=10**9)
    for at_s in (0, 0, 3):
        rate.add(at_s * 10**9)
    assert [value for _, value in rate.values()] == [2, 0, 0, 1]


def test_a_rate_of_any_length_has_few_points_and_loses_none() -> None:
    rate = Rate()
    for at_ns in (0, 5, 1 << 40, 1 << 80, -7):
        rate.add(at_ns)
    assert len(rate.values()) <= POINTS
    assert sum(rate.counts.values()) == 5


def test_a_level_keeps_the_highest_and_goes_forward() -> None:
    level = Level()
    for at_ns in range(10_000):
        level.add(at_ns, 99.0 if at_ns == 4321 else 1.0)
    level.add(5, 2.0)
    assert len(level.values) < 2 * POINTS
    assert max(value for _, value in level.values) == 99.0
    assert level.values == sorted(level.values, key=lambda each: each[0])
