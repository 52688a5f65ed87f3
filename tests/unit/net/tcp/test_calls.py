"""What programs do with a connection, and what ICMP says of one. tcp(7); RFC 5927, 1191, 6069."""

from __future__ import annotations

import pytest

from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT1 as TCP_FIN_WAIT1,
)
from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT2 as TCP_FIN_WAIT2,
)
from sentry.abi.socket import (
    BPF_TCP_LAST_ACK as TCP_LAST_ACK,
)
from sentry.abi.socket import (
    BPF_TCP_TIME_WAIT as TCP_TIME_WAIT,
)
from sentry.abi.socket import SHUT_RD, SHUT_RDWR, SHUT_WR
from sentry.errors import ECONNREFUSED, EHOSTUNREACH, EINVAL, ENOTCONN, EPIPE
from sentry.net.tcp.segment import ACK, FIN, RST, URG
from sentry.net.tcp.settings import Tuning
from tests.unit.net.tcp.hand import MSS, Hand, places


def test_send_takes_what_there_is_room_for() -> None:
    hand = Hand()
    room = hand.one.room

    assert hand.one.send(hand.now, bytes(room + 1000)) == room
    assert hand.one.send(hand.now, b"x") == 0
    assert not hand.one.writable


def test_room_that_is_worth_it_is_told() -> None:
    hand = Hand(window=1 << 20, tuning=Tuning(sndbuf=30 * MSS))
    hand.one.send(hand.now, bytes(30 * MSS))
    hand.sent()
    hand.hear(ack=1 + 5 * MSS)
    assert not hand.one.writable

    hand.hear(ack=1 + 15 * MSS)

    assert hand.one.writable


def test_unsent_bytes_above_the_low_mark_make_it_not_writable() -> None:
    hand = Hand(window=2 * MSS, scale=None, tuning=Tuning(notsent_lowat=1000))
    hand.send(bytes(2 * MSS))
    assert hand.one.writable
    hand.send(bytes(1000))

    assert not hand.one.writable


def test_send_before_it_is_connected_waits() -> None:
    assert Hand(connect=False).one.send(0, b"x") == 0


def test_send_behind_a_fin_is_epipe() -> None:
    hand = Hand()
    hand.one.shutdown(hand.now, SHUT_WR)

    with pytest.raises(EPIPE):
        hand.one.send(hand.now, b"x")


def test_urgent_byte_is_pointed_to_as_linux_does() -> None:
    hand = Hand()
    hand.one.send_urgent(hand.now, b"ab!")

    (seg,) = hand.sent()

    assert seg.flags & URG and seg.urgent == 3
    assert not hand.hear(ack=4)
    (following,) = hand.send(b"more")
    assert not following.flags & URG


def test_urgent_mark_is_told_before_the_byte_is_there() -> None:
    hand = Hand(window=2 * MSS, scale=None)
    hand.send(bytes(2 * MSS))
    hand.one.send_urgent(hand.now, bytes(MSS))

    (seg,) = hand.hear(ack=1 + MSS, window=2 * MSS)

    assert seg.flags & URG and seg.urgent == MSS


def test_reads_wait_for_the_low_mark() -> None:
    hand = Hand(tuning=Tuning(rcvlowat=10))
    hand.hear(data=b"12345")
    assert not hand.one.readable
    hand.hear(data=b"67890")

    assert hand.one.readable and hand.one.available == 10


def test_reads_do_not_wait_for_more_than_there_is_room_for() -> None:
    """Else neither end would go on: tcp_epollin_ready()."""
    hand = Hand(tuning=Tuning(rcvlowat=1 << 20))
    hand.hear(data=bytes(MSS))
    assert not hand.one.readable
    while hand.one.window_left() > MSS:
        hand.hear(data=bytes(MSS))

    assert hand.one.readable


def test_urgent_byte_alone_is_nothing_to_read() -> None:
    hand = Hand()
    hand.hear(ACK | URG, data=b"!", urgent=1)
    assert not hand.one.readable and hand.one.urgent

    hand.hear(data=b"x")
    assert hand.one.readable and hand.read() == b"x"


