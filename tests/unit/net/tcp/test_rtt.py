"""Round trips and time-outs. RFC 6298, with the least RTO of Linux."""

from __future__ import annotations

from sentry.net.tcp.rtt import MIN_WINDOW_NS, RoundTrip
from tests.unit.net.tcp.pair import MS, SECOND

MIN_NS = 200 * MS


def test_nothing_measured_waits_for_a_second() -> None:
    made = RoundTrip(MIN_NS)

    assert (made.rto_ns, made.smoothed_ns, made.least_ns) == (SECOND, 0, 0)


def test_first_sample_is_the_mean() -> None:
    made = RoundTrip(MIN_NS)
    made.measured(0, 300 * MS, 1, 2)

    assert made.smoothed_ns == 300 * MS
    assert made.rto_ns == 300 * MS + 600 * MS


def test_steady_round_trip_waits_for_200_ms_more() -> None:
    made = RoundTrip(MIN_NS)
    for at in range(100):
        made.measured(at * MS, 10 * MS, at, at + 1)

    assert made.smoothed_ns == 10 * MS
    assert made.rto_ns == 210 * MS


def test_longer_round_trip_waits_for_longer_at_once_and_for_less_slowly() -> None:
    made = RoundTrip(MIN_NS)
    for at in range(50):
        made.measured(at * MS, 10 * MS, at, at + 1)
    made.measured(50 * MS, SECOND, 50, 51)
    after = made.rto_ns
    assert after > SECOND
    for at in range(51, 54):
        made.measured(at * MS, 10 * MS, at, at + 1)

    assert 500 * MS < made.rto_ns < after


def test_least_is_of_the_last_minutes() -> None:
    made = RoundTrip(MIN_NS)
    for at, sample in ((0, 5), (1, 3), (2, 9)):
        made.measured(at, sample * MS, at, at + 1)
    assert made.least_ns == 3 * MS

    made.measured(MIN_WINDOW_NS + 10, 7 * MS, 10, 11)

    assert made.least_ns == 7 * MS


def test_many_rising_samples_are_not_all_kept() -> None:
    made = RoundTrip(MIN_NS)
    for at in range(1000):
        made.measured(at, (at + 1) * MS, at, at + 1)

    assert len(made._least) <= 3
