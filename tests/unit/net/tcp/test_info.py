"""struct tcp_info of what has happened."""

from __future__ import annotations

from sentry.abi.socket import BPF_TCP_ESTABLISHED as TCP_ESTABLISHED
from sentry.abi.socket import TcpInfoData
from sentry.net.tcp.info import info
from tests.unit.net.tcp.hand import MSS, Hand
from tests.unit.net.tcp.pair import Pair


def test_every_field_is_there() -> None:
    assert tuple(info(Hand().one, 0)) == TcpInfoData._fields


def test_what_was_done_is_told() -> None:
    pair = Pair().connect()
    pair.pump(bytes(500_000))
    pair.run(0.1)
    found, other = info(pair.left, pair.now), info(pair.accepted, pair.now)

    assert found["tcpi_state"] == TCP_ESTABLISHED
    assert found["tcpi_options"] == 7
    assert (found["tcpi_snd_wscale"], found["tcpi_rcv_wscale"]) == (7, 7)
    assert found["tcpi_bytes_acked"] == found["tcpi_bytes_sent"] + 1 == 500_001
    assert other["tcpi_bytes_received"] == 500_000
    assert found["tcpi_segs_out"] >= other["tcpi_segs_in"] - 1
    assert found["tcpi_data_segs_out"] == other["tcpi_data_segs_in"] == -(-500_000 // 1448)
    assert 9_000 < found["tcpi_rtt"] < 60_000 and found["tcpi_min_rtt"] == 10_000
    assert found["tcpi_snd_cwnd"] > 10
    assert found["tcpi_delivery_rate"] > 0 and found["tcpi_busy_time"] > 0
    assert found["tcpi_delivered"] >= 340
    assert found["tcpi_retransmits"] == found["tcpi_total_retrans"] == 0


def test_what_is_under_way_is_told_in_packets() -> None:
    hand = Hand()
    hand.send(bytes(20 * MSS))
    hand.hear(ack=1, sacks=((1 + MSS, 1 + 3 * MSS),))
    found = info(hand.one, hand.now)

    assert (found["tcpi_unacked"], found["tcpi_sacked"], found["tcpi_lost"]) == (10, 2, 0)
    assert found["tcpi_notsent_bytes"] == 10 * MSS


def test_closed_window_is_counted() -> None:
    hand = Hand(window=2 * MSS, scale=None)
    hand.send(bytes(3 * MSS))
    hand.hear(ack=1 + 2 * MSS, window=0)
    hand.wait(1)
    found = info(hand.one, hand.now)

    assert found["tcpi_rwnd_limited"] >= 1_000_000
    assert found["tcpi_probes"] >= 1 and found["tcpi_snd_wnd"] == 0
