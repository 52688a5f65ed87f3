"""What an acknowledgement tells: RFC 9293, 3.10.7.4; 2018, 5961. tcp_ack()."""

from __future__ import annotations

from typing import Final

from sentry.net.tcp.core import CWR_STATE, DISORDER, LOSS, OPEN, PERSIST, RECOVERY, REORDER, RTO
from sentry.net.tcp.loss import Loss
from sentry.net.tcp.scoreboard import Sent
from sentry.net.tcp.segment import ACK, ECE, MASK, SYN, Arrived, unwrap
from sentry.net.tcp.settings import MS

SECOND: Final = 1_000_000_000
DUPLICATES: Final = 3


class Progress:
    """What one acknowledgement has changed."""

    __slots__ = (
        "acked", "advanced", "delivered", "dsack", "echo", "highest", "lost", "newest", "sacked",
        "sample_ns",
    )  # fmt: skip

    def __init__(self, echo: int | None, highest: int) -> None:
        self.advanced = False
        self.acked = 0
        """Bytes, in order."""
        self.sacked = 0
        self.delivered = 0
        """Bytes of both kinds."""
        self.dsack = False
        self.lost = 0
        self.sample_ns = 0
        """A round trip of something that was sent once; 0: none."""
        self.newest: Sent | None = None
        """What was sent last of what has arrived."""
        self.echo = echo
        self.highest = highest
        """What was sacked before: what arrives below it was overtaken."""


