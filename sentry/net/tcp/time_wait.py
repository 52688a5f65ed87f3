"""What a connection leaves behind when it is over: TIME_WAIT, and FIN_WAIT2 of what nobody holds.

RFC 9293, 3.6.1; RFC 6191 for who comes again meanwhile; tcp_timewait_state_process().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT2 as TCP_FIN_WAIT2,
)
from sentry.abi.socket import (
    BPF_TCP_TIME_WAIT as TCP_TIME_WAIT,
)
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.receiving import TIME_WAIT_SECONDS
from sentry.net.tcp.segment import (
    ACK,
    FIN,
    HALF,
    MASK,
    RST,
    SYN,
    Arrived,
    Outgoing,
    header,
    options_of,
    unwrap,
)
from sentry.net.tcp.settings import MS, SECOND, Shared
from sentry.net.tcp.stray import reply_to_stray
from sentry.net.tcp.wheel import Wheel

AHEAD: Final = 65535 + 2
"""How far ahead of the old one a new connection begins: as Linux has it."""
REUSE_NS: Final = SECOND


class Remains(Struct):
    """struct tcp_timewait_sock."""

    flow: Flow
    state: int
    """TIME_WAIT or FIN_WAIT2."""
    snd_nxt: int
    rcv_nxt: int
    window: int
    """What is offered, in bytes."""
    rcv_scale: int
    stamps_on: bool
    ts_recent: int
    ts_recent_ns: int
    ts_offset: int
    answered_ns: int | None = None

    @property
    def next_iss(self) -> int:
        """Where a new connection between the two begins, beyond all that the old one sent."""
        return (self.snd_nxt + AHEAD) & MASK or 1


class Verdict(Struct):
    """What became of a segment."""

    reply: Outgoing | None = None
    iss: int | None = None
    """It is a SYN of a new connection, whose answer is to have this number; the old one is gone
    once somebody listens."""


class TimeWait:
    """Those of one network namespace; net.ipv4.tcp_max_tw_buckets at most."""

    __slots__ = ("_shared", "_table", "_wheel", "on_change")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._table: dict[Flow, Remains] = {}
        self._wheel: Wheel[Flow] = Wheel()
        self.on_change: Callable[[Flow], None] = lambda flow: None
        """Called when one comes, changes its state, or has gone."""

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Remains]:
        return iter(list(self._table.values()))

    def get(self, flow: Flow) -> Remains | None:
        """What is left of a connection."""
        return self._table.get(flow)

    def add(self, now_ns: int, connection: Connection) -> None:
        """What `connection.remains` asks for; beyond the ceiling nothing: tcp_time_wait()."""
        if connection.remains is None:
            return
        state, seconds = connection.remains
        connection.remains = None
        if len(self._table) >= self._shared.settings.tcp_max_tw_buckets:
            self._shared.counters["TcpExt.TCPTimeWaitOverflow"] += 1
            return
        flow = connection.flow
        self._table[flow] = Remains(
            flow, state, connection.snd_nxt, connection.rcv.next, connection.rcv_wnd,
            connection.rcv_scale, connection.stamps_on, connection.ts_recent,
            connection.ts_recent_ns, connection.ts_offset,
        )  # fmt: skip
        self._wheel.set(flow, now_ns + seconds * SECOND)
        self.on_change(flow)

    def remove(self, flow: Flow) -> None:
        """It is over: its time is, a reset has come, or a new connection begins."""
        if self._table.pop(flow, None) is not None:
            self._wheel.drop(flow)
            self.on_change(flow)

    def may_reuse(self, now_ns: int, flow: Flow, *, is_loopback: bool) -> bool:
        """Whether connect(2) may begin anew here: tcp_twsk_unique(), RFC 6191.

        Timestamps have to tell old from new, and those of the other end tick once a second at
        least.
        """
        left = self._table.get(flow)
        if left is None:
            return True
        reuse = self._shared.settings.tcp_tw_reuse
        allowed = reuse == 1 or (reuse == 2 and is_loopback)
        return (
            allowed
            and left.state == TCP_TIME_WAIT
            and left.stamps_on
            and now_ns - left.ts_recent_ns > REUSE_NS
        )

    def timer(self) -> int | None:
        """When `timeout` wants to be called, in nanoseconds."""
        return self._wheel.next_ns()

    def timeout(self, now_ns: int) -> None:
        """Forget those whose time is over."""
        for flow in self._wheel.due(now_ns):
            del self._table[flow]
            self.on_change(flow)

    # --- segments

    def segment(self, now_ns: int, left: Remains, seg: Arrived) -> Verdict:
        """A segment for one of them has come."""
        if not seg.checksum_ok:
            return Verdict()
        seq = unwrap(seg.seq, left.rcv_nxt)
        end = seq + seg.length
        is_old = self._is_old(left, seg)
        if left.state == TCP_FIN_WAIT2:
            return self._half(now_ns, left, seg, seq, is_old)
        flags = seg.flags
        if not is_old and seq == left.rcv_nxt and (seq == end or flags & RST):
            if flags & RST and not self._shared.settings.tcp_rfc1337:
                self.remove(left.flow)
            else:
                self._renew(now_ns, left, seg)
            return Verdict()
        if flags & (SYN | RST | ACK) == SYN and not is_old:
            is_newer = (
                seg.stamps is not None
                and left.stamps_on
                and ((left.ts_recent - seg.stamps[0]) & MASK >= HALF)
            )
            if seq > left.rcv_nxt or is_newer:
                return Verdict(reply=self._answer(now_ns, left), iss=left.next_iss)
        if flags & RST:
            return Verdict()
        if is_old or flags & ACK:
            self._wheel.set(left.flow, now_ns + TIME_WAIT_SECONDS * SECOND)
        return Verdict(self._answer(now_ns, left))

    def _half(self, now_ns: int, left: Remains, seg: Arrived, seq: int, is_old: bool) -> Verdict:
        """FIN_WAIT2: only a FIN is waited for, nobody takes data."""
        flags, end = seg.flags, seq + seg.length
        if is_old or end < left.rcv_nxt or seq > left.rcv_nxt + left.window:
            return Verdict() if flags & RST else Verdict(self._answer(now_ns, left))
        if flags & RST:
            self.remove(left.flow)
            return Verdict()
        if flags & SYN and seq >= left.rcv_nxt:
            return Verdict(reply_to_stray(seg))
        if not flags & ACK or end <= left.rcv_nxt or end == seq:
            return Verdict()
        if not flags & FIN or end != left.rcv_nxt + 1:
            self.remove(left.flow)
            return Verdict(reply_to_stray(seg))
        left.state = TCP_TIME_WAIT
        left.rcv_nxt = end
        self._renew(now_ns, left, seg)
        left.answered_ns = None
        self.on_change(left.flow)
        return Verdict(self._answer(now_ns, left))

    def _is_old(self, left: Remains, seg: Arrived) -> bool:
        """PAWS."""
        if seg.stamps is None or not left.stamps_on:
            return False
        return 0 < ((left.ts_recent - seg.stamps[0]) & MASK) < HALF

    def _renew(self, now_ns: int, left: Remains, seg: Arrived) -> None:
        if seg.stamps is not None and left.stamps_on:
            left.ts_recent, left.ts_recent_ns = seg.stamps[0], now_ns
        self._wheel.set(left.flow, now_ns + TIME_WAIT_SECONDS * SECOND)

    def _answer(self, now_ns: int, left: Remains) -> Outgoing | None:
        """Where it stood: net.ipv4.tcp_invalid_ratelimit bounds how often. tcp_v4_send_ack()."""
        limit_ns = self._shared.settings.tcp_invalid_ratelimit * MS
        if left.answered_ns is not None and now_ns - left.answered_ns < limit_ns:
            return None
        left.answered_ns = now_ns
        stamps = None
        if left.stamps_on:
            stamps = (now_ns // MS + left.ts_offset) & MASK, left.ts_recent
        ports = left.flow.local.port, left.flow.remote.port
        window = min(left.window >> left.rcv_scale, 0xFFFF)
        options = options_of(stamps)
        return Outgoing(header(ports, left.snd_nxt, left.rcv_nxt, ACK, window, options))
