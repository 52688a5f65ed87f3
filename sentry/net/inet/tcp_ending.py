"""How a TCP connection ends: FIN, RST, TIME_WAIT, the last close. tcp(7), RFC 9293, 3.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.poll import EPOLLHUP, EPOLLIN, EPOLLRDHUP
from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.abi.socket import (
    BPF_TCP_CLOSE_WAIT as TCP_CLOSE_WAIT,
)
from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT2 as TCP_FIN_WAIT2,
)
from sentry.abi.socket import (
    BPF_TCP_LISTEN as TCP_LISTEN,
)
from sentry.abi.socket import (
    BPF_TCP_TIME_WAIT as TCP_TIME_WAIT,
)
from sentry.abi.socket import SHUT_RD, SHUT_RDWR, SHUT_WR
from sentry.ahead import mypyc_attr
from sentry.errors import EAGAIN, ECONNRESET, ENOTCONN, EPIPE
from sentry.net.inet.address import Endpoint
from sentry.net.inet.tcp_listener import TcpListener
from sentry.net.inet.tcp_options import setting
from sentry.net.inet.tcp_stream import CONNECTED
from sentry.net.inet.time_wait import TIME_WAIT_SECONDS, Remains
from sentry.net.socket_sleeps import deadline_of
from sentry.wait.fiber import Interrupted, TimedOut
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.inet.tcp_seam import EngineSide
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller, Result
    from sentry.vfs.location import Location


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpEnding(TcpListener):
    """The side of a socket that ends connections."""

    __slots__ = ("_left", "_lingering", "_released", "asks", "eof", "refused_writes", "reset")

    def __init__(self, location: Location, family: int, protocol: int, stack: Stack) -> None:
        super().__init__(location, family, protocol, stack)
        self.eof = False
        """The other end has sent its FIN."""
        self.reset = False
        self.refused_writes = False
        """The other end is closed: what is written now is answered by a reset."""
        self._released = False
        self._left: Remains | None = None
        """The other end, when its socket is closed and waits for our FIN."""
        self._lingering: EngineSide | None = None
        """What close(2) waits for: SO_LINGER."""
        self.asks: Callable[[], object] | None = None
        """How to give up what it waits for to send the SYN again: room with a listener, a time."""

    def ask_no_more(self) -> None:
        """It was let in, or does not want to be any more."""
        if self.asks is not None:
            give_up, self.asks = self.asks, None
            give_up()

    def forget_remote(self) -> None:
        """The port that it had is still shown, though anybody may take it."""
        port = self.local.port
        self.engine = None
        super().forget_remote()
        self.local = Endpoint(self.local.ip, port)

    def _disconnect(self) -> None:
        """connect to AF_UNSPEC: a listener stops, a connection is reset."""
        self._abort_backlog()
        self.ask_no_more()
        was_open = self.is_open or self.connecting
        if self.peer is not None:
            self._send_reset()
        if self.engine is not None:
            self.engine.reset()
        self._forget_left()
        self.state = TCP_CLOSE
        self.started = self.established = False
        self.forget_remote()
        self.so_error = ECONNRESET.number if was_open else 0
        self.chunks.clear()
        self.queued = 0
        self.eof = self.reset = self.read_shut = self.write_shut = self.refused_writes = False
        self.queue.notify()

    def shut(self, how: int) -> None:
        """shutdown(2)."""
        if self.state == TCP_LISTEN:
            if how in (SHUT_RD, SHUT_RDWR):
                self._abort_backlog()
                self.forget_remote()
                self.queue.notify()
            return
        if self.connecting:
            self._disconnect()
            return
        has_peer = self.peer is not None or self.engine is not None
        if self.state == TCP_CLOSE or not (has_peer or self.refused_writes):
            raise ENOTCONN("not connected")
        if self.started:
            self.started, self.established = False, True
        if self.engine is not None:
            self.engine.shut(how)
            return
        if how in (SHUT_RD, SHUT_RDWR):
            self.read_shut = True
        if how in (SHUT_WR, SHUT_RDWR) and not self.write_shut:
            self.uncork()
            self.write_shut = True
            self.state = TCP_CLOSE if self.eof else TCP_FIN_WAIT2
            self.read_shut |= self.eof
            if self.peer is not None:
                self.peer.fin()
            elif self._left is not None:
                self.ports.ended.finish(self._left)
                self._left = None
            if self.eof:
                self.leave_port()
        self.queue.notify()

    def fin(self) -> None:
        """The other end will send nothing more."""
        self.eof = True
        self.stop_deferring()
        if self.write_shut:
            self._remain(TCP_TIME_WAIT, TIME_WAIT_SECONDS)
            self.leave_port()
        self.state = TCP_CLOSE if self.write_shut else TCP_CLOSE_WAIT
        self.queue.notify(EPOLLIN | EPOLLRDHUP | (EPOLLHUP if self.write_shut else 0))

    def other_end_closed(self) -> None:
        """The last descriptor of the other end is closed, which its FIN does not say."""

    def leave_port(self) -> None:
        """A closed socket keeps only a port that the program chose: tcp_set_state().

        getsockname(2) still tells it.
        """
        if not self._bound_port:
            self.drop_port()

    def _remain(self, state: int, seconds: int) -> Remains | None:
        """The address is held on, without this socket."""
        if self.remote is None or seconds < 0:
            return None
        left = Remains(
            self.local, self.remote, self.family, set(self.options), self.v6only, self.owner_uid,
            state, 0, self.shares_port,
        )  # fmt: skip
        self.ports.ended.add(left, seconds)
        return left

    def _forget_left(self) -> None:
        """A reset ends what is left of the other end."""
        if self._left is not None:
            self.ports.ended.remove(self._left)
            self._left = None

    def _count_reset(self) -> None:
        if self.state in CONNECTED:
            self.stack.counters["Tcp.EstabResets"] += 1

    def _send_reset(self) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            self._count_reset()
            self.stack.counters["Tcp.OutRsts"] += 1
            peer.got_reset()

    def got_reset(self) -> None:
        """The other end reset the connection."""
        self._count_reset()
        self.peer = None
        self.so_error = EPIPE.number if self.eof else ECONNRESET.number
        self.reset = self.read_shut = self.write_shut = True
        self.state = TCP_CLOSE
        self.leave_port()
        self.queue.notify()

    def abort(self) -> None:
        """End at once with a reset."""
        self.stop_deferring()
        self.ask_no_more()
        self._send_reset()
        self._forget_left()
        if self.engine is not None:
            self.engine.reset()
        self.state = TCP_CLOSE
        self.drop_port()
        self._released = True

    def release(self) -> None:
        """The last descriptor is closed: a FIN, or a reset where bytes were not read."""
        super().release()
        self._released = True
        self._abort_backlog()
        self.ask_no_more()
        self.uncork()
        resets = bool(self.queued) or self.linger == (1, 0)
        if self.engine is not None:
            engine = self.engine
            engine.close(abort=self.linger == (1, 0))
            self.show_state(TCP_CLOSE)
            if self.linger[0] and self.linger[1] and engine.is_ending:
                self._lingering = engine
                engine.on_ending = self.queue.notify
        elif self.peer is self:
            self.peer = None
            if not (resets or self.write_shut):
                self._remain(TCP_TIME_WAIT, TIME_WAIT_SECONDS)
        elif self.peer is not None and resets:
            self._send_reset()
        elif self.peer is not None:
            self._close(self.peer)
        elif self._left is not None and resets:
            self._forget_left()
        elif self._left is not None:
            self.ports.ended.finish(self._left)
        self.state = TCP_CLOSE
        self.drop_port()
        self.queue.notify()

    @property
    def lingers(self) -> bool:
        """SO_LINGER: the other end has not acknowledged everything."""
        return self._lingering is not None

    def linger_on(self, caller: Caller) -> Result:
        """Until it has, a signal comes, or the time is over: sk_stream_wait_close()."""
        engine = self._lingering
        assert engine is not None

        def attempt() -> int:
            if engine.is_ending:
                raise EAGAIN("not yet")
            return 0

        def end(finish: Callable[[], int]) -> int:
            try:
                return finish()
            except (TimedOut, Interrupted):
                return 0

        deadline_ns = deadline_of(caller, self.linger[1] * 10**9)
        return until(attempt, (self.queue,), deadline_ns=deadline_ns).ended(end)

    def _close(self, peer: TcpEnding) -> None:
        """Our FIN goes out, unless it has; who sent its FIN first waits for the other one's."""
        self.peer = peer.peer = None
        peer.refused_writes = True
        peer.other_end_closed()
        if not self.eof:
            peer._left = self._remain(TCP_FIN_WAIT2, setting(self, "TCP_LINGER2"))
        if not peer.eof:
            peer.fin()
