"""How a connection begins: RFC 9293, 3.5, from both sides and from both at once.

tcp_connect(), tcp_rcv_synsent_state_process(). What listens is elsewhere: `listener.py`.
"""

from __future__ import annotations

from sentry.abi.socket import (
    BPF_TCP_ESTABLISHED as TCP_ESTABLISHED,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_RECV as TCP_SYN_RECV,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_SENT as TCP_SYN_SENT,
)
from sentry.errors import ECONNREFUSED
from sentry.net.tcp.core import DEFAULT_MSS, MAX_UNSCALED
from sentry.net.tcp.loss import is_before
from sentry.net.tcp.request import Agreed, Request, agreed_on
from sentry.net.tcp.segment import (
    ACK,
    CWR,
    ECE,
    MAX_SHIFT,
    RST,
    SYN,
    Arrived,
    Outgoing,
    header,
    syn_options,
    unwrap,
)
from sentry.net.tcp.settings import MS, Settings
from sentry.net.tcp.stray import reply_to_stray
from sentry.net.tcp.timers import Timers

INITIAL_PACKETS = 10


def scale_for(settings: Settings, rcvbuf: int) -> int:
    """Of the windows that we tell: what the buffer may grow to. tcp_select_initial_window()."""
    if not settings.tcp_window_scaling:
        return 0
    space = rcvbuf or settings.tcp_rmem[2]
    return min(max(space.bit_length() - 16, 0), MAX_SHIFT)


