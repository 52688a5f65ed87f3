"""TCP: tcp(7). Within the sandbox it has no packets; by a link `engine` has the connection.

Within, a connection is two sockets that know each other; bytes go straight into the other one's
queue. What a program can see of the protocol is kept: states, backlog, FIN and RST, urgent data,
errors.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

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
    BPF_TCP_CLOSE as TCP_CLOSE,
)
from sentry.abi.socket import (
    BPF_TCP_ESTABLISHED as TCP_ESTABLISHED,
)
from sentry.abi.socket import (
    BPF_TCP_LISTEN as TCP_LISTEN,
)
from sentry.abi.socket import (
    BPF_TCP_SYN_SENT as TCP_SYN_SENT,
)
from sentry.abi.socket import (
    IPPROTO_TCP,
    MSG_ERRQUEUE,
    MSG_FASTOPEN,
    MSG_OOB,
    MSG_PEEK,
    SO_OOBINLINE,
    SO_RCVLOWAT,
)
from sentry.ahead import mypyc_attr
from sentry.errors import (
    EADDRNOTAVAIL,
    EAGAIN,
    EALREADY,
    ECONNABORTED,
    ECONNREFUSED,
    EHOSTUNREACH,
    EINPROGRESS,
    EINVAL,
    EISCONN,
    ENETUNREACH,
    ENFILE,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
    ETIMEDOUT,
    Errno,
)
from sentry.net.inet import address
from sentry.net.inet.address import Endpoint
from sentry.net.inet.tcp_filtered import FIRST_NS, TcpFiltered
from sentry.net.inet.tcp_listener import TcpListener, listening_at
from sentry.net.inet.tcp_options import MSS, TCP, info, setting
from sentry.net.inet.tcp_stream import taken
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.message import Ancillary, Received
from sentry.net.socket import COMES
from sentry.vfs.file import Caller, Dest, Result, Source
from sentry.wait.again import again
from sentry.wait.sleep import instead

PIECE: Final = 65536
FAMILY_SIZE: Final = 2
LONGEST_NS: Final = 120 * 10**9
"""Between two SYNs: TCP_RTO_MAX."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpSocket(TcpFiltered):
    """One end of a connection, or a listener."""

    __slots__ = ()
    options_known: ClassVar = TCP
    levels: ClassVar = (IPPROTO_TCP,)
    tells: ClassVar = COMES

    # --- connections

    def peer_address(self) -> bytes:
        """getpeername(2)."""
        if self.remote is None or self.state in (TCP_CLOSE, TCP_SYN_SENT):
            raise ENOTCONN("no peer")
        return address.pack(self.remote, self.family)

    def named_peer(self) -> bytes:
        """SO_PEERNAME: also of a connection that is over."""
        if self.remote is None:
            raise ENOTCONN("no peer")
        return address.pack(self.remote, self.family)

    def connect(self, caller: Caller, raw: bytes, nonblock: bool) -> Result:
        """connect(2)."""
        if len(raw) < FAMILY_SIZE:
            raise EINVAL("address")
        if address.is_unspec(raw):
            self._disconnect()
            return 0
        if self.started:
            if self.connecting:
                if nonblock:
                    raise EALREADY("connecting")
                return self._wait_connected(caller, EALREADY)
            return self._connect_result()
        if self.established or self.state != TCP_CLOSE:
            raise EISCONN("connected")
        target = self.route(raw)
        leaves = self.leaves(target)
        broker = self.broker_of(caller, target) if leaves else None
        if leaves and broker is None:
            self.choose_link(target, raw)
            leaves = self._door(target) is None
        if broker is not None or not leaves:
            self._check_unused(target)
        self.so_error = 0
        self.reset = self.eof = self.read_shut = self.write_shut = self.refused_writes = False
        try:
            if not self.has_port:
                self.local = self.ports.claim_to_connect(self, target)
                self.has_port = True
            if broker is not None:
                self.begin_by_broker(caller, target, broker)
            elif leaves:
                self.begin_by_link(caller, target)
        except (EADDRNOTAVAIL, ECONNREFUSED, ENFILE, EPERM):
            self.forget_remote()
            raise
        if leaves:
            if nonblock:
                raise EINPROGRESS("connecting")
            return self._wait_connected(caller, EINPROGRESS)
        self.remote = target
        self.state = TCP_SYN_SENT
        self.stack.counters["Tcp.ActiveOpens"] += 1
        self.started = True
        if nonblock:
            caller.kernel.loop.call_soon(lambda: self._try_connect(caller))
            raise EINPROGRESS("connecting")
        self._try_connect(caller)
        return self._wait_connected(caller, EINPROGRESS)

    def _door(self, target: Endpoint) -> Any:
        """Who of the kernel accepts a connection to there: the resolver; None: nobody."""
        resolver = self.stack.resolver
        return None if resolver is None else resolver.door(target, self.source_for(target))

    def _check_unused(self, target: Endpoint) -> None:
        """One connection between two addresses: __inet_check_established(). EADDRNOTAVAIL."""
        source = self.source_for(target)
        for other in self.ports.at(source.port) if self.has_port else ():
            if not isinstance(other, TcpSocket) or other is self or other.state == TCP_CLOSE:
                continue
            if other.remote == target and other.source_for(target) == source:
                raise EADDRNOTAVAIL("there is such a connection")

    def connection_state(self) -> int:
        """For IPV6_ADDRFORM."""
        return self.state

    def _wait_connected(self, caller: Caller, late: type[Errno]) -> Result:
        """inet_wait_for_connect(): until the other end answers, or for SO_SNDTIMEO."""
        if not self.connecting:
            return self._connect_result()

        def attempt() -> int:
            if self.connecting:
                raise EAGAIN("no answer yet")
            return self._connect_result()

        sleep = self._sleep(attempt, EPOLLOUT, self.sndtimeo_ns, caller)
        return sleep.ended(instead(EAGAIN, late))

    def _connect_result(self) -> int:
        """What came of it; after a failure the socket is as new."""
        self.started = False
        if self.state == TCP_CLOSE:
            self.eof = self.reset = self.read_shut = self.write_shut = False
            self.forget_remote()
        self.take_error()
        if self.state == TCP_CLOSE:
            raise ECONNABORTED("not connected")
        self.established = True
        return 0

    def _try_connect(self, caller: Caller, tries: int = 0, until_ns: int | None = None) -> bool:
        """Send the SYN: True when it was answered (also by a refusal). `until_ns`: of one that has
        waited for room with a listener, when that takes too long."""
        target = self.remote
        if self.state != TCP_SYN_SENT or target is None or self._released:
            return True
        try:
            if target == self.source_for(target):
                self.local = target
                self._connect_to_itself()
                return True
            listener = self._door(target)
            if listener is None:
                passed = self.behind_rules(caller, target, tries)
                if passed is None:
                    return self.state == TCP_CLOSE
                target = passed
                source = self.source_for(target)
                listener = listening_at(self.stack, target, source, LOOPBACK_INDEX)
        except (ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL):  # the address has gone since
            listener = None
        if listener is None:
            self.stack.counters["Tcp.OutRsts"] += 1
            self.refuse(ECONNREFUSED.number)
            return True
        if listener.is_crowded:
            self._wait_for_room(caller, listener, until_ns)
            return False
        try:
            listener._establish(caller, self, target)
        except ENFILE as error:  # perhaps in the middle of somebody else's accept(2)
            self.refuse(error.number)
        return True

    def _wait_for_room(self, caller: Caller, listener: TcpListener, until_ns: int | None) -> None:
        """As a SYN that nobody answers: it is sent again so often, and then that is ETIMEDOUT."""
        loop = caller.kernel.loop
        if until_ns is None:
            waits = (min(FIRST_NS << n, LONGEST_NS) for n in range(setting(self, "TCP_SYNCNT") + 1))
            until_ns = loop.now_ns() + sum(waits)

        def again(_: int) -> None:
            self.ask_no_more()
            self._try_connect(caller, until_ns=until_ns)

        def late() -> None:
            self.ask_no_more()
            self.refuse(ETIMEDOUT.number)

        def give_up() -> None:
            listener.room.remove(entry)
            timer.cancel()

        entry, timer = listener.room.add(again, EPOLLOUT), loop.call_at(until_ns, late)
        self.asks = give_up

    def try_again(self, caller: Caller, tries: int) -> None:
        """The SYN goes once more."""
        self.asks = None
        self._try_connect(caller, tries)

    def _connect_to_itself(self) -> None:
        """Both ends at once: a simultaneous open with one's own SYN. RFC 9293, 3.5."""
        self.peer = self
        self.state = TCP_ESTABLISHED
        self.queue.notify(EPOLLOUT | EPOLLWRNORM)

    # --- sending

    def try_send(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> int:
        """sendmsg(2)."""
        self.take_error()
        if self.write_shut or self.reset:
            raise EPIPE("shut down")
        if self.connecting:
            raise EAGAIN("connecting")
        if self.engine is not None:
            return self.count_sent(caller, self.engine.send(source, flags))
        peer = self.peer
        if peer is None:
            if not self.refused_writes:
                raise EPIPE("not connected")
            if not source.count:
                return 0
            self.reset = self.read_shut = self.write_shut = True
            self.state = TCP_CLOSE
            self.so_error = EPIPE.number
            self._forget_left()
            self.leave_port()
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
            done = self._hold(source, caller)
            peer.was_sent(caller, done)
            return done
        self.uncork()
        done = 0
        while source.count and room > 0:
            data = taken(source, min(source.count, PIECE, room), done)
            if not data:
                break
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
        peer.was_sent(caller, done)
        return done

    def was_sent(self, caller: Caller, size: int) -> None:
        """So many bytes were sent to it."""

    def _send_in_vain(self, source: Source) -> int:
        """What is sent before the reset that answers it comes: a buffer's fill at most."""
        return len(source.get(min(source.count, self.sndbuf)))

    def send_message(
        self, caller: Caller, source: Source, target: Any, flags: int, ancillary: Ancillary | None
    ) -> Any:
        """sendmsg(2); a stream looks at the address only for MSG_FASTOPEN."""
        if flags & MSG_FASTOPEN:
            return self._connect_and_send(caller, source, target or b"", flags, ancillary)
        return super().send_message(caller, source, target, flags, ancillary)

    async def _connect_and_send(
        self, caller: Caller, source: Source, raw: bytes, flags: int, ancillary: Ancillary | None
    ) -> int:
        """MSG_FASTOPEN: connect, then send; no cookie lets data go with the SYN. RFC 7413."""
        if address.is_unspec(raw):
            raise EOPNOTSUPP("an address of no family")
        with self.held():
            await again(self.connect, caller, raw, self.nonblock(flags))
            sent: int = await again(super().send_message, caller, source, None, flags, ancillary)
            return sent

    # --- receiving

    def try_receive(self, dest: Dest, flags: int) -> Received:
        """recvmsg(2)."""
        if flags & MSG_ERRQUEUE:
            return self.receive_copied()
        if self.state == TCP_LISTEN:
            raise ENOTCONN("listening")
        if flags & MSG_OOB:
            return self._receive_urgent(dest, flags)
        if self.engine is not None:
            done = self.engine.receive(dest, flags, self._peeked(flags))
            if done is not None:
                self._count_peek(flags, done)
                return Received(done, ancillary=self.told())
        elif self.queued > self._peeked(flags):
            return Received(self._take(dest, flags), ancillary=self.told())
        if self.eof:  # SOCK_DONE comes before an error
            return Received(0)
        self.take_error()
        if self.read_shut:
            return Received(0)
        if not self._waits():
            raise ENOTCONN("not connected")
        if self.stops_here() and not (flags & MSG_PEEK or SO_OOBINLINE in self.options):
            self._pass_mark()
        raise EAGAIN("nothing there")

    def has_to_wait(self) -> bool:
        """Nothing there, and nothing wrong."""
        return self._may_come() and self.mark is None and not self.queued

    def short_of(self, wanted: int) -> bool:
        """Whether a peek for so many bytes has to wait for more."""
        if self.engine is not None and self.engine.connection.mark is not None:
            return False
        is_short = self.queued < wanted + self._peeked(MSG_PEEK)
        return self._may_come() and self.mark is None and is_short

    def _may_come(self) -> bool:
        return self.is_open and not (self.eof or self.read_shut or self.so_error)

    def _waits(self) -> bool:
        """More may come."""
        return self.state == TCP_SYN_SENT or self.is_open

    # --- readiness

    def poll(self) -> int:
        """tcp_poll(), net/ipv4/tcp.c."""
        if self.state == TCP_LISTEN:
            return EPOLLIN | EPOLLRDNORM if self._accepted else 0
        events = EPOLLERR if self.so_error or self.copies != self.copies_told else 0
        closed = self.state == TCP_CLOSE
        if closed or (self.read_shut and self.write_shut):
            events |= EPOLLHUP
        if self.read_shut or self.eof or (closed and self.reset):
            events |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP
        if self.connecting:
            return events
        if self.engine is not None:
            has_enough = self.engine.has_enough()
        else:
            wanted = max(1, self.numbers[SO_RCVLOWAT])
            has_enough = self.queued >= wanted or self._is_full()
        if has_enough:
            events |= EPOLLIN | EPOLLRDNORM
        if self.urgent_unread:
            events |= EPOLLPRI
        if self.write_shut or self._has_room():
            events |= EPOLLOUT | EPOLLWRNORM
        return events

    def _is_full(self) -> bool:
        """No more can come before something is read: tcp_epollin_ready()."""
        return self.peer is not None and not self.peer._has_room()

    def _has_room(self) -> bool:
        if self.engine is not None:
            return self.engine.has_room()
        peer = self.peer
        return peer is None or peer.queued < peer.rcvbuf + self.sndbuf

    @property
    def congestion(self) -> bytes:
        """The name of its congestion control, which has nothing to do."""
        return self.tcp.congestion

    def queues(self) -> tuple[int, int]:
        """For diagnostics: bytes (of a listener: connections) that wait, and what is unsent."""
        if self.state == TCP_LISTEN:
            return len(self._accepted), self._backlog
        if self.engine is not None:
            return self.engine.queues()
        return self.queued, 0

    def info(self) -> bytes:
        """struct tcp_info."""
        if self.engine is not None:
            return self.engine.info()
        return info(self.state, self.sent, self.got, self.queues())

    def available(self) -> int:
        """FIONREAD."""
        if self.state == TCP_LISTEN:
            raise EINVAL("listening")
        if self.engine is not None:
            return self.engine.connection.available
        return min(self.queued, self.mark) if self.mark else self.queued

    def unsent(self) -> int:
        """TIOCOUTQ: within the sandbox what is sent is received."""
        if self.state == TCP_LISTEN:
            raise EINVAL("listening")
        return len(self._held) if self.engine is None else self.engine.queues()[1]

    def never_sent(self) -> int:
        """SIOCOUTQNSD."""
        return self.unsent() if self.engine is None else self.engine.connection.unsent
