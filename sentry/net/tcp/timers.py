"""What happens when nothing comes: time-outs, window probes, keepalive. net/ipv4/tcp_timer.c."""

from __future__ import annotations

from typing import Final

from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.errors import ETIMEDOUT
from sentry.net.tcp.core import PERSIST, PROBE, REORDER
from sentry.net.tcp.output import SENDING
from sentry.net.tcp.receiving import Receiving
from sentry.net.tcp.settings import MS, SECOND

ORPHAN_RETRIES: Final = 8
"""Where net.ipv4.tcp_orphan_retries is 0."""


def time_of(retries: int, first_ns: int, most_ns: int) -> int:
    """How long so many retransmissions take that each wait twice as long: tcp_model_timeout()."""
    doublings = max((most_ns // first_ns).bit_length() - 1, 0)
    if retries <= doublings:
        return ((2 << retries) - 1) * first_ns
    return ((2 << doublings) - 1) * first_ns + (retries - doublings) * most_ns


class Timers(Receiving):
    """The side of a connection that grows impatient."""

    __slots__ = ()

    def timer(self) -> int | None:
        """When `timeout` wants to be called, in nanoseconds; None: it need not be."""
        found = None
        for at in (self.retransmit_at, self.delack_at, self.keepalive_at, self.linger_at):
            if at is not None and (found is None or at < found):
                found = at
        return found

    def timeout(self, now_ns: int) -> None:
        """What is due. To be called too early does no harm."""
        if self.linger_at is not None and now_ns >= self.linger_at:
            self._close_now()
        if self.delack_at is not None and now_ns >= self.delack_at:
            self.delack_at = None
            self._delack_fired(now_ns)
        if self.retransmit_at is not None and now_ns >= self.retransmit_at:
            self.retransmit_at = None
            self._retransmit_fired(now_ns)
        if self.keepalive_at is not None and now_ns >= self.keepalive_at:
            self.keepalive_at = None
            self._keepalive_fired(now_ns)
        self._tell()

    def _retransmit_fired(self, now_ns: int) -> None:
        if self.retransmit_kind == PERSIST:
            self._persist_fired(now_ns)
        elif self.retransmit_kind == REORDER:
            self._reorder_fired(now_ns)
            self._push(now_ns)
        elif self.retransmit_kind == PROBE:
            self._probe_fired(now_ns)
        else:
            self._rto_fired(now_ns)

    # --- retransmission

    def _retries(self) -> int:
        if not self.orphan:
            return self.settings.tcp_retries2
        return self.settings.tcp_orphan_retries or (0 if self.soft_error else ORPHAN_RETRIES)

    def _gives_up(self, now_ns: int) -> bool:
        """tcp_write_timeout(): by net.ipv4.tcp_retries2, in time, or TCP_USER_TIMEOUT."""
        if not self.retransmits:
            return False
        limit_ns = self.tuning.user_timeout_ms * MS or time_of(
            self._retries(), self.settings.tcp_rto_min_us * 1000, self.settings.tcp_rto_max_ms * MS
        )
        return now_ns - self.retrans_since_ns >= limit_ns

    def _give_up(self) -> None:
        self._count("TcpExt.TCPAbortOnTimeout")
        self._fail(self.soft_error or ETIMEDOUT.number)

    def _rto_fired(self, now_ns: int) -> None:
        """tcp_retransmit_timer(): RFC 6298, 5.4 to 5.7."""
        if not self.board.records:
            return
        is_shrunk = not self.snd_wnd and not self.orphan
        if is_shrunk:
            # the other end has taken its window back: it is alive as long as it answers
            if now_ns - self.last_heard_ns > self.settings.tcp_rto_max_ms * MS:
                self._give_up()
                return
        elif self._gives_up(now_ns):
            self._give_up()
            return
        if not self.retransmits:
            self.retrans_since_ns = now_ns
            self.tally.total_rto_recoveries += 1
            self.tally.rto_since_ns = now_ns
        self.tally.total_rto += 1
        self._count("TcpExt.TCPTimeouts")
        self._enter_loss()
        if not is_shrunk:
            self.retransmits += 1
        record = self.board.next_lost()
        if record is not None:
            self._retransmit(now_ns, record, self.cc.mss)
        self.backoff += 1
        self._arm_rto(now_ns)

    # --- a window that is closed

    def _persist_fired(self, now_ns: int) -> None:
        """tcp_probe_timer(), RFC 9293, 3.8.6.1: also what TCP_CORK held for long enough."""
        waiting = self.unsent or (self.fin_queued and self.fin_seq is None)
        if self.board.records or not waiting or self.state not in SENDING:
            self.probes_out = 0
            return
        if not self.probe_since_ns:
            self.probe_since_ns = now_ns
        elif (
            self.tuning.user_timeout_ms
            and now_ns - self.probe_since_ns >= self.tuning.user_timeout_ms * MS
        ):
            self._give_up()
            return
        is_patient = not self.orphan or self.rto_ns < self.settings.tcp_rto_max_ms * MS
        if self.probes_out >= self._retries() or not is_patient:
            self._give_up()
            return
        if self._wake(now_ns):
            self.probes_out = self.backoff = 0
            return
        self.probes_out += 1
        self.backoff += self.backoff < self.settings.tcp_retries2
        self._arm_persist(now_ns)

    def _wake(self, now_ns: int) -> bool:
        """Send what little fits, else something that has to be answered. tcp_write_wakeup()."""
        window = self.snd_una + self.snd_wnd - self.snd_nxt
        has_fin = self.fin_queued and self.fin_seq is None
        if window > 0 and (self.unsent or has_fin):
            options = self._options(now_ns)
            mss = self.mss_with(len(options))
            size = min(self.unsent, window, mss)
            has_fin = has_fin and size == self.unsent and window > size
            self._send_new(now_ns, size, has_fin, mss, options)
            self._arm_rto(now_ns)
            self._push(now_ns, force=True)
            return True
        if self.snd_una < self.send_urgent_at <= self.snd_una + 0xFFFF:
            self._send_probe(now_ns, 1)
        self._count("TcpExt.TCPWinProbe")
        self._send_probe(now_ns)
        return False

    # --- keepalive

    def _keepalive_times(self) -> tuple[int, int, int]:
        """After how many seconds, how far apart, how many."""
        tuning, settings = self.tuning, self.settings
        return (
            tuning.keepalive_time or settings.tcp_keepalive_time,
            tuning.keepalive_intvl or settings.tcp_keepalive_intvl,
            tuning.keepalive_probes or settings.tcp_keepalive_probes,
        )

    def set_keepalive(self, now_ns: int) -> None:
        """SO_KEEPALIVE or its times were set: tcp_set_keepalive(), tcp_sock_set_keepidle()."""
        self.keepalive_at = None
        if self.tuning.keepalive and self.connected:
            idle_ns = now_ns - max(self.last_heard_ns, self.tally.last_ack_received_ns)
            left_ns = self._keepalive_times()[0] * SECOND - idle_ns
            self.keepalive_at = now_ns + max(left_ns, 0)

    def _keepalive_fired(self, now_ns: int) -> None:
        """tcp_keepalive_timer(): RFC 9293, 3.8.4."""
        if not self.tuning.keepalive or self.state == TCP_CLOSE:
            return
        after, apart, most = self._keepalive_times()
        if self.board.records or self.unsent:
            self.keepalive_at = now_ns + after * SECOND
            return
        idle_ns = now_ns - self.last_heard_ns
        if idle_ns < after * SECOND:
            self.keepalive_at = now_ns + after * SECOND - idle_ns
            return
        user_ns = self.tuning.user_timeout_ms * MS
        probes = self.keepalive_probes
        if (user_ns and idle_ns >= user_ns and probes) or (not user_ns and probes >= most):
            self._send_reset(now_ns)
            self._give_up()
            return
        self._count("TcpExt.TCPKeepAlive")
        self._send_probe(now_ns)
        self.keepalive_probes += 1
        self.keepalive_at = now_ns + apart * SECOND
