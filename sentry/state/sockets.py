"""Sockets as records: of AF_UNIX, TCP and UDP, with what is on its way between those inside.

A connection whose other end is in the snapshot goes on; any other one is reset. Both ends, and what
waits for accept(2), are open files here even where no descriptor leads to them (`is_open`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_ADMIN, CAP_NET_RAW
from sentry.abi.socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM
from sentry.errors import ECONNRESET, Errno
from sentry.net.inet.address import Endpoint
from sentry.net.inet.datagram import OVERHEAD
from sentry.net.inet.tcp import TcpSocket
from sentry.net.inet.tcp_options import CONGESTIONS
from sentry.net.inet.time_wait import Remains
from sentry.net.inet.udp import UdpSocket
from sentry.net.message import Ancillary
from sentry.net.packets import Packet
from sentry.net.socket import Socket
from sentry.net.socket_options import U32
from sentry.net.sockfs import new_location
from sentry.net.unix import UnixSocket
from sentry.net.unix_flights import flights
from sentry.net.unix_segment import Segment
from sentry.state import records
from sentry.state.loader import at
from sentry.state.pages import Damaged
from sentry.vfs.interface import Owner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.state.opening import Files
    from sentry.state.saver import Saver

KEPT: Final = (
    "protocol", "linger", "rcvbuf", "sndbuf", "chose_rcvbuf", "chose_sndbuf", "so_error",
    "read_shut", "write_shut",
)  # fmt: skip
"""Fields of all sockets that are the same in the record."""
TIMEOUTS: Final = ("rcvtimeo_ns", "sndtimeo_ns")
KEPT_OF_TCP: Final = (
    "has_port", "shares_port", "v6only", "started", "established", "eof", "reset",
    "refused_writes", "sent", "got", "mark", "urgent", "urgent_unread",
)  # fmt: skip
STATES: Final = {
    abi.BPF_TCP_CLOSE, abi.BPF_TCP_LISTEN, abi.BPF_TCP_ESTABLISHED, abi.BPF_TCP_CLOSE_WAIT,
    abi.BPF_TCP_FIN_WAIT2,
}  # fmt: skip
"""Of connections that stay inside."""
MIN_BUFFER: Final = 2048
MAX_BUFFER: Final = 1 << 26


def common(saver: Saver, sock: Socket) -> dict[str, Any]:
    """What all sockets have. Raises: EOPNOTSUPP."""
    from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

    if sock.filter is not None:
        refused("a socket with a filter of packets (SO_ATTACH_FILTER)")
    found = {name: getattr(sock, name) for name in KEPT}
    for name in TIMEOUTS:
        found[name] = None if getattr(sock, name) is None else records.time_ns(getattr(sock, name))
    return found | {
        "options": sorted(sock.options), "numbers": sorted(sock.numbers.items()),
        "family": sock.family, "uid": sock.inode.uid, "gid": sock.inode.gid,
        "is_open": sock.refs > 0, "net": saver.namespaces.net(sock.stack),
    }  # fmt: skip


def unix(saver: Saver, sock: UnixSocket, rest: dict[str, Any]) -> records.OpenFile:
    """One end of AF_UNIX."""
    from sentry.state.saver import refused  # noqa: PLC0415

    if sock.served is not None or sock.is_outside or (sock.peer and sock.peer.is_outside):
        refused("a socket of a service of the host")
    tree = inode = None
    if sock.bound_inode is not None:
        tree, inode = saver.in_tree(sock.bound_inode)
    peer = None if sock.peer is None else saver.files(sock.peer)
    segments = [
        records.Sent(
            bytes(each.data), saver.files(each.sender), _ucred(saver, each.creds),
            [saver.files(file) for file in each.files], each.charge, each.stamp_ns, each.urgent,
        )
        for each in sock.segments
    ]  # fmt: skip
    owns = sock.name is not None and sock.stack.abstract.get((sock.kind, sock.name)) is sock
    return records.UnixEnd(
        type=sock.kind, name=sock.name, tree=tree, inode=inode, peer=peer,
        connected=sock.connected, peer_creds=_ucred(saver, sock.peer_creds),
        peer_groups=list(sock.peer_groups), segments=segments, accepts=sock._accepts,
        backlog=sock._backlog, pending=[saver.files(each) for each in sock.pending],
        gone=sock.gone, owns_name=owns,
        **common(saver, sock), **rest,
    )  # fmt: skip


def _ucred(saver: Saver, creds: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    return None if creds is None else (saver.number(creds[0]), *creds[1:])


def _leaves(saver: Saver, sock: TcpSocket) -> bool:
    """It goes by a link, or to another container."""
    return sock.engine is not None or saver.others.has(sock.peer)


def tcp(saver: Saver, sock: TcpSocket, rest: dict[str, Any]) -> records.OpenFile:
    """A listener, or an end of a connection. What leaves the container is reset when it is read."""
    from sentry.state.saver import refused  # noqa: PLC0415

    if sock.connecting or sock.peer is sock or (sock.peer and type(sock.peer) is not TcpSocket):
        refused("a TCP connection that is being made, or with a service")
    sock.uncork()
    outside = _leaves(saver, sock)
    state = abi.BPF_TCP_CLOSE if outside or sock.state not in STATES else sock.state
    adopted = sock in sock.ports._adopted.get(sock.local.port, ())
    return records.TcpEnd(
        state=state, local=_written(sock.local),
        remote=None if sock.remote is None else _written(sock.remote), adopted=adopted,
        bound=(sock._bound_ip, sock._bound_port), values=sorted(sock.tcp.values.items()),
        congestion=sock.tcp.congestion, ip_options=_numbers(sock.ip_options),
        ipv6_options=_numbers(sock.ipv6_options), chunks=list(sock.chunks),
        peer=None if outside or sock.peer is None else saver.files(sock.peer),
        backlog=sock._backlog,
        accepted=[saver.files(each) for each in (*sock._accepted, *sock._deferred)
                  if not _leaves(saver, each)],
        left=None if sock._left is None else saver.left(sock._left, sock.stack),
        outside=outside, **{name: getattr(sock, name) for name in KEPT_OF_TCP},
        **common(saver, sock), **rest,
    )  # fmt: skip


def udp(saver: Saver, sock: UdpSocket, rest: dict[str, Any]) -> records.OpenFile:
    """With the datagrams that wait; errors that were to be told are lost."""
    from sentry.state.saver import refused  # noqa: PLC0415

    if sock.groups or sock._corked:
        refused("a UDP socket in a multicast group, or that is corked")
    datagrams = [
        records.Datagram(
            bytes(each.data), _written(each.source), _written(each.target), each.ttl, each.tos,
            each.index, each.stamp_ns,
        )
        for each in sock.packets
    ]  # fmt: skip
    return records.UdpEnd(
        datagrams=datagrams,
        local=_written(sock.local),
        remote=None if sock.remote is None else _written(sock.remote), has_port=sock.has_port,
        v6only=sock.v6only, bound=(sock._bound_ip, sock._bound_port),
        ip_options=_numbers(sock.ip_options), ipv6_options=_numbers(sock.ipv6_options),
        udp_options=_numbers(sock.udp_options), **common(saver, sock), **rest,
    )  # fmt: skip


def _numbers(options: dict[int, Any]) -> list[tuple[int, int]]:
    return sorted((name, value) for name, value in options.items() if type(value) is int)


def _written(endpoint: Endpoint) -> tuple[bytes, int]:
    return endpoint.ip, endpoint.port


# --- from records


def _endpoint(record: tuple[bytes, int]) -> Endpoint:
    ip, port = record
    if len(ip) != 16 or not 0 <= port < 1 << 16:
        raise Damaged("an address that is none")
    return Endpoint(ip, port)


def _filled(sock: Socket, record: records.AnySocket) -> None:
    for name in (*KEPT, *TIMEOUTS):
        setattr(sock, name, getattr(record, name))
    sock.rcvbuf = min(max(sock.rcvbuf, MIN_BUFFER), MAX_BUFFER)
    sock.sndbuf = min(max(sock.sndbuf, MIN_BUFFER), MAX_BUFFER)
    sock.options = set(record.options)
    _into(sock, abi.SOL_SOCKET, sock.numbers, record.numbers)


def _into(
    sock: Socket, level: int, options: dict[int, Any], given: list[tuple[int, int]]
) -> None:
    """Numbers that setsockopt(2) would have kept. Raises: Damaged."""
    for name, value in given:
        if options.get(name) == value:
            continue
        row = sock.options_known.find((level, name))
        if row is None or not -(1 << 31) <= value <= U32:
            raise Damaged(f"a socket whose option {name} is {value}")
        try:
            options[name] = row.number_in((value & U32).to_bytes(4, "little"))
        except Errno as error:
            raise Damaged(f"a socket whose option {name} is {value}: {error}") from None


async def made(files: Files, record: records.AnySocket) -> Socket:
    """A socket that is not connected yet. Raises: Damaged."""
    stack = files.loader.namespaces.stack(record.net)
    location = new_location(files.vfs, Owner(record.uid, record.gid))
    sock: Any
    if isinstance(record, records.UnixEnd):
        if record.type not in (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET):
            raise Damaged(f"a Unix socket of type {record.type}")
        sock = UnixSocket(location, record.type, stack)
    elif record.family not in (AF_INET, AF_INET6):
        raise Damaged(f"a socket of family {record.family}")
    elif isinstance(record, records.TcpEnd):
        sock = TcpSocket(location, record.family, abi.IPPROTO_TCP, stack)
    else:
        sock = UdpSocket(location, record.family, abi.IPPROTO_UDP, stack)
    protocol = sock.protocol
    _filled(sock, record)
    sock.protocol = protocol
    return sock  # type: ignore[no-any-return]


def _remains(record: records.Remains) -> Remains:
    return Remains(
        _endpoint(record.local), _endpoint(record.remote), record.family, set(record.options),
        record.v6only, record.uid, record.state, record.expires_ns, record.shares_port,
    )  # fmt: skip


def _within(sock: TcpSocket, others: Iterable[TcpSocket]) -> None:
    """No connection of TCP leaves its network namespace. Raises: Damaged."""
    if any(each.stack is not sock.stack for each in others):
        raise Damaged("a TCP connection between two network namespaces")


class Tying:
    """Sockets that are there get their names, and each other. Raises: Damaged."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._waiting: set[int] = set()
        """Sockets in a queue of a listener."""
        self.remains: list[Remains] = []
        for record in files.loader.snapshot.remains:
            stack = files.loader.namespaces.stack(record.net)
            self.remains.append(_remains(record))
            stack.ports_of(abi.IPPROTO_TCP).ended.keep(self.remains[-1])

    def tie(self, sock: Any, record: records.AnySocket) -> None:
        """One of them. Preconditions: all are made."""
        if isinstance(record, records.UnixEnd):
            self._unix(sock, record)
        elif isinstance(record, records.TcpEnd):
            self._tcp(sock, record)
        elif isinstance(record, records.UdpEnd):
            self._udp(sock, record)
        self._cut(sock)

    def _cut(self, sock: Any) -> None:
        """What no program of the container may set is as in a new socket: socket(7), ip(7)."""
        rights = self._files.loader.rights
        if sock.stack.owner is not None or rights.has(CAP_NET_ADMIN) or rights.has(CAP_NET_RAW):
            return
        sock.numbers.pop(abi.SO_MARK, None)
        if not isinstance(sock, UnixSocket):
            sock.ip_options[abi.IP_TRANSPARENT] = 0

    def _other(self, place: int, kind: type) -> Any:
        found = at(self._files.made, place, "open file")
        if type(found) is not kind:
            raise Damaged("a connection with what is no such socket")
        return found

    def _queued(self, places: list[int], kind: type) -> list[Any]:
        found = []
        for place in places:
            other = self._other(place, kind)
            if place in self._waiting or other.refs or getattr(other, "gone", False):
                raise Damaged("a connection that waits twice, or is accepted")
            self._waiting.add(place)
            found.append(other)
        return found

    def _unix(self, sock: UnixSocket, record: records.UnixEnd) -> None:
        sock.name = record.name
        sock._released = record.gone
        if record.peer is not None:
            sock.peer = self._other(record.peer, UnixSocket)
            if sock.peer.kind != sock.kind:
                raise Damaged("a connection with another kind of socket")
        sock.connected = record.connected
        sock.peer_creds = self._ucred(record.peer_creds)
        sock.peer_groups = tuple(record.peer_groups)
        sock._accepts = record.accepts
        sock._backlog = sock._backlog if sock.kind == SOCK_DGRAM else record.backlog
        sock.pending = deque(self._queued(record.pending, UnixSocket))
        if record.accepts and (sock.kind == SOCK_DGRAM or sock.connected):
            raise Damaged("a Unix socket that listens and cannot")
        if not record.gone:
            self._name(sock, record)
        for sent in record.segments:
            self._send(sock, sent)

    def _ucred(self, creds: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        return None if creds is None else (self._files.numbered(creds[0]), *creds[1:])

    def _name(self, sock: UnixSocket, record: records.UnixEnd) -> None:
        if record.tree is not None and record.inode is not None:
            inode = at(at(self._files.loader.inodes, record.tree, "tree"), record.inode, "file")
            if inode.kind != 0o140000 or inode.bound is not None:
                raise Damaged("a name of a Unix socket that is none")
            sock.bound_inode = inode
            inode.bound = sock
        elif record.name is not None and record.owns_name:
            if (sock.kind, record.name) in sock.stack.abstract:
                raise Damaged("a name of two Unix sockets")
            sock.stack.abstract[sock.kind, record.name] = sock

    def _send(self, sock: UnixSocket, sent: records.Sent) -> None:
        files = [at(self._files.made, place, "open file") for place in sent.files]
        ancillary = Ancillary(files, sent=True) if files else None
        sender, creds = self._other(sent.sender, UnixSocket), self._ucred(sent.creds)
        segment = Segment(sent.data, sender, creds, ancillary)
        segment.charge = max(sent.charge, segment.charge)
        segment.stamp_ns, segment.urgent = sent.stamp_ns, sent.urgent
        segment.sender.sent_charge += segment.charge
        sock.segments.append(segment)
        sock.queued += len(sent.data)
        if sent.urgent:
            sock.urgent = segment
        for file in files:
            file.incref()
        if files:
            flights(sock.stack).begin(files)

    def _tcp(self, sock: TcpSocket, record: records.TcpEnd) -> None:
        for name in KEPT_OF_TCP:
            setattr(sock, name, getattr(record, name))
        sock.local = _endpoint(record.local)
        sock.remote = None if record.remote is None else _endpoint(record.remote)
        sock._bound_ip, sock._bound_port = record.bound
        _into(sock, abi.IPPROTO_TCP, sock.tcp.values, record.values)
        _into(sock, abi.IPPROTO_IP, sock.ip_options, record.ip_options)
        _into(sock, abi.IPPROTO_IPV6, sock.ipv6_options, record.ipv6_options)
        if record.congestion in CONGESTIONS:
            sock.tcp.congestion = record.congestion
        self._claim(sock, record.adopted)
        if record.outside or record.state not in STATES:
            sock.so_error = sock.so_error or ECONNRESET.number
            sock.reset = sock.read_shut = sock.write_shut = True
            return
        sock.chunks = deque(filter(None, record.chunks))
        sock.queued = sum(map(len, record.chunks))
        if record.state == abi.BPF_TCP_LISTEN:
            self._listen(sock, record)
            return
        if record.peer is not None:
            sock.peer = self._other(record.peer, TcpSocket)
            if sock.peer is sock or record.state == abi.BPF_TCP_CLOSE:
                raise Damaged("a TCP connection that is none")
            _within(sock, [sock.peer])
        if record.left is not None:
            sock._left = at(self.remains, record.left, "end of a connection")
        sock.state = record.state

    def _listen(self, sock: TcpSocket, record: records.TcpEnd) -> None:
        if not sock.has_port or record.peer is not None:
            raise Damaged("a listener without a port")
        sock.state = abi.BPF_TCP_LISTEN
        sock._backlog = min(record.backlog, abi.SOMAXCONN)
        sock.ports.changed(sock)
        sock.hear_links()
        sock._accepted = deque(self._queued(record.accepted, TcpSocket))
        _within(sock, sock._accepted)

    def _udp(self, sock: UdpSocket, record: records.UdpEnd) -> None:
        sock.local = _endpoint(record.local)
        sock.remote = None if record.remote is None else _endpoint(record.remote)
        sock.v6only, (sock._bound_ip, sock._bound_port) = record.v6only, record.bound
        _into(sock, abi.IPPROTO_IP, sock.ip_options, record.ip_options)
        _into(sock, abi.IPPROTO_IPV6, sock.ipv6_options, record.ipv6_options)
        _into(sock, abi.IPPROTO_UDP, sock.udp_options, record.udp_options)
        for each in record.datagrams:
            ends = _endpoint(each.source), _endpoint(each.target)
            packet = Packet(
                each.data, *ends, ttl=each.ttl, tos=each.tos, index=each.index,
                stamp_ns=each.stamp_ns,
            )  # fmt: skip
            sock.packets.append(packet)
            sock._charged += len(each.data) + OVERHEAD
        if record.has_port:
            if not sock.local.port:
                raise Damaged("a socket at port 0")
            sock.local = sock.ports.claim(sock, sock.local, stream=False)
            sock.has_port = True

    def _claim(self, sock: TcpSocket, adopted: bool) -> None:
        """Its port, which was its already when others came to share it."""
        if not sock.has_port:
            return
        if not sock.local.port:
            raise Damaged("a socket at port 0")
        if self._files.loader.is_others(sock):
            raise Damaged(f"port {sock.local.port} is another container's")
        if adopted:
            sock.ports.adopt(sock)
            return
        sock.ports._note(sock, sock.local)
        sock.ports._bound.setdefault(sock.local.port, {})[sock] = None
