"""Congestion windows. RFC 5681, 9438, 9406."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sentry.net.tcp.congestion import INITIAL_PACKETS, KINDS, Cubic, Reno
from tests.unit.net.tcp.pair import MS, SECOND

MSS = 1000


@pytest.mark.parametrize("kind", KINDS.values())
def test_slow_start_doubles_in_a_round_trip(kind: type[Reno]) -> None:
    made = kind(MSS)
    for _ in range(INITIAL_PACKETS):
        made.acknowledged(0, MSS, 10 * MS)

    assert made.window == 2 * INITIAL_PACKETS * MSS


def test_reno_adds_a_packet_in_a_round_trip() -> None:
    made = Reno(MSS)
    made.window = made.threshold = 20 * MSS
    for _ in range(21):
        made.acknowledged(0, MSS, 10 * MS)

    assert made.window == 21 * MSS


def test_slow_start_ends_at_the_threshold() -> None:
    made = Reno(MSS)
    made.threshold = 12 * MSS
    made.acknowledged(0, 10 * MSS, 10 * MS)

    assert made.window == 12 * MSS


def test_reno_halves() -> None:
    made = Reno(MSS)
    made.window = 50 * MSS

    assert made.reduced() == 25 * MSS


def test_cubic_takes_three_tenths_and_comes_back_to_where_it_was() -> None:
    made = Cubic(MSS)
    made.window = 100 * MSS
    made.window = made.threshold = made.reduced()
    assert made.window == 70 * MSS
    now, seen = SECOND, []
    while made.window < 98 * MSS:
        made.acknowledged(now, made.window, 100 * MS)
        now += 100 * MS
        seen.append(made.window)

    k_seconds = (30 / 0.4) ** (1 / 3)
    assert abs(now / SECOND - 1 - k_seconds) < 2
    steps = [b - a for a, b in pairwise(seen)]
    assert sum(steps[: len(steps) // 4]) > sum(steps[-len(steps) // 4 :])  # concave


def test_cubic_is_no_slower_than_reno_on_short_paths() -> None:
    cubic, reno = Cubic(MSS), Reno(MSS)
    for one in (cubic, reno):
        one.window = 40 * MSS
        one.window = one.threshold = one.reduced()
    reno.window = cubic.window
    now = SECOND
    for _ in range(200):
        cubic.acknowledged(now, cubic.window, 1 * MS)
        reno.acknowledged(now, reno.window, 1 * MS)
        now += MS

    assert cubic.window > reno.window // 2
    assert cubic.window > 40 * MSS


def test_cubic_that_loses_again_soon_makes_room_for_others() -> None:
    made = Cubic(MSS)
    made.window = 100 * MSS
    made.window = made.reduced()
    made.window = made.reduced()

    assert made._w_max == pytest.approx(70 * 1.7 / 2)


def test_longer_round_trips_end_slow_start() -> None:
    made = Cubic(MSS)
    end = 0
    for rtt in (20, 20, 40, 40, 40, 40, 40, 40, 40):
        end += 100
        for at in range(10):
            made.measured(end + at - 99, end, rtt * MS)

    assert not made.in_slow_start


def test_idle_time_is_no_time_of_the_curve() -> None:
    made = Cubic(MSS)
    made.window = made.threshold = 50 * MSS
    made.acknowledged(SECOND, MSS, 10 * MS)
    made.idle(100 * SECOND, 0)

    made.acknowledged(101 * SECOND, MSS, 10 * MS)

    assert made.window <= 51 * MSS


def test_idle_for_long_begins_anew() -> None:
    made = Reno(MSS)
    made.window = made.threshold = 100 * MSS
    made.idle(SECOND, 200 * MS)

    assert made.window == 10 * MSS
    assert made.threshold == 100 * MSS


def test_other_mss_keeps_the_number_of_packets() -> None:
    made = Reno(MSS)
    made.window = 30 * MSS
    made.set_mss(500)

    assert (made.window, made.in_slow_start) == (30 * 500, True)
