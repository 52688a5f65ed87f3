"""Whom a segment is for: connections, what is left of them, listeners. tcp_v4_rcv()."""

from __future__ import annotations

from sentry.errors import EADDRNOTAVAIL
from sentry.net.inet.address import ANY4, ANY6, Endpoint
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.listener import Listener
from sentry.net.tcp.segment import Arrived, Outgoing
from sentry.net.tcp.settings import Shared
from sentry.net.tcp.stray import reply_to_stray
from sentry.net.tcp.time_wait import TimeWait


class Endpoints:
    """Those of one network namespace.

    A step gives the segments that are to be sent, and between whom. Who makes another step of a
    connection by itself calls `settle` behind it.
    """

    __slots__ = ("connections", "listeners", "orphans", "shared", "time_wait")

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.connections: dict[Flow, Connection] = {}
        self.listeners: dict[Endpoint, Listener] = {}
        self.time_wait = TimeWait(shared)
        self.orphans: set[Flow] = set()
        """Connections that no socket holds any more."""

    def connect(
        self, now_ns: int, connection: Connection, *, is_loopback: bool = False
    ) -> list[tuple[Flow, Outgoing]]:
        """Begin one that the program has made. Raises: EADDRNOTAVAIL."""
        flow = connection.flow
        if flow in self.connections or not self.time_wait.may_reuse(
            now_ns, flow, is_loopback=is_loopback
        ):
            raise EADDRNOTAVAIL("there is such a connection")
        left = self.time_wait.get(flow)
        self.time_wait.remove(flow)
        self.connections[flow] = connection
        connection.connect(now_ns, None if left is None else left.next_iss)
        return self.settle(now_ns, connection)

    def listener_for(self, flow: Flow) -> Listener | None:
        """Who listens there: on the address, else on all of its family, else on all."""
        local = flow.local
        found = self.listeners.get(local)
        if found is None and local.is_v4:
            found = self.listeners.get(Endpoint(ANY4, local.port))
        return found or self.listeners.get(Endpoint(ANY6, local.port))

    def segment(
        self, now_ns: int, flow: Flow, seg: Arrived, mtu: int
    ) -> list[tuple[Flow, Outgoing]]:
        """A segment has come; `mtu` is that of the way back."""
        self.shared.counters["Tcp.InSegs"] += 1
        connection = self.connections.get(flow)
        if connection is not None:
            connection.segment(now_ns, seg)
            return self.settle(now_ns, connection)
        iss = None
        left = self.time_wait.get(flow)
        if left is not None:
            verdict = self.time_wait.segment(now_ns, left, seg)
            iss = verdict.iss
            if iss is None or self.listener_for(flow) is None:
                return [] if verdict.reply is None else [(flow, verdict.reply)]
            self.time_wait.remove(flow)
        listener = self.listener_for(flow)
        if listener is None:
            answer = reply_to_stray(seg)
            if answer is None:
                return []
            self.shared.counters["Tcp.OutRsts"] += 1
            return [(flow, answer)]
        made = listener.segment(now_ns, flow, seg, mtu, iss)
        replies = listener.take()
        if made is not None:
            self.connections[flow] = made
            replies += self.settle(now_ns, made)
        return replies

    def settle(self, now_ns: int, connection: Connection) -> list[tuple[Flow, Outgoing]]:
        """What follows of a step: what it sends, and where it stays once it is over."""
        flow = connection.flow
        if connection.orphan and not connection.is_over and flow not in self.orphans:
            self._orphaned(now_ns, connection)
        found = [(flow, outgoing) for outgoing in connection.take(now_ns)]
        if connection.is_over:
            if self.connections.get(flow) is connection:
                del self.connections[flow]
            self.orphans.discard(flow)
            self.time_wait.add(now_ns, connection)
        return found

    def _orphaned(self, now_ns: int, connection: Connection) -> None:
        """Beyond net.ipv4.tcp_max_orphans it is reset: tcp_check_oom()."""
        if len(self.orphans) < self.shared.settings.tcp_max_orphans:
            self.orphans.add(connection.flow)
            return
        self.shared.counters["TcpExt.TCPAbortOnMemory"] += 1
        connection.abort(now_ns)
