"""What is made of numbers and times that callers give."""

from __future__ import annotations

import pytest

from runsc.api.values import LONGEST_NS, nanoseconds, number


def test_times_are_whole_nanoseconds_that_a_sandbox_can_count() -> None:
    assert nanoseconds("timeout", None) == 0
    assert nanoseconds("timeout", 1e-12) == 1
    assert nanoseconds("timeout", 1.5) == 1_500_000_000
    assert nanoseconds("timeout", LONGEST_NS / 1e9) <= LONGEST_NS


def test_numbers_are_whole_and_not_nothing() -> None:
    assert number("cpus", None) == 0
    assert number("cpus", 3) == 3
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"cpus: {wrong}"):
            number("cpus", wrong)
    with pytest.raises(TypeError):
        number("cpus", 1.5)  # type: ignore[arg-type]
