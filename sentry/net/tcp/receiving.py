"""What comes: data in and out of turn, when it is acknowledged, urgent data, FIN.

RFC 9293, 3.8.5 and 3.8.6.3; tcp_data_queue(), tcp_check_urg(), tcp_fin(), net/ipv4/tcp_input.c.
"""

from __future__ import annotations

from typing import Final

from sentry.abi.socket import (
    BPF_TCP_CLOSE_WAIT as TCP_CLOSE_WAIT,
)
from sentry.abi.socket import (
    BPF_TCP_CLOSING as TCP_CLOSING,
)
from sentry.abi.socket import (
    BPF_TCP_ESTABLISHED as TCP_ESTABLISHED,
)
from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT1 as TCP_FIN_WAIT1,
)
from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT2 as TCP_FIN_WAIT2,
)
from sentry.abi.socket import (
    BPF_TCP_TIME_WAIT as TCP_TIME_WAIT,
)
from sentry.errors import EAGAIN, EINVAL
from sentry.net.tcp.acknowledgements import Acknowledgements
from sentry.net.tcp.core import ATO_MIN_NS
from sentry.net.tcp.segment import CE, CWR, FIN, MASK, SYN, URG, Arrived
from sentry.net.tcp.settings import MS

TIME_WAIT_SECONDS: Final = 60
"""TCP_TIMEWAIT_LEN."""
MAX_QUICK: Final = 16
DELACK_MAX_NS: Final = 200 * MS
NO_URGENT: Final = 0
URGENT_LATER: Final = 1
URGENT_HERE: Final = 2
URGENT_READ: Final = 3


