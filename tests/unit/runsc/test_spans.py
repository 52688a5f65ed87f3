"""Spans of time and moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runsc.spans import moment_ns, span_ns

S = 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("30 days", 30 * 86400 * S), ("1h30m", 5400 * S), ("1 hour, 30 minutes", 5400 * S),
        ("0.5s", S // 2), ("20ms", 20_000_000), ("2 weeks", 14 * 86400 * S), ("1d", 86400 * S),
        (1.5, 3 * S // 2), (0, 0), (timedelta(minutes=1, microseconds=1), 60 * S + 1000),
    ],
)  # fmt: skip
def test_span_is_counted_in_ns(text: str | float | timedelta, ns: int) -> None:
    assert span_ns(text) == ns


@pytest.mark.parametrize(
    "wrong",
    ["", "5", "days", "5 parsecs", "-1s", "1s x", -1, float("inf"), timedelta(-1), "9" * 30],
)
def test_what_is_no_span_is_said(wrong: str | float | timedelta) -> None:
    with pytest.raises((ValueError, OverflowError)):
        span_ns(wrong)


def test_moment_is_utc_unless_it_says_otherwise() -> None:
    assert moment_ns("1970-01-02") == 86400 * S
    assert moment_ns("1970-01-01 02:00+01:00") == 3600 * S
    assert moment_ns(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == S
    assert moment_ns(7) == 7 * S
    for wrong in ("yesterday", "1969-12-31"):
        with pytest.raises(ValueError, match=r"date|wall"):
            moment_ns(wrong)
