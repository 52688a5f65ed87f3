"""What is let in, and what not. RFC 9293, 3.10.7.4; 5961; 7323, 5."""

from __future__ import annotations

import pytest

from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.errors import ECONNRESET, EPIPE
from sentry.net.tcp.segment import ACK, FIN, RST, SYN
from tests.unit.net.tcp.hand import Hand
from tests.unit.net.tcp.pair import SECOND


def test_damaged_segment_does_not_count() -> None:
    hand = Hand()

    assert hand.hear(data=b"damaged", checksum_ok=False) == []
    assert hand.read() == b"" and hand.counters["Tcp.InCsumErrors"] == 1


def test_reset_where_we_are_is_believed() -> None:
    hand = Hand()
    hand.hear(RST)

    assert hand.one.take_error() == ECONNRESET.number
    assert hand.one.state == TCP_CLOSE and hand.one.hung_up and hand.one.readable
    assert hand.one.timer() is None


def test_reset_behind_a_fin_is_a_broken_pipe() -> None:
    hand = Hand()
    hand.hear(FIN | ACK)
    hand.hear(RST)

    assert hand.one.take_error() == EPIPE.number


@pytest.mark.parametrize("distance", [1, 1000, 60_000])
def test_reset_elsewhere_in_the_window_is_challenged(distance: int) -> None:
    hand = Hand()

    (challenge,) = hand.hear(RST, seq=1 + distance)

    assert (challenge.flags, challenge.ack) == (ACK, 1)
    assert not hand.one.error


def test_reset_behind_what_came_early_is_believed() -> None:
    hand = Hand()
    hand.hear(seq=101, data=bytes(50))
    hand.hear(RST, seq=151)

    assert hand.one.error == ECONNRESET.number


@pytest.mark.parametrize("seq", [-5, 70_000, 1 << 30])
def test_reset_outside_of_the_window_is_no_matter(seq: int) -> None:
    hand = Hand()

    assert hand.hear(RST, seq=seq) == [] and not hand.one.error


@pytest.mark.parametrize("seq", [0, 1, 500, 1 << 30])
def test_syn_is_challenged(seq: int) -> None:
    hand = Hand()

    (challenge,) = hand.hear(SYN, seq=seq)

    assert challenge.flags == ACK and hand.one.connected


def test_challenges_are_few() -> None:
    hand = Hand()
    answers = sum(len(hand.hear(SYN, seq=at)) for at in range(100))
    assert answers == 1

    assert len(hand.hear(SYN, seq=5, after=0.6)) == 1


def test_challenges_of_all_connections_have_a_ceiling() -> None:
    hand = Hand(tcp_challenge_ack_limit=0)

    assert hand.hear(SYN, seq=5) == []


def test_segment_without_ack_is_no_matter() -> None:
    hand = Hand()

    assert hand.hear(0, data=b"x") == [] and hand.read() == b""


def test_data_outside_of_the_window_is_answered_by_where_we_are() -> None:
    hand = Hand()

    (answer,) = hand.hear(seq=1 << 20, data=b"x")

    assert answer.ack == 1


def test_keepalive_of_the_other_end_is_answered() -> None:
    hand = Hand()

    (answer,) = hand.hear(seq=0)

    assert (answer.flags, answer.ack) == (ACK, 1)


def test_older_timestamp_is_too_old() -> None:
    hand = Hand(stamps=True)
    hand.one.stamps_on = True
    hand.hear(data=b"new", value=5000)

    (answer,) = hand.hear(data=b"old", value=4000)

    assert answer.ack == 4 and hand.read() == b"new"
    assert hand.counters["TcpExt.PAWSEstab"] == 1


def test_reset_with_an_older_timestamp_is_believed() -> None:
    hand = Hand(stamps=True)
    hand.one.stamps_on = True
    hand.hear(data=b"new", value=5000)
    hand.hear(RST, value=4000)

    assert hand.one.error == ECONNRESET.number


def test_older_timestamp_after_24_days_is_a_clock_that_came_round() -> None:
    hand = Hand(stamps=True)
    hand.one.stamps_on = True
    hand.hear(data=b"new", value=5000)
    hand.now += 25 * 86400 * SECOND

    hand.hear(data=b"er", value=4000)

    assert hand.read() == b"newer"


def test_closed_connection_hears_nothing() -> None:
    hand = Hand()
    hand.one.abort(hand.now)
    hand.sent()

    assert hand.hear(data=b"x") == [] and hand.hear(SYN) == []
