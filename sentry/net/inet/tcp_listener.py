"""A TCP socket that listens: its backlog, and the connections that it makes. tcp(7)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.poll import (
    EPOLLIN,
    EPOLLOUT,
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
from sentry.abi.socket import IPPROTO_TCP
from sentry.ahead import mypyc_attr
from sentry.errors import (
    EAGAIN,
    ECONNABORTED,
    EINVAL,
)
from sentry.net.inet import address
from sentry.net.inet.address import Endpoint
from sentry.net.inet.tcp_stream import TcpStream
from sentry.net.socket import Socket
from sentry.net.sockfs import new_location, socket_location
from sentry.net.sysctls import longest_backlog
from sentry.vfs.file import Caller
from sentry.vfs.interface import Owner
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from sentry.net.inet.tcp_seam import ListeningSide
    from sentry.net.stack import Stack
    from sentry.net.tcp.keyed import Flow
    from sentry.vfs.location import Location


def listening_at(stack: Stack, to: Endpoint, source: Endpoint, index: int) -> Any:
    """Who listens there for what comes by an interface; None: nobody. inet_lhash2_lookup().

    SO_REUSEPORT spreads connections.
    """
    group = stack.ports_of(IPPROTO_TCP).places.group(to, index)
    return None if group is None else group.at(hash((source, to)))


SNDBUF_CONNECTED: Final = 87040
"""What SO_SNDBUF grows to, where the program did not choose."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpListener(TcpStream):
    """The side of a socket that accepts."""

    __slots__ = ("_accepted", "_backlog", "_deferred", "established", "heard", "room", "started")

    def __init__(self, location: Location, family: int, protocol: int, stack: Stack) -> None:
        super().__init__(location, family, protocol, stack)
        self._accepted: deque[Any] = deque()
        self._deferred: deque[Any] = deque()
        """TCP_DEFER_ACCEPT: connections that have sent nothing yet."""
        self._backlog = 0
        self.started = False
        """A connect is under way or not yet told: SS_CONNECTING."""
        self.established = False
        """It was connected, and may be so no more: SS_CONNECTED."""
        self.heard: ListeningSide | None = None
        """How it listens to those outside, where there are links."""
        self.room = WaitQueue()
        """Who connects waits here for a place in the backlog."""

    @property
    def listening(self) -> bool:
        """SO_ACCEPTCONN."""
        return self.state == TCP_LISTEN

    def listen(self, caller: Caller, backlog: int) -> None:
        """listen(2)."""
        if self.started or self.established or self.state not in (TCP_CLOSE, TCP_LISTEN):
            raise EINVAL("connected")
        self.need_port()
        self.ports.check_listen(self)
        self.state = TCP_LISTEN
        self._backlog = min(backlog & 0xFFFFFFFF, longest_backlog(self.stack))
        self.room.notify()  # it may be another one that listens with more
        self.ports.changed(self)
        if self.heard is not None:
            self.heard.listener.backlog = self._backlog
        elif self.stack.tcp is not None:
            self.heard = self.stack.tcp.listen(self, self._backlog)

    def hear_links(self) -> None:
        """There are links from now on: who listens does so to those outside, too."""
        if self.listening and self.heard is None and self.stack.tcp is not None:
            self.heard = self.stack.tcp.listen(self, self._backlog)

    def _make_server(self, location: Location, target: Endpoint, source: Endpoint) -> Any:
        """The socket of a connection that comes."""
        server: Any = type(self)(location, self.family, self.protocol, self.stack)
        server.inode.uid = self.inode.uid
        server.local, server.remote = target, source
        server.has_port = True
        self.ports.adopt(server)
        server.established = True
        server.v6only = self.v6only
        server.inherit(self)
        server.tcp = self.tcp.inherited()
        return server

    def server_for(self, flow: Flow) -> Any:
        """The same of one that comes by a link."""
        owner = Owner(self.inode.uid, self.inode.gid)
        location = new_location(self.stack.kernel.vfs, owner)
        return self._make_server(location, flow.local, flow.remote)

    def waiting(self) -> int:
        """How many connections wait for accept."""
        return len(self._accepted) + len(self._deferred)

    @property
    def is_crowded(self) -> bool:
        """No more may wait."""
        return self.waiting() > self._backlog

    def admit(self, caller: Caller, client: TcpListener, target: Endpoint) -> None:
        """A connection that no program makes. Preconditions: it is not crowded."""
        self._establish(caller, client, target)

    def _establish(self, caller: Caller, client: TcpListener, target: Endpoint) -> None:
        """A connection comes in: the other socket waits for accept."""
        source = client.source_for(target)
        client.local = source
        server = self._make_server(socket_location(caller), target, source)
        self.stack.counters["Tcp.PassiveOpens"] += 1
        server.peer, client.peer = client, server
        server.state = client.state = TCP_ESTABLISHED
        for end in (server, client):
            end.sndbuf = end.sndbuf if end.chose_sndbuf else max(SNDBUF_CONNECTED, end.sndbuf)
        seconds = self.tcp.values[abi.TCP_DEFER_ACCEPT]
        if seconds:
            self._deferred.append(server)
            server.deferred_by = self
            loop = caller.kernel.loop
            until_ns = loop.now_ns() + seconds * 10**9
            server.deferral = loop.call_at(until_ns, server.stop_deferring)
        else:
            self.can_accept(server)
        client.queue.notify(EPOLLOUT | EPOLLWRNORM)

    def can_accept(self, server: TcpListener) -> None:
        """A connection is complete."""
        self._accepted.append(server)
        self.queue.notify(EPOLLIN | EPOLLRDNORM)

    def stop_deferring(self) -> None:
        """TCP_DEFER_ACCEPT: data has come, or it took too long."""
        if self.deferral is not None:
            self.deferral.cancel()
            self.deferral = None
        listener, self.deferred_by = self.deferred_by, None
        if listener is not None and self in listener._deferred:
            listener._deferred.remove(self)
            listener.can_accept(self)

    def inherit(self, listener: TcpListener) -> None:
        """A connection has the options of its listener: inet_csk_clone_lock()."""
        self.options = set(listener.options)
        self.numbers = {**listener.numbers, abi.SO_PRIORITY: 0}
        self.ip_options = dict(listener.ip_options)
        self.ipv6_options = dict(listener.ipv6_options)
        self.linger = listener.linger
        self.rcvbuf, self.sndbuf = listener.rcvbuf, listener.sndbuf
        self.chose_rcvbuf, self.chose_sndbuf = listener.chose_rcvbuf, listener.chose_sndbuf
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

    def _abort_backlog(self) -> None:
        """Listen no more, then reset what nobody has accepted: inet_csk_listen_stop()."""
        if self.state == TCP_LISTEN:
            self.state = TCP_CLOSE
            self.ports.places.gone(self)
            if self.heard is not None:
                self.heard.close()
                self.heard = None
            self.room.notify()
        if waiting := self._accepted + self._deferred:
            self._accepted.clear()
            self._deferred.clear()
            self.stack.kernel.vfs.leftovers.begin(waiting, lambda server: server.abort())