def test_other_congestion_control_goes_on_where_the_old_one_was() -> None:
    hand = Hand()
    hand.one.cc.window = 33 * MSS
    hand.one.set_congestion("reno")

    assert (hand.one.cc.name, hand.one.cc.window) == ("reno", 33 * MSS)
    with pytest.raises(KeyError):
        hand.one.set_congestion("unknown")


def test_shutdown_of_both_ways_hangs_up() -> None:
    hand = Hand()
    assert not hand.one.hung_up
    hand.one.shutdown(hand.now, SHUT_RDWR)

    assert hand.one.hung_up and hand.one.readable and hand.one.writable
    assert hand.one.state == TCP_FIN_WAIT1


def test_shutdown_of_reading_sends_nothing() -> None:
    hand = Hand()
    hand.one.shutdown(hand.now, SHUT_RD)

    assert hand.sent() == [] and hand.one.readable


def test_shutdown_with_a_strange_way_or_of_nothing_is_refused() -> None:
    hand = Hand()
    with pytest.raises(EINVAL):
        hand.one.shutdown(hand.now, 3)
    hand.one.abort(hand.now)
    with pytest.raises(ENOTCONN):
        hand.one.shutdown(hand.now, SHUT_WR)


def test_shutdown_while_connecting_ends_it() -> None:
    hand = Hand(connect=False)
    hand.one.shutdown(hand.now, SHUT_WR)

    assert hand.one.state == TCP_CLOSE and hand.one.timer() is None


def test_fin_waits_for_the_data_before_it() -> None:
    hand = Hand(window=MSS, scale=None)
    hand.send(bytes(2 * MSS))
    hand.one.shutdown(hand.now, SHUT_WR)
    assert hand.sent() == []
    assert hand.one.state == TCP_FIN_WAIT1

    sent = []
    end = hand.one.snd_nxt - hand.one.iss
    for _ in range(10):
        sent += hand.hear(ack=end, window=MSS)
        end = hand.one.snd_nxt - hand.one.iss
    assert sent[-1].flags & FIN
    assert hand.one.state == TCP_FIN_WAIT2


def test_close_of_both_ends_leaves_time_wait_with_who_closed_first() -> None:
    hand = Hand()
    hand.one.close(hand.now)
    (fin,) = hand.sent()
    assert fin.flags == FIN | ACK
    hand.hear(ack=2)

    assert hand.one.remains == (TCP_FIN_WAIT2, 60)
    assert hand.one.is_over


def test_close_that_is_answered_at_once_leaves_time_wait() -> None:
    hand = Hand()
    hand.one.close(hand.now)
    hand.sent()

    (ack,) = hand.hear(FIN | ACK, ack=2)

    assert ack.ack == 2 and hand.one.remains == (TCP_TIME_WAIT, 60)


def test_closes_that_meet_leave_time_wait() -> None:
    hand = Hand()
    hand.one.close(hand.now)
    hand.sent()
    hand.hear(FIN | ACK, ack=1)
    hand.hear(seq=2, ack=2)

    assert hand.one.remains == (TCP_TIME_WAIT, 60)


def test_close_behind_the_others_leaves_nothing() -> None:
    hand = Hand()
    hand.hear(FIN | ACK)
    hand.one.close(hand.now)
    assert hand.one.state == TCP_LAST_ACK
    hand.sent()
    hand.hear(ack=2)

    assert hand.one.is_over and hand.one.remains is None


def test_close_with_unread_data_resets() -> None:
    hand = Hand()
    hand.hear(data=b"unread")
    hand.one.close(hand.now)

    (reset,) = hand.sent()

    assert reset.flags == RST | ACK and hand.one.is_over
    assert hand.one.rcv.queued == 0


def test_data_for_who_has_closed_resets() -> None:
    hand = Hand()
    hand.one.close(hand.now)
    hand.sent()

    (reset,) = hand.hear(ack=1, data=b"late")

    assert reset.flags & RST and hand.one.is_over


def test_fin_wait_2_can_be_shorter_or_none() -> None:
    for linger, expected in ((5, (TCP_FIN_WAIT2, 5)), (-1, None)):
        hand = Hand(tuning=Tuning(linger2=linger))
        hand.one.shutdown(hand.now, SHUT_WR)
        hand.sent()
        hand.hear(ack=2)
        assert hand.one.state == TCP_FIN_WAIT2 and hand.one.timer() is None
        hand.one.close(hand.now)
        assert hand.one.remains == expected and hand.one.is_over


