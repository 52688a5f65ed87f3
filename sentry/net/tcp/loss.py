"""What was lost, and how it is sent again: RACK-TLP (RFC 8985), proportional rate reduction
(RFC 6937), NewReno where there is no SACK (RFC 6582), and taking back what was no loss (RFC 4015).

net/ipv4/tcp_recovery.c, tcp_input.c.
"""

from __future__ import annotations

from typing import Final

from sentry.net.tcp.core import CWR_STATE, LOSS, OPEN, PERSIST, PROBE, RECOVERY, REORDER, RTO
from sentry.net.tcp.output import MAX_OUTGOING, SENDING, Output
from sentry.net.tcp.scoreboard import Sent
from sentry.net.tcp.segment import HALF, MASK
from sentry.net.tcp.settings import MS

TIMEOUT_MIN_NS: Final = 2 * MS
"""Two ticks, for what is late by less than a tick: TCP_TIMEOUT_MIN."""
INITIAL_NS: Final = 1000 * MS
MOST_STEPS: Final = 255
PERSISTENCE: Final = 16
"""Recoveries for which a wider window for reordering is kept: RFC 8985, 6.2."""
PROBES: Final = (3, 4)
"""Of tcp_early_retrans: tail loss probes are sent."""
NEVER: Final = -1


def is_before(first: int, second: int) -> bool:
    """Of two timestamps."""
    return (first - second) & MASK >= HALF


