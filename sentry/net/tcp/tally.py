"""What a connection counts for struct tcp_info."""

from __future__ import annotations

from msgspec import Struct


class Tally(Struct):
    """Since it began. Bytes, segments, nanoseconds."""

    segs_in: int = 0
    segs_out: int = 0
    data_segs_in: int = 0
    data_segs_out: int = 0
    bytes_sent: int = 0
    bytes_retrans: int = 0
    bytes_acked: int = 0
    bytes_received: int = 0
    total_retrans: int = 0
    dsack_dups: int = 0
    reord_seen: int = 0
    rcv_ooopack: int = 0
    delivered: int = 0
    delivered_ce: int = 0
    delivery_rate: int = 0
    """Bytes in a second."""
    app_limited: bool = False
    last_sent_ns: int = 0
    last_data_received_ns: int = 0
    last_ack_received_ns: int = 0
    total_rto: int = 0
    total_rto_recoveries: int = 0
    total_rto_ns: int = 0
    rto_since_ns: int = 0
    busy_ns: int = 0
    rwnd_limited_ns: int = 0
    sndbuf_limited_ns: int = 0
    limit: int = 0
    """What sending waits for now, CHRONO_*, and since when."""
    limit_since_ns: int = 0

    def waits_for(self, now_ns: int, what: int) -> None:
        """tcp_chrono_start(): another reason from now on."""
        if what != self.limit:
            times = self.times(now_ns)
            self.busy_ns, self.rwnd_limited_ns, self.sndbuf_limited_ns = times
            self.limit, self.limit_since_ns = what, now_ns

    def times(self, now_ns: int) -> tuple[int, int, int]:
        """How long it was busy, and of that waited for a window and for the program until now."""
        passed_ns = max(now_ns - self.limit_since_ns, 0) if self.limit != IDLE else 0
        return (
            self.busy_ns + passed_ns,
            self.rwnd_limited_ns + passed_ns * (self.limit == WINDOW),
            self.sndbuf_limited_ns + passed_ns * (self.limit == BUFFER),
        )


IDLE = 0
BUSY = 1
WINDOW = 2
BUFFER = 3
