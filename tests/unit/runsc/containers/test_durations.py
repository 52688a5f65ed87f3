"""Durations as Go writes them."""

from __future__ import annotations

import pytest

from runsc.containers.durations import seconds
from runsc.errors import RuntimeFailure


@pytest.mark.parametrize(
    ("text", "expected"), [("5s", 5), ("1m30s", 90), ("25us", 25e-6), ("1.5ms", 1.5e-3)]
)
def test_a_duration_is_read(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "0s", "-1s", "1 s", "1s2", "9223372037s", "9" * 400 + "h"]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(RuntimeFailure):
        seconds(text)
