"""What is sent, and when not. RFC 9293, 3.7.4, 3.8.6; 1122."""

from __future__ import annotations

from sentry.abi.socket import SHUT_WR
from sentry.net.tcp.output import MAX_OUTGOING
from sentry.net.tcp.segment import ACK, FIN, PSH
from sentry.net.tcp.settings import Tuning
from tests.unit.net.tcp.hand import MSS, Hand, places
from tests.unit.net.tcp.pair import MS


def test_data_is_cut_into_packets_and_the_last_is_pushed() -> None:
    hand = Hand()

    sent = hand.send(bytes(2 * MSS + 5))

    assert places(sent) == [(1, MSS), (1 + MSS, MSS), (1 + 2 * MSS, 5)]
    assert [seg.flags for seg in sent] == [ACK, ACK, PSH | ACK]


def test_one_segment_holds_many_packets() -> None:
    hand = Hand(cut=False, window=1 << 20)
    hand.one.send(hand.now, bytes(10 * MSS))

    (made,) = hand.one.take(hand.now)

    assert (made.size, made.gso_size) == (10 * MSS, MSS)
    assert made.header[16:18] == b"\0\0"  # the checksum is left to others


def test_single_packet_is_not_to_be_cut() -> None:
    hand = Hand()
    hand.one.send(hand.now, bytes(100))

    assert hand.one.take(hand.now)[0].gso_size == 0


def test_small_packet_waits_for_the_one_before_it() -> None:
    hand = Hand()
    assert places(hand.send(b"a" * 10)) == [(1, 10)]
    assert hand.send(b"b" * 10) == []

    assert places(hand.hear(ack=11)) == [(11, 10)]


def test_small_packet_goes_at_once_behind_full_ones() -> None:
    hand = Hand()
    hand.send(bytes(MSS))

    assert places(hand.send(b"b" * 10)) == [(1 + MSS, 10)]


def test_nodelay_does_not_wait() -> None:
    hand = Hand(tuning=Tuning(nodelay=True))
    hand.send(b"a")

    assert places(hand.send(b"b")) == [(2, 1)]


def test_nodelay_that_is_set_later_sends_what_waits() -> None:
    hand = Hand()
    hand.send(b"a")
    hand.send(b"b")
    hand.one.tuning.nodelay = True

    hand.one.tuned(hand.now)

    assert places(hand.sent()) == [(2, 1)]


def test_cork_holds_a_part_of_a_packet() -> None:
    hand = Hand(tuning=Tuning(cork=True))
    assert hand.send(bytes(100)) == []
    assert places(hand.send(bytes(MSS))) == [(1, MSS)]

    hand.one.tuning.cork = False
    hand.one.tuned(hand.now)
    hand.hear(ack=1 + MSS)

    assert hand.one.unsent == 0


def test_cork_holds_for_200_ms_at_most() -> None:
    hand = Hand(tuning=Tuning(cork=True))
    hand.send(bytes(100))

    assert hand.wait(0.19) == []
    assert places(hand.wait(0.1)) == [(1, 100)]


def test_more_to_come_holds_a_part_of_a_packet() -> None:
    hand = Hand()
    hand.one.send_more(hand.now, b"head")
    assert hand.sent() == []

    assert places(hand.send(b"body")) == [(1, 8)]


def test_fin_goes_with_the_last_data_whatever_waits() -> None:
    hand = Hand(tuning=Tuning(cork=True))
    hand.send(b"tail")

    hand.one.shutdown(hand.now, SHUT_WR)

    (last,) = hand.sent()
    assert (last.flags, bytes(last.payload)) == (FIN | PSH | ACK, b"tail")


def test_window_of_the_other_end_is_kept_to() -> None:
    hand = Hand(window=4 * MSS, scale=None)

    sent = hand.send(bytes(10 * MSS))

    assert sum(len(seg.payload) for seg in sent) == 4 * MSS


def test_little_window_is_not_filled_with_little() -> None:
    """Silly windows: nothing is sent into less than a packet while more could be."""
    hand = Hand(window=4 * MSS, scale=None)
    hand.send(bytes(8 * MSS))

    assert hand.hear(ack=1 + 4 * MSS, window=MSS - 1) == []
    assert places(hand.hear(ack=1 + 4 * MSS, window=MSS)) == [(1 + 4 * MSS, MSS)]


def test_packets_are_no_larger_than_half_of_the_largest_window() -> None:
    hand = Hand(window=1000, scale=None)

    assert places(hand.send(bytes(1000)))[0] == (1, 500)


def test_congestion_window_is_ten_packets_first() -> None:
    hand = Hand()

    assert len(hand.send(bytes(20 * MSS))) == 10


def test_window_that_is_offered_never_moves_back() -> None:
    hand = Hand()
    edges = []
    for _ in range(30):
        for seg in hand.hear(data=bytes(1400)):
            edges.append(seg.ack + (seg.window << 7))

    assert edges == sorted(edges)


def test_no_window_is_offered_rather_than_a_little() -> None:
    hand = Hand(tcp_rmem=(4096, 16384, 16384), scale=None)
    room = hand.one.window_left()
    windows = []
    while room > 0:
        size = min(room, 1000)
        windows += [seg.window for seg in hand.hear(data=bytes(size))]
        room -= size
    windows += [seg.window for seg in hand.wait(1)]

    assert windows[-1] == 0
    hand.read(500)
    assert hand.sent() == []


def test_window_opens_when_enough_was_read() -> None:
    hand = Hand(tcp_rmem=(4096, 16384, 16384), scale=None)
    while hand.one.window_left() > 0:
        hand.hear(data=bytes(min(1000, hand.one.window_left())))

    hand.read(1)
    assert hand.sent() == []
    hand.read()
    (update,) = hand.sent()
    assert update.window == 8000  # whole packets


def test_nobody_who_takes_stops_new_segments() -> None:
    hand = Hand(window=1 << 22, tuning=Tuning(sndbuf=1 << 22, nodelay=True))
    hand.one.cc.window = 1 << 22
    for _ in range(3 * MAX_OUTGOING):
        hand.one.send(hand.now, b"x")

    assert len(hand.one.outgoing) == MAX_OUTGOING
    assert sum(len(seg.payload) for seg in hand.sent()) == 3 * MAX_OUTGOING


def test_nobody_who_takes_stops_what_is_sent_again() -> None:
    hand = Hand(window=1 << 22, tuning=Tuning(sndbuf=1 << 22, nodelay=True))
    hand.one.cc.window = 1 << 22
    for _ in range(3 * MAX_OUTGOING):
        hand.one.send(hand.now, b"x")
    hand.sent()
    hand.one.board.lose_all()
    hand.one._retransmit_lost(hand.now)
    hand.one._push(hand.now)
    assert len(hand.one.outgoing) == MAX_OUTGOING

    assert sum(len(seg.payload) for seg in hand.sent()) == 3 * MAX_OUTGOING


def test_acknowledgements_that_nobody_takes_do_not_pile_up() -> None:
    hand = Hand()
    for at in range(5000):
        seg = hand.one
        seg.rcv.next += 0
        hand.one._send_ack(hand.now + at)

    assert len(hand.one.outgoing) <= 16


def test_idle_connection_begins_slowly_again() -> None:
    hand = Hand(window=1 << 20)
    hand.one.cc.window = 100 * MSS
    hand.one.cc.threshold = 50 * MSS
    hand.now += 100_000 * MS

    assert len(hand.send(bytes(60 * MSS))) == 10
