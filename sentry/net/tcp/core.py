"""What a connection knows: the state that all that follows works on, and its readiness.

RFC 9293, 3.3. Sequence numbers are places in the streams: plain integers that only grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.abi.socket import (
    BPF_TCP_CLOSE_WAIT as TCP_CLOSE_WAIT,
)
from sentry.abi.socket import (
    BPF_TCP_ESTABLISHED as TCP_ESTABLISHED,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_RECV as TCP_SYN_RECV,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_SENT as TCP_SYN_SENT,
)
from sentry.net.tcp.congestion import KINDS, Cubic, Reno
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.receive_buffer import ReceiveBuffer
from sentry.net.tcp.rtt import RoundTrip
from sentry.net.tcp.scoreboard import Scoreboard
from sentry.net.tcp.segment import MASK, Outgoing
from sentry.net.tcp.send_buffer import SendBuffer
from sentry.net.tcp.settings import MS, Settings, Shared, Tuning
from sentry.net.tcp.tally import Tally

HEADER_SIZE: Final = 20
IP4_SIZE: Final = 20
IP6_SIZE: Final = 40
STAMPS_SIZE: Final = 12
DEFAULT_MSS: Final = 536
"""Of a peer that does not say, and what is first taken for its packets: TCP_MSS_DEFAULT."""
CONNECTED: Final = (TCP_ESTABLISHED, TCP_CLOSE_WAIT)
"""What Tcp.CurrEstab counts, and where more may be sent."""
MAX_UNSCALED: Final = 65535
ATO_MIN_NS: Final = 40 * MS

OPEN: Final = 0
DISORDER: Final = 1
CWR_STATE: Final = 2
RECOVERY: Final = 3
LOSS: Final = 4
"""enum tcp_ca_state: what tcpi_ca_state tells."""

RTO: Final = 1
REORDER: Final = 2
PROBE: Final = 3
PERSIST: Final = 4
"""What the retransmission timer is for: its end, RACK's, a tail loss probe, a window probe."""


def nothing() -> None:
    """Nobody wants to know."""


def payload_of(flow: Flow, mtu: int) -> int:
    """What a packet holds besides headers without options, in bytes."""
    return max(mtu - HEADER_SIZE - (IP4_SIZE if flow.remote.is_v4 else IP6_SIZE), 1)


def window_of(buffer: int, settings: Settings, clamp: int) -> int:
    """The most that may wait to be read in a buffer, in bytes: tcp_full_space()."""
    scale = settings.tcp_adv_win_scale
    space = buffer - (buffer >> scale) if scale > 0 else buffer >> -scale
    return max(min(space, clamp) if clamp else space, 1)


