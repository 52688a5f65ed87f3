"""Time-outs, window probes, keepalive. RFC 9293, 3.8; 1122; 5482."""

from __future__ import annotations

import pytest

from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.errors import EHOSTUNREACH, ETIMEDOUT
from sentry.net.tcp.segment import ACK, RST
from sentry.net.tcp.settings import Tuning
from sentry.net.tcp.timers import time_of
from tests.unit.net.tcp.hand import MSS, Hand, places
from tests.unit.net.tcp.pair import MS, SECOND


def keeping(**more: object) -> Hand:
    return Hand(tuning=Tuning(
        keepalive=True, keepalive_time=10, keepalive_intvl=5, keepalive_probes=3, **more,
    ))  # type: ignore[arg-type]  # fmt: skip


def closed_window() -> Hand:
    hand = Hand(window=2 * MSS, scale=None)
    hand.send(bytes(3 * MSS))
    hand.hear(ack=1 + 2 * MSS, window=0)
    return hand


def test_retries_are_given_up_in_the_time_that_they_take() -> None:
    hand = Hand(tcp_retries2=3)
    began = hand.now
    hand.send(b"x")
    while not hand.one.error:
        hand.wait(0.1)

    assert hand.one.take_error() == ETIMEDOUT.number
    assert hand.one.state == TCP_CLOSE and hand.one.timer() is None
    assert 3 * SECOND < hand.now - began < 8 * SECOND


def test_time_of_retries_is_bounded_by_the_longest_wait() -> None:
    assert time_of(3, 200 * MS, 120 * SECOND) == 15 * 200 * MS
    assert time_of(15, 200 * MS, 120 * SECOND) == (1023 * 200 * MS) + 6 * 120 * SECOND


def test_what_icmp_said_is_what_a_timeout_is_told_as() -> None:
    hand = Hand(tcp_retries2=1)
    (seg,) = hand.send(b"x")
    hand.one.icmp_error(hand.now, hand.one.iss + seg.seq & 0xFFFFFFFF, EHOSTUNREACH.number)
    assert not hand.one.error

    hand.wait(100)

    assert hand.one.take_error() == EHOSTUNREACH.number


def test_user_timeout_ends_it_sooner() -> None:
    hand = Hand(tuning=Tuning(user_timeout_ms=2000))
    began = hand.now
    hand.send(b"x")
    while not hand.one.error:
        hand.wait(0.05)

    assert 2 * SECOND <= hand.now - began < 3 * SECOND


def test_closed_window_is_probed_for_ever_while_it_is_answered() -> None:
    hand = closed_window()
    probes = 0
    for _ in range(20):
        at = hand.one.timer()
        assert at is not None and at - hand.now <= 120 * SECOND
        hand.now = at
        hand.one.timeout(at)
        for seg in hand.sent():
            probes += 1
            assert (seg.seq, len(seg.payload)) == (2 * MSS, 0)
        hand.hear(ack=1 + 2 * MSS, window=0)

    assert probes == 20 and not hand.one.error


def test_probes_that_nobody_answers_end_it() -> None:
    hand = closed_window()
    hand.one.settings.tcp_retries2 = 4
    hand.wait(1000)

    assert hand.one.error == ETIMEDOUT.number


def test_closed_window_does_not_keep_what_nobody_holds() -> None:
    hand = closed_window()
    hand.one.close(hand.now)
    for _ in range(40):
        if hand.wait(100):
            hand.hear(ack=1 + 2 * MSS, window=0)

    assert hand.one.is_over


def test_user_timeout_counts_for_a_closed_window_that_is_answered() -> None:
    hand = closed_window()
    hand.one.tuning.user_timeout_ms = 3000
    for _ in range(40):
        if hand.wait(0.2):
            hand.hear(ack=1 + 2 * MSS, window=0)

    assert hand.one.error == ETIMEDOUT.number


def test_window_that_opens_lets_data_go_at_once() -> None:
    hand = closed_window()
    hand.wait(0.5)

    sent = hand.hear(ack=1 + 2 * MSS, window=5 * MSS)

    assert places(sent) == [(1 + 2 * MSS, MSS)]
    assert hand.one.backoff == 0


def test_window_that_opens_a_little_gets_a_little_by_the_probe() -> None:
    hand = closed_window()
    assert hand.hear(ack=1 + 2 * MSS, window=100) == []

    assert places(hand.wait(0.5))[0] == (1 + 2 * MSS, 100)


def test_window_that_was_taken_back_is_no_reason_to_end() -> None:
    hand = Hand(tcp_retries2=2)
    hand.send(bytes(4 * MSS))
    hand.hear(ack=1 + MSS, window=0)
    for _ in range(30):
        hand.wait(5)
        hand.hear(ack=1 + MSS, window=0)

    assert not hand.one.error


def test_keepalive_asks_and_gives_up() -> None:
    hand = keeping()
    assert hand.wait(9.9) == []
    (probe,) = hand.wait(0.2)
    assert (probe.flags, probe.seq, len(probe.payload)) == (ACK, 0, 0)

    rest = hand.wait(20)

    assert [seg.flags for seg in rest] == [ACK, ACK, RST | ACK]
    assert hand.one.take_error() == ETIMEDOUT.number


def test_keepalive_that_is_answered_begins_anew() -> None:
    hand = keeping()
    for _ in range(10):
        assert len(hand.wait(10.1)) == 1
        hand.hear()

    assert not hand.one.error


def test_keepalive_waits_while_data_is_under_way() -> None:
    hand = keeping()
    hand.wait(9)
    hand.send(b"x")
    hand.wait(2)

    assert hand.counters.get("TcpExt.TCPKeepAlive", 0) == 0


def test_keepalive_with_a_user_timeout_ends_by_that() -> None:
    hand = keeping(user_timeout_ms=12_000)
    hand.wait(15.2)

    assert hand.one.error == ETIMEDOUT.number


def test_keepalive_that_is_set_later_counts_from_the_last_word() -> None:
    hand = Hand()
    hand.wait(4)
    hand.one.tuning.keepalive, hand.one.tuning.keepalive_time = True, 10
    hand.one.set_keepalive(hand.now)

    assert hand.one.timer() == hand.now + 6 * SECOND


def test_timeout_that_is_called_too_early_does_nothing() -> None:
    hand = Hand()
    hand.send(b"x")
    hand.one.timeout(hand.now)

    assert hand.sent() == []


def test_connection_that_nobody_holds_gives_up_sooner() -> None:
    hand = Hand()
    hand.one.send(hand.now, b"x")
    hand.one.close(hand.now)
    hand.wait(300)

    assert hand.one.is_over


@pytest.mark.parametrize("state", ["idle", "sending"])
def test_clock_that_stands_still_or_jumps_is_no_matter(state: str) -> None:
    hand = keeping()
    if state == "sending":
        hand.send(bytes(5 * MSS))
    for jump in (0, 0, 10**15, 10**18):
        hand.one.timeout(hand.now + jump)
        hand.sent()