class Acknowledgements(Loss):
    """The side of a connection that hears what has arrived."""

    __slots__ = ()

    def _acknowledge(self, now_ns: int, seg: Arrived, seq: int) -> bool:
        """The acknowledgement of a segment at `seq`. False: the segment is to be dropped."""
        una = self.snd_una
        ack = unwrap(seg.ack, una)
        if ack > self.snd_nxt:
            return False
        if ack < una - self.max_window:
            self._challenge(now_ns)
            return False
        echo = seg.stamps[1] if self.stamps_on and seg.stamps is not None else None
        done = Progress(echo, self.board.highest_sacked)
        if ack < una:
            if seg.sacks and self.sack_on:
                self._take_sacks(now_ns, seg, ack, done)
                self._after(now_ns, done, una, False)
            return True
        if seg.stamps is not None:
            self._take_stamp(now_ns, seg.stamps[0], seq)
        self._heard_ack(now_ns)
        has_window = self._take_window(seg.window << self.snd_scale, seq, ack)
        had_records = bool(self.board.records)
        done.advanced = ack > una
        if seg.sacks and self.sack_on:
            self._take_sacks(now_ns, seg, ack, done)
        if done.advanced:
            self._take_away(now_ns, ack, done)
        if self.retransmit_kind == PERSIST and self.retransmit_at is not None:
            self._window_opened(now_ns)
        if not had_records:
            return True
        is_bare = not (done.advanced or done.sacked or has_window or len(seg.payload))
        self._probe_answered(ack, done.dsack, is_bare)
        if seg.flags & ECE and self.ecn_on and not seg.flags & SYN:
            self.tally.delivered_ce += -(-done.delivered // self.cc.mss)
            self._enter_cwr()
        if done.advanced:
            self._after_advance(now_ns)
        self._after(now_ns, done, una, is_bare)
        return True

    def _advance(self, now_ns: int, ack: int, echo: int) -> None:
        """What was sent has arrived, while nothing is amiss."""
        una, had_records = self.snd_una, bool(self.board.records)
        done = Progress(echo, self.board.highest_sacked)
        done.advanced = True
        self._take_away(now_ns, ack, done)
        if had_records:
            self._after_advance(now_ns)
            self._after(now_ns, done, una, False)

    def _heard_ack(self, now_ns: int) -> None:
        """The other end is alive."""
        self.probes_out = 0
        self.keepalive_probes = 0
        self.soft_error = 0
        self.tally.last_ack_received_ns = now_ns

    def _take_stamp(self, now_ns: int, value: int, seq: int) -> None:
        """RFC 7323, 4.3: what to echo is of a segment that reaches back to our last ACK."""
        if not self.stamps_on or seq > self.rcv_wup:
            return
        if not (value - self.ts_recent) & 0x80000000 or self._is_stamp_old(now_ns):
            self.ts_recent = value
            self.ts_recent_ns = now_ns

    def _is_stamp_old(self, now_ns: int) -> bool:
        """24 days: the clock of the other end may have come round."""
        return now_ns - self.ts_recent_ns > 24 * 86400 * SECOND

    def _take_window(self, window: int, seq: int, ack: int) -> bool:
        """tcp_ack_update_window(): whether it is news."""
        is_newer = ack > self.snd_una or seq > self.snd_wl1
        if not is_newer and not (seq == self.snd_wl1 and (window > self.snd_wnd or not window)):
            return False
        self.snd_wl1 = seq
        if window == self.snd_wnd:
            return False
        self.snd_wnd = window
        self.max_window = max(self.max_window, window)
        return True

    def _window_opened(self, now_ns: int) -> None:
        """While window probes are sent: tcp_ack_probe()."""
        self.retransmit_at = None
        needed = min(self.unsent, self.mss) or 1
        if self.snd_una + self.snd_wnd >= self.snd_nxt + needed:
            self.backoff = self.probe_since_ns = 0
        elif self.unsent or (self.fin_queued and self.fin_seq is None):
            self._arm_persist(now_ns)

    # --- SACK

    def _take_sacks(self, now_ns: int, seg: Arrived, ack: int, done: Progress) -> None:
        """tcp_sacktag_write_queue(); RFC 2883 for what came twice."""
        una, nxt = self.snd_una, self.snd_nxt
        blocks = [(unwrap(start, una), unwrap(end, una)) for start, end in seg.sacks]
        first = blocks[0]
        if first[0] < ack and first[0] < first[1] <= nxt:
            self._take_dsack(first, done)
        elif len(blocks) > 1 and blocks[1][0] <= first[0] and first[1] <= blocks[1][1]:
            self._take_dsack(first, done)
            blocks = blocks[1:]
        board, mss = self.board, self.cc.mss
        for start, end in blocks:
            if not una <= start < end <= nxt or end <= ack:
                continue
            for record in board.sack(start, end, mss):
                self._arrived_there(now_ns, record, done)
                size = record.end - record.start
                done.sacked += size
                done.delivered += size
                if record.end <= done.highest and record.transmissions == 1:
                    self._saw_reordering()

    def _take_dsack(self, block: tuple[int, int], done: Progress) -> None:
        done.dsack = True
        self.tally.dsack_dups += 1
        if self.undo_marker is not None and self.undo_retrans > 0 and block[1] > self.undo_marker:
            self.undo_retrans -= 1
        self._rack_saw_dsack()

    def _saw_reordering(self) -> None:
        self.rack_reordering = True
        self.tally.reord_seen += 1

    def _arrived_there(self, now_ns: int, record: Sent, done: Progress) -> None:
        """A record that was not known to have arrived has."""
        self._rack_delivered(now_ns, record)
        if record.transmissions == 1 and not done.sample_ns:
            done.sample_ns = max(now_ns - record.sent_ns, 1)
        newest = done.newest
        if newest is None or record.sent_ns >= newest.sent_ns:
            done.newest = record

    # --- in order

    def _take_away(self, now_ns: int, ack: int, done: Progress) -> None:
        """What is acknowledged in order need not be kept: tcp_clean_rtx_queue()."""
        board = self.board
        was_again = False
        count = 0
        done.acked = ack - self.snd_una
        for record in board.acknowledge(ack, self.cc.mss):
            count += record.count
            was_again |= record.transmissions > 1
            if record.sacked:
                continue
            done.delivered += record.end - record.start
            self._arrived_there(now_ns, record, done)
            if record.end <= done.highest and record.transmissions == 1 and not record.lost:
                self._saw_reordering()
        if was_again:
            done.sample_ns = 0
        self.snd_una = ack
        self.tally.bytes_acked += done.acked
        self.stream.acknowledge(min(ack, self.stream.end))
        self.small_end = max(self.small_end, ack)
        self.send_urgent_at = max(self.send_urgent_at, ack)
        if self.ca_state >= RECOVERY and not self.sack_on:
            self.reno_dups = max(0, self.reno_dups - max(count - 1, 0))
        else:
            self.reno_dups = 0
        self._changed()

    def _after_advance(self, now_ns: int) -> None:
        """The retransmission timer starts anew: RFC 6298, 5.3."""
        if self.retransmits:
            self.tally.total_rto_ns += max(now_ns - self.tally.rto_since_ns, 0)
        self.retransmits = 0
        if self.retransmit_kind == REORDER and self.board.records:
            return
        if self.board.records:
            self._arm_rto(now_ns)
        else:
            self.retransmit_at = None

    def _measure(self, now_ns: int, done: Progress) -> None:
        """RFC 6298, 3; with timestamps also of what was sent again: RFC 7323, 4."""
        sample_ns = done.sample_ns
        if not sample_ns and done.advanced and done.echo:
            behind_ms = (self.stamp(now_ns) - done.echo) & MASK
            if behind_ms < 1 << 24:
                sample_ns = max(behind_ms, 1) * MS
        if not sample_ns:
            return
        self.backoff = 0
        self.rtt.measured(now_ns, sample_ns, self.snd_una, self.snd_nxt)
        self.cc.measured(self.snd_una, self.snd_nxt, sample_ns)
        if self.retransmit_kind == RTO and self.retransmit_at is not None and done.advanced:
            self._arm_rto(now_ns)

    def _measure_rate(self, now_ns: int, done: Progress) -> None:
        """tcpi_delivery_rate: what was delivered while the newest arrival was under way."""
        newest = done.newest
        self.delivered += done.delivered
        if not done.delivered:
            return
        self.tally.delivered += -(-done.delivered // self.cc.mss)
        self.delivered_ns = now_ns
        if newest is not None and now_ns > newest.delivered_ns:
            size = self.delivered - newest.delivered
            self.tally.delivery_rate = size * SECOND // (now_ns - newest.delivered_ns)

    # --- what follows of it

    def _after(self, now_ns: int, done: Progress, una: int, is_bare: bool) -> None:
        """tcp_fastretrans_alert(), tcp_cong_control()."""
        in_flight = self.board.in_flight + done.delivered
        self._measure(now_ns, done)
        self._measure_rate(now_ns, done)
        if is_bare and not self.sack_on and self.board.records:
            self.reno_dups = min(self.reno_dups + 1, self.board.out_count)
            done.delivered += self.cc.mss
        if self.ca_state != OPEN and self.snd_una >= self.high_seq:
            self._leave_state(done)
        if self.ca_state in (RECOVERY, LOSS):
            self._in_recovery(now_ns, done)
        elif self.board.records:
            self._look_for_loss(now_ns, done)
        if self.ca_state in (CWR_STATE, RECOVERY):
            self._reduce(done.delivered, done.advanced, done.lost)
        elif done.acked or done.sacked:
            self._grow(now_ns, done, in_flight)
        if self.board.lost_count:
            self._retransmit_lost(now_ns)
        if done.advanced:
            self._schedule_probe(now_ns)

    def _leave_state(self, done: Progress) -> None:
        """Everything that was under way when it began has arrived."""
        state = self.ca_state
        if state >= RECOVERY:
            if self._was_no_loss(done.echo):
                self._undo()
                self._count("TcpExt.TCPFullUndo")
            elif state == RECOVERY:
                self._end_reduction()
            self.rack_persist = max(self.rack_persist - 1, 0)
            if not self.rack_persist:
                self.rack_steps = 1
            self.undo_marker = None
            self.reno_dups = 0
        elif state == CWR_STATE and self.snd_una > self.high_seq:
            self._end_reduction()
        elif state == CWR_STATE:
            return
        self.ca_state = OPEN

    def _in_recovery(self, now_ns: int, done: Progress) -> None:
        if (
            done.advanced
            and self.undo_marker is not None
            and (
                self._was_late(done.echo)
                or (self.ca_state == LOSS and self._was_no_loss(done.echo))
            )
        ):
            self._undo()
            self.board.find_all()
            self.ca_state = OPEN if self.ca_state == LOSS else DISORDER
            self._count("TcpExt.TCPLossUndo")
            return
        if not self.board.records:
            return
        if self.sack_on:
            done.lost = self._rack_detect(now_ns)
        elif done.advanced:
            self._lose_head()

    def _look_for_loss(self, now_ns: int, done: Progress) -> None:
        board = self.board
        if self.sack_on:
            done.lost = self._rack_detect(now_ns)
        elif self.reno_dups >= DUPLICATES:
            self._lose_head()
            done.lost = 1
        if board.lost_count:
            self._enter_recovery()
        elif self.ca_state != CWR_STATE:
            self.ca_state = DISORDER if board.sacked_count or self.reno_dups else OPEN

    def _grow(self, now_ns: int, done: Progress, in_flight: int) -> None:
        """Only a window that is made use of grows: tcp_is_cwnd_limited()."""
        cc = self.cc
        if cc.in_slow_start:
            is_used = cc.window < 2 * max(self.max_in_flight, in_flight)
        else:
            is_used = self.cwnd_limited
        if self.snd_una > self.usage_end:  # a round is over
            self.usage_end = self.snd_nxt
            self.max_in_flight = in_flight
            self.cwnd_limited = False
        if is_used and done.delivered and (self.ca_state != DISORDER or done.advanced):
            cc.acknowledged(now_ns, done.delivered, self.rtt.smoothed_ns)

    # --- challenge ACKs

    def _may_answer(self, now_ns: int) -> bool:
        """net.ipv4.tcp_invalid_ratelimit: one answer each half second to what does not fit."""
        last = self.challenge_ns
        if last is not None and now_ns - last < self.settings.tcp_invalid_ratelimit * MS:
            return False
        self.challenge_ns = now_ns
        return True

    def _challenge(self, now_ns: int) -> None:
        """RFC 5961: who means it answers to this ACK."""
        limit = self.settings.tcp_challenge_ack_limit
        if self._may_answer(now_ns) and self.shared.challenges.allowed(now_ns, limit):
            self._count("TcpExt.TCPChallengeACK")
            self._emit(self._acceptable_seq(), ACK, self._options(now_ns))
