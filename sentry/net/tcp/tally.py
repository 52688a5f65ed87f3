"""What a connection counts for struct tcp_info."""

from __future__ import annotations


class Tally:
    """Since it began. Bytes, segments, nanoseconds."""

    __slots__ = (
        "app_limited", "busy_ns", "bytes_acked", "bytes_received", "bytes_retrans", "bytes_sent",
        "data_segs_in", "data_segs_out", "delivered", "delivered_ce", "delivery_rate", "dsack_dups",
        "last_ack_received_ns", "last_data_received_ns", "last_sent_ns", "limit", "limit_since_ns",
        "rcv_ooopack", "reord_seen", "rto_since_ns", "rwnd_limited_ns", "segs_in", "segs_out",
        "sndbuf_limited_ns", "total_retrans", "total_rto", "total_rto_ns", "total_rto_recoveries",
    )  # fmt: skip

    def __init__(self) -> None:
        self.segs_in = 0
        self.segs_out = 0
        self.data_segs_in = 0
        self.data_segs_out = 0
        self.bytes_sent = 0
        self.bytes_retrans = 0
        self.bytes_acked = 0
        self.bytes_received = 0
        self.total_retrans = 0
        self.dsack_dups = 0
        self.reord_seen = 0
        self.rcv_ooopack = 0
        self.delivered = 0
        self.delivered_ce = 0
        self.delivery_rate = 0
        """Bytes in a second."""
        self.app_limited = False
        self.last_sent_ns = 0
        self.last_data_received_ns = 0
        self.last_ack_received_ns = 0
        self.total_rto = 0
        self.total_rto_recoveries = 0
        self.total_rto_ns = 0
        self.rto_since_ns = 0
        self.busy_ns = 0
        self.rwnd_limited_ns = 0
        self.sndbuf_limited_ns = 0
        self.limit = 0
        """What sending waits for now, CHRONO_*, and since when."""
        self.limit_since_ns = 0

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
