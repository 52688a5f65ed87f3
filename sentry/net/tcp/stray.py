"""What answers a segment that belongs to nothing: RFC 9293, 3.10.7.1; tcp_v4_send_reset()."""

from __future__ import annotations

from sentry.net.tcp.segment import ACK, RST, Arrived, Outgoing, header


def reply_to_stray(seg: Arrived) -> Outgoing | None:
    """A reset that its sender believes; None: to a reset, and to what is damaged, there is none."""
    if seg.flags & RST or not seg.checksum_ok:
        return None
    ports = seg.destination_port, seg.source_port
    if seg.flags & ACK:
        return Outgoing(header(ports, seg.ack, 0, RST, 0))
    return Outgoing(header(ports, 0, seg.seq + seg.length, RST | ACK, 0))
