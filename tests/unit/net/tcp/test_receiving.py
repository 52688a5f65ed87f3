"""What comes, and how it is acknowledged. RFC 9293, 3.8.5 and 3.8.6.3; 5681, 4.2; 2883; 3168."""

from __future__ import annotations

import pytest

from sentry.abi.socket import (
    BPF_TCP_CLOSE_WAIT as TCP_CLOSE_WAIT,
)
from sentry.errors import EAGAIN, EINVAL
from sentry.net.tcp.segment import ACK, CE, CWR, ECE, ECT0, FIN, PSH, URG
from sentry.net.tcp.settings import Tuning
from tests.unit.net.tcp.hand import MSS, Hand
from tests.unit.net.tcp.pair import MS


def calm(hand: Hand) -> None:
    """No segment is acknowledged at once any more."""
    hand.one.quick = 0


def test_first_segments_are_acknowledged_at_once() -> None:
    hand = Hand()

    assert [seg.ack for seg in hand.hear(data=b"x" * 100)] == [101]


def test_acknowledgement_is_delayed_by_40_ms() -> None:
    hand = Hand()
    hand.hear(data=b"x")
    calm(hand)

    assert hand.hear(data=b"y", after=0.01) == []
    assert hand.wait(0.039) == []
    assert [seg.ack for seg in hand.wait(0.002)] == [3]


def test_second_full_segment_is_acknowledged_at_once() -> None:
    hand = Hand()
    hand.hear(data=bytes(MSS))
    calm(hand)
    assert hand.hear(data=bytes(MSS), after=0.001) == []

    assert [seg.ack for seg in hand.hear(data=bytes(MSS), after=0.001)] == [1 + 3 * MSS]


def test_acknowledgement_goes_with_data() -> None:
    hand = Hand()
    hand.hear(data=b"x")
    calm(hand)
    hand.hear(data=b"question", after=0.001)

    (answer,) = hand.send(b"answer")

    assert answer.ack == 10 and hand.one.delack_at is None


def test_quickack_sends_what_is_delayed() -> None:
    hand = Hand()
    hand.hear(data=b"x")
    calm(hand)
    hand.hear(data=b"y", after=0.001)

    hand.one.acknowledge_soon(hand.now)

    assert [seg.ack for seg in hand.sent()] == [3]


def test_hole_is_told_at_once_and_with_sack() -> None:
    hand = Hand()
    calm(hand)

    (first,) = hand.hear(seq=101, data=bytes(50))
    (second,) = hand.hear(seq=201, data=bytes(50))
    (filled,) = hand.hear(seq=1, data=bytes(100))

    assert (first.ack, first.sacks) == (1, ((101, 151),))
    assert (second.ack, second.sacks) == (1, ((201, 251), (101, 151)))
    assert (filled.ack, filled.sacks) == (151, ((201, 251),))
    assert hand.one.tally.rcv_ooopack == 2


def test_fin_that_came_early_ends_the_stream_when_what_is_before_it_has_come() -> None:
    hand = Hand()
    hand.hear(FIN | ACK, seq=101)

    (answer,) = hand.hear(seq=1, data=bytes(100))

    assert answer.ack == 102
    assert hand.one.eof and hand.one.state == TCP_CLOSE_WAIT


def test_what_came_twice_is_told_by_dsack() -> None:
    hand = Hand()
    hand.hear(data=bytes(100))

    (again,) = hand.hear(seq=1, data=bytes(100))

    assert (again.ack, again.sacks) == (101, ((1, 101),))


def test_overlap_is_taken_once() -> None:
    hand = Hand()
    hand.hear(data=b"abcdef")

    hand.hear(seq=4, data=b"defghi")

    assert hand.read() == b"abcdefghi"


def test_data_behind_the_window_is_cut_off() -> None:
    hand = Hand(tcp_rmem=(4096, 4096, 4096), scale=None)
    room = hand.one.window_left()

    hand.hear(data=bytes(room + 500))

    assert hand.one.rcv.queued == room
    assert not hand.one.eof


def test_fin_behind_the_window_does_not_count() -> None:
    hand = Hand(tcp_rmem=(4096, 4096, 4096), scale=None)

    hand.hear(FIN | ACK, data=bytes(hand.one.window_left() + 500))

    assert not hand.one.eof


