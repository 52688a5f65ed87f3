"""What a connection sends: segments of data, acknowledgements, FIN, resets.

RFC 9293, 3.8.6 and 3.7.4 (Nagle, silly windows), as tcp_write_xmit() and __tcp_select_window() of
net/ipv4/tcp_output.c have them.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    BPF_TCP_LAST_ACK as TCP_LAST_ACK,
)
from sentry.net.tcp.core import MAX_UNSCALED, RECOVERY, Core
from sentry.net.tcp.scoreboard import Sent
from sentry.net.tcp.segment import (
    ACK,
    CWR,
    ECE,
    ECT0,
    FIN,
    HALF,
    MASK,
    MAX_PAYLOAD,
    PSH,
    RST,
    URG,
    Outgoing,
    header,
    options_of,
)
from sentry.net.tcp.tally import BUFFER, BUSY, IDLE, WINDOW

SENDING: Final = frozenset(
    (TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_FIN_WAIT1, TCP_CLOSING, TCP_LAST_ACK)
)
MAX_OUTGOING: Final = 64
"""No more new data is put into segments while so many wait to be taken."""
FEW_OUTGOING: Final = 16
"""From here on an acknowledgement takes the place of the one before it."""
MOST_OUTGOING: Final = 256
DEFER_DIVISOR: Final = 3
"""net.ipv4.tcp_tso_win_divisor: for which part of the window it is worth while to wait."""
MOST_BARE: Final = 32
"""Of a header without SACK."""
NOTHING: Final = -1


class Output(Core):
    """The side of a connection that makes segments."""

    __slots__ = ()

    # --- the window that is offered

    def _offer(self) -> int:
        """How much may come, in bytes: none rather than a little. RFC 9293, 3.8.6.2.2."""
        full = self.full_window()
        free = max(full - self.rcv.queued, 0)
        mss = min(self.rcv_mss, full)
        if free < full // 2:
            self.quick = 0
        if free < full >> 4 or free < mss:
            return 0
        if self.rcv_scale:
            unit = 1 << self.rcv_scale
            return free - free % unit or unit
        window = self.rcv_wnd
        if window <= free - mss or window > free:
            return free // mss * mss
        return window

    def window_left(self) -> int:
        """How much may still come of what was offered."""
        return max(self.rcv_wup + self.rcv_wnd - self.rcv.next, 0)

    def _window_field(self) -> int:
        """What a header says; its right edge never moves back. tcp_select_window()."""
        left = self.window_left()
        offer = self._offer()
        if offer < left:
            offer = -(-left >> self.rcv_scale) << self.rcv_scale
        offer = min(offer, MAX_UNSCALED << self.rcv_scale)
        self.rcv_wnd, self.rcv_wup = offer, self.rcv.next
        return offer >> self.rcv_scale

    # --- segments

    def _options(self, now_ns: int) -> bytes:
        stamps = (self.stamp(now_ns), self.ts_recent) if self.stamps_on else None
        if not self.sack_on or (self.dsack is None and not self.rcv.early.starts):
            return options_of(stamps)
        sacks = self.rcv.sacks()
        if self.dsack is not None and self.settings.tcp_dsack:
            sacks.insert(0, self.dsack)
        return options_of(stamps, sacks)

    def _emit(
        self,
        seq: int,
        flags: int,
        options: bytes,
        pieces: Sequence[memoryview] = (),
        gso_size: int = 0,
        urgent: int = 0,
    ) -> None:
        """One segment that acknowledges what has come. `flags` may hold ECT0 << 8."""
        outgoing = self.outgoing
        window = self._window_field()
        if self.ecn_demand:
            flags |= ECE
        made = Outgoing(
            header(
                (self.flow.local.port, self.flow.remote.port),
                seq, self.rcv.next, flags & 0xFF, window, options, urgent,
            ),
            pieces, gso_size, flags >> 8,
        )  # fmt: skip
        self.ack_now = False
        self.delack_at = None
        self.dsack = None
        if self.quick:
            self.quick -= 1
        if outgoing and not pieces:
            last = outgoing[-1]
            is_many = len(outgoing) >= FEW_OUTGOING
            if _is_bare(last) if is_many else _says_more(made.header, last):
                outgoing.pop()
            if len(outgoing) >= MOST_OUTGOING:
                return
        outgoing.append(made)
        self.tally.segs_out += 1

    def _acceptable_seq(self) -> int:
        """Of a segment without data: not behind a window that shrank."""
        edge = self.snd_una + self.snd_wnd
        if edge >= self.snd_nxt or (self.scale_on and self.snd_nxt - edge < 1 << self.rcv_scale):
            return self.snd_nxt
        return edge

    def _send_ack(self, now_ns: int) -> None:
        """A pure acknowledgement."""
        self._emit(self._acceptable_seq(), ACK, self._options(now_ns))

    def _send_reset(self, now_ns: int) -> None:
        """Tear down the other end: tcp_send_active_reset()."""
        self._count("Tcp.OutRsts")
        self._emit(self._acceptable_seq(), RST | ACK, self._options(now_ns))

    def _send_probe(self, now_ns: int, is_urgent: int = 0) -> None:
        """Something that has to be answered, of an old number: tcp_xmit_probe_skb()."""
        self._emit(self.snd_una - 1 + is_urgent, ACK, self._options(now_ns))

    def _urgent_field(self, seq: int, size: int) -> int:
        """Where the urgent byte ends, seen from a segment; 0: it has no such byte before it.

        One behind the byte, as Linux and BSD have it: tcp_transmit_skb().
        """
        if self.send_urgent_at <= seq or self.send_urgent_at <= self.snd_una:
            return 0
        return min(self.send_urgent_at - seq, 0xFFFF)

    # --- data

    def _write(self, now_ns: int, *, hold: bool = False, force: bool = False) -> bool:
        """Send new data and a FIN as far as windows let it; whether there was something.

        `hold`: a part of a packet waits for more (MSG_MORE); `force`: it waits for nothing.
        """
        self.throttled = len(self.outgoing) >= MAX_OUTGOING
        if self.state not in SENDING:
            return False
        if not self.board.records and not self.ca_state and self.unsent:
            restart = self.settings.tcp_slow_start_after_idle
            self.cc.idle(now_ns - self.idle_at, self.rtt.rto_ns if restart else 0)
        options: bytes | None = None
        has_sent = False
        waits = IDLE
        while True:
            unsent = self.stream.end - self.snd_nxt
            has_fin = self.fin_queued and self.fin_seq is None
            if unsent <= 0 and not has_fin:
                waits = BUFFER if self.board.records and not self.writable else BUSY
                self.tally.app_limited = unsent <= 0 and not self.cwnd_limited
                break
            if len(self.outgoing) >= MAX_OUTGOING:
                self.throttled = True
                break
            if self.board.is_full:
                break
            if options is None:
                options = self._options(now_ns)
            mss = self.mss_with(len(options))
            size, waits = self._size_to_send(unsent, mss, hold, force)
            if size == NOTHING:
                break
            has_fin = (
                has_fin and size == unsent and (self.snd_una + self.snd_wnd > self.snd_nxt + size)
            )
            if not size and not has_fin:
                break
            self._send_new(now_ns, size, has_fin, mss, options)
            has_sent = True
        in_flight = self.board.in_flight
        self.max_in_flight = max(self.max_in_flight, in_flight)
        self.tally.waits_for(now_ns, waits if in_flight or waits == WINDOW else IDLE)
        return has_sent

    def _size_to_send(self, unsent: int, mss: int, hold: bool, force: bool) -> tuple[int, int]:
        """How many bytes the next segment has, and what keeps it from more: NOTHING, CHRONO_*."""
        window = self.snd_una + self.snd_wnd - self.snd_nxt
        if unsent <= 0:
            return (0, BUSY) if window > 0 else (NOTHING, WINDOW)
        if window < min(unsent, mss):
            return NOTHING, WINDOW
        board = self.board
        allowed = self.cc.window - board.in_flight + self.reno_dups * mss
        if allowed < min(unsent, mss):
            self.cwnd_limited = True
            return NOTHING, BUSY
        most = MAX_PAYLOAD // mss * mss if self.send_urgent_at <= self.snd_una else mss
        size = min(unsent, allowed, window, most)
        if size < unsent:
            size = size // mss * mss
            is_short = size < most and board.records and self.ca_state < RECOVERY
            if is_short and size < min(self.cc.window, self.snd_wnd) // DEFER_DIVISOR:
                self.cwnd_limited = allowed < window
                return NOTHING, BUSY
            return size, BUSY
        tail = size % mss
        if tail and self._holds_back(hold, force):
            size -= tail
        return size or NOTHING, BUSY

    def _holds_back(self, hold: bool, force: bool) -> bool:
        """Whether less than a packet waits: Nagle, with Minshall's change. tcp_nagle_test()."""
        if force or self.fin_queued or self.send_urgent_at > self.snd_nxt:
            return False
        if hold or self.tuning.cork:
            return True
        return not self.tuning.nodelay and self.snd_una < self.small_end <= self.snd_nxt

    def _send_new(self, now_ns: int, size: int, has_fin: bool, mss: int, options: bytes) -> None:
        seq = self.snd_nxt
        if not self.board.records:
            self.delivered_ns = now_ns
        flags = ACK
        if self.ecn_on and size:
            flags |= ECT0 << 8
            if self.ecn_reduced:
                self.ecn_reduced = False
                flags |= CWR
        end = seq + size + has_fin
        if has_fin:
            flags |= FIN
            self.fin_seq = seq + size
        if seq + size == self.stream.end and size:
            flags |= PSH
        record = Sent(seq, end, now_ns, max(1, -(-size // mss)))
        record.delivered, record.delivered_ns = self.delivered, self.delivered_ns
        self.board.sent(record)
        if size % mss:
            self.small_end = end
        self.snd_nxt = end
        self._transmit(seq, size, flags, options, mss)
        self.idle_at = now_ns
        self.tally.last_sent_ns = now_ns
        if size and now_ns - self.tally.last_data_received_ns < self.ato_ns:
            self.pingpong = True

    def _transmit(self, seq: int, size: int, flags: int, options: bytes, mss: int) -> None:
        """Bytes of the stream, for the first time or again."""
        pieces = self.stream.slices(seq, size) if size else ()
        urgent = self._urgent_field(seq, size)
        if urgent:
            flags |= URG
        self._emit(seq, flags, options, pieces, mss if size > mss else 0, urgent)
        if size:
            self.prr_out += size
            packets = -(-size // mss)
            self.tally.segs_out += packets - 1
            self.tally.data_segs_out += packets
            self.tally.bytes_sent += size

    def _retransmit(self, now_ns: int, record: Sent, most: int) -> bool:
        """Send the first bytes of a record again, `most` at most, a packet at least.

        False: the other end has no room for it. tcp_retransmit_skb().
        """
        options = self._options(now_ns)
        mss = self.mss_with(len(options))
        window = self.snd_una + self.snd_wnd - record.start
        if window <= 0:
            if record.start != self.snd_una:
                return False
            window = mss
        limit = min(max(min(most, window) // mss, 1) * mss, MAX_PAYLOAD // mss * mss)
        if window < mss:
            limit = window
        elif self.send_urgent_at > self.snd_una:
            limit = mss
        if record.end - record.start > limit:
            if not self.board.is_full:
                self.board.cut(record, record.start + limit, mss)
            elif record.end - record.start > window:
                return False
        flags = ACK
        end = min(record.end, self.stream.end)
        if self.fin_seq is not None and record.end == self.fin_seq + 1:
            flags |= FIN
        if end == self.stream.end > record.start:
            flags |= PSH
        self._transmit(record.start, end - record.start, flags, options, mss)
        self.board.sent_again(record, now_ns)
        record.delivered, record.delivered_ns = self.delivered, self.delivered_ns
        self.tally.total_retrans += record.count
        self.tally.bytes_retrans += end - record.start
        self.shared.counters["Tcp.RetransSegs"] += record.count
        if self.undo_stamp is None:
            self.undo_stamp = self.stamp(now_ns)
        self.undo_retrans = max(self.undo_retrans, 0) + record.count
        return True


def _is_bare(made: Outgoing) -> bool:
    """A pure acknowledgement."""
    return not made.pieces and made.header[13] & ~(ECE | CWR) == ACK


def _says_more(header: bytes, before: Outgoing) -> bool:
    """A bare acknowledgement of more than one that nobody has taken yet, and nothing else: neither
    SACK, which duplicates are counted with, nor a change of ECE."""
    old = before.header
    return (
        _is_bare(before)
        and header[13] == old[13]
        and len(header) == len(old) <= MOST_BARE
        and header[4:8] == old[4:8]
        and 0 < (int.from_bytes(header[8:12]) - int.from_bytes(old[8:12])) & MASK < HALF
    )
