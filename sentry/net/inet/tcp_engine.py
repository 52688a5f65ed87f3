"""What stands between a TCP socket and the engine: connections and listeners by a link.

A connection of the engine has what a program sees of it, and the socket shows that: its states,
its errors, what can be read. The engine goes on by itself when the socket is closed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.poll import EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDNORM, EPOLLWRNORM
from sentry.abi.socket import (
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.abi.socket import (
    BPF_TCP_CLOSING as TCP_CLOSING,
)
from sentry.abi.socket import (
    BPF_TCP_FIN_WAIT1 as TCP_FIN_WAIT1,
)
from sentry.abi.socket import (
    BPF_TCP_LAST_ACK as TCP_LAST_ACK,
)
from sentry.abi.socket import (
    BPF_TCP_TIME_WAIT as TCP_TIME_WAIT,
)
from sentry.abi.socket import IPPROTO_TCP, MSG_MORE, MSG_OOB, MSG_PEEK, MSG_TRUNC, SO_REUSEPORT
from sentry.errors import EAGAIN, EFAULT, ENFILE
from sentry.net.inet.address import plain
from sentry.net.inet.error_queue import wants_errors
from sentry.net.inet.paths import mark_of
from sentry.net.inet.tcp_options import pack_info
from sentry.net.inet.tcp_stream import put, taken
from sentry.net.inet.tcp_tuning import tune
from sentry.net.inet.time_wait import TIME_WAIT_SECONDS, Remains
from sentry.net.message import Received
from sentry.net.rules import DSCP, PLAIN, RouteKey
from sentry.net.tcp.core import nothing
from sentry.net.tcp.info import info
from sentry.net.tcp.listener import Listener
from sentry.net.tcp.segment import MASK, arrived_early
from sentry.net.tcp.settings import SECOND, Tuning

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.inet.tcp import TcpSocket
    from sentry.net.inet.tcp_link import TcpByLink
    from sentry.net.inet.tcp_listener import TcpListener
    from sentry.net.link.early import Receiver, Segment
    from sentry.net.tcp.connection import Connection
    from sentry.vfs.file import Dest, Source

ENDING: Final = (TCP_FIN_WAIT1, TCP_CLOSING, TCP_LAST_ACK)
PIECE: Final = 1 << 17
"""Bytes that are copied from a program at a time."""
ORPHAN_SECONDS: Final = 86400
"""Longer than the engine lets a connection live that no socket holds."""
CONFIRM_NS: Final = SECOND
"""So often a neighbour is told that it is heard."""


class Engine:
    """A connection, and its socket as long as it has one."""

    __slots__ = (
        "_confirmed_ns", "_early", "_left", "_place", "_shown", "_sock", "_urgent_count",
        "_waits_for_room", "charged", "connection", "device", "due_ns", "index", "layer", "mark",
        "on_ending", "sender", "tos", "ttl", "user", "waits_at",
    )  # fmt: skip

    def __init__(self, layer: TcpByLink, connection: Connection, sock: Any) -> None:
        self.layer = layer
        self.connection = connection
        self._sock: Any = sock
        """None: it is closed."""
        self.charged = 0
        """Bytes that the layer counts for it."""
        self.due_ns: int | None = None
        self.index = 0
        """The interface by which it went last."""
        self.waits_at: int | None = None
        """The one where it waits for room."""
        self.device = sock.device
        """The one by which it has to go, or 0."""
        self.sender: object = None
        """Who has begun it, where that is asked for."""
        self.tos = self.ttl = self.mark = self.user = 0
        self.on_ending: Callable[[], object] = nothing
        """Called when something changes of what no socket has any more."""
        self._left: Remains | None = None
        self._confirmed_ns = 0
        self._early: tuple[dict[bytes, Receiver], bytes] | None = None
        """The table of a link that leads to it, and by what."""
        self._urgent_count = 0
        self._place = connection.rcv.next
        self._waits_for_room = False
        self._shown: tuple[Any, ...] = ()
        sock.engine = self
        connection.on_change = self.show
        self.tune_packets()

    # --- what the socket shows

    def show(self) -> None:
        """Something can be asked anew."""
        sock: TcpSocket | None = self._sock
        one = self.connection
        if sock is None:
            self.on_ending()
            return
        events = 0
        sock.queued = one.rcv.queued
        sock.urgent_unread = one.urgent
        if not sock.chose_rcvbuf:
            sock.rcvbuf = one.rcvbuf
        if not sock.chose_sndbuf:
            sock.sndbuf = one.sndbuf
        if one.rcv.next != self._place:
            self._place = one.rcv.next
            sock.stamp_ns = time.time_ns()
            if one.readable:
                events |= EPOLLIN | EPOLLRDNORM
        if self._waits_for_room and one.writable:
            self._waits_for_room = False
            events |= EPOLLOUT | EPOLLWRNORM
        shown = one.state, one.eof, one.reset, one.read_shut, one.write_shut
        if shown != self._shown or one.error:
            self._shown = shown
            sock.show_state(one.state)
            sock.eof, sock.reset, sock.read_shut, sock.write_shut = shown[1:]
            sock.so_error = one.take_error() or sock.so_error
            sock.queue.notify()
        elif events:
            sock.queue.notify(events)
        if one.urgent_count != self._urgent_count:
            self._urgent_count = one.urgent_count
            sock.urge()
            sock.queue.notify(EPOLLPRI)

    @property
    def wants_errors(self) -> bool:
        """IP_RECVERR, IPV6_RECVERR."""
        sock = self._sock
        return sock is not None and bool(wants_errors(sock, self.connection.flow.remote))

    @property
    def has_socket(self) -> bool:
        """It is not closed."""
        return self._sock is not None

    @property
    def is_open(self) -> bool:
        """More may come, or be sent."""
        return self.connection.state != TCP_CLOSE

    @property
    def is_ending(self) -> bool:
        """A FIN of ours is under way: sk_stream_closing()."""
        return self.connection.state in ENDING

    def has_enough(self) -> bool:
        """SO_RCVLOWAT."""
        return self.connection.readable

    def has_room(self) -> bool:
        """EPOLLOUT. False: it is told when there is."""
        is_writable = self.connection.writable and self._room() > 0
        self._waits_for_room = not is_writable
        return is_writable

    def _room(self) -> int:
        """How many bytes may be sent now: some also where there is no memory for more."""
        one = self.connection
        if not self.layer.is_full():
            return one.room
        return min(one.room, max(self.layer.settings.tcp_wmem[0] - len(one.stream), 0))

    def queues(self) -> tuple[int, int]:
        """Bytes that wait to be read, and that were not acknowledged."""
        return self.connection.rcv.queued, len(self.connection.stream)

    def info(self) -> bytes:
        """struct tcp_info."""
        return pack_info(info(self.connection, self.layer.clock()))

    # --- segments

    def comes_by(self, table: dict[bytes, Receiver], key: bytes) -> None:
        """Segments of it do by this link: sentry.net.link.early."""
        self._comes_no_more()
        table[key] = self
        self._early = table, key

    def _comes_no_more(self) -> None:
        if self._early is not None:
            table, key = self._early
            if table.get(key) is self:
                del table[key]
            self._early = None

    def early(self, now_ns: int, found: Segment, payload: bytes) -> bool:
        """One that came so, or several: out of turn each is acknowledged, RFC 5681, 4.2."""
        if found[13] > 1 and found[7] != self.connection.rcv.next & MASK:
            return False
        self.layer.take(now_ns, self, arrived_early(found, payload))
        return True

    # --- bytes

    def send(self, source: Source, flags: int) -> int:
        """sendmsg(2). Raises: EAGAIN, EPIPE."""
        one, now_ns = self.connection, self.layer.clock()
        done = 0
        while source.count and (room := self._room()):
            data = taken(source, min(source.count, PIECE, room), done)
            if not data:
                return done
            has_more = source.count and room > len(data)
            if flags & MSG_OOB and not source.count:
                done += one.send_urgent(now_ns, data)
            elif flags & MSG_MORE or has_more:
                done += one.send_more(now_ns, data)
            else:
                done += one.send(now_ns, data)
            self.layer.after(now_ns, self)
        if source.count:
            self._waits_for_room = True
            if not done:
                raise EAGAIN("buffers are full")
        return done

    def receive(self, dest: Dest, flags: int, skip: int) -> int | None:
        """recvmsg(2), behind so many bytes. None: there is nothing."""
        one, size = self.connection, dest.count
        mark = one.mark
        if mark:
            size = min(size, mark)
        pieces = one.peek(size or 1, skip)
        if not pieces:
            return None
        done = 0
        for piece in pieces if size else ():
            if not flags & MSG_TRUNC and not put(dest, piece, done):
                break
            done += len(piece)
        if done and not flags & MSG_PEEK:
            now_ns = self.layer.clock()
            one.receive(now_ns, done)
            if one.has_output:
                self.layer.after(now_ns, self)
            else:
                self.layer.account(self)
        return done

    def receive_urgent(self, dest: Dest, flags: int) -> Received:
        """MSG_OOB. Raises: EINVAL, EAGAIN."""
        byte = self.connection.receive_urgent(peek=True)
        if byte is None:
            return Received(0)
        try:
            if dest.count:
                dest.put(bytes([byte]))
        except EFAULT:  # it is lost, as in Linux
            self._take_urgent(flags)
            raise
        self._take_urgent(flags)
        return Received(1, flags=MSG_OOB)

    def _take_urgent(self, flags: int) -> None:
        self.connection.receive_urgent(peek=bool(flags & MSG_PEEK))
        self._sock.urgent_unread = self.connection.urgent

    # --- options

    def tune_packets(self) -> None:
        """What stands in headers of IP."""
        sock = self._sock
        is_v4 = self.connection.flow.remote.is_v4
        self.tos = sock.ip_options[abi.IP_TOS] if is_v4 else sock.ipv6_options[abi.IPV6_TCLASS]
        self.ttl = sock.hops if is_v4 else sock.hops6
        self.device = sock.device
        self.mark, self.user = mark_of(sock), sock.inode.uid

    def tuned(self, level: int, name: int) -> None:
        """An option of the socket was set."""
        sock, one, now_ns = self._sock, self.connection, self.layer.clock()
        self.tune_packets()
        tune(one.tuning, sock)
        if (level, name) == (IPPROTO_TCP, abi.TCP_CONGESTION):
            one.set_congestion(sock.tcp.congestion.decode())
        elif (level, name) == (IPPROTO_TCP, abi.TCP_QUICKACK):
            if sock.tcp.values[name]:
                one.acknowledge_soon(now_ns)
            else:
                one.acknowledge_late()
        if one.connected:
            one.set_keepalive(now_ns)
            one.tuned(now_ns)
        self.layer.after(now_ns, self)

    # --- the end

    def shut(self, how: int) -> None:
        """shutdown(2)."""
        now_ns = self.layer.clock()
        self.connection.shutdown(now_ns, how)
        self.layer.after(now_ns, self)

    def over(self) -> None:
        """Nothing more comes: a socket that did not choose its port has none any more."""
        self._comes_no_more()
        if self._sock is not None:
            self._sock.leave_port()

    def reset(self) -> None:
        """connect(2) to AF_UNSPEC, and the end of what nobody has accepted."""
        now_ns = self.layer.clock()
        sock, self._sock = self._sock, None
        sock.engine = None
        sock.show_state(TCP_CLOSE)
        self.connection.orphan = True
        self.connection.abort(now_ns)
        self.layer.after(now_ns, self)

    def destroy(self, number: int) -> None:
        """It has to end, and its socket hears this errno."""
        now_ns = self.layer.clock()
        self.connection.destroy(now_ns, number)
        self.layer.after(now_ns, self)

    def close(self, *, abort: bool) -> None:
        """The last descriptor is closed. The engine ends what is left, and holds the port."""
        now_ns, one = self.layer.clock(), self.connection
        if self.is_open:
            self._left = self.remains(one.state)
            self.layer.hold(one.flow, self._left, ORPHAN_SECONDS)
        self._sock.engine = None
        self._sock = None
        # what nobody holds does not stay where there is no memory: tcp_out_of_memory()
        if abort or (self.layer.is_full() and one.memory > self.layer.settings.tcp_wmem[0]):
            one.orphan = True
            one.abort(now_ns)
        else:
            one.close(now_ns)
        self.layer.after(now_ns, self)

    def remains(self, state: int) -> Remains:
        """What holds the port without the socket."""
        sock, flow = self._sock, self.connection.flow
        return Remains(
            flow.local, flow.remote, sock.family, set(sock.options), sock.v6only, sock.owner_uid,
            state, 0, sock.shares_port, by_link=True,
        )  # fmt: skip

    def show_orphan(self) -> None:
        """In /proc/net/tcp."""
        if self._left is not None:
            self._left.state = self.connection.state

    # --- time

    def confirm(self, now_ns: int) -> None:
        """The neighbour on the way is reachable: something new has come."""
        if now_ns - self._confirmed_ns >= CONFIRM_NS:
            self._confirmed_ns = now_ns
            local, remote = self.connection.flow
            key, layer = PLAIN, self.layer.layer
            if layer.fib.asks:
                key = RouteKey(
                    plain(local.ip), mark=self.mark, tos=self.tos & DSCP, user=self.user,
                    protocol=IPPROTO_TCP, source_port=local.port, port=remote.port,
                )  # fmt: skip
            layer.confirm(now_ns, plain(remote.ip), self.device, key)

    def timeout(self, now_ns: int) -> None:
        """What is due."""
        self.connection.timeout(now_ns)
        self.layer.after(now_ns, self)


class Listening:
    """A socket that listens, for those outside."""

    __slots__ = ("_layer", "due_ns", "listener", "sock")

    def __init__(self, layer: TcpByLink, sock: TcpListener, backlog: int) -> None:
        self._layer = layer
        self.sock = sock
        self.due_ns: int | None = None
        self.listener = Listener(layer.shared, backlog, Tuning(), self._complete)
        self.listener.waiting = self._waiting
        self.tuned()

    @property
    def shares(self) -> bool:
        """Others may listen there, too."""
        return SO_REUSEPORT in self.sock.options

    def tuned(self) -> None:
        """An option of the socket was set."""
        tune(self.listener.tuning, self.sock)
        self.listener.tuning.congestion = self.sock.tcp.congestion.decode()
        self.listener.defer_seconds = self.sock.tcp.values[abi.TCP_DEFER_ACCEPT]

    def _waiting(self) -> int:
        """How many wait elsewhere; too many where no file more may be open."""
        try:
            self.sock.stack.kernel.vfs.budget.check_files()
        except ENFILE:
            return self.listener.backlog + 1
        return self.sock.waiting()

    def _complete(self) -> None:
        while (connection := self.listener.accept()) is not None:
            self._layer.adopt(self.sock, connection)

    def timeout(self, now_ns: int) -> None:
        """SYNs are answered again."""
        self.listener.timeout(now_ns)
        self._layer.answered(now_ns, self)

    def close(self) -> None:
        """No more of it."""
        self.listener.close()
        self._layer.unheard(self)


def seconds_of(state: int) -> int:
    """How long a port is held at the most."""
    return TIME_WAIT_SECONDS + 1 if state == TCP_TIME_WAIT else ORPHAN_SECONDS
