"""struct tcp_info: tcp_get_info(), net/ipv4/tcp.c."""

from __future__ import annotations

from typing import Final

from sentry.net.tcp.congestion import INFINITE
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.settings import MS

HAS_STAMPS: Final = 1
HAS_SACK: Final = 2
HAS_SCALE: Final = 4
HAS_ECN: Final = 8
SAW_ECN: Final = 16
"""TCPI_OPT_*."""
UNLIMITED: Final = (1 << 64) - 1
US: Final = 1000
MAX_BYTE: Final = 255


def info(connection: Connection, now_ns: int) -> dict[str, int]:
    """Every field by its name, in the units of the structure."""
    one, tally, board = connection, connection.tally, connection.board
    mss = max(one.cc.mss, 1)
    busy_ns, window_ns, buffer_ns = tally.times(now_ns)
    options = HAS_STAMPS * one.stamps_on | HAS_SACK * one.sack_on
    options |= HAS_SCALE * one.scale_on | HAS_ECN * one.ecn_on
    threshold = one.cc.threshold // mss

    def ago_ms(when_ns: int) -> int:
        return min(max(now_ns - when_ns, 0) // MS, 0xFFFFFFFF)

    return {
        "tcpi_state": one.state,
        "tcpi_ca_state": one.ca_state,
        "tcpi_retransmits": min(one.retransmits, MAX_BYTE),
        "tcpi_probes": min(max(one.probes_out, one.keepalive_probes), MAX_BYTE),
        "tcpi_backoff": min(one.backoff, MAX_BYTE),
        "tcpi_options": options | SAW_ECN * (one.ecn_on and one.saw_ect),
        "tcpi_snd_wscale": one.snd_scale,
        "tcpi_rcv_wscale": one.rcv_scale,
        "tcpi_delivery_rate_app_limited": int(tally.app_limited),
        "tcpi_fastopen_client_fail": 0,
        "tcpi_rto": one.rto_ns // US,
        "tcpi_ato": one.ato_ns // US,
        "tcpi_snd_mss": one.mss,
        "tcpi_rcv_mss": one.rcv_mss,
        "tcpi_unacked": board.out_count,
        "tcpi_sacked": board.sacked_count,
        "tcpi_lost": board.lost_count,
        "tcpi_retrans": board.retrans_count,
        "tcpi_fackets": 0,
        "tcpi_last_data_sent": ago_ms(tally.last_sent_ns),
        "tcpi_last_ack_sent": 0,
        "tcpi_last_data_recv": ago_ms(tally.last_data_received_ns),
        "tcpi_last_ack_recv": ago_ms(tally.last_ack_received_ns),
        "tcpi_pmtu": one.mtu,
        "tcpi_rcv_ssthresh": one.full_window(),
        "tcpi_rtt": one.rtt.smoothed_ns // US,
        "tcpi_rttvar": one.rtt.deviation_ns // US,
        "tcpi_snd_ssthresh": min(threshold, INFINITE),
        "tcpi_snd_cwnd": one.cc.window // mss,
        "tcpi_advmss": one.advmss,
        "tcpi_reordering": one.settings.tcp_reordering,
        "tcpi_rcv_rtt": one.rcv_rtt_ns // US,
        "tcpi_rcv_space": one.rcv_space,
        "tcpi_total_retrans": tally.total_retrans,
        "tcpi_pacing_rate": UNLIMITED,
        "tcpi_max_pacing_rate": UNLIMITED,
        "tcpi_bytes_acked": tally.bytes_acked,
        "tcpi_bytes_received": tally.bytes_received,
        "tcpi_segs_out": tally.segs_out,
        "tcpi_segs_in": tally.segs_in,
        "tcpi_notsent_bytes": one.unsent,
        "tcpi_min_rtt": one.rtt.least_ns // US if one.rtt.least_ns else 0xFFFFFFFF,
        "tcpi_data_segs_in": tally.data_segs_in,
        "tcpi_data_segs_out": tally.data_segs_out,
        "tcpi_delivery_rate": tally.delivery_rate,
        "tcpi_busy_time": busy_ns // US,
        "tcpi_rwnd_limited": window_ns // US,
        "tcpi_sndbuf_limited": buffer_ns // US,
        "tcpi_delivered": tally.delivered,
        "tcpi_delivered_ce": tally.delivered_ce,
        "tcpi_bytes_sent": tally.bytes_sent,
        "tcpi_bytes_retrans": tally.bytes_retrans,
        "tcpi_dsack_dups": tally.dsack_dups,
        "tcpi_reord_seen": tally.reord_seen,
        "tcpi_rcv_ooopack": tally.rcv_ooopack,
        "tcpi_snd_wnd": one.snd_wnd,
        "tcpi_rcv_wnd": one.window_left(),
        "tcpi_rehash": 0,
        "tcpi_total_rto": tally.total_rto,
        "tcpi_total_rto_recoveries": tally.total_rto_recoveries,
        "tcpi_total_rto_time": tally.total_rto_ns // MS,
    }