class Receiving(Acknowledgements):
    """The side of a connection that takes data."""

    __slots__ = ()

    # --- data

    def _take_data(self, now_ns: int, seg: Arrived, seq: int) -> None:
        """The payload and the FIN of a segment that fits the window: RFC 9293, 3.10.7.4."""
        rcv = self.rcv
        payload = seg.payload
        if seg.flags & SYN:
            seq += 1
        end = seq + len(payload)
        if seg.flags & CWR and self.ecn_on:
            self.ecn_demand = False
            self.ack_now = True
        if seg.flags & FIN and self.fin_at is None and end <= rcv.next + self.window_left():
            self.fin_at = end
        if payload:
            self._take_payload(now_ns, seq, end, payload)
        elif seg.flags & FIN:
            self.ack_now = True
        if self.fin_at is not None and rcv.next >= self.fin_at and not self.eof:
            self._take_fin(now_ns)

    def _take_payload(self, now_ns: int, seq: int, end: int, payload: memoryview) -> None:
        rcv = self.rcv
        edge = rcv.next + self.window_left()
        if end <= rcv.next or self.eof:
            if end <= rcv.next and self.sack_on:
                self.dsack = (seq, end)
            self._quicken()
            self.ack_now = True
            return
        if seq >= edge:
            self._quicken()
            self.ack_now = True
            return
        if end > edge:
            payload = payload[: edge - seq]
            end = edge
        if seq > rcv.next:
            self.ack_now = True
            self.tally.rcv_ooopack += 1
            if not rcv.insert(seq, payload):
                self._count("TcpExt.TCPOFODrop")
            return
        if seq < rcv.next:
            if self.sack_on:
                self.dsack = (seq, rcv.next)
            self._quicken()
            self.ack_now = True
            payload = payload[rcv.next - seq :]
        had_early = bool(rcv.early.starts)
        before = rcv.next
        rcv.append(payload)
        if had_early:
            self.ack_now = True  # a hole was filled, in whole or in part: RFC 5681, 4.2
        self.tally.bytes_received += rcv.next - before
        self._data_came(now_ns, len(payload))
        self._changed()

    def _data_came(self, now_ns: int, size: int) -> None:
        """tcp_event_data_recv(): how soon acknowledgements have to follow."""
        self.rcv_mss = max(self.rcv_mss, min(size, self.advmss))
        since_ns = now_ns - self.tally.last_data_received_ns
        if not self.ato_ns:
            self._quicken()
            self.ato_ns = ATO_MIN_NS
        elif since_ns <= ATO_MIN_NS // 2:
            self.ato_ns = self.ato_ns // 2 + ATO_MIN_NS // 2
        elif since_ns < self.ato_ns:
            self.ato_ns = min(self.ato_ns // 2 + since_ns, self.rtt.rto_ns)
        elif since_ns > self.rtt.rto_ns:
            self._quicken()
        self.tally.last_data_received_ns = now_ns

    def _quicken(self) -> None:
        """Acknowledge each segment for a while: tcp_enter_quickack_mode()."""
        quick = self.rcv_wnd // (2 * self.rcv_mss) or 2
        self.quick = max(self.quick, min(quick, MAX_QUICK))
        self.pingpong = False
        self.ato_ns = ATO_MIN_NS

    def _see_congestion(self, seg: Arrived) -> None:
        """RFC 3168, 6.1.3: tell of CE until CWR comes."""
        if not self.ecn_on or not seg.ecn:
            return
        self.saw_ect = True
        if seg.ecn == CE and not self.ecn_demand:
            self.ecn_demand = self.ack_now = True
            self.quick = max(self.quick, 2)

    def _acknowledge_later(self, now_ns: int) -> None:
        """An acknowledgement now, or within the delay: __tcp_ack_snd_check()."""
        waiting = self.rcv.next - self.rcv_wup
        if self.ack_now:
            self._send_ack(now_ns)
            return
        if waiting <= 0:
            return
        is_quick = self.quick and not self.pingpong
        if is_quick or waiting > self.rcv_mss:
            self._send_ack(now_ns)
        elif self.delack_at is None:
            wait_ns = self.ato_ns or ATO_MIN_NS
            if self.rtt.smoothed_ns and not self.pingpong:
                wait_ns = min(wait_ns, max(self.rtt.smoothed_ns, ATO_MIN_NS))
            self.delack_at = now_ns + min(wait_ns, DELACK_MAX_NS)

    def _delack_fired(self, now_ns: int) -> None:
        """tcp_delack_timer_handler()."""
        if self.pingpong:
            self.pingpong = False
            self.ato_ns = ATO_MIN_NS
        else:
            self.ato_ns = min(self.ato_ns * 2, self.rtt.rto_ns)
        self._send_ack(now_ns)
        self._count("TcpExt.DelayedACKs")

    def acknowledge_soon(self, now_ns: int) -> None:
        """TCP_QUICKACK is switched on: __tcp_sock_set_quickack()."""
        self.pingpong = False
        if self.delack_at is not None:
            self._send_ack(now_ns)

    def acknowledge_late(self) -> None:
        """And off: acknowledgements wait for data to go with."""
        self.pingpong = True

    # --- the window

    def _read_some(self, now_ns: int, size: int) -> None:
        """The program has read: the window opens, buffers grow. tcp_cleanup_rbuf()."""
        self._grow_buffer(now_ns)
        if self.eof or self.state not in (TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2):
            return
        if self.delack_at is not None and (
            self.rcv.next - self.rcv_wup > self.rcv_mss
            or (not self.pingpong and not self.rcv.queued and size)
        ):
            self._send_ack(now_ns)
            return
        left = self.window_left()
        if 2 * left <= self.full_window():
            offer = self._offer()
            if offer and offer >= 2 * left:
                self._send_ack(now_ns)

    def _measure_incoming(self, now_ns: int, echo: int, size: int) -> None:
        """A round trip as the receiver sees it: tcp_rcv_rtt_measure_ts(), or a window's time.

        `echo`: a time stamp that came back; 0: there is none.
        """
        sample_ns = 0
        if self.stamps_on and echo:
            if size >= self.rcv_mss:
                passed_ms = (self.stamp(now_ns) - echo) & MASK
                sample_ns = max(passed_ms, 1) * MS if passed_ms < 1 << 24 else 0
        elif self.rtt.smoothed_ns:
            sample_ns = self.rtt.smoothed_ns
        if not sample_ns:
            return
        old = self.rcv_rtt_ns
        if not old or sample_ns < old:
            self.rcv_rtt_ns = sample_ns
        else:
            self.rcv_rtt_ns += (sample_ns - old) // 8

    def _grow_buffer(self, now_ns: int) -> None:
        """Twice what the program reads in a round trip: tcp_rcv_space_adjust()."""
        rtt_ns = self.rcv_rtt_ns or self.rtt.smoothed_ns
        if not rtt_ns or now_ns - self.rcv_space_at < rtt_ns:
            return
        read = self.rcv.read - self.rcv_space_seq
        self.rcv_space_at, self.rcv_space_seq = now_ns, self.rcv.read
        if read <= self.rcv_space:
            return
        settings = self.settings
        may_grow = settings.tcp_moderate_rcvbuf and not self.shared.is_pressed
        if may_grow and not self.tuning.rcvbuf:
            wanted = 2 * read + 16 * self.advmss
            wanted += wanted * 2 * (read - self.rcv_space) // max(self.rcv_space, 1)
            scale = settings.tcp_adv_win_scale
            wanted = min(wanted, settings.tcp_rmem[2]) << max(scale, 0)
            self.rcvbuf = max(self.rcvbuf, min(wanted, settings.tcp_rmem[2]))
        self.rcv_space = read

    # --- FIN

    def _take_fin(self, now_ns: int) -> None:
        """The other end sends no more: tcp_fin()."""
        self.rcv.next += 1
        self.rcv.early.clear()
        self.eof = True
        self.ack_now = True
        self.pingpong = True
        self._changed()
        if self.state == TCP_ESTABLISHED:
            self._set_state(TCP_CLOSE_WAIT)
        elif self.state == TCP_FIN_WAIT1:
            self._set_state(TCP_CLOSING)
        elif self.state == TCP_FIN_WAIT2:
            self._send_ack(now_ns)
            self._leave(TCP_TIME_WAIT, TIME_WAIT_SECONDS)

    def _leave(self, state: int, seconds: int) -> None:
        """The table of TIME_WAIT goes on with it: tcp_time_wait()."""
        self.remains = (state, seconds)
        self._close_now()

    # --- urgent data

    def _see_urgent(self, seg: Arrived, seq: int) -> None:
        """tcp_urg(): Linux, as BSD, takes the byte before the one that is pointed to."""
        if seg.flags & URG and seg.urgent:
            self._take_mark(seq + seg.urgent - 1)
        if self.urgent_state != URGENT_LATER or self.urgent_at is None:
            return
        at = self.urgent_at - seq - bool(seg.flags & SYN)
        if 0 <= at < len(seg.payload):
            self.urgent_byte = seg.payload[at]
            self.urgent_state = URGENT_HERE
            self._changed()

    def _take_mark(self, place: int) -> None:
        """tcp_check_urg(): a new one, if nothing behind it was read."""
        rcv = self.rcv
        if place < rcv.read or place < rcv.next:
            return
        if self.urgent_state and self.urgent_at is not None and place <= self.urgent_at:
            return
        if (
            self.urgent_at == rcv.read
            and self.urgent_state
            and not self.tuning.oob_inline
            and rcv.read != rcv.next
        ):
            rcv.take(1)  # the byte of the mark that nobody asked for is no data
        self.urgent_at = place
        self.urgent_state = URGENT_LATER
        self.urgent_count += 1
        self._changed()

    @property
    def mark(self) -> int | None:
        """How many bytes there are before the urgent mark: SIOCATMARK, FIONREAD."""
        if self.urgent_at is None or not self.urgent_state:
            return None
        return max(self.urgent_at - self.rcv.read, 0)

    def receive_urgent(self, *, peek: bool = False) -> int | None:
        """The urgent byte: tcp_recv_urg(). None: the end. Raises: EINVAL, EAGAIN."""
        if self.tuning.oob_inline or self.urgent_state in (NO_URGENT, URGENT_READ):
            raise EINVAL("no urgent data")
        if self.urgent_state == URGENT_HERE:
            if not peek:
                self.urgent_state = URGENT_READ
            return self.urgent_byte
        if self.eof or self.read_shut or self.reset:
            return None
        raise EAGAIN("it has not come yet")