class Handshake(Timers):
    """The side of a connection that is not connected yet."""

    __slots__ = ()

    def connect(self, now_ns: int, iss: int | None = None) -> None:
        """Send a SYN. What becomes of it is told by `connected` and `error`."""
        self._clear_ends()
        self._clear_timers()
        if iss is None:
            iss = self.shared.keyed.initial_sequence(now_ns, self.flow)
        self._begin_sending(iss)
        self.rcv_scale = scale_for(self.settings, self.tuning.rcvbuf)
        self._set_state(TCP_SYN_SENT)
        self._count("Tcp.ActiveOpens")
        self.snd_nxt = self.iss + 1
        self.syn_ns = now_ns
        self._send_syn(now_ns)
        self._arm_rto(now_ns)
        self._tell()

    def _send_syn(self, now_ns: int) -> None:
        """A SYN; with an ACK where the other end's has come."""
        settings = self.settings
        is_answer = self.state == TCP_SYN_RECV
        window = min(self.full_window(), MAX_UNSCALED)
        stamps = None
        if self.stamps_on if is_answer else settings.tcp_timestamps:
            stamps = (self.stamp(now_ns), self.ts_recent if is_answer else 0)
        has_sack = self.sack_on if is_answer else bool(settings.tcp_sack)
        has_scale = self.scale_on if is_answer else bool(settings.tcp_window_scaling)
        options = syn_options(self.advmss, self.rcv_scale if has_scale else None, has_sack, stamps)
        flags = SYN
        acknowledged = 0
        if is_answer:
            flags |= ACK | (ECE if self.ecn_on else 0)
            acknowledged = self.rcv.next
        elif settings.tcp_ecn == 1 and not (self.retransmits and settings.tcp_ecn_fallback):
            flags |= ECE | CWR
        if self.undo_stamp is None:
            self.undo_stamp = self.stamp(now_ns)  # no echo is older
        self.rcv_wnd = window
        ports = self.flow.local.port, self.flow.remote.port
        head = header(ports, self.iss, acknowledged, flags, window, options)
        self.outgoing.append(Outgoing(head))
        self.tally.segs_out += 1

    def _rto_fired(self, now_ns: int) -> None:
        """Of a SYN: net.ipv4.tcp_syn_retries times, some of them as soon as the first."""
        if self.state not in (TCP_SYN_SENT, TCP_SYN_RECV):
            super()._rto_fired(now_ns)
            return
        settings = self.settings
        most = self.tuning.syn_retries or settings.tcp_syn_retries
        if not self.retransmits:
            self.retrans_since_ns = now_ns
        limit_ns = self.tuning.user_timeout_ms * MS
        is_late = limit_ns and self.retransmits and now_ns - self.retrans_since_ns >= limit_ns
        if self.retransmits >= most or is_late:
            self._give_up()
            return
        self.retransmits += 1
        self.tally.total_rto += 1
        self.tally.total_retrans += 1
        self._count("TcpExt.TCPTimeouts")
        if self.state != TCP_SYN_SENT or self.tally.total_rto > settings.tcp_syn_linear_timeouts:
            self.backoff += 1
        self._send_syn(now_ns)
        self._arm_rto(now_ns)

    # --- SYN_SENT

    def _in_syn_sent(self, now_ns: int, seg: Arrived) -> None:
        flags = seg.flags
        if flags & ACK:
            ack = unwrap(seg.ack, self.snd_una)
            if not self.snd_una < ack <= self.snd_nxt or self._is_echo_strange(now_ns, seg):
                self._reject(seg)
                return
            if flags & RST:
                self._fail(ECONNREFUSED.number)
                return
            if not flags & SYN:
                return
            self._syn_answered(now_ns, seg)
        elif flags & SYN and not flags & RST:
            self._met(now_ns, seg)

    def _is_echo_strange(self, now_ns: int, seg: Arrived) -> bool:
        """An echo of no SYN of ours: PAWSActiveRejected."""
        if seg.stamps is None or not seg.stamps[1] or not self.settings.tcp_timestamps:
            return False
        echo, first = seg.stamps[1], self.undo_stamp
        return (first is not None and is_before(echo, first)) or is_before(self.stamp(now_ns), echo)

    def _reject(self, seg: Arrived) -> None:
        answer = reply_to_stray(seg)
        if answer is not None:
            self._count("Tcp.OutRsts")
            self.outgoing.append(answer)

    def _syn_answered(self, now_ns: int, seg: Arrived) -> None:
        agreed = agreed_on(seg, self.settings)
        # an answer to a SYN with ECE and CWR has ECE alone: RFC 3168, 6.1.1
        agreed.has_ecn = self.settings.tcp_ecn == 1 and seg.flags & (ECE | CWR) == ECE
        self._begin_receiving(seg.seq)
        self._agree(now_ns, agreed)
        self.snd_una = self.iss + 1
        self.tally.bytes_acked += 1  # its SYN, as tcp_snd_una_update() has it
        self.snd_wnd = self.max_window = seg.window  # of a SYN, never scaled
        self.snd_wl1 = seg.seq
        self._established(now_ns)
        self.quick = max(self.quick, 1)
        if seg.payload:
            self._take_data(now_ns, seg, seg.seq)
        if self.unsent or self.fin_queued:
            self._push(now_ns)
        if self.rcv_wup != self.rcv.next or not self.outgoing:
            self._send_ack(now_ns)

    def _met(self, now_ns: int, seg: Arrived) -> None:
        """Both ends have sent a SYN: simultaneous open."""
        self._begin_receiving(seg.seq)
        self._agree(now_ns, agreed_on(seg, self.settings))
        self.snd_wnd = self.max_window = seg.window
        self.snd_wl1 = seg.seq
        self._set_state(TCP_SYN_RECV)
        self._send_syn(now_ns)

    # --- established

    def _agree(self, now_ns: int, agreed: Agreed) -> None:
        self.peer_mss = max(agreed.mss or DEFAULT_MSS, 1)
        self.scale_on = agreed.snd_scale is not None
        self.snd_scale = agreed.snd_scale or 0
        if not self.scale_on:
            self.rcv_scale = 0
        self.sack_on = agreed.has_sack
        self.stamps_on = agreed.stamp is not None
        self.ts_recent, self.ts_recent_ns = agreed.stamp or 0, now_ns
        self.ecn_on = agreed.has_ecn
        self.rcv_wnd = min(self.full_window(), MAX_UNSCALED)
        self.rcv_wup = self.rcv.next
        self.rcv_mss = min(self.rcv_mss, max(self.mss, 1))

    def _established(self, now_ns: int) -> None:
        """tcp_finish_connect(), tcp_init_transfer()."""
        self.cc.set_mss(self.mss)
        if self.tally.total_retrans > 1:
            self.cc.window = self.cc.mss
        elif not self.tally.total_retrans:
            self.rtt.measured(now_ns, now_ns - self.syn_ns, self.snd_una, self.snd_nxt)
        self.retransmits = self.backoff = 0
        self.retransmit_at = None
        self.undo_stamp = None
        self.high_seq = self.usage_end = self.small_end = self.snd_una
        self.send_urgent_at = self.snd_una
        self.board.highest_sacked = self.snd_una
        self.rcv_space = min(self.rcv_wnd, INITIAL_PACKETS * self.advmss)
        self.rcv_space_at = now_ns
        self.last_heard_ns = self.tally.last_ack_received_ns = now_ns
        self.tally.last_sent_ns = self.tally.last_data_received_ns = now_ns
        self.delivered_ns = self.idle_at = now_ns
        self.was_connected = True
        self._set_state(TCP_ESTABLISHED)
        self._fit_send_buffer()
        self.set_keepalive(now_ns)

    def _fit_send_buffer(self) -> None:
        """As much as the window makes use of, twice: tcp_sndbuf_expand()."""
        if not self.tuning.sndbuf and not self.shared.is_pressed:
            wanted = 2 * max(self.cc.window, INITIAL_PACKETS * self.cc.mss) * 3
            self.sndbuf = max(self.sndbuf, min(wanted, self.settings.tcp_wmem[2]))

    def begin(self, now_ns: int, request: Request) -> None:
        """The end of a handshake that a listener has made. Preconditions: nothing has happened
        yet, and it was made with the numbers of both SYNs."""
        self.rcv_scale = request.rcv_scale
        self.advmss = request.advmss
        self.ts_offset = request.ts_offset
        self._agree(now_ns, request.agreed)
        self.rcv_wnd = request.window
        self.snd_una = self.snd_nxt = request.iss + 1
        self.snd_wl1 = request.irs
        self.syn_ns = request.sent_ns
        self.tally.total_retrans = request.sent - 1
        self._count("Tcp.PassiveOpens")
        self._established(now_ns)
