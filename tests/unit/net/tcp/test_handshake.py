"""How connections begin. RFC 9293, 3.5; 7323; 2018; 3168."""

from __future__ import annotations

import pytest

from sentry.abi.socket import (
    BPF_TCP_ESTABLISHED as TCP_ESTABLISHED,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_RECV as TCP_SYN_RECV,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_SENT as TCP_SYN_SENT,
)
from sentry.errors import ECONNREFUSED, ETIMEDOUT
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.handshake import scale_for
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.segment import ACK, CWR, ECE, RST, SYN
from sentry.net.tcp.settings import Settings, Tuning
from tests.unit.net.tcp.hand import MSS, Hand
from tests.unit.net.tcp.pair import SECOND, shared


def test_syn_offers_what_linux_offers() -> None:
    syn = Hand(connect=False).syn

    assert (syn.flags, syn.mss, syn.window_scale, syn.sack_permitted) == (SYN, MSS, 7, True)
    assert syn.stamps is not None and syn.stamps[1] == 0
    assert syn.window == 65535


def test_syn_offers_nothing_that_is_switched_off() -> None:
    syn = Hand(connect=False, tcp_sack=0, tcp_timestamps=0, tcp_window_scaling=0).syn

    assert (syn.window_scale, syn.sack_permitted, syn.stamps) == (None, False, None)


def test_answer_is_acknowledged() -> None:
    hand = Hand(connect=False)
    assert hand.one.state == TCP_SYN_SENT and not hand.one.writable

    (ack,) = hand.hear(SYN | ACK, seq=0, ack=1, mss=1000)

    assert (ack.flags, ack.seq, ack.ack) == (ACK, 1, 1)
    assert hand.one.state == TCP_ESTABLISHED and hand.one.connected and hand.one.writable
    assert hand.one.mss == 1000
    assert hand.changes == 2


@pytest.mark.parametrize("ack", [0, 2, -5])
def test_answer_to_another_syn_is_reset(ack: int) -> None:
    hand = Hand(connect=False)

    (reset,) = hand.hear(SYN | ACK, seq=0, ack=ack)

    assert (reset.flags, reset.seq) == (RST, ack & 0xFFFFFFFF)
    assert hand.one.state == TCP_SYN_SENT


def test_echo_of_no_syn_of_ours_is_reset() -> None:
    hand = Hand(connect=False)

    (reset,) = hand.hear(SYN | ACK, seq=0, ack=1, stamps=(5, hand.one.stamp(hand.now) + 9))

    assert reset.flags == RST and hand.one.state == TCP_SYN_SENT


def test_reset_with_our_number_refuses() -> None:
    hand = Hand(connect=False)
    hand.hear(RST, seq=0, ack=0)
    assert hand.one.state == TCP_SYN_SENT

    hand.hear(RST | ACK, seq=0, ack=1)

    assert hand.one.take_error() == ECONNREFUSED.number
    assert hand.one.hung_up and hand.one.readable and hand.one.timer() is None


def test_syn_is_sent_again_and_given_up() -> None:
    hand = Hand(connect=False, tcp_syn_retries=2)
    times = []
    while not hand.one.error:
        at = hand.one.timer()
        assert at is not None
        times.append((at - hand.now) // SECOND)
        hand.now = at
        hand.one.timeout(at)
        assert all(seg.flags == SYN and seg.seq == 0 for seg in hand.sent())

    assert hand.one.take_error() == ETIMEDOUT.number
    assert times == [1, 1, 1]


def test_later_syns_wait_for_longer() -> None:
    hand = Hand(connect=False, tuning=Tuning(syn_retries=7))
    hand.wait(4.5)
    begins = hand.now

    assert len(hand.wait(1000)) == 3
    assert hand.one.error == ETIMEDOUT.number
    assert hand.now > begins


def test_syns_that_meet_make_one_connection() -> None:
    hand = Hand(connect=False)
    (answer,) = hand.hear(SYN, seq=0, ack=0, mss=1300, window_scale=2, sack_permitted=True)
    assert hand.one.state == TCP_SYN_RECV
    assert (answer.flags, answer.seq, answer.ack, answer.window_scale) == (SYN | ACK, 0, 1, 7)

    hand.hear(SYN | ACK, seq=0, ack=1)

    assert hand.one.state == TCP_ESTABLISHED and hand.one.mss == 1300
    assert hand.one.snd_scale == 2 and hand.one.sack_on


def test_syns_that_meet_and_an_answer_that_is_lost() -> None:
    hand = Hand(connect=False)
    hand.hear(SYN, seq=0, ack=0)
    (again,) = hand.wait(1)
    assert again.flags == SYN | ACK

    hand.hear(ACK, seq=1, ack=1, data=b"data")

    assert hand.one.state == TCP_ESTABLISHED and hand.read() == b"data"


def test_ecn_is_asked_for_and_falls_back() -> None:
    hand = Hand(connect=False, tcp_ecn=1)
    assert hand.syn.flags == SYN | ECE | CWR

    (again,) = hand.wait(1)

    assert again.flags == SYN


@pytest.mark.parametrize(("flags", "is_on"), [(ECE, True), (ECE | CWR, False), (0, False)])
def test_ecn_is_agreed_on_by_ece_alone(flags: int, is_on: bool) -> None:
    hand = Hand(connect=False, tcp_ecn=1)

    hand.hear(SYN | ACK | flags, seq=0, ack=1)

    assert hand.one.ecn_on is is_on


def test_data_with_the_answer_is_taken() -> None:
    hand = Hand(connect=False)

    (ack,) = hand.hear(SYN | ACK, seq=0, ack=1, data=b"early")

    assert ack.ack == 6 and hand.read() == b"early"


def test_initial_number_is_another_one_each_time() -> None:
    first, second = Hand(connect=False), Hand(connect=False)
    second.now += SECOND
    second.one.connect(second.now)

    assert first.one.iss != second.one.iss


def test_mss_is_by_the_family_and_the_path() -> None:
    settings = shared()
    for ip, mtu, mss in (
        (MAPPED + bytes(4), 1500, 1460),
        (bytes(15) + b"\x02", 1500, 1440),
        (MAPPED + bytes(4), 9000, 8960),
    ):  # fmt: skip
        one = Connection(Flow(Endpoint(ip, 1), Endpoint(ip, 2)), settings, mtu)
        assert one.advmss == mss
    assert Hand(connect=False, tuning=Tuning(maxseg=700)).syn.mss == 700
    assert Hand(connect=False, advmss=800).syn.mss == 800
    assert Hand(connect=False, advmss=800, tuning=Tuning(maxseg=700)).syn.mss == 700


def test_scale_is_for_what_a_buffer_may_become() -> None:
    assert scale_for(Settings(), 0) == 7
    assert scale_for(Settings(), 65535) == 0
    assert scale_for(Settings(tcp_rmem=(1, 1, 1 << 31)), 0) == 14
    assert scale_for(Settings(tcp_window_scaling=0), 0) == 0