class Loss(Output):
    """The side of a connection that looks after what is under way."""

    __slots__ = ()

    # --- timers

    @property
    def rto_ns(self) -> int:
        """How long to wait now: backed off, with its ceiling."""
        most = self.settings.tcp_rto_max_ms * MS
        return min(self.rtt.rto_ns << min(self.backoff, 32), most)

    def _arm(self, kind: int, at: int) -> None:
        self.retransmit_kind, self.retransmit_at = kind, at

    def _arm_rto(self, now_ns: int) -> None:
        """From now on; TCP_USER_TIMEOUT ends it sooner."""
        wait_ns = self.rto_ns
        limit_ns = self.tuning.user_timeout_ms * MS
        if limit_ns and self.retransmits:
            left_ns = limit_ns - (now_ns - self.retrans_since_ns)
            wait_ns = min(wait_ns, max(left_ns, MS))
        self._arm(RTO, now_ns + wait_ns)

    def _arm_persist(self, now_ns: int) -> None:
        self._arm(PERSIST, now_ns + max(self.rto_ns, self.settings.tcp_rto_min_us * 1000))

    def _schedule_probe(self, now_ns: int) -> None:
        """A tail loss probe, sooner than the time-out: tcp_schedule_loss_probe()."""
        if (
            not self.sack_on
            or self.ca_state not in (OPEN, CWR_STATE)
            or not self.board.records
            or self.settings.tcp_early_retrans not in PROBES
            or self.retransmit_at is None
        ):
            return
        if self.retransmit_kind not in (RTO, PROBE):
            return
        wait_ns = INITIAL_NS
        if self.rtt.smoothed_ns:
            wait_ns = 2 * self.rtt.smoothed_ns
            alone = self.board.out_count == 1
            wait_ns += self.settings.tcp_rto_min_us * 1000 if alone else TIMEOUT_MIN_NS
        self._arm(PROBE, now_ns + min(wait_ns, self.rto_ns))

    # --- sending, and what has to be waited for then

    def _push(self, now_ns: int, *, hold: bool = False, force: bool = False) -> None:
        """Send what may be sent, and set the timer for it."""
        if self._write(now_ns, hold=hold, force=force):
            if self.retransmit_at is None or self.retransmit_kind == PERSIST:
                self._arm_rto(now_ns)
            self._schedule_probe(now_ns)
        elif self.retransmit_at is None and not self.throttled:
            waiting = self.unsent or (self.fin_queued and self.fin_seq is None)
            if waiting and not self.board.records and self.state in SENDING:
                self._arm_persist(now_ns)

    def _retransmit_lost(self, now_ns: int) -> None:
        """As much of what is lost as the window allows: tcp_xmit_retransmit_queue()."""
        has_sent = False
        while len(self.outgoing) < MAX_OUTGOING:
            record = self.board.next_lost()
            if record is None:
                break
            allowed = self.cc.window - self.board.in_flight + self.reno_dups * self.cc.mss
            if allowed < min(record.end - record.start, self.cc.mss):
                break
            if not self._retransmit(now_ns, record, allowed):
                break
            has_sent = True
        if has_sent and self.retransmit_kind != REORDER:
            self._arm_rto(now_ns)

    # --- RACK

    def _rack_delivered(self, now_ns: int, record: Sent) -> None:
        """A record has arrived: RFC 8985, 6.2, step 2."""
        rtt_ns = now_ns - record.sent_ns
        if record.transmissions > 1 and rtt_ns < self.rtt.least_ns:
            return  # it was the first one that arrived
        if (record.sent_ns, record.end) >= (self.rack_ns, self.rack_end):
            self.rack_ns, self.rack_end = record.sent_ns, record.end
            self.rack_rtt_ns = rtt_ns

    def _rack_window_ns(self) -> int:
        """How much later than others something may come: step 4."""
        if not self.rack_reordering and (
            self.ca_state >= RECOVERY or self.board.sacked_count >= self.settings.tcp_reordering
        ):
            return 0
        return min(self.rtt.least_ns // 4 * self.rack_steps, self.rtt.smoothed_ns)

    def _rack_saw_dsack(self) -> None:
        """Something was sent again for nothing: wait for longer. Once in a round."""
        if self.rack_dsack_round is not None and self.snd_una < self.rack_dsack_round:
            return
        self.rack_dsack_round = self.snd_nxt
        self.rack_steps = min(self.rack_steps + 1, MOST_STEPS)
        self.rack_persist = PERSISTENCE

    def _rack_detect(self, now_ns: int) -> int:
        """Step 5: what was sent well before something that arrived is lost. Packets newly lost."""
        board = self.board
        before = board.lost_count - board.retrans_count
        late_ns = self.rack_rtt_ns + self._rack_window_ns()
        newest = (self.rack_ns, self.rack_end)
        while (record := board.oldest()) is not None:
            if newest <= (record.sent_ns, record.end):
                break
            if record.sent_ns + late_ns > now_ns:
                wait_ns = self.rack_ns + late_ns - now_ns + TIMEOUT_MIN_NS
                self._arm(REORDER, now_ns + min(wait_ns, self.rto_ns))
                break
            board.mark_lost(record)
        return max(board.lost_count - board.retrans_count - before, 0)

    def _reorder_fired(self, now_ns: int) -> None:
        """rack_reo_timeout(): what was only late until now is lost."""
        self.retransmit_kind = RTO
        if self._rack_detect(now_ns) and self.ca_state < RECOVERY:
            self._enter_recovery()
        self._retransmit_lost(now_ns)
        if self.retransmit_kind != REORDER:
            self._arm_rto(now_ns)

    # --- tail loss probes

    def _probe_fired(self, now_ns: int) -> None:
        """Send something new, or the last packet again: tcp_send_loss_probe()."""
        board = self.board
        if not board.records:
            self.retransmit_at = None
            return
        self.retransmit_kind = RTO
        if self.tlp_end is None:
            options = self._options(now_ns)
            mss = self.mss_with(len(options))
            size = min(self.unsent, mss)
            if size and self.snd_una + self.snd_wnd >= self.snd_nxt + size and not board.is_full:
                self._send_new(now_ns, size, False, mss, options)
                self.tlp_retransmitted = False
                self.tlp_end = self.snd_nxt
            else:
                last = board.records[-1]
                if last.end - last.start > mss and not board.is_full:
                    last = board.cut(last, last.end - mss, mss)
                if not last.sacked and self._retransmit(now_ns, last, mss):
                    self.tlp_retransmitted = True
                    self.tlp_end = self.snd_nxt
            self._count("TcpExt.TCPLossProbes")
        self._arm_rto(now_ns)

    def _probe_answered(self, ack: int, saw_dsack: bool, is_bare: bool) -> None:
        """RFC 8985, 7.4: whether the probe has repaired something. tcp_process_tlp_ack()."""
        end = self.tlp_end
        if end is None:
            return
        if ack < end:
            if is_bare:
                self.tlp_end = None  # a duplicate: the first one arrived, too
            return
        if self.tlp_retransmitted and not saw_dsack and ack == end:
            return
        self.tlp_end = None
        if self.tlp_retransmitted and not saw_dsack and self.ca_state < CWR_STATE:
            self._enter_cwr()
            self._end_reduction()
            self.ca_state = OPEN
            self._count("TcpExt.TCPLossProbeRecovery")

    # --- the congestion window

    def _remember_to_undo(self) -> None:
        self.undo_marker = self.snd_una
        self.undo_window, self.undo_threshold = self.cc.window, self.cc.threshold
        self.undo_retrans = NEVER
        self.undo_stamp = None

    def _begin_reduction(self) -> None:
        self.high_seq = self.snd_nxt
        self.tlp_end = None
        self.prior_window = max(self.cc.window, 1)
        self.prr_delivered = self.prr_out = 0
        self.cc.threshold = self.cc.reduced()
        self.ecn_reduced = self.ecn_on

    def _enter_cwr(self) -> None:
        """Send less, though nothing is lost: ECN."""
        if self.ca_state < CWR_STATE:
            self.undo_marker = None
            self._begin_reduction()
            self.ca_state = CWR_STATE

    def _enter_recovery(self) -> None:
        """Fast recovery: RFC 6675, 5."""
        if self.ca_state < CWR_STATE:
            self._remember_to_undo()
            self._begin_reduction()
        else:
            self.high_seq = self.snd_nxt
        self.ca_state = RECOVERY
        self._count("TcpExt.TCPSackRecovery" if self.sack_on else "TcpExt.TCPRenoRecovery")

    def _reduce(self, delivered: int, is_advanced: bool, newly_lost: int) -> None:
        """The window of this moment while it is on its way down: tcp_cwnd_reduction()."""
        if not delivered:
            return
        cc = self.cc
        in_flight = max(self.board.in_flight - self.reno_dups * cc.mss, 0)
        left = cc.threshold - in_flight
        self.prr_delivered += delivered
        if left < 0:
            may_send = -(-cc.threshold * self.prr_delivered // self.prior_window) - self.prr_out
        else:
            may_send = max(self.prr_delivered - self.prr_out, delivered)
            if is_advanced and not newly_lost:
                may_send += cc.mss
            may_send = min(left, may_send)
        cc.window = in_flight + max(may_send, 0 if self.prr_out else cc.mss)

    def _end_reduction(self) -> None:
        self.cc.window = max(self.cc.threshold, self.cc.mss)

    def _enter_loss(self) -> None:
        """A time-out: everything that was not sacked is sent again, slowly. tcp_enter_loss()."""
        board = self.board
        if board.records[0].sacked:
            board.forget_sacks()
            self._count("TcpExt.TCPSACKReneging")
        if self.ca_state < RECOVERY or self.snd_una > self.high_seq:
            if self.ca_state != LOSS or not self.retransmits:
                self._remember_to_undo()
            self.cc.threshold = self.cc.reduced()
        self.cc.lost()
        board.lose_all()
        self.reno_dups = 0
        self.cc.window = self.cc.mss
        self.high_seq = self.snd_nxt
        self.tlp_end = None
        self.ca_state = LOSS
        self.ecn_reduced = self.ecn_on

    # --- taking it back

    def _was_no_loss(self, echo: int | None) -> bool:
        """All that was sent again had arrived (DSACK), or what came first did (timestamps)."""
        if self.undo_marker is None:
            return False
        return self.undo_retrans == 0 or self._was_late(echo)

    def _was_late(self, echo: int | None) -> bool:
        """The acknowledgement is for what was sent before anything was sent again: RFC 3522."""
        stamp = self.undo_stamp
        return bool(echo) and stamp is not None and is_before(echo or 0, stamp)

    def _undo(self) -> None:
        """The window is as it was."""
        self.cc.window = max(self.cc.window, self.undo_window)
        self.cc.threshold = max(self.cc.threshold, self.undo_threshold)
        self.undo_marker = None
        self.ecn_reduced = False

    def _lose_head(self) -> None:
        """Without SACK the first packet is what is missing: RFC 6582."""
        head = self.board.records[0]
        if head.end - head.start > self.cc.mss and not self.board.is_full:
            self.board.cut(head, head.start + self.cc.mss, self.cc.mss)
        if not head.lost or head.in_flight_again:
            self.board.mark_lost(head)
