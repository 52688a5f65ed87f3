"""TCP on the loopback: tcp(7), without packets.

A connection is two sockets that know each other; bytes go straight into the other one's queue. What
a program can see of the protocol is kept: states, backlog, FIN and RST, urgent data, errors.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.poll import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWRNORM,
)
from sentry.abi.socket import (
    AF_INET6,
    IPPROTO_TCP,
    MSG_MORE,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    SHUT_RD,
    SHUT_RDWR,
    SHUT_WR,
    SO_OOBINLINE,
    SO_RCVLOWAT,
    SO_REUSEPORT,
    SOCK_STREAM,
)
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
    BPF_TCP_FIN_WAIT2 as TCP_FIN_WAIT2,
)
from sentry.abi.socket import (
    BPF_TCP_LISTEN as TCP_LISTEN,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_SENT as TCP_SYN_SENT,
)
from sentry.errors import (
    EAGAIN,
    EALREADY,
    ECONNABORTED,
    ECONNREFUSED,
    ECONNRESET,
    EINPROGRESS,
    EINVAL,
    EISCONN,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPIPE,
    Errno,
)
from sentry.net.inet import address
from sentry.net.inet.address import Endpoint, check_family
from sentry.net.inet.inetsocket import InetSocket
from sentry.net.inet.tcp_options import MSS, TcpOptions, info
from sentry.net.socket import Ancillary, Received, Socket, socket_location
from sentry.vfs.file import Caller, Dest, Source
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.loop import Timer
    from sentry.net.stack import Stack
    from sentry.vfs.dentry import Location

SOMAXCONN: Final = 4096
RCVBUF: Final = 131072
CORKED_NS: Final = 200_000_000
SNDBUF: Final = 16384
SNDBUF_CONNECTED: Final = 87040
"""What SO_SNDBUF grows to, where the program did not choose."""
PIECE: Final = 65536
JOINED: Final = 8192
"""Up to this size small sends make one chunk of the receive queue."""


class TcpSocket(InetSocket):
    """One end of a connection, or a listener."""

    __slots__ = (
        "_accepted", "_backlog", "_deferred", "_held", "_held_until", "_released", "chunks",
        "deferred_by", "eof", "got",
        "mark", "peer", "queued", "refused_writes", "reset", "room", "sent", "started",
        "state", "tcp", "urgent", "urgent_unread",
    )  # fmt: skip

    stream = True

    def __init__(
        self, location: Location, family: int, protocol: int, stack: Stack, uid: int
    ) -> None:
        super().__init__(location, family, SOCK_STREAM, protocol, stack, uid)
        self.rcvbuf, self.sndbuf = RCVBUF, SNDBUF
        self.state = TCP_CLOSE
        self.peer: TcpSocket | None = None
        self.chunks: deque[bytes] = deque()
        self.queued = 0
        self.eof = False
        """The other end has sent its FIN."""
        self.reset = False
        self.refused_writes = False
        """The other end is closed: what is written now is answered by a reset."""
        self.urgent: int | None = None
        """The byte of out-of-band data, when it is not in line."""
        self.urgent_unread = False
        self.started = False
        """A connect is under way or not yet told: SS_CONNECTING."""
        self.mark: int | None = None
        """How many bytes there are before the urgent mark."""
        self.tcp = TcpOptions()
        self._accepted: deque[TcpSocket] = deque()
        self._deferred: deque[TcpSocket] = deque()
        """TCP_DEFER_ACCEPT: connections that have sent nothing yet."""
        self.deferred_by: TcpSocket | None = None
        self._backlog = 0
        self.room = WaitQueue()
        """Who connects waits here for a place in the backlog."""
        self.sent = self.got = 0
        """Bytes, for TCP_INFO."""
        self._released = False
        self._held = b""
        """What MSG_MORE and TCP_CORK hold back."""
        self._held_until: Timer | None = None

    # --- connections

    @property
    def listening(self) -> bool:
        """SO_ACCEPTCONN."""
        return self.state == TCP_LISTEN

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        if self.state not in (TCP_CLOSE, TCP_LISTEN):
            raise EINVAL("connected")
        self.need_port()
        self.ports.check_listen(self)
        self.state = TCP_LISTEN
        self._backlog = min(backlog & 0xFFFFFFFF, SOMAXCONN)

    def peer_address(self) -> bytes:
        """getpeername(2)."""
        if self.remote is None or self.state in (TCP_CLOSE, TCP_SYN_SENT):
            raise ENOTCONN("no peer")
        return address.pack(self.remote, self.family)

    async def connect(self, caller: Caller, raw: bytes, nonblock: bool) -> None:
        """connect(2)."""
        if address.is_unspec(raw):
            self._disconnect()
            return
        check_family(raw, self.family)
        if self.started:
            if self.state == TCP_SYN_SENT:
                if nonblock:
                    raise EALREADY("connecting")
                await self._wait_connected(caller, EALREADY)
                return
            self.started = False
            self._connect_result()
            return
        if self.state != TCP_CLOSE or self.peer is not None:
            raise EISCONN("connected")
        target = self.route(raw)
        self.so_error = 0
        self.reset = self.eof = self.read_shut = self.write_shut = self.refused_writes = False
        self.need_port()
        self.remote = target
        self.state = TCP_SYN_SENT
        self.stack.counters["Tcp.ActiveOpens"] += 1
        self.started = True
        if nonblock:
            caller.kernel.loop.call_soon(lambda: self._try_connect(caller))
            raise EINPROGRESS("connecting")
        self._try_connect(caller)
        await self._wait_connected(caller, EINPROGRESS)

    async def _wait_connected(self, caller: Caller, late: type[Errno]) -> None:
        """inet_wait_for_connect(): until the other end answers, or for SO_SNDTIMEO."""

        def attempt() -> None:
            if self.state == TCP_SYN_SENT:
                raise EAGAIN("no answer yet")

        try:
            await self._sleep(attempt, EPOLLOUT, self.sndtimeo_ns, caller)
        except EAGAIN:
            raise late("timed out") from None
        self.started = False
        self._connect_result()

    def _connect_result(self) -> None:
        """What came of it; after a failure the socket is as new."""
        if self.so_error and self.state == TCP_CLOSE:
            self.reset = self.read_shut = self.write_shut = False
            self.forget_remote()
        self.take_error()
        if self.state == TCP_CLOSE:
            raise ECONNABORTED("not connected")

    def _try_connect(self, caller: Caller) -> bool:
        """Send the SYN: True when it was answered (also by a refusal)."""
        target = self.remote
        if self.state != TCP_SYN_SENT or target is None or self._released:
            return True
        listener = self._listener(target)
        if listener is None:
            self.state = TCP_CLOSE
            self.stack.counters["Tcp.AttemptFails"] += 1
            self.so_error = ECONNREFUSED.number
            self.reset = self.read_shut = self.write_shut = True
            self.queue.notify()
            return True
        if len(listener._accepted) + len(listener._deferred) > listener._backlog:
            entry: list[Any] = []

            def again(_: int) -> None:
                listener.room.remove(entry[0])
                self._try_connect(caller)

            entry.append(listener.room.add(again, EPOLLOUT))
            return False
        listener._establish(caller, self, target)
        return True

    def _establish(self, caller: Caller, client: TcpSocket, target: Endpoint) -> None:
        """A connection comes in: the other socket waits for accept."""
        server = TcpSocket(
            socket_location(caller), self.family, self.protocol, self.stack, self.owner_uid
        )
        source = client.source_for(target)
        client.local = source
        server.local, server.remote = target, source
        server._has_port = True
        self.ports.adopt(server)
        server.v6only = self.v6only
        server.inherit(self)
        server.tcp = self.tcp.inherited()
        self.stack.counters["Tcp.PassiveOpens"] += 1
        self.stack.counters["Tcp.CurrEstab"] += 2
        server.peer, client.peer = client, server
        server.state = client.state = TCP_ESTABLISHED
        for end in (server, client):
            end.sndbuf = end.sndbuf if end.chose_sndbuf else max(SNDBUF_CONNECTED, end.sndbuf)
        seconds = self.tcp.values[abi.TCP_DEFER_ACCEPT]
        if seconds:
            self._deferred.append(server)
            server.deferred_by = self
            loop = caller.kernel.loop
            loop.call_at(loop.now_ns() + seconds * 10**9, server.stop_deferring)
        else:
            self._can_accept(server)
        client.queue.notify(EPOLLOUT | EPOLLWRNORM)

    def _can_accept(self, server: TcpSocket) -> None:
        self._accepted.append(server)
        self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def stop_deferring(self) -> None:
        """TCP_DEFER_ACCEPT: data has come, or it took too long."""
        listener, self.deferred_by = self.deferred_by, None
        if listener is not None and self in listener._deferred:
            listener._deferred.remove(self)
            listener._can_accept(self)

    def _listener(self, target: Endpoint) -> TcpSocket | None:
        """Who listens there: inet_lhash2_lookup(); SO_REUSEPORT spreads connections."""
        found = [s for s in self.ports.holders(target) if isinstance(s, TcpSocket) and s.listening]
        if not found:
            return None
        group = [s for s in found if s.local.ip == found[0].local.ip]
        if SO_REUSEPORT not in found[0].options:
            return found[0]
        return group[hash((self.source_for(target), target)) % len(group)]

    def inherit(self, listener: TcpSocket) -> None:
        """A connection has the options of its listener: inet_csk_clone_lock()."""
        self.options = set(listener.options)
        self.numbers = {**listener.numbers, abi.SO_PRIORITY: 0}
        self.ip_options = dict(listener.ip_options)
        self.ipv6_options = dict(listener.ipv6_options)
        self.linger = listener.linger
        self.rcvbuf, self.sndbuf = listener.rcvbuf, listener.sndbuf
        self.chose_sndbuf = listener.chose_sndbuf
        self.rcvtimeo_ns, self.sndtimeo_ns = listener.rcvtimeo_ns, listener.sndtimeo_ns

    def try_accept(self, caller: Caller) -> tuple[Socket, bytes]:
        """accept(2)."""
        if self.state != TCP_LISTEN:
            raise EINVAL("not listening")
        if not self._accepted:
            raise EAGAIN("no connection")
        server = self._accepted.popleft()
        self.room.notify()
        if server.remote is None:
            raise ECONNABORTED("gone")
        return server, address.pack(server.remote, server.family)

    def forget_remote(self) -> None:
        """The port that it had is still shown, though anybody may take it."""
        port = self.local.port
        super().forget_remote()
        self.local = Endpoint(self.local.ip, port)

    def _disconnect(self) -> None:
        """connect to AF_UNSPEC: a listener stops, a connection is reset."""
        self._abort_backlog()
        was_open = self.peer is not None or self.state == TCP_SYN_SENT
        if self.peer is not None:
            self._send_reset()
        self.state = TCP_CLOSE
        self.started = False
        self.forget_remote()
        self.so_error = ECONNRESET.number if was_open else 0
        self.chunks.clear()
        self.queued = 0
        self.eof = self.reset = self.read_shut = self.write_shut = self.refused_writes = False

    # --- sending

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2)."""
        self.take_error()
        if self.write_shut or self.reset:
            raise EPIPE("shut down")
        if self.state == TCP_SYN_SENT:
            raise EAGAIN("connecting")
        peer = self.peer
        if peer is None:
            if not self.refused_writes:
                raise EPIPE("not connected")
            self.reset = self.read_shut = self.write_shut = True
            self.state = TCP_CLOSE
            self.so_error = EPIPE.number
            done = self._send_in_vain(source)
            self.queue.notify()
            return done
        if peer.read_shut and peer.write_shut and source.count:
            done = self._send_in_vain(source)  # FIN_WAIT2: it answers with a reset
            peer.got_reset()
            self.got_reset()
            return done
        room = self.sndbuf + peer.rcvbuf - peer.queued - len(self._held)
        if self._holds(flags) and len(self._held) + source.count < MSS:
            return self._hold(source, caller)
        self.uncork()
        done = 0
        while source.count and room > 0:
            data = bytes(source.get(min(source.count, PIECE, room)))
            if flags & MSG_OOB and not source.count:
                self._send_urgent(peer, data)
            else:
                peer.arrived(data)
            done += len(data)
            room -= len(data)
        if not done and source.count:
            raise EAGAIN("buffers are full")
        self.sent += done
        peer.queue.notify(EPOLLIN | EPOLLRDNORM)
        return done

    def _send_in_vain(self, source: Source) -> int:
        """What is sent before the reset that answers it comes: a buffer's fill at most."""
        return len(source.get(min(source.count, self.sndbuf)))

    def _holds(self, flags: int) -> bool:
        return bool(flags & MSG_MORE and not flags & MSG_OOB) or bool(self.tcp.values[abi.TCP_CORK])

    def _hold(self, source: Source, caller: Caller) -> int:
        """MSG_MORE, TCP_CORK: less than a segment waits for more, 200 ms at most. tcp(7)."""
        size = source.count
        if not self._held:
            loop = caller.kernel.loop
            self._held_until = loop.call_at(loop.now_ns() + CORKED_NS, self.uncork)
        self._held += source.get(size)
        return size

    def uncork(self) -> None:
        """Send what was held back."""
        if self._held_until is not None:
            self._held_until.cancel()
            self._held_until = None
        data, self._held = self._held, b""
        if data and self.peer is not None:
            self.sent += len(data)
            self.peer.arrived(data)
            self.peer.queue.notify(EPOLLIN | EPOLLRDNORM)

    def arrived(self, data: bytes) -> None:
        """Queue bytes; small ones are joined, so that their number does not cost the Sentry."""
        if self.deferred_by is not None:
            self.stop_deferring()
        chunks = self.chunks
        if chunks and len(chunks[-1]) + len(data) <= JOINED:
            chunks[-1] += data
        else:
            chunks.append(data)
        self.queued += len(data)
        self.got += len(data)

    def _send_urgent(self, peer: TcpSocket, data: bytes) -> None:
        """The last byte is urgent: SIGURG is left to the owner, the mark is kept."""
        rest, urgent = data[:-1], data[-1]
        if rest:
            peer.arrived(rest)
        peer.mark = peer.queued
        peer.urgent_unread = True
        peer.urge()
        if SO_OOBINLINE in peer.options:
            peer.arrived(data[-1:])
        else:
            peer.urgent = urgent
        peer.queue.notify(EPOLLPRI)

    async def target(self, caller: Caller, raw: bytes) -> Any:
        """sendto(2) of a connected stream ignores the address."""
        if self.peer is None and not self.refused_writes:
            raise EPIPE("not connected")

    # --- receiving

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if self.state == TCP_LISTEN:
            raise ENOTCONN("listening")
        if flags & MSG_OOB:
            return self._receive_urgent(dest, flags)
        if self.queued:
            return Received(self._take(dest, flags))
        if self.eof:  # SOCK_DONE comes before an error
            return Received(0)
        self.take_error()
        if self.read_shut:
            return Received(0)
        if not self._waits():
            raise ENOTCONN("not connected")
        if self.mark == 0 and SO_OOBINLINE not in self.options:
            self._pass_mark()
        raise EAGAIN("nothing there")

    def _pass_mark(self) -> None:
        """A read goes on behind the urgent mark: the byte that nobody asked for is lost."""
        self.mark = self.urgent = None
        self.urgent_unread = False

    def stops_here(self) -> bool:
        """The urgent mark ends a read."""
        return self.mark == 0

    def _waits(self) -> bool:
        """More may come."""
        return self.state == TCP_SYN_SENT or self.peer is not None

    def _take(self, dest: Dest, flags: int) -> int:
        limit = dest.count
        if self.mark and self.mark < limit:
            limit = self.mark  # a read stops at the urgent mark
        elif self.mark == 0 and limit and not flags & MSG_PEEK:
            self._pass_mark()
        done = 0
        for chunk in list(self.chunks):
            if done == limit:
                break
            part = chunk[: limit - done]
            if not flags & MSG_TRUNC:
                dest.put(part)
            done += len(part)
            if flags & MSG_PEEK:
                continue
            if len(part) == len(chunk):
                self.chunks.popleft()
            else:
                self.chunks[0] = chunk[len(part) :]
        if not flags & MSG_PEEK:
            self.queued -= done
            if self.mark is not None:
                self.mark = max(0, self.mark - done)
            if self.peer is not None:
                self.peer.queue.notify(EPOLLOUT | EPOLLWRNORM)
        return done

    def _receive_urgent(self, dest: Dest, flags: int) -> Received:
        if SO_OOBINLINE in self.options or (self.mark is None and self.urgent is None):
            raise EINVAL("no urgent data")
        if self.urgent is None:
            raise EINVAL("read already")
        if dest.count:
            dest.put(bytes([self.urgent]))
        if not flags & MSG_PEEK:
            self.urgent = None
            self.urgent_unread = False
        return Received(1, flags=MSG_OOB)

    def at_mark(self) -> int:
        """SIOCATMARK."""
        return int(self.mark == 0)

    # --- ending

    def shut(self, how: int) -> None:
        """shutdown(2)."""
        if self.state == TCP_LISTEN:
            if how in (SHUT_RD, SHUT_RDWR):
                self._abort_backlog()
                self.forget_remote()
                self.queue.notify()
            return
        if self.state == TCP_SYN_SENT:
            self._disconnect()
            self.queue.notify()
            return
        if self.state == TCP_CLOSE or (self.peer is None and not self.refused_writes):
            raise ENOTCONN("not connected")
        if how in (SHUT_RD, SHUT_RDWR):
            self.read_shut = True
        if how in (SHUT_WR, SHUT_RDWR) and not self.write_shut:
            self.uncork()
            self.write_shut = True
            self.state = TCP_CLOSE if self.eof else TCP_FIN_WAIT2
            self.read_shut |= self.eof
            if self.peer is not None:
                self.peer.fin()
        self.queue.notify()

    def fin(self) -> None:
        """The other end will send nothing more."""
        self.eof = True
        self.stop_deferring()
        self.state = TCP_CLOSE if self.write_shut else TCP_CLOSE_WAIT
        self.queue.notify(EPOLLIN | EPOLLRDHUP | (EPOLLHUP if self.write_shut else 0))

    def _send_reset(self) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.got_reset()

    def got_reset(self) -> None:
        """The other end reset the connection."""
        self.peer = None
        self.so_error = EPIPE.number if self.eof else ECONNRESET.number
        self.reset = self.read_shut = self.write_shut = True
        self.state = TCP_CLOSE
        self.queue.notify()

    def _abort_backlog(self) -> None:
        while self._accepted or self._deferred:
            (self._accepted or self._deferred).popleft().abort()
        if self.state == TCP_LISTEN:
            self.state = TCP_CLOSE
            self.room.notify()

    def abort(self) -> None:
        """End at once with a reset."""
        self._send_reset()
        self.drop_port()
        self._released = True

    def release(self) -> None:
        """The last descriptor is closed: a FIN, or a reset where bytes were not read."""
        self._released = True
        self._abort_backlog()
        self.uncork()
        peer = self.peer
        if peer is not None:
            if self.queued or self.linger == (1, 0):
                self._send_reset()
            else:
                self.peer = None
                peer.peer = None
                peer.refused_writes = True
                if not peer.eof:
                    peer.fin()
        self.state = TCP_CLOSE
        self.drop_port()
        self.queue.notify()

    # --- readiness

    def poll(self) -> int:
        """tcp_poll(), net/ipv4/tcp.c."""
        if self.state == TCP_LISTEN:
            return EPOLLIN | EPOLLRDNORM if self._accepted else 0
        events = EPOLLERR if self.so_error else 0
        closed = self.state == TCP_CLOSE
        if closed or (self.read_shut and self.write_shut):
            events |= EPOLLHUP
        if self.read_shut or self.eof or (closed and self.reset):
            events |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP
        if self.state == TCP_SYN_SENT:
            return events
        if self.queued >= max(1, self.numbers[SO_RCVLOWAT]):
            events |= EPOLLIN | EPOLLRDNORM
        if self.urgent_unread:
            events |= EPOLLPRI
        peer = self.peer
        full = peer is not None and peer.queued >= peer.rcvbuf + self.sndbuf
        if self.write_shut or not full:
            events |= EPOLLOUT | EPOLLWRNORM
        return events

    @property
    def congestion(self) -> bytes:
        """The name of its congestion control, which has nothing to do."""
        return self.tcp.congestion

    def queues(self) -> tuple[int, int]:
        """For diagnostics: bytes (of a listener: connections) that wait, and what is unsent."""
        if self.state == TCP_LISTEN:
            return len(self._accepted), self._backlog
        return self.queued, 0

    def info(self) -> bytes:
        """struct tcp_info."""
        return info(self.state, self.sent, self.got, self.queues())

    def available(self) -> int:
        """FIONREAD."""
        if self.state == TCP_LISTEN:
            raise EINVAL("listening")
        return min(self.queued, self.mark) if self.mark else self.queued

    def unsent(self) -> int:
        """TIOCOUTQ: what is sent is received."""
        if self.state == TCP_LISTEN:
            raise EINVAL("listening")
        return len(self._held)

    # --- options

    def set_protocol_option(self, level: int, name: int, value: bytes) -> None:
        """IPPROTO_TCP."""
        if level != IPPROTO_TCP:
            raise ENOPROTOOPT(f"level {level}")
        self.tcp.set(name, value, closed=self.state == TCP_CLOSE)
        if name in (abi.TCP_CORK, abi.TCP_NODELAY) and not self.tcp.values[abi.TCP_CORK]:
            self.uncork()

    def protocol_option(self, level: int, name: int) -> bytes:
        """IPPROTO_TCP."""
        if level != IPPROTO_TCP:
            raise ENOPROTOOPT("level") if self.family == AF_INET6 else EOPNOTSUPP("level")
        if name == abi.TCP_INFO:
            return self.info()
        if name == abi.TCP_MAXSEG and self.state not in (TCP_CLOSE, TCP_LISTEN):
            return struct.pack("<i", MSS)
        return self.tcp.get(name)
