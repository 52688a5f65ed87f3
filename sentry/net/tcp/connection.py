"""One connection: what comes in, what the program does, what the time brings. RFC 9293.

Nothing here reads a clock, sleeps or sends: each step gets the time, `take` has what is to be sent,
`timer` tells when `timeout` wants to be called, `on_change` that something can be asked anew.
"""

from __future__ import annotations

from typing import Final

from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
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
    BPF_TCP_LAST_ACK as TCP_LAST_ACK,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_RECV as TCP_SYN_RECV,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_SENT as TCP_SYN_SENT,
)
from sentry.abi.socket import (
    BPF_TCP_TIME_WAIT as TCP_TIME_WAIT,
)
from sentry.errors import ECONNREFUSED, ECONNRESET, EPIPE
from sentry.net.tcp.calls import Calls
from sentry.net.tcp.core import OPEN, PERSIST
from sentry.net.tcp.receiving import TIME_WAIT_SECONDS
from sentry.net.tcp.segment import ACK, FIN, HALF, MASK, PSH, RST, SYN, Arrived, unwrap
from sentry.net.tcp.settings import SECOND
from sentry.net.tcp.tally import IDLE

OVER: Final = (TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING)
"""Nothing comes any more but what was sent before."""
ALMOST: Final = (TCP_FIN_WAIT1, TCP_FIN_WAIT2)


