"""Loss and repair. RFC 8985 (RACK-TLP), 6937, 6298, 6675."""

from __future__ import annotations

from sentry.net.tcp.core import OPEN, PROBE, RECOVERY
from sentry.net.tcp.loss import is_before
from sentry.net.tcp.rtt import RoundTrip
from sentry.net.tcp.segment import ACK, FIN
from tests.unit.net.tcp.hand import MSS, Hand, places
from tests.unit.net.tcp.pair import MS


def with_rtt(rtt_ms: int = 20, **settings: object) -> Hand:
    hand = Hand(**settings)  # type: ignore[arg-type]
    hand.one.rtt = RoundTrip(200 * MS)
    for _ in range(3):
        hand.send(b"x")
        hand.hear(after=rtt_ms / 1000)
    return hand


def test_tail_is_probed_after_two_round_trips() -> None:
    hand = with_rtt()
    at = 1 + hand.one.snd_nxt - hand.one.iss - 1
    hand.send(bytes(3 * MSS))
    assert hand.one.retransmit_kind == PROBE

    assert hand.wait(0.04) == []
    (probe,) = hand.wait(0.005)
    assert places([probe]) == [(at + 2 * MSS, MSS)]


def test_probe_that_is_sacked_repairs_the_tail_without_a_timeout() -> None:
    hand = with_rtt()
    at = hand.one.snd_nxt - hand.one.iss
    hand.send(bytes(4 * MSS))
    hand.wait(0.045)

    hand.hear(ack=at + MSS, sacks=((at + 3 * MSS, at + 4 * MSS),), after=0.02)
    hand.wait(0.02)
    assert hand.one.tally.total_retrans == 3
    hand.hear(ack=at + 4 * MSS, after=0.02)

    assert hand.one.tally.total_rto == 0 and hand.one.ca_state == OPEN


def test_probe_that_was_needed_reduces_the_window() -> None:
    hand = with_rtt()
    at = hand.one.snd_nxt - hand.one.iss
    window = hand.one.cc.window
    hand.send(bytes(2 * MSS))
    hand.wait(0.05)

    hand.hear(ack=at + 2 * MSS, after=0.02)
    hand.send(b"more")
    hand.hear(after=0.02)

    assert hand.one.cc.window < window
    assert hand.counters["TcpExt.TCPLossProbeRecovery"] == 1


def test_probe_that_was_not_needed_costs_nothing() -> None:
    hand = with_rtt()
    at = hand.one.snd_nxt - hand.one.iss
    window = hand.one.cc.window
    hand.send(bytes(2 * MSS))
    hand.wait(0.05)

    hand.hear(ack=at + 2 * MSS, sacks=((at + MSS, at + 2 * MSS),), after=0.02)
    hand.send(b"more")
    hand.hear(after=0.02)

    assert hand.one.cc.window >= window


def test_probe_is_something_new_if_there_is_something() -> None:
    hand = with_rtt(window=4 * MSS, scale=None)
    at = hand.one.snd_nxt - hand.one.iss
    hand.send(bytes(6 * MSS))
    hand.hear(ack=at + MSS, window=3 * MSS)
    hand.one.snd_wnd = 10 * MSS  # the window opens, and nothing told us to send
    hand.one.cc.window = 3 * MSS

    (probe,) = hand.wait(0.05)

    assert probe.seq == at + 4 * MSS


def test_one_packet_that_is_probed_waits_for_a_delayed_acknowledgement() -> None:
    hand = with_rtt()
    hand.send(b"x")

    assert hand.wait(0.2) == []
    assert len(hand.wait(0.05)) == 1


def test_timeout_sends_the_first_packet_and_waits_twice_as_long() -> None:
    hand = with_rtt(tcp_early_retrans=0)
    at = hand.one.snd_nxt - hand.one.iss
    hand.send(bytes(4 * MSS))

    assert places(hand.wait(0.23)) == [(at, MSS)]
    assert hand.wait(0.4) == []
    assert places(hand.wait(0.05)) == [(at, MSS)]
    assert hand.one.cc.window == MSS and hand.one.tally.total_rto == 2