class Core:
    """One connection. What is above adds what it does with a segment, a call, the time."""

    __slots__ = (
        "_dirty", "ack_now", "advmss", "ato_ns", "backoff", "board", "ca_state", "cc",
        "challenge_ns", "cwnd_limited", "delack_at", "delivered", "delivered_ns", "dsack",
        "ecn_demand", "ecn_on", "ecn_reduced", "eof", "error", "fin_at", "fin_queued", "fin_seq",
        "flow", "high_seq", "idle_at", "irs", "iss", "keepalive_at", "keepalive_probes",
        "last_heard_ns", "linger_at", "max_in_flight", "max_window", "mtu", "on_change", "orphan",
        "outgoing", "peer_mss", "pingpong", "prior_window", "probe_since_ns", "probes_out",
        "prr_delivered", "prr_out", "quick", "rack_dsack_round", "rack_end", "rack_ns",
        "rack_persist", "rack_reordering", "rack_rtt_ns", "rack_steps", "rcv", "rcv_mss",
        "rcv_rtt_ns", "rcv_scale", "rcv_space", "rcv_space_at", "rcv_space_seq", "rcv_wnd",
        "rcv_wup", "rcvbuf", "read_shut", "remains", "reno_dups", "reset", "retrans_since_ns",
        "retransmit_at", "retransmit_kind", "retransmits", "rtt", "sack_on", "saw_ect", "scale_on",
        "send_urgent_at", "settings", "shared", "small_end", "snd_nxt", "snd_scale", "snd_una",
        "snd_wl1", "snd_wnd", "sndbuf", "soft_error", "stamps_on", "state", "stream", "syn_ns",
        "tally", "throttled", "tlp_end", "tlp_retransmitted", "ts_offset", "ts_recent",
        "ts_recent_ns", "tuning", "undo_marker", "undo_retrans", "undo_stamp", "undo_threshold",
        "undo_window", "urgent_at", "urgent_byte", "urgent_count", "urgent_state", "usage_end",
        "was_connected", "write_shut",
    )  # fmt: skip

    def __init__(
        self,
        flow: Flow,
        shared: Shared,
        mtu: int,
        tuning: Tuning | None = None,
        on_change: Callable[[], None] = nothing,
        starts: tuple[int, int] = (0, 0),
    ) -> None:
        """`starts`: the sequence numbers of both SYNs, ours first, where they are known."""
        self.flow = flow
        self.shared = shared
        self.settings = settings = shared.settings
        self.tuning = tuning if tuning is not None else Tuning()
        self.on_change = on_change
        """Called once at the end of a step in which what can be asked has changed."""
        self.state = TCP_CLOSE
        """TCP_*, as tcpi_state tells it."""
        self.mtu = mtu
        """Of the path, in bytes."""
        self.outgoing: deque[Outgoing] = deque()
        """Segments to be sent, which `take` hands over."""
        self.tally = Tally()
        self._dirty = False
        self._clear_ends()
        self._clear_timers()
        self.tuning.rcvlowat = max(1, self.tuning.rcvlowat)
        self.rcvbuf = self.tuning.rcvbuf or settings.tcp_rmem[1]
        self.sndbuf = self.tuning.sndbuf or settings.tcp_wmem[1]
        largest = min(payload_of(flow, mtu), settings.advmss)
        self.advmss = min(largest, self.tuning.maxseg or MAX_UNSCALED)
        self.peer_mss = DEFAULT_MSS
        self.rcv_mss = min(DEFAULT_MSS, self.advmss)
        self.stamps_on = self.sack_on = self.scale_on = self.ecn_on = False
        self.snd_scale = self.rcv_scale = 0
        self.ts_offset = shared.keyed.timestamp_offset(flow)
        self.ts_recent = 0
        self.ts_recent_ns = 0
        self.rtt = RoundTrip(settings.tcp_rto_min_us * 1000)
        kind = self.tuning.congestion or settings.tcp_congestion_control
        self.cc: Reno = KINDS.get(kind, Cubic)(DEFAULT_MSS)
        self._begin_sending(starts[0])
        self._begin_receiving(starts[1])

    def _clear_ends(self) -> None:
        """How it ends, or has ended."""
        self.error = 0
        """SO_ERROR."""
        self.soft_error = 0
        """What ICMP said that need not be the end: what a time-out is told as."""
        self.eof = False
        """The other end has sent its FIN."""
        self.reset = False
        """It was torn down."""
        self.read_shut = self.write_shut = False
        self.orphan = False
        """The program has closed it."""
        self.was_connected = False
        self.remains: tuple[int, int] | None = None
        """(state, seconds): what has to be left in the table of TIME_WAIT."""
        self.fin_queued = False
        """A FIN follows what is in the send buffer."""
        self.fin_seq: int | None = None
        """Where it was sent."""
        self.fin_at: int | None = None
        """Where the other end's is, once it came, even if it came early."""

    def _clear_timers(self) -> None:
        """Points of time; None: not set."""
        self.retransmit_at: int | None = None
        self.retransmit_kind = RTO
        self.delack_at: int | None = None
        self.keepalive_at: int | None = None
        self.linger_at: int | None = None
        """When an orphan in FIN_WAIT2 is given up."""

    def _begin_sending(self, iss: int) -> None:
        """What there is to know about sending, from a sequence number on."""
        self.iss = iss
        self.snd_una = self.snd_nxt = iss
        self.snd_wnd = self.snd_wl1 = self.max_window = 0
        self.stream = SendBuffer(iss + 1)
        self.board = Scoreboard()
        self.small_end = iss
        """Behind the last packet that was less than an MSS: snd_sml."""
        self.send_urgent_at = iss
        """Behind the last urgent byte: SND.UP."""
        self.throttled = False
        """Nobody took the segments that are there."""
        self.cwnd_limited = False
        self.max_in_flight = 0
        self.usage_end = iss
        """The most in this round, and where that ends."""
        self.ca_state = OPEN
        self.high_seq = iss
        self.prior_window = self.prr_delivered = self.prr_out = 0
        self.undo_marker: int | None = None
        self.undo_window = self.undo_threshold = self.undo_retrans = 0
        self.undo_stamp: int | None = None
        self.reno_dups = 0
        self.retransmits = self.backoff = 0
        self.syn_ns = 0
        self.retrans_since_ns = 0
        self.probes_out = 0
        self.probe_since_ns = 0
        self.keepalive_probes = 0
        self.rack_ns = self.rack_end = self.rack_rtt_ns = 0
        self.rack_steps = 1
        self.rack_persist = 0
        self.rack_dsack_round: int | None = None
        self.rack_reordering = False
        self.tlp_end: int | None = None
        self.tlp_retransmitted = False
        self.delivered = self.delivered_ns = 0
        self.idle_at = 0
        """When something was sent last."""
        self.ecn_reduced = False
        """The next new segment tells that the window was reduced: CWR."""

    def _begin_receiving(self, irs: int) -> None:
        """What there is to know about receiving, from the other end's SYN on."""
        self.irs = irs
        self.rcv = ReceiveBuffer(irs + 1)
        self.rcv_wup = irs + 1
        self.rcv_wnd = 0
        self.ack_now = False
        self.quick = 0
        self.pingpong = False
        self.ato_ns = 0
        self.dsack: tuple[int, int] | None = None
        self.ecn_demand = False
        self.saw_ect = False
        """A packet came that may be marked."""
        self.last_heard_ns = 0
        self.challenge_ns: int | None = None
        self.urgent_at: int | None = None
        """The place of the urgent byte: a read stops before it."""
        self.urgent_byte = 0
        self.urgent_state = 0
        self.urgent_count = 0
        """How many marks came: SIGURG for each."""
        self.rcv_space = 0
        self.rcv_space_at = 0
        self.rcv_space_seq = irs + 1
        self.rcv_rtt_ns = 0

    # --- sizes

    def mss_with(self, options: int) -> int:
        """How much fits into a packet with options of so many bytes: tcp_current_mss()."""
        whole = min(
            self.peer_mss, payload_of(self.flow, self.mtu), self.tuning.maxseg or MAX_UNSCALED
        )
        size = max(whole, self.settings.tcp_min_snd_mss) - options
        if self.max_window:
            # a peer that never has room for two packets gets smaller ones: RFC 9293, 3.8.6.2.1
            half = self.max_window // 2 if self.max_window > DEFAULT_MSS else self.max_window
            size = min(size, max(half, 68 - HEADER_SIZE))
        return max(size, 8)

    @property
    def mss(self) -> int:
        """How much goes into a packet that carries no SACK."""
        return self.mss_with(STAMPS_SIZE if self.stamps_on else 0)

    def full_window(self) -> int:
        """The most that may wait to be read, in bytes."""
        return window_of(self.rcvbuf, self.settings, self.tuning.window_clamp)

    # --- readiness

    @property
    def unsent(self) -> int:
        """Bytes that were never sent."""
        return max(self.stream.end - max(self.snd_nxt, self.stream.start), 0)

    @property
    def room(self) -> int:
        """How many bytes `send` would take now."""
        return max(self.sndbuf - len(self.stream), 0)

    @property
    def has_output(self) -> bool:
        """`take` may have something."""
        return bool(self.outgoing) or self.throttled

    @property
    def memory(self) -> int:
        """Bytes that it keeps, at the most; what came early counts with its holes."""
        early = self.rcv.early.ends
        return len(self.stream) + self.rcv.queued + (early[-1] - self.rcv.next if early else 0)

    @property
    def connected(self) -> bool:
        """The handshake is over, and so is not the connection."""
        return self.was_connected and self.state != TCP_CLOSE

    @property
    def is_over(self) -> bool:
        """Nothing that comes is for it any more."""
        return self.state == TCP_CLOSE

    @property
    def readable(self) -> bool:
        """A read does not wait: EPOLLIN."""
        if self.eof or self.read_shut or (self.state == TCP_CLOSE and self.reset):
            return True
        # an urgent byte that is not in line is nothing to be read
        is_at_mark = self.urgent_state and self.urgent_at == self.rcv.read
        queued = self.rcv.queued - bool(is_at_mark and not self.tuning.oob_inline)
        return queued >= self.tuning.rcvlowat or (
            # no more comes before something is read: tcp_epollin_ready()
            queued > 0 and self.rcv_wup + self.rcv_wnd - self.rcv.next <= self.rcv_mss
        )

    @property
    def writable(self) -> bool:
        """There is room worth writing for: EPOLLOUT. sk_stream_is_writeable()."""
        if self.state in (TCP_SYN_SENT, TCP_SYN_RECV):
            return False
        if self.write_shut:
            return True
        lowat = self.tuning.notsent_lowat or self.settings.tcp_notsent_lowat
        used = len(self.stream)
        return self.sndbuf - used >= used // 2 and self.unsent < lowat

    @property
    def hung_up(self) -> bool:
        """Both ways are over: EPOLLHUP."""
        return self.state == TCP_CLOSE or ((self.read_shut or self.eof) and self.write_shut)

    @property
    def urgent(self) -> bool:
        """An urgent byte is there that nobody has read: EPOLLPRI."""
        return self.urgent_state == 2

    def take_error(self) -> int:
        """SO_ERROR: the errno, which is told once; 0: none."""
        number, self.error = self.error, 0
        return number

    # --- changes

    def _changed(self) -> None:
        self._dirty = True

    def _tell(self) -> None:
        """The end of a step."""
        if self._dirty:
            self._dirty = False
            self.on_change()

    def _count(self, name: str) -> None:
        self.shared.counters[name] += 1

    def _set_state(self, state: int) -> None:
        change = (state in CONNECTED) - (self.state in CONNECTED)
        if change:
            self.shared.counters["Tcp.CurrEstab"] += change
        self.state = state
        self._changed()

    def _close_now(self) -> None:
        """There is nothing left to do: tcp_done()."""
        self._set_state(TCP_CLOSE)
        self._clear_timers()
        self.write_shut = True
        self.throttled = False
        self.stream.acknowledge(self.stream.end)
        self.board.unlink()
        self.board = Scoreboard()
        if self.orphan:
            self.rcv.clear()

    def _fail(self, number: int) -> None:
        """It ends with an error: tcp_reset(), tcp_write_err()."""
        if self.state in CONNECTED:
            self._count("Tcp.EstabResets")
        elif self.state in (TCP_SYN_SENT, TCP_SYN_RECV):
            self._count("Tcp.AttemptFails")
        self.error = number
        self.reset = self.read_shut = True
        self._close_now()

    def stamp(self, now_ns: int) -> int:
        """TSval: milliseconds, from an offset on."""
        return (now_ns // MS + self.ts_offset) & MASK