class Connection(Calls):
    """The whole of it: what a segment does."""

    __slots__ = ()

    def segment(self, now_ns: int, seg: Arrived) -> None:
        """A segment of this connection has come: RFC 9293, 3.10.7. Of any bytes."""
        self.tally.segs_in += seg.count
        if not seg.checksum_ok:
            self._count("Tcp.InCsumErrors")
            return
        if self.state == TCP_ESTABLISHED and self._is_expected(seg):
            self._in_order(now_ns, seg)
        elif self.state == TCP_SYN_SENT:
            self._in_syn_sent(now_ns, seg)
        elif self.state != TCP_CLOSE:
            self._in_synchronized(now_ns, seg)
        self._tell()

    def _in_synchronized(self, now_ns: int, seg: Arrived) -> None:
        """3.10.7.4; tcp_rcv_established(), tcp_rcv_state_process()."""
        seq = unwrap(seg.seq, self.rcv.next)
        if not self._is_valid(now_ns, seg, seq):
            return
        self.last_heard_ns = now_ns
        if seg.payload:
            self.tally.data_segs_in += seg.count
        if not seg.flags & ACK:
            return
        if self.state == TCP_SYN_RECV and not self._leave_syn_recv(now_ns, seg):
            return
        if not self._acknowledge(now_ns, seg, seq):
            return
        if self.fin_seq is not None and self.snd_una > self.fin_seq:
            self._fin_acknowledged(now_ns, seg, seq)
        if self.state == TCP_CLOSE:
            return
        echo = 0 if seg.stamps is None else seg.stamps[1]
        self._measure_incoming(now_ns, echo, len(seg.payload))
        self._see_congestion(seg)
        self._see_urgent(seg, seq)
        if seg.payload or seg.flags & FIN:
            if self._is_unwanted(seg, seq):
                self._count("TcpExt.TCPAbortOnData")
                self.error = ECONNRESET.number
                self._tear_down(now_ns)
                return
            self._take_data(now_ns, seg, seq)
            if self.state == TCP_CLOSE:
                return
        self._fit_send_buffer()
        self._push(now_ns)
        self._acknowledge_later(now_ns)

    # --- what is as it was expected, header prediction: tcp_rcv_established()

    def _is_expected(self, seg: Arrived) -> bool:
        """The next data, or the next acknowledgement, and nothing else of interest while nothing is
        amiss."""
        rcv, board, size = self.rcv, self.board, len(seg.payload)
        acked = (seg.ack - self.snd_una) & MASK
        return not (
            seg.flags & ~PSH != ACK
            or seg.seq != rcv.next & MASK
            or acked > self.snd_nxt - self.snd_una
            or self._is_amiss
            or seg.sacks
            or (seg.ecn and self.ecn_on)
            or not self._is_stamp_next(seg.stamps)
            or size > self.window_left()
            or not (acked or (size and not board.records))
        )

    @property
    def _is_amiss(self) -> bool:
        """Something was lost, or came early, as a FIN may, or is urgent, or waits for a window."""
        board = self.board
        return bool(
            self.ca_state != OPEN
            or self.fin_at is not None
            or self.rcv.early.starts
            or self.urgent_at is not None
            or self.tlp_end is not None
            or self.reno_dups
            or board.sacked_count
            or board.lost_count
            or board.retrans_count
            or (self.retransmit_kind == PERSIST and self.retransmit_at is not None)
        )

    def _is_stamp_next(self, stamps: tuple[int, int] | None) -> bool:
        if stamps is None or not self.stamps_on:
            return stamps is None and not self.stamps_on
        return not 0 < (self.ts_recent - stamps[0]) & MASK < HALF

    def _in_order(self, now_ns: int, seg: Arrived) -> None:
        rcv, board, tally, payload = self.rcv, self.board, self.tally, seg.payload
        size, acked = len(payload), (seg.ack - self.snd_una) & MASK
        self.last_heard_ns = now_ns
        echo = 0
        if seg.stamps is not None:
            value, echo = seg.stamps
            self._take_stamp(now_ns, value, rcv.next)
        self._heard_ack(now_ns)
        self._take_window(seg.window << self.snd_scale, rcv.next, self.snd_una + acked)
        if acked:
            self._advance(now_ns, self.snd_una + acked, echo)
        self._measure_incoming(now_ns, echo, size)
        if size:
            tally.data_segs_in += seg.count
            tally.bytes_received += size
            rcv.append(payload)
            self._data_came(now_ns, size)
            self._changed()
        self._fit_send_buffer()
        if self.unsent or board.records or self.throttled:
            self._push(now_ns)
        else:
            tally.app_limited = not self.cwnd_limited
            tally.waits_for(now_ns, IDLE)
        self._acknowledge_later(now_ns)

    # --- whether it fits: tcp_validate_incoming()

    def _is_valid(self, now_ns: int, seg: Arrived, seq: int) -> bool:
        flags = seg.flags
        is_too_old = self._is_too_old(now_ns, seg) and not flags & RST
        if is_too_old and not self._is_disordered_ack(seg, seq):
            self._count("TcpExt.PAWSEstab")
            self._refuse(now_ns, seg, seq)
            return False
        end = seq + seg.length
        if end < self.rcv_wup or seq > self.rcv.next + self.window_left():
            if flags & RST:
                if seq == self.rcv.next - 1 and self.state in OVER:
                    self._was_reset()
            elif flags & SYN:
                self._answer_syn(now_ns, seg, seq)
            else:
                self._refuse(now_ns, seg, seq)
            return False
        if flags & RST:
            self._hear_reset(now_ns, seg, seq)
            return False
        if flags & SYN and not self._is_met_answer(seg, seq):
            self._answer_syn(now_ns, seg, seq)
            return False
        return True

    def _is_too_old(self, now_ns: int, seg: Arrived) -> bool:
        """PAWS: RFC 7323, 5."""
        if seg.stamps is None or not self.stamps_on:
            return False
        is_older = (self.ts_recent - seg.stamps[0]) & MASK
        return 0 < is_older < 0x80000000 and not self._is_stamp_old(now_ns)

    def _is_disordered_ack(self, seg: Arrived, seq: int) -> bool:
        """A bare one that was overtaken: tcp_disordered_ack()."""
        assert seg.stamps is not None
        is_bare = seg.flags & ACK and not seg.length and seq == self.rcv.next
        if not is_bare or unwrap(seg.ack, self.snd_una) != self.snd_una:
            return False
        if seg.window << self.snd_scale != self.snd_wnd:
            return False
        behind_ms = (self.ts_recent - seg.stamps[0]) & MASK
        return behind_ms <= self.rtt.rto_ns // 1_000_000

    def _refuse(self, now_ns: int, seg: Arrived, seq: int) -> None:
        """It is answered by where we are: tcp_send_dupack()."""
        if seg.length and seq < self.rcv.next:
            self._quicken()
            if self.sack_on:
                self.dsack = seq, min(seq + seg.length, self.rcv.next)
        if seg.length or self._may_answer(now_ns):
            self._send_ack(now_ns)

    def _answer_syn(self, now_ns: int, seg: Arrived, seq: int) -> None:
        """RFC 5961, 4: who has begun anew resets us. Its SYN that came again hears our answer."""
        if self.state == TCP_SYN_RECV and seq == self.irs and not seg.flags & ACK:
            if self._may_answer(now_ns):
                self._send_syn(now_ns)
            return
        self._challenge(now_ns)

    def _hear_reset(self, now_ns: int, seg: Arrived, seq: int) -> None:
        """RFC 5961, 3: only where we are, exactly."""
        early = self.rcv.early.ends
        if seq == self.rcv.next or (self.sack_on and early and seq == early[-1]):
            self._was_reset()
        else:
            self._challenge(now_ns)

    def _was_reset(self) -> None:
        """tcp_reset()."""
        if self.state == TCP_CLOSE_WAIT:
            number = EPIPE.number
        elif self.state == TCP_SYN_RECV:
            number = ECONNREFUSED.number
        else:
            number = ECONNRESET.number
        self._fail(number)

    # --- states

    def _is_met_answer(self, seg: Arrived, seq: int) -> bool:
        """The other end's answer to our SYN, of a simultaneous open."""
        return bool(
            self.state == TCP_SYN_RECV
            and seg.flags & ACK
            and seq + 1 == self.rcv.next
            and unwrap(seg.ack, self.snd_una) == self.snd_nxt
        )

    def _leave_syn_recv(self, now_ns: int, seg: Arrived) -> bool:
        if unwrap(seg.ack, self.snd_una) != self.snd_nxt:
            self._reject(seg)
            return False
        self.snd_una = self.iss + 1
        self.snd_wnd = seg.window << self.snd_scale
        self.max_window = max(self.max_window, self.snd_wnd)
        self._established(now_ns)
        if self.fin_queued:
            self._set_state(TCP_FIN_WAIT1)
        return True

    def _fin_acknowledged(self, now_ns: int, seg: Arrived, seq: int) -> None:
        if self.state == TCP_FIN_WAIT1:
            self._set_state(TCP_FIN_WAIT2)
            if self.orphan and seg.flags & FIN:
                self.linger_at = now_ns + self._linger_seconds() * SECOND
            elif self.orphan and not self._is_unwanted(seg, seq):
                self._wait_without_socket(now_ns)
        elif self.state == TCP_CLOSING:
            self._leave(TCP_TIME_WAIT, TIME_WAIT_SECONDS)
        elif self.state == TCP_LAST_ACK:
            self._close_now()

    def _is_unwanted(self, seg: Arrived, seq: int) -> bool:
        """Data for who has said that nobody reads it."""
        if not self.read_shut or self.state not in ALMOST:
            return False
        return seq + len(seg.payload) > self.rcv.next and bool(seg.payload)
