"""A socket that listens: SYNs that were answered, and connections that wait for accept(2).

tcp_conn_request(), tcp_check_req(), reqsk_timer_handler(). Both queues are bounded by the backlog;
beyond it there are cookies, and then nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from sentry.net.tcp import cookies
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.core import DEFAULT_MSS, MAX_UNSCALED, nothing, payload_of, window_of
from sentry.net.tcp.handshake import scale_for
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.request import Agreed, Request, agreed_on
from sentry.net.tcp.segment import ACK, FIN, MASK, RST, SYN, Arrived, Outgoing, header, options_of
from sentry.net.tcp.settings import MS, SECOND, Shared, Tuning
from sentry.net.tcp.stray import reply_to_stray
from sentry.net.tcp.wheel import Wheel

COOKIES_VALID_NS: Final = cookies.MOST_MINUTES * cookies.MINUTE_NS
INITIAL_NS: Final = SECOND
ALWAYS: Final = 2
"""Of net.ipv4.tcp_syncookies: nothing is ever remembered."""


class Listener:
    """What one listening socket has, on all of its addresses."""

    __slots__ = (
        "_cookies_ns", "_wheel", "accepted", "backlog", "defer_seconds", "on_change", "outgoing",
        "requests", "shared", "tuning", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        shared: Shared,
        backlog: int,
        tuning: Tuning | None = None,
        on_change: Callable[[], None] = nothing,
    ) -> None:
        self.shared = shared
        self.backlog = min(backlog & MASK, shared.settings.somaxconn)
        self.tuning = tuning if tuning is not None else Tuning()
        self.defer_seconds = 0
        """TCP_DEFER_ACCEPT."""
        self.on_change = on_change
        """Called when a connection can be accepted."""
        self.waiting: Callable[[], int] = lambda: 0
        """How many connections wait for accept(2) elsewhere."""
        self.requests: dict[Flow, Request] = {}
        self.accepted: deque[Connection] = deque()
        self.outgoing: list[tuple[Flow, Outgoing]] = []
        """What is to be sent, and between whom."""
        self._wheel: Wheel[Flow] = Wheel()
        self._cookies_ns: int | None = None
        """When the last cookie was given."""

    @property
    def is_full(self) -> bool:
        """No more can wait for accept(2): sk_acceptq_is_full()."""
        return len(self.accepted) + self.waiting() > self.backlog

    def take(self) -> list[tuple[Flow, Outgoing]]:
        """The segments that are to be sent."""
        found, self.outgoing = self.outgoing, []
        return found

    def accept(self) -> Connection | None:
        """The connection that has waited longest."""
        return self.accepted.popleft() if self.accepted else None

    def segment(
        self, now_ns: int, flow: Flow, seg: Arrived, mtu: int, iss: int | None = None
    ) -> Connection | None:
        """A segment that belongs to no connection has come; the connection that it completes.

        `mtu` is that of the way back; `iss` what TIME_WAIT wants of a new connection.
        """
        if not seg.checksum_ok:
            return None
        request = self.requests.get(flow)
        if request is not None:
            return self._requested(now_ns, request, seg, mtu)
        if seg.flags & RST:
            return None
        if seg.flags & ACK:
            if not seg.flags & SYN:
                request = self._from_cookie(now_ns, flow, seg, mtu)
                if request is not None:
                    return self._complete(now_ns, request, seg, mtu)
            self._reject(flow, seg)
        elif seg.flags & SYN and not seg.flags & FIN:
            self._ask(now_ns, flow, seg, mtu, iss)
        return None

    def _reject(self, flow: Flow, seg: Arrived) -> None:
        answer = reply_to_stray(seg)
        if answer is not None:
            self._count("Tcp.OutRsts")
            self._reply(flow, answer)

    def _reply(self, flow: Flow, answer: Outgoing) -> None:
        if len(self.outgoing) <= self.backlog + 1:
            self.outgoing.append((flow, answer))

    def _count(self, name: str) -> None:
        self.shared.counters[name] += 1

    # --- SYN

    def _ask(self, now_ns: int, flow: Flow, seg: Arrived, mtu: int, iss: int | None) -> None:
        """tcp_conn_request()."""
        settings = self.shared.settings
        wants_cookie = False
        if settings.tcp_syncookies == ALWAYS or len(self.requests) >= max(self.backlog, 1):
            if not settings.tcp_syncookies or iss is not None:
                self._count("TcpExt.TCPReqQFullDrop")
                return
            wants_cookie = True
        if self.is_full:
            self._count("TcpExt.ListenOverflows")
            return
        if not settings.tcp_syncookies and len(self.requests) * 4 > (
            3 * settings.tcp_max_syn_backlog
        ):
            return
        agreed = agreed_on(seg, settings)
        if wants_cookie and agreed.stamp is None:
            agreed.snd_scale, agreed.has_sack, agreed.has_ecn = None, False, False
        request = self._request(now_ns, flow, agreed, mtu, seg.seq)
        if wants_cookie:
            request.iss = cookies.make(
                self.shared.keyed, now_ns, flow, seg.seq, agreed.mss or DEFAULT_MSS
            )
            if agreed.stamp is not None:
                request.ts_offset = cookies.offset_with(now_ns, request.ts_offset, agreed)
            self._cookies_ns = now_ns
            self._count("TcpExt.SyncookiesSent")
        else:
            request.iss = iss or self.shared.keyed.initial_sequence(now_ns, flow)
            self.requests[flow] = request
            self._wheel.set(flow, now_ns + INITIAL_NS)
        self._reply(flow, request.answer(now_ns))

    def _request(self, now_ns: int, flow: Flow, agreed: Agreed, mtu: int, irs: int) -> Request:
        settings, tuning = self.shared.settings, self.tuning
        scale = 0 if agreed.snd_scale is None else scale_for(settings, tuning.rcvbuf)
        buffer = tuning.rcvbuf or settings.tcp_rmem[1]
        window = min(window_of(buffer, settings, tuning.window_clamp), MAX_UNSCALED)
        largest = min(payload_of(flow, mtu), settings.advmss)
        mss = min(largest, tuning.maxseg or MAX_UNSCALED)
        offset = self.shared.keyed.timestamp_offset(flow)
        return Request(flow, 0, irs, agreed, mss, window, scale, offset, now_ns)

    # --- the third segment

    def _requested(
        self, now_ns: int, request: Request, seg: Arrived, mtu: int
    ) -> Connection | None:
        """tcp_check_req()."""
        flow, flags = request.flow, seg.flags
        is_old = self._is_old(request, seg)
        if seg.seq == request.irs and flags & (RST | FIN | ACK | SYN) == SYN and not is_old:
            self._reply(flow, request.answer(now_ns))
            return None
        if flags & ACK and seg.ack != (request.iss + 1) & MASK:
            self._reject(flow, seg)
            return None
        behind = (seg.seq - request.irs - 1) & MASK
        if is_old or behind > max(request.window, 1):
            if not flags & RST and behind > max(request.window, 1):
                self._reply(flow, self._position(now_ns, request))
            return None
        if flags & (RST | SYN):
            if flags & RST and behind:
                return None
            if flags & SYN:
                self._reject(flow, seg)
            self._forget(flow)
            self._count("TcpExt.EmbryonicRsts")
            return None
        if not flags & ACK:
            return None
        if self.defer_seconds and not seg.length and self._defers(now_ns, request):
            request.acked = True
            return None
        return self._complete(now_ns, request, seg, mtu)

    def _is_old(self, request: Request, seg: Arrived) -> bool:
        """PAWS."""
        if seg.stamps is None or request.agreed.stamp is None:
            return False
        return 0 < ((request.agreed.stamp - seg.stamps[0]) & MASK) < 0x80000000

    def _defers(self, now_ns: int, request: Request) -> bool:
        return now_ns - request.sent_ns < self.defer_seconds * SECOND

    def _position(self, now_ns: int, request: Request) -> Outgoing:
        """Where a handshake is: tcp_v4_reqsk_send_ack()."""
        agreed = request.agreed
        stamps = None
        if agreed.stamp is not None:
            stamps = ((now_ns // MS + request.ts_offset) & MASK, agreed.stamp)
        ports = request.flow.local.port, request.flow.remote.port
        window = request.window >> request.rcv_scale
        options = options_of(stamps)
        return Outgoing(header(ports, request.iss + 1, request.irs + 1, ACK, window, options))

    def _from_cookie(self, now_ns: int, flow: Flow, seg: Arrived, mtu: int) -> Request | None:
        """cookie_v4_check(): only while cookies were given of late."""
        given = self._cookies_ns
        settings = self.shared.settings
        if given is None or now_ns - given > COOKIES_VALID_NS or not settings.tcp_syncookies:
            return None
        irs, iss = (seg.seq - 1) & MASK, (seg.ack - 1) & MASK
        mss = cookies.check(self.shared.keyed, now_ns, flow, irs, iss)
        if not mss:
            self._count("TcpExt.SyncookiesFailed")
            return None
        agreed: Agreed | None = Agreed(mss)
        if seg.stamps is not None:
            agreed = cookies.agreed_in(seg.stamps[1], settings, mss, seg.stamps[0])
            if agreed is None:
                return None
        assert agreed is not None
        self._count("TcpExt.SyncookiesRecv")
        request = self._request(now_ns, flow, agreed, mtu, irs)
        request.iss = iss
        request.sent = 2  # nothing is known of the round trip
        return request

    def _complete(self, now_ns: int, request: Request, seg: Arrived, mtu: int) -> Connection | None:
        """A connection, if there is room for it: tcp_v4_syn_recv_sock()."""
        if self.is_full:
            self._count("TcpExt.ListenOverflows")
            request.acked = True
            if self.shared.settings.tcp_abort_on_overflow:
                self._forget(request.flow)
                self._reject(request.flow, seg)
            return None
        self._forget(request.flow)
        starts = request.iss, request.irs
        made = Connection(request.flow, self.shared, mtu, self.tuning.copy(), starts=starts)
        made.begin(now_ns, request)
        made.segment(now_ns, seg)
        self.accepted.append(made)
        self.on_change()
        return made

    def _forget(self, flow: Flow) -> None:
        self.requests.pop(flow, None)
        self._wheel.drop(flow)

    # --- time

    def timer(self) -> int | None:
        """When `timeout` wants to be called, in nanoseconds."""
        return self._wheel.next_ns()

    def timeout(self, now_ns: int) -> None:
        """Answer again, and forget who never came back: net.ipv4.tcp_synack_retries."""
        most = self.tuning.syn_retries or self.shared.settings.tcp_synack_retries
        for flow in self._wheel.due(now_ns):
            request = self.requests[flow]
            if request.sent > most:
                del self.requests[flow]
                continue
            if not (request.acked and self.defer_seconds and self._defers(now_ns, request)):
                self._reply(flow, request.answer(now_ns))
                self._count("Tcp.RetransSegs")
            wait_ns = INITIAL_NS << request.sent
            request.sent += 1
            self._wheel.set(flow, now_ns + wait_ns)

    def close(self) -> list[Connection]:
        """Listen no more: inet_csk_listen_stop(). What nobody has accepted is to be aborted."""
        self.requests.clear()
        self._wheel = Wheel()
        waiting = list(self.accepted)
        self.accepted.clear()
        return waiting
