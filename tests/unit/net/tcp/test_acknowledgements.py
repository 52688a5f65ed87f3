"""What acknowledgements do. RFC 9293, 3.10.7.4; 5681; 6582; 2018; 3168; 7323; 5961, 5."""

from __future__ import annotations

from sentry.net.tcp.core import CWR_STATE, DISORDER, LOSS, OPEN, RECOVERY
from sentry.net.tcp.segment import ACK, CWR, ECE
from tests.unit.net.tcp.hand import MSS, Hand, places
from tests.unit.net.tcp.pair import MS

TEN = bytes(10 * MSS)


def test_acknowledgement_makes_room_and_is_told() -> None:
    hand = Hand()
    hand.send(bytes(1000))
    changes, room = hand.changes, hand.one.room

    hand.hear(ack=1001)

    assert hand.one.room == room + 1000 and hand.changes == changes + 1
    assert hand.one.timer() is None and hand.one.tally.bytes_acked == 1001


def test_acknowledgement_of_what_was_not_sent_is_no_matter() -> None:
    hand = Hand()
    hand.send(b"x")

    assert hand.hear(ack=500, data=b"with data") == []
    assert hand.one.snd_una == hand.one.iss + 1 and hand.read() == b""


def test_very_old_acknowledgement_is_challenged_once() -> None:
    hand = Hand()

    answers = [hand.hear(ack=1 - 70_000) for _ in range(5)]

    assert [len(one) for one in answers] == [1, 0, 0, 0, 0]
    assert hand.counters["TcpExt.TCPChallengeACK"] == 1


def test_round_trip_is_measured() -> None:
    hand = Hand()
    hand.one.rtt.smoothed_ns = 0
    hand.send(b"x")
    hand.hear(after=0.03)

    assert hand.one.rtt.smoothed_ns == 30 * MS


def test_round_trip_of_what_was_sent_again_is_not_measured() -> None:
    hand = Hand()
    before = hand.one.rtt.smoothed_ns
    hand.send(b"x")
    hand.wait(0.5)
    hand.hear(ack=2)

    assert hand.one.rtt.smoothed_ns == before


def test_three_duplicates_send_the_first_again_without_sack() -> None:
    hand = Hand(sack=False)
    hand.send(TEN)
    answers = [places(hand.hear(ack=1)) for _ in range(3)]

    assert answers == [[], [], [(1, MSS)]]
    assert hand.one.ca_state == RECOVERY
    assert hand.one.cc.threshold == 7 * MSS


def test_partial_acknowledgement_sends_the_next_hole() -> None:
    hand = Hand(sack=False)
    hand.send(TEN)
    for _ in range(5):
        hand.hear(ack=1)

    assert (1 + 3 * MSS, MSS) in places(hand.hear(ack=1 + 3 * MSS))
    hand.hear(ack=1 + 10 * MSS)
    assert hand.one.ca_state == OPEN


def test_sack_sends_what_is_missing_and_nothing_else() -> None:
    hand = Hand()
    hand.send(TEN)
    sent = []
    for end in range(3, 11):
        sacks = ((1 + 2 * MSS, 1 + end * MSS),)
        sent += places(hand.hear(ack=1 + MSS, sacks=sacks, after=0.001))

    assert [one for one in sent if one[0] < 1 + 10 * MSS] == [(1 + MSS, MSS)]
    assert hand.one.tally.total_retrans == 1


def test_one_sacked_packet_may_be_reordering() -> None:
    hand = Hand()
    hand.send(TEN)

    hand.hear(ack=1, sacks=((1 + MSS, 1 + 2 * MSS),), after=0.01)

    assert hand.one.ca_state == DISORDER and hand.one.tally.total_retrans == 0


def test_reordering_that_was_seen_makes_us_wait() -> None:
    hand = Hand()
    hand.one.rtt.measured(hand.now, 40 * MS, 0, 1)
    hand.send(TEN)
    hand.hear(ack=1, sacks=((1 + MSS, 1 + 2 * MSS),), after=0.04)
    hand.hear(ack=1 + 2 * MSS)  # it was late, not lost
    assert hand.one.rack_reordering and hand.one.tally.reord_seen == 1

    sacks = ((1 + 3 * MSS, 1 + 9 * MSS),)
    assert all(at > 9 * MSS for at, _ in places(hand.hear(ack=1 + 2 * MSS, sacks=sacks)))
    again = places(hand.wait(0.1))
    assert again[0] == (1 + 2 * MSS, MSS)


def test_block_of_nonsense_says_nothing() -> None:
    hand = Hand()
    hand.send(TEN)
    for sacks in (((5, 5),), ((50, 40),), ((1 + 20 * MSS, 1 + 30 * MSS),), ((0, 90000),)):
        hand.hear(ack=1, sacks=sacks)

    assert hand.one.board.sacked_bytes == 0


def test_ece_reduces_once_in_a_window_and_is_answered() -> None:
    hand = Hand(ecn=True, tcp_ecn=1)
    hand.send(TEN)
    hand.hear(ACK | ECE, ack=1 + MSS)
    assert hand.one.ca_state == CWR_STATE
    threshold = hand.one.cc.threshold
    hand.hear(ACK | ECE, ack=1 + 2 * MSS)

    assert hand.one.cc.threshold == threshold == 7 * MSS
    sent = hand.send(bytes(20 * MSS)) + hand.hear(ACK, ack=1 + 10 * MSS)
    assert [bool(seg.flags & CWR) for seg in sent][:2] == [True, False]
    assert all(seg.ecn == 2 for seg in sent if seg.payload)


def test_loss_that_was_none_is_taken_back_by_timestamps() -> None:
    hand = Hand(stamps=True, connect=True)
    hand.one.stamps_on = True
    hand.send(bytes(5 * 1448))
    first = hand.one.stamp(hand.now)
    window = hand.one.cc.window
    hand.wait(1.5)
    assert hand.one.ca_state == LOSS and hand.one.cc.window == hand.one.cc.mss

    hand.hear(ack=1 + 2 * 1448, echo=first)

    assert hand.one.ca_state == OPEN and hand.one.cc.window >= window


def test_loss_that_was_none_is_taken_back_by_dsack() -> None:
    hand = Hand()
    hand.send(TEN)
    window = hand.one.cc.window
    hand.hear(ack=1, sacks=((1 + MSS, 1 + 10 * MSS),))
    assert hand.one.ca_state == RECOVERY

    hand.hear(ack=1 + 10 * MSS, sacks=((1, 1 + MSS),))

    assert hand.one.ca_state == OPEN and hand.one.cc.window >= window
    assert hand.one.tally.dsack_dups == 1


def test_stamp_is_taken_of_what_reaches_back_to_our_acknowledgement() -> None:
    hand = Hand(stamps=True)
    hand.one.stamps_on = True
    hand.hear(data=b"x", value=5000)
    hand.hear(seq=100, data=b"early", value=6000)

    assert hand.one.ts_recent == 5000


def test_window_of_an_older_segment_is_not_believed() -> None:
    hand = Hand()
    hand.hear(data=b"1234")
    hand.hear(data=b"5678", window=50_048)
    hand.hear(seq=3, data=b"3456789", window=128)

    assert hand.one.snd_wnd == 50_048


def test_window_grows_only_where_it_is_made_use_of() -> None:
    hand = Hand()
    window = hand.one.cc.window
    for _ in range(20):
        hand.send(b"x")
        hand.hear(after=0.01)

    assert hand.one.cc.window == window
