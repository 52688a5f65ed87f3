"""TCP that leaves by a link, and that comes: the engine of sentry.net.tcp over `IpLayer`.

Connections within the sandbox have no packets and are not here; listeners are here and there.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import ECONNRESET, EHOSTUNREACH, EMSGSIZE, ENETUNREACH, Errno
from sentry.net.deadlines import Deadlines, earlier
from sentry.net.inet.address import Endpoint, mapped, needs_scope, plain
from sentry.net.inet.paths import key_of
from sentry.net.inet.tcp_engine import Engine, Listening, seconds_of
from sentry.net.inet.tcp_reached import Reached
from sentry.net.inet.tcp_tuning import memory_limits, read_settings, tune
from sentry.net.inet.tcp_turns import Turns
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.seam import Arrived, Failure, Outgoing
from sentry.net.ip.way import Way, way_by
from sentry.net.link.early import key_of as early_key
from sentry.net.link.vnet import Offload
from sentry.net.rules import PLAIN, RouteKey
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.keyed import Flow, Keyed
from sentry.net.tcp.segment import CWR, FIN, NO_PAYLOAD, RST, parse
from sentry.net.tcp.settings import Settings, Shared, Tuning
from sentry.platform.constants import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from sentry.net.inet.tcp import TcpSocket
    from sentry.net.inet.tcp_listener import TcpListener
    from sentry.net.ip.layer import IpLayer
    from sentry.net.ip.seam import Path
    from sentry.net.stack import Stack
    from sentry.net.tcp import segment

LEAST_MTU4: Final = 552
"""net.ipv4.route.min_pmtu: nobody is believed that a way is narrower."""
DEFAULT_MTU: Final = 576
"""Where there is no way back, and an answer does not arrive either."""
DUE_AT_ONCE: Final = 64
"""Deadlines that are met in a call."""
CHECKSUM_AT: Final = 16
ANSWER_TTL: Final = 64
"""Of what no socket sends."""


class TcpByLink:
    """Of one network namespace: `Stack.tcp`."""

    def __init__(self, stack: Stack, layer: IpLayer) -> None:
        self.stack = stack
        self.layer = layer
        self.settings = Settings()
        self.shared = Shared(self.settings, Keyed(os.urandom(32)), counters=stack.counters)
        self.endpoints = Reached(self.shared, stack)
        self.endpoints.time_wait.on_change = self._left_changed
        self.engines: dict[Flow, Engine] = {}
        """Connections that are not over."""
        self.left: dict[Flow, Any] = {}
        """What holds the port of a connection that no socket has."""
        self.used = 0
        """Bytes in the buffers of all."""
        self._written: dict[str, str] | None = None
        """What was written to /proc/sys/net when it was read last."""
        self.refresh()
        self._due: Deadlines[Engine | Listening] = Deadlines()
        self._told_ns: int | None = None
        self.on_over: Callable[[Flow], object] = lambda flow: None
        """Nothing more comes of a connection, also of what is left of one."""
        self.on_listen: Callable[[TcpListener], object] = lambda sock: None
        """A socket listens from now on."""
        self.on_silence: Callable[[TcpListener], object] = lambda sock: None
        """And no more."""
        self.turns = Turns()
        self._stepped: dict[Engine, None] = {}
        """Whom a segment was for since `rest`: one acknowledgement does for many."""
        self.clock = time.monotonic_ns

    def refresh(self) -> None:
        """Something begins: by what stands in /proc/sys now."""
        written = self.stack.sysctls
        if written != self._written:
            self._written = dict(written)
            read_settings(self.settings, written)
            self._pressure, self._most = memory_limits(written)

    # --- what sockets begin

    def connect(self, sock: TcpSocket, target: Endpoint, sender: object = None) -> Engine:
        """A connection to somebody outside. Preconditions: the socket has its port.

        Raises: EADDRNOTAVAIL.
        """
        self.refresh()
        now_ns, flow = self.clock(), Flow(sock.local, target)
        key = key_of(sock, target)
        path = self.layer.path_or_none(now_ns, plain(target.ip), sock.device, key)
        tuning = Tuning()
        tune(tuning, sock)
        tuning.congestion = sock.tcp.congestion.decode()
        mtu = DEFAULT_MTU if path is None else path.mtu
        connection = Connection(flow, self.shared, mtu, tuning)
        engine = Engine(self, connection, sock)
        engine.sender = sender
        made = self.endpoints.connect(now_ns, connection)
        self.engines[flow] = engine
        self._send_all(now_ns, engine, made)
        self.after(now_ns, engine)
        return engine

    def listen(self, sock: TcpListener, backlog: int) -> Listening:
        """A socket listens: from now on also to those outside."""
        self.refresh()
        made = Listening(self, sock, backlog)
        self.on_listen(sock)
        return made

    def adopt(self, sock: TcpListener, connection: Connection) -> None:
        """A connection that came is complete: it waits for accept(2) as others do."""
        server = sock.server_for(connection.flow)
        engine = self.engines[connection.flow] = Engine(self, connection, server)
        engine.show()
        sock.can_accept(server)

    def answered(self, now_ns: int, heard: Listening) -> None:
        """Behind each step of a listener."""
        for flow, made in heard.listener.take():
            self.transmit(now_ns, flow, made, ttl=ANSWER_TTL)
        self._set_due(heard, heard.listener.timer())

    def unheard(self, heard: Listening) -> None:
        """It listens no more."""
        self._set_due(heard, None)
        self.on_silence(heard.sock)

    # --- in

    def arrived(self, now_ns: int, packet: Arrived) -> bool:
        """tcp_v4_rcv(), tcp_v6_rcv()."""
        counters = self.stack.counters
        if packet.is_group or not packet.to_us:
            return True
        is_good = packet.checksum_is_good
        if not is_good:
            size = len(packet.payload)
            before = pseudo_sum(packet.source, packet.target, IPPROTO_TCP, size)
            is_good = not checksum(packet.payload, before)
        seg = parse(packet.payload, is_good, packet.tos & 3)
        if seg is None or not is_good:
            counters["Tcp.InSegs"] += 1
            counters["Tcp.InErrs"] += 1
            counters["Tcp.InCsumErrors"] += not is_good
            return True
        flow = Flow(
            Endpoint(mapped(packet.target), seg.destination_port),
            Endpoint(mapped(packet.source), seg.source_port),
        )
        engine = self.engines.get(flow)
        if engine is None:
            self._arrived_new(now_ns, flow, seg, packet)
            return True
        self._known(engine, packet)
        self.take(now_ns, engine, seg)
        return True

    def _known(self, engine: Engine, packet: Arrived) -> None:
        """Segments of it come as this one has, and more of them go straight to it."""
        early = self.layer.early_of(packet)
        if early is not None:
            ports = bytes(packet.payload[:4])
            engine.comes_by(early, early_key(packet.source, packet.target, ports, IPPROTO_TCP))

    def take(self, now_ns: int, engine: Engine, seg: segment.Arrived) -> None:
        """For a connection that is there."""
        self.stack.counters["Tcp.InSegs"] += seg.count
        if self.used > self._most and seg.payload and engine.connection.rcv.queued:
            self.stack.counters["TcpExt.TCPRcvQDrop"] += 1
            seg.payload, seg.flags = NO_PAYLOAD, seg.flags & ~FIN
        engine.connection.segment(now_ns, seg)
        engine.confirm(now_ns)
        if engine.connection.is_over:
            self.after(now_ns, engine)
        else:
            self._stepped[engine] = None

    def _arrived_new(
        self, now_ns: int, flow: Flow, seg: segment.Arrived, packet: Arrived
    ) -> None:
        """For no connection: a listener's, of what is left of one, or nobody's."""
        key = PLAIN
        if self.layer.fib.asks:
            ports = flow.local.port, flow.remote.port
            key = RouteKey(
                packet.target, protocol=IPPROTO_TCP, source_port=ports[0], port=ports[1]
            )
        back = self.layer.path_or_none(now_ns, packet.source, self._scope(flow), key)
        self.endpoints.index = packet.index
        replies = self.endpoints.segment(
            now_ns, flow, seg, DEFAULT_MTU if back is None else back.mtu
        )
        for each, made in replies:
            self.transmit(now_ns, each, made, ttl=ANSWER_TTL)
        engine = self.engines.get(flow)
        if engine is not None:
            self._known(engine, packet)
            self.after(now_ns, engine)
        heard, self.endpoints.heard = self.endpoints.heard, None
        if heard is not None:
            self.endpoints.note(flow, heard)
            self.answered(now_ns, heard)

    def failed(self, now_ns: int, failure: Failure) -> bool:
        """tcp_v4_err(), tcp_v6_err()."""
        quoted = failure.quoted
        ours, theirs = int.from_bytes(quoted[:2]), int.from_bytes(quoted[2:4])
        flow = Flow(
            Endpoint(mapped(failure.source), ours), Endpoint(mapped(failure.target), theirs)
        )
        engine = self.engines.get(flow)
        if engine is None:
            return False
        connection, sequence = engine.connection, int.from_bytes(quoted[4:8])
        is_ours = connection.is_under_way(sequence)
        if failure.number == EMSGSIZE.number:
            least = LEAST_MTU4 if flow.remote.is_v4 else 0
            connection.path_mtu(now_ns, sequence, max(failure.info, least))
        elif failure.number:
            is_told = engine.wants_errors
            connection.icmp_error(now_ns, sequence, failure.number, is_told=is_told)
        self._set_due(engine, now_ns)  # once the layer knows what was learned of the way
        return is_ours

    def rest(self, now_ns: int) -> None:
        """No more segments come for now."""
        stepped, self._stepped = self._stepped, {}
        for engine in stepped:
            self.after(now_ns, engine)

    def reset_by(self, indexes: AbstractSet[int]) -> None:
        """Connections by these interfaces, of which nobody outside hears."""
        for engine in list(self.engines.values()):
            if engine.index in indexes:
                engine.destroy(ECONNRESET.number)

    # --- out

    def after(self, now_ns: int, engine: Engine) -> None:
        """Behind each step of a connection: what it sends, and what becomes of it."""
        connection = engine.connection
        if self.engines.get(connection.flow) is not engine:
            self.account(engine)
            return
        self.turns.stop(engine)
        while connection.is_over or connection.orphan or connection.has_output:
            if not connection.is_over and not self._has_room(engine):
                self.turns.wait(engine)
                break
            made = self.endpoints.settle(now_ns, connection)
            if not made:
                break
            self._send_all(now_ns, engine, made)
        self.account(engine)
        if connection.is_over:
            self._forget(engine)
        else:
            engine.show_orphan()
            self._set_due(engine, connection.timer())

    def _send_all(
        self, now_ns: int, engine: Engine, made: list[tuple[Flow, segment.Outgoing]]
    ) -> None:
        for flow, each in made:
            path = self.transmit(
                now_ns, flow, each, tos=engine.tos, ttl=engine.ttl, index=engine.device,
                on_error=engine.connection, sender=engine.sender, whose=(engine.mark, engine.user),
            )  # fmt: skip
            if path is None:
                continue
            engine.index = path.interface
            if path.mtu != engine.connection.mtu:
                engine.connection.set_mtu(path.mtu)

    def transmit(
        self, now_ns: int, flow: Flow, made: segment.Outgoing, *, tos: int = 0, ttl: int,
        index: int = 0, on_error: Connection | None = None, sender: object = None,
        whose: tuple[int, int] = (0, 0),
    ) -> Path | None:  # fmt: skip
        """One segment goes; by which way. `whose`: its mark, and the user. None: there is none, and
        it is as lost."""
        self.stack.counters["Tcp.OutSegs"] += -(-made.size // made.gso_size) if made.gso_size else 1
        ends = flow.local.ip, flow.remote.ip, index, IPPROTO_TCP
        way = self.layer.ways.get(ends)
        if way is not None and send_by(way, now_ns, self.layer, made, (tos, ttl)):
            return way.path
        source, target = plain(flow.local.ip), plain(flow.remote.ip)
        head = made.header
        total = pseudo_sum(source, target, IPPROTO_TCP, len(head) + made.size)
        head = head[:CHECKSUM_AT] + total.to_bytes(2) + head[CHECKSUM_AT + 2 :]
        out = Outgoing(
            target, IPPROTO_TCP, (head, *made.pieces), source, tos & ~3 | made.ecn, ttl,
            index or self._scope(flow),
        )  # fmt: skip
        has_cwr = bool(made.gso_size and head[13] & CWR)
        out.offload = Offload(0, CHECKSUM_AT, made.gso_size, has_cwr)
        out.transport_size, out.sender, out.by_itself = len(head), sender, bool(head[13] & RST)
        out.mark, out.user = whose
        try:
            path = self.layer.send(now_ns, out)
        except Errno as error:
            self.stack.counters["Ip.OutDiscards" if len(target) == 4 else "Ip6OutDiscards"] += 1
            if on_error is not None:
                is_told = isinstance(error, ENETUNREACH)
                on_error.soft_error = (ENETUNREACH if is_told else EHOSTUNREACH).number
            return None
        way = way_by(self.layer, now_ns, path, (source, target), IPPROTO_TCP, CHECKSUM_AT)
        self.layer.ways.keep(ends, way)
        return path

    def _scope(self, flow: Flow) -> int:
        """By which interface there is a way to an address that each link has; 0: to any other."""
        if not needs_scope(flow.remote.ip):
            return 0
        holder = self.stack.interfaces.holder(plain(flow.local.ip))
        return 0 if holder is None else holder.index

    # --- room

    def _has_room(self, engine: Engine) -> bool:
        link = self.layer.links.get(engine.index)
        return link is None or link.has_room

    def has_room(self, index: int) -> None:
        """A link has: who has waited longest goes on, and stands behind the others then."""
        for engine in self.turns.first(index):
            self.after(self.clock(), engine)

    def account(self, engine: Engine) -> None:
        """net.ipv4.tcp_mem."""
        charge = engine.connection.memory
        self.used += charge - engine.charged
        engine.charged = charge
        self.shared.is_pressed = self.used > self._pressure

    def is_full(self) -> bool:
        """No more memory for what is to be sent."""
        return self.used > self._most

    def totals(self) -> tuple[int, int]:
        """Connections that no socket has, and pages of memory: for /proc/net/sockstat."""
        return len(self.endpoints.orphans), -(-self.used // PAGE_SIZE)

    # --- the end

    def has_unsaid(self) -> bool:
        """Somebody has yet to acknowledge bytes, or the end of a connection."""
        return any(
            each.is_ending or len(each.connection.stream) > 0 for each in self.engines.values()
        )

    def _forget(self, engine: Engine) -> None:
        """A connection is over. What a program has not read of it is still there."""
        flow = engine.connection.flow
        del self.engines[flow]
        self._due.drop(engine)
        engine.over()
        if self.endpoints.time_wait.get(flow) is None:
            self.on_over(flow)
            if flow in self.left:
                self.release(flow)

    def hold(self, flow: Flow, left: Any, seconds: int) -> None:
        """The port stays taken, without a socket."""
        self.left[flow] = left
        self.stack.ports_of(IPPROTO_TCP).ended.add(left, seconds)

    def release(self, flow: Flow) -> None:
        """And is free again."""
        left = self.left.pop(flow, None)
        if left is not None:
            self.stack.ports_of(IPPROTO_TCP).ended.remove(left)

    def _left_changed(self, flow: Flow) -> None:
        """Something has come into the table of TIME_WAIT, has changed there, or has gone."""
        left = self.endpoints.time_wait.get(flow)
        if left is None:
            self.on_over(flow)
            self.release(flow)
            return
        engine, known = self.engines.get(flow), self.left.get(flow)
        if known is None and engine is not None and engine.has_socket:
            known = engine.remains(left.state)
        if known is not None:
            known.state = left.state
            self.hold(flow, known, seconds_of(left.state))
        self._tell(self.endpoints.time_wait.timer())

    # --- time

    def _set_due(self, what: Engine | Listening, at_ns: int | None) -> None:
        """An earlier one is left where it is: to be called too early does no harm."""
        if at_ns is None:
            if what.due_ns is not None:
                what.due_ns = None
                self._due.drop(what)
            return
        if what.due_ns is None or at_ns < what.due_ns:
            what.due_ns = at_ns
            self._due.set(what, at_ns)
        self._tell(at_ns)

    def _tell(self, at_ns: int | None) -> None:
        """It is due, which may be sooner than was said."""
        if at_ns is not None and (self._told_ns is None or at_ns < self._told_ns):
            self._told_ns = at_ns
            self.layer.on_deadline()

    def timer(self) -> int | None:
        """When `timeout` is to be called."""
        self._told_ns = earlier(self._due.first_ns(), self.endpoints.time_wait.timer())
        return self._told_ns

    def timeout(self, now_ns: int) -> None:
        """What is due, not too much at once."""
        for _ in range(DUE_AT_ONCE):
            what = self._due.take_due(now_ns)
            if what is None:
                break
            what.due_ns = None
            what.timeout(now_ns)
        self.endpoints.time_wait.timeout(now_ns)


def send_by(
    way: Way, now_ns: int, layer: IpLayer, made: segment.Outgoing, tos_ttl: tuple[int, int]
) -> bool:
    """A segment goes by a way that is known. False: it is no more, and it has not gone."""
    header = made.header
    size = len(header) + made.size
    begin = way.begin(
        now_ns, layer, size, tos_ttl[0] & ~3 | made.ecn, tos_ttl[1], header_size=len(header),
        gso_size=made.gso_size, has_cwr=bool(header[13] & CWR),
    )  # fmt: skip
    if not begin:
        return False
    check = way.pseudo_sum(size).to_bytes(2)
    way.link.pass_on(b"".join((
        begin, header[:CHECKSUM_AT], check, header[CHECKSUM_AT + 2 :], *made.pieces
    )))  # fmt: skip
    return True


def plug(stack: Stack) -> None:
    """Let TCP of a stack go by its links. Preconditions: `stack.ip` is there."""
    assert stack.ip is not None
    made = stack.tcp = TcpByLink(stack, stack.ip)
    for is_v4 in (True, False):
        stack.ip.handlers[is_v4, IPPROTO_TCP] = made
    stack.ip.timed.append(made)
    stack.ip.on_room, stack.ip.on_rest = made.has_room, made.rest