def test_early_fin_to_who_has_closed_is_waited_for_no_longer_than_fin_wait_2() -> None:
    hand = Hand()
    hand.one.close(hand.now)
    hand.sent()
    hand.hear(FIN | ACK, seq=50, ack=2)
    assert not hand.one.is_over

    hand.wait(61)

    assert hand.one.is_over


def test_abort_resets() -> None:
    hand = Hand()
    hand.one.abort(hand.now)

    assert [seg.flags for seg in hand.sent()] == [RST | ACK]
    assert hand.one.is_over and not hand.one.error


def test_icmp_ends_a_connection_that_begins() -> None:
    hand = Hand(connect=False)
    hand.one.icmp_error(hand.now, hand.one.iss, ECONNREFUSED.number)

    assert hand.one.take_error() == ECONNREFUSED.number and hand.one.is_over


@pytest.mark.parametrize("distance", [-1, 1, 5000, 1 << 31])
def test_icmp_about_what_is_not_under_way_is_no_matter(distance: int) -> None:
    hand = Hand()
    hand.send(b"x")
    hand.one.icmp_error(
        hand.now, (hand.one.iss + 1 + distance) & 0xFFFFFFFF, ECONNREFUSED.number, is_told=True
    )

    assert not hand.one.error and not hand.one.soft_error
    assert hand.counters["TcpExt.OutOfWindowIcmps"] == 1


def test_hard_error_of_icmp_does_not_end_what_is_connected() -> None:
    hand = Hand()
    hand.send(b"x")
    hand.one.icmp_error(hand.now, hand.one.iss + 1, ECONNREFUSED.number)

    assert not hand.one.error and hand.one.connected
    hand.one.icmp_error(hand.now, hand.one.iss + 1, EHOSTUNREACH.number, is_told=True)
    assert hand.one.take_error() == EHOSTUNREACH.number and hand.one.connected


def test_unreachable_host_takes_back_a_doubling() -> None:
    hand = Hand()
    hand.send(b"x")
    hand.wait(2)
    before = hand.one.backoff
    hand.one.icmp_error(hand.now, hand.one.iss + 1, EHOSTUNREACH.number)

    assert hand.one.backoff == before - 1


def test_smaller_path_sends_smaller_packets_again() -> None:
    hand = Hand()
    hand.send(bytes(3 * MSS))
    hand.one.path_mtu(hand.now, hand.one.iss + 1, 1000)

    again = hand.sent()

    assert [size for _, size in places(again)][:4] == [960] * 4
    assert hand.one.mss == 960 and hand.one.cc.window >= 9 * 960


def test_path_does_not_get_larger_nor_tiny_by_icmp() -> None:
    hand = Hand()
    hand.send(b"x")
    hand.one.path_mtu(hand.now, hand.one.iss + 1, 9000)
    assert hand.one.mtu == 1500
    hand.one.path_mtu(hand.now, hand.one.iss + 999, 600)
    assert hand.one.mtu == 1500
    hand.one.path_mtu(hand.now, hand.one.iss + 1, 0)

    assert hand.one.mtu == 68 and hand.one.mss >= 28


def test_reset_lets_what_came_before_be_read() -> None:
    hand = Hand()
    hand.hear(data=b"before")
    hand.hear(RST)

    assert hand.one.error and hand.read() == b"before"


def test_callback_is_called_once_for_a_step() -> None:
    hand = Hand()
    before = hand.changes
    hand.hear(FIN | ACK, data=b"all at once")

    assert hand.changes == before + 1
    hand.hear()
    assert hand.changes == before + 1


def test_route_with_another_mtu_changes_packets_both_ways() -> None:
    hand = Hand()
    hand.one.set_mtu(1000)
    assert hand.one.mss == 960
    hand.one.set_mtu(1500)

    assert hand.one.mss == hand.one.cc.mss == MSS


def test_part_of_a_large_write_does_not_hold_all_of_it() -> None:
    hand = Hand(tuning=Tuning(sndbuf=10_000, cork=True))
    data = bytes(1 << 20)

    assert hand.one.send(hand.now, data) == 10_000
    assert hand.one.stream.slices(hand.one.stream.start, 10_000)[0].obj is not data
