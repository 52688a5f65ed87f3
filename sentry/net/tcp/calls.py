"""What the program does with a connection, and what ICMP says of it. tcp(7), net/ipv4/tcp.c."""

from __future__ import annotations

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
from sentry.abi.socket import SHUT_RD, SHUT_RDWR, SHUT_WR
from sentry.errors import EINVAL, ENOTCONN, EPIPE
from sentry.net.tcp.congestion import KINDS
from sentry.net.tcp.core import LOSS
from sentry.net.tcp.handshake import Handshake
from sentry.net.tcp.receiving import NO_URGENT, URGENT_READ
from sentry.net.tcp.segment import Outgoing, unwrap
from sentry.net.tcp.settings import SECOND

LEAST_MTU4 = 68
LEAST_MTU6 = 1280


HAS_TO_RESET = frozenset(
    (TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_SYN_RECV)
)
"""tcp_need_reset()."""


class Calls(Handshake):
    """The side of a connection that the program holds."""

    __slots__ = ()

    def take(self, now_ns: int) -> list[Outgoing]:
        """The segments that are to be sent, in order."""
        found = list(self.outgoing)
        self.outgoing.clear()
        if self.throttled and self.state != TCP_CLOSE:
            self._retransmit_lost(now_ns)
            self._push(now_ns)
        return found

    # --- sending

    def send(self, now_ns: int, data: bytes | memoryview) -> int:
        """Queue bytes, which must not change any more; how many. 0: there is no room.

        Raises: EPIPE.
        """
        return self._queue(now_ns, data)

    def send_more(self, now_ns: int, data: bytes | memoryview) -> int:
        """MSG_MORE: what does not fill a packet waits for what follows."""
        return self._queue(now_ns, data, hold=True)

    def send_urgent(self, now_ns: int, data: bytes | memoryview) -> int:
        """MSG_OOB: the last byte is urgent."""
        return self._queue(now_ns, data, is_urgent=True)

    def _queue(
        self, now_ns: int, data: bytes | memoryview, *, hold: bool = False, is_urgent: bool = False
    ) -> int:
        if self.write_shut or self.fin_queued or self.state == TCP_CLOSE:
            raise EPIPE("it is shut")
        room = self.room if self.was_connected else 0
        if room <= 0:
            return 0
        whole = memoryview(data)
        view = whole[:room]
        # what is held is no more than twice what counts
        self.stream.append(view if len(whole) <= 2 * len(view) else memoryview(bytes(view)))
        is_whole = len(view) == len(whole)
        if is_urgent and is_whole:
            self.send_urgent_at = self.stream.end
        self._push(now_ns, hold=hold and is_whole)
        self._tell()
        return len(view)

    def tuned(self, now_ns: int) -> None:
        """TCP_NODELAY, TCP_CORK or a buffer's size was set: send what need not wait any more."""
        if self.tuning.sndbuf:
            self.sndbuf = self.tuning.sndbuf
        if self.tuning.rcvbuf:
            self.rcvbuf = self.tuning.rcvbuf
        self._push(now_ns, force=self.tuning.nodelay and not self.tuning.cork)
        self._changed()
        self._tell()

    def set_congestion(self, name: str) -> None:
        """TCP_CONGESTION: another way from here on. Raises: KeyError."""
        made = KINDS[name](self.cc.mss)
        made.window, made.threshold = self.cc.window, self.cc.threshold
        self.tuning.congestion = name
        self.cc = made

    # --- receiving

    def receive(self, now_ns: int, size: int) -> list[memoryview]:
        """Up to so many bytes of the stream; an urgent mark ends a read. None of them: nothing is
        there, and `eof` and `error` say whether more may come."""
        mark = self.mark
        if mark:
            size = min(size, mark)
        elif mark == 0 and size:
            self.pass_mark()
        pieces = self.rcv.take(size)
        if pieces:
            self._read_some(now_ns, size)
            self._changed()
        self._tell()
        return pieces

    def pass_mark(self) -> None:
        """A read goes on behind the urgent mark, once its byte is there: who has not asked for that
        has lost it. Preconditions: nothing is before it."""
        if not self.rcv.queued:
            return
        if not self.tuning.oob_inline:
            self.rcv.take(1)
        self.urgent_state, self.urgent_at = NO_URGENT, None
        self._changed()

    def peek(self, size: int, skip: int = 0) -> list[memoryview]:
        """MSG_PEEK: the same bytes, from `skip` on, which stay."""
        mark = self.mark
        if mark is not None and not self.tuning.oob_inline:
            if mark > skip:
                size = min(size, mark - skip)
            else:
                skip += 1
        return self.rcv.peek(size, skip)

    @property
    def available(self) -> int:
        """FIONREAD."""
        mark = self.mark
        if mark is None or self.tuning.oob_inline or mark >= self.rcv.queued:
            return self.rcv.queued
        if mark == 0 and self.urgent_state == URGENT_READ:
            return max(self.rcv.queued - 1, 0)
        return mark

    # --- the end

    def shutdown(self, now_ns: int, how: int) -> None:
        """shutdown(2). Raises: ENOTCONN, EINVAL."""
        if how not in (SHUT_RD, SHUT_WR, SHUT_RDWR):
            raise EINVAL("how")
        if self.state == TCP_CLOSE:
            raise ENOTCONN("not connected")
        if how in (SHUT_RD, SHUT_RDWR):
            self.read_shut = True
        if how in (SHUT_WR, SHUT_RDWR):
            self._finish(now_ns)
        self._changed()
        self._tell()

    def _finish(self, now_ns: int) -> None:
        """A FIN follows what is to be sent: tcp_send_fin()."""
        if self.write_shut:
            return
        if self.state == TCP_SYN_SENT:
            self._close_now()
            return
        self.write_shut = self.fin_queued = True
        if self.state == TCP_ESTABLISHED:
            self._set_state(TCP_FIN_WAIT1)
        elif self.state == TCP_CLOSE_WAIT:
            self._set_state(TCP_LAST_ACK)
        self._push(now_ns)

    def close(self, now_ns: int) -> None:
        """The last descriptor is closed: a FIN, or a reset where bytes were not read. tcp_close().

        What is left goes on by itself until its state is TCP_CLOSE.
        """
        if self.orphan:
            return
        self.orphan = self.read_shut = True
        has_unread = self.rcv.queued > 0
        if self.state == TCP_CLOSE:
            self.rcv.clear()
        elif has_unread or self.state == TCP_SYN_RECV:
            self._count("TcpExt.TCPAbortOnClose")
            self._tear_down(now_ns)
        else:
            self._finish(now_ns)
            if self.state == TCP_FIN_WAIT2:
                self._wait_without_socket(now_ns)
        self._tell()

    def abort(self, now_ns: int) -> None:
        """End at once, with a reset: SO_LINGER of 0, connect(2) to AF_UNSPEC."""
        self._tear_down(now_ns)
        self._tell()

    def destroy(self, now_ns: int, number: int) -> None:
        """Others end it, with a reset and this errno: tcp_abort()."""
        if self.state != TCP_CLOSE:
            self.error = number
            self._tear_down(now_ns)
            self._tell()

    def _tear_down(self, now_ns: int) -> None:
        if self.state in HAS_TO_RESET:
            self._send_reset(now_ns)
        self.reset = self.read_shut = True
        if self.state != TCP_CLOSE:
            self._close_now()

    def _wait_without_socket(self, now_ns: int) -> None:
        """FIN_WAIT2 of what nobody holds: TCP_LINGER2, net.ipv4.tcp_fin_timeout."""
        if self.tuning.linger2 < 0:
            self._send_reset(now_ns)
            self._close_now()
            return
        self._leave(TCP_FIN_WAIT2, self._linger_seconds())

    def _linger_seconds(self) -> int:
        """tcp_fin_time()."""
        seconds = self.tuning.linger2 or self.settings.tcp_fin_timeout
        return max(seconds, -(-self.rtt.rto_ns * 7 // (2 * SECOND)))

    # --- ICMP

    def is_under_way(self, seq: int) -> bool:
        """What an error quotes is under way: RFC 5927, 4.1."""
        place = unwrap(seq, self.snd_una)
        return self.snd_una <= place < max(self.snd_nxt, self.snd_una + 1)

    def icmp_error(self, now_ns: int, seq: int, number: int, *, is_told: bool = False) -> None:
        """An error for a segment of this sequence number: tcp_v4_err(), tcp_v6_err().

        `number` is the errno. It ends what is not connected yet, and is no more than a reason else,
        whatever its code: RFC 5927, 5. `is_told`: the program wants to know (IP_RECVERR).
        """
        if self.state == TCP_CLOSE:
            return
        if not self.is_under_way(seq):
            self._count("TcpExt.OutOfWindowIcmps")
        elif self.state in (TCP_SYN_SENT, TCP_SYN_RECV):
            self._fail(number)
        else:
            self.soft_error = number
            if is_told:
                self.error = number
                self._changed()
            if self.retransmits and self.backoff and unwrap(seq, self.snd_una) == self.snd_una:
                self.backoff -= 1  # the network said it: RFC 6069
                self._arm_rto(now_ns)
        self._tell()

    def path_mtu(self, now_ns: int, seq: int, mtu: int) -> None:
        """A packet was too large for the path: tcp_v4_mtu_reduced(), RFC 1191."""
        if self.state == TCP_CLOSE or not self.is_under_way(seq):
            return
        mtu = max(mtu, LEAST_MTU4 if self.flow.remote.is_v4 else LEAST_MTU6)
        if mtu >= self.mtu:
            return
        self.mtu = mtu
        if self.state in (TCP_SYN_SENT, TCP_SYN_RECV):
            return
        self.cc.set_mss(self.mss)
        if self.board.records:
            self._send_smaller(now_ns)
        self._tell()

    def set_mtu(self, mtu: int) -> None:
        """The route has another MTU now."""
        self.mtu = mtu
        if self.was_connected:
            self.cc.set_mss(self.mss)

    def _send_smaller(self, now_ns: int) -> None:
        """What was too large is sent again, at the same pace: tcp_simple_retransmit()."""
        board = self.board
        for record in list(board.records):
            if record.end - record.start > self.cc.mss and not record.sacked:
                board.mark_lost(record)
        if not board.lost_count:
            return
        if self.ca_state != LOSS:
            self.high_seq = self.snd_nxt
            self.cc.threshold = max(self.cc.window, 2 * self.cc.mss)
            self.undo_marker = None
            self.ca_state = LOSS
        self._retransmit_lost(now_ns)