def test_after_a_timeout_everything_is_sent_again_slowly() -> None:
    hand = with_rtt(tcp_early_retrans=0)
    at = hand.one.snd_nxt - hand.one.iss
    hand.send(bytes(8 * MSS))
    hand.wait(0.23)

    second = places(hand.hear(ack=at + MSS))
    third = places(hand.hear(ack=at + 3 * MSS))

    assert second == [(at + MSS, MSS), (at + 2 * MSS, MSS)]
    assert len(third) == 4


def test_timeout_sends_nothing_again_that_was_sacked() -> None:
    hand = with_rtt(tcp_early_retrans=0)
    at = hand.one.snd_nxt - hand.one.iss
    hand.send(bytes(4 * MSS))
    hand.hear(ack=at, sacks=((at + MSS, at + 2 * MSS),))
    hand.wait(0.3)

    assert places(hand.hear(ack=at + 2 * MSS)) == [(at + 2 * MSS, MSS), (at + 3 * MSS, MSS)]


def test_receiver_that_reneges_gets_all_again() -> None:
    hand = with_rtt(tcp_early_retrans=0)
    at = hand.one.snd_nxt - hand.one.iss
    hand.send(bytes(3 * MSS))
    hand.hear(ack=at, sacks=((at + MSS, at + 3 * MSS),))
    hand.hear(ack=at + MSS)  # and not what was sacked
    sent = hand.wait(0.3)

    assert (at + MSS, MSS) in places(sent)
    assert hand.counters["TcpExt.TCPSACKReneging"] == 1
    hand.hear(ack=at + 3 * MSS)
    assert not hand.one.board.records


def test_what_was_sent_again_and_lost_again_is_found_by_rack() -> None:
    hand = with_rtt()
    at = hand.one.snd_nxt - hand.one.iss
    hand.send(bytes(10 * MSS))
    first = hand.hear(ack=at, sacks=((at + MSS, at + 5 * MSS),), after=0.02)
    assert places(first)[0] == (at, MSS)
    hand.send(bytes(4 * MSS))
    new_end = hand.one.snd_nxt - hand.one.iss

    again = hand.hear(ack=at, sacks=((at + MSS, new_end),), after=0.05)

    assert (at, MSS) in places(again)
    assert hand.one.tally.total_rto == 0


def test_window_goes_down_in_proportion() -> None:
    hand = with_rtt()
    at = hand.one.snd_nxt - hand.one.iss
    hand.one.cc.window = 20 * MSS
    hand.send(bytes(40 * MSS))
    sent = 0
    for end in range(2, 21):
        sent += len(hand.hear(ack=at, sacks=((at + MSS, at + end * MSS),), after=0.001))

    assert hand.one.ca_state == RECOVERY
    assert hand.one.cc.threshold == 14 * MSS
    assert 12 <= sent <= 15
    assert hand.one.board.in_flight <= 14 * MSS


def test_fin_is_sent_again() -> None:
    hand = with_rtt()
    hand.one.send(hand.now, b"bye")
    hand.one.close(hand.now)
    hand.sent()

    again = hand.wait(0.3)

    assert again[0].flags == FIN | ACK


def test_urgent_timestamps_are_compared_around_zero() -> None:
    assert is_before(0xFFFFFFF0, 5) and not is_before(5, 0xFFFFFFF0) and not is_before(5, 5)


def test_initial_probe_without_a_round_trip_waits_for_a_second() -> None:
    hand = Hand()
    hand.one.rtt.smoothed_ns = 0
    hand.send(bytes(2 * MSS))

    assert hand.one.retransmit_at is not None
    assert hand.one.retransmit_at - hand.now <= 1000 * MS