def test_fin_that_comes_early_waits_for_its_turn() -> None:
    hand = Hand()
    hand.hear(FIN | ACK, seq=4, data=b"def")
    assert not hand.one.eof

    (ack,) = hand.hear(seq=1, data=b"abc")

    assert ack.ack == 8 and hand.one.eof and hand.one.state == TCP_CLOSE_WAIT
    assert hand.read() == b"abcdef" and hand.read() == b""


def test_data_behind_a_fin_is_no_data() -> None:
    hand = Hand()
    hand.hear(FIN | ACK, data=b"end")

    hand.hear(seq=5, data=b"more")

    assert hand.read() == b"end"


def test_urgent_byte_and_mark_are_as_linux_has_them() -> None:
    hand = Hand()
    hand.hear(ACK | PSH | URG, data=b"ab!cd", urgent=3)

    assert hand.one.urgent and hand.one.mark == 2 and hand.one.urgent_count == 1
    assert hand.one.available == 2
    assert hand.one.receive_urgent(peek=True) == ord("!")
    assert hand.read() == b"ab"
    assert hand.one.mark == 0
    assert hand.one.receive_urgent() == ord("!")
    assert hand.read() == b"cd"
    assert hand.one.mark is None and not hand.one.urgent
    with pytest.raises(EINVAL):
        hand.one.receive_urgent()


def test_urgent_byte_in_line_is_read_with_the_rest() -> None:
    hand = Hand(tuning=Tuning(oob_inline=True))
    hand.hear(ACK | URG, data=b"ab!cd", urgent=3)

    assert hand.read() == b"ab"
    assert hand.read() == b"!cd"
    with pytest.raises(EINVAL):
        hand.one.receive_urgent()


def test_urgent_byte_that_has_not_come_is_waited_for() -> None:
    hand = Hand()
    hand.hear(ACK | URG, data=b"ab", urgent=5)
    assert not hand.one.urgent and hand.one.mark == 4
    with pytest.raises(EAGAIN):
        hand.one.receive_urgent()

    hand.hear(data=b"cd!")

    assert hand.one.receive_urgent() == ord("!")


def test_urgent_byte_that_nobody_asked_for_is_lost() -> None:
    hand = Hand()
    hand.hear(ACK | URG, data=b"!rest", urgent=1)

    assert hand.one.peek(10) == [b"rest"]
    assert hand.read() == b"rest"


def test_congestion_is_echoed_until_it_is_heard() -> None:
    hand = Hand(ecn=True, tcp_ecn=1)
    (marked,) = hand.hear(data=b"x", ecn=CE)
    assert marked.flags & ECE
    (still,) = hand.hear(data=b"x", ecn=ECT0)
    assert still.flags & ECE

    (heard,) = hand.hear(ACK | CWR, data=b"x", ecn=ECT0)

    assert not heard.flags & ECE


def test_buffer_grows_with_what_is_read() -> None:
    hand = Hand(stamps=True, scale=7)
    hand.one.rcv_rtt_ns = 10 * MS
    before = hand.one.rcvbuf
    for _ in range(40):
        for _ in range(30):
            echo = hand.one.stamp(hand.now) - 10
            hand.hear(data=bytes(MSS), after=0.0001, echo=echo)
            hand.read()

    assert hand.one.rcvbuf > 2 * before
    assert hand.one.rcvbuf <= hand.one.settings.tcp_rmem[2]


def test_buffer_that_the_program_chose_does_not_grow() -> None:
    hand = Hand(tuning=Tuning(rcvbuf=100_000))
    hand.one.rcv_rtt_ns = 10 * MS
    for _ in range(500):
        hand.hear(data=bytes(MSS), after=0.001)
        hand.read()

    assert hand.one.rcvbuf == 100_000


def test_flood_of_pieces_is_bounded() -> None:
    hand = Hand()
    for at in range(3, 20_000, 2):
        hand.hear(seq=at, data=b"x")

    assert len(hand.one.rcv.early) <= 1024
    assert hand.counters["TcpExt.TCPOFODrop"] > 0
