"""Datagrams that leave by a link, and those that come: UDP, raw and ping sockets over `IpLayer`.

What stays in the sandbox has no packets and is not here.
"""

from __future__ import annotations

import struct
import time
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from sentry.abi import socket as abi
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)
from sentry.errors import EMSGSIZE
from sentry.net.inet.address import MAPPED, Endpoint, is_multicast, mapped, plain
from sentry.net.inet.paths import key_of, mark_of
from sentry.net.inet.udp import receiver_of, to_everybody
from sentry.net.inet.udp_early import KnownEnds
from sentry.net.inet.wire import show_raw
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.icmp import count_sent
from sentry.net.ip.output import MARKED
from sentry.net.ip.seam import Arrived, Failure, Outgoing
from sentry.net.ip.way import way_by
from sentry.net.link.vnet import NOTHING, Offload
from sentry.net.packets import Packet

if TYPE_CHECKING:
    from sentry.net.inet.datagram import DatagramSocket
    from sentry.net.inet.raw import RawSocket
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

UDP_HEADER: Final = 8
UDP_CHECKSUM_AT: Final = 6
MAX_SEGMENTS: Final = 128
"""Datagrams that come joined to one: UDP_MAX_SEGMENTS."""
RAW_LOOKED_AT: Final = 64
"""Raw sockets that are asked whether they speak a protocol: a ceiling of ours."""
LOOPBACK_NETWORK: Final = MAPPED + b"\x7f"
_UDP: Final = struct.Struct(">HHHH")


def group_link(sock: DatagramSocket, target: Endpoint, index: int = 0) -> int:
    """The interface by which what is sent to a group leaves; 0: it stays in the sandbox.

    `index`, one that was chosen, that of the socket's own address, or as a route says.
    """
    layer = sock.stack.ip
    if layer is None or not sock.goes_out or target.ip[:13] == LOOPBACK_NETWORK:
        return 0
    index = index or sock.device or (sock.multicast_index if is_multicast(target.ip) else 0)
    if not index and target.is_v4 and sock.local.is_v4 and not sock.local.is_any:
        holder = sock.stack.interfaces.holder(plain(sock.local.ip))
        index = holder.index if holder is not None else 0
    if not index:
        route = layer.fib.lookup(plain(target.ip), 0, key_of(sock, target))
        first = 0 if target.is_v4 else next(iter(layer.links), 0)
        index = route.index if route is not None else first
    return index if index in layer.links else 0


def loops_back(sock: DatagramSocket, target: Endpoint) -> bool:
    """What leaves for a group is for who is a member here, too: IP_MULTICAST_LOOP."""
    if not is_multicast(target.ip):
        return True
    if target.is_v4:
        return bool(sock.ip_options[abi.IP_MULTICAST_LOOP])
    return bool(sock.ipv6_options[abi.IPV6_MULTICAST_LOOP])


def discover_of(sock: DatagramSocket, target: Endpoint, dont_fragment: bool | None) -> int:
    """IP_MTU_DISCOVER, or that of IPv6 with IPV6_DONTFRAG."""
    if target.is_v4:
        return int(sock.ip_options[abi.IP_MTU_DISCOVER])
    whole = sock.ipv6_options[abi.IPV6_DONTFRAG] if dont_fragment is None else dont_fragment
    return abi.IP_PMTUDISC_DO if whole else int(sock.ipv6_options[abi.IPV6_MTU_DISCOVER])


def send_udp(
    sock: DatagramSocket, packet: Packet, discover: int, index: int = 0,
    sender: Caller | None = None,
) -> None:  # fmt: skip
    """A datagram to somebody else, by an interface if `index` is not 0.

    Raises: what `IpLayer.send` raises.
    """
    layer, now_ns, index = sock.stack.ip, time.monotonic_ns(), index or sock.device
    assert layer is not None
    size, ends = UDP_HEADER + len(packet.data), (packet.source.ip, packet.target.ip)
    kept = *ends, index, sock.protocol
    way = None if discover in MARKED else layer.ways.get(kept)
    begin = b"" if way is None else way.begin(now_ns, layer, size, packet.tos, packet.ttl)
    if way is not None and begin:
        total = way.pseudo_sum(size)
        head = _UDP.pack(packet.source.port, packet.target.port, size, total)
        way.link.pass_on(b"".join((begin, head, packet.data)))
    else:
        out = _outgoing(sock, packet, discover, index)
        out.sender, out.mark, out.user = sender, mark_of(sock), sock.inode.uid
        path = layer.send(now_ns, out)
        if sock.protocol == IPPROTO_UDP:
            layer.ways.keep(kept, way_by(
                layer, now_ns, path, (out.source, out.target), IPPROTO_UDP, UDP_CHECKSUM_AT
            ))  # fmt: skip
    sock.count_sent(sender, len(packet.data))


def _outgoing(sock: DatagramSocket, packet: Packet, discover: int, index: int) -> Outgoing:
    source, target = plain(packet.source.ip), plain(packet.target.ip)
    size = UDP_HEADER + len(packet.data)
    total = pseudo_sum(source, target, sock.protocol, size)
    ports, offload = (packet.source.port, packet.target.port), Offload(0, UDP_CHECKSUM_AT)
    if sock.protocol == IPPROTO_UDPLITE:  # no card knows how much is covered
        covered = _UDP.pack(*ports, packet.coverage, 0) + packet.data
        total = checksum(covered[: packet.coverage or size], total) or 0xFFFF
        head, offload = _UDP.pack(*ports, packet.coverage, total), NOTHING
    else:
        head = _UDP.pack(*ports, size, total)
    return Outgoing(
        target, sock.protocol, (head, packet.data), source, packet.tos, packet.ttl, index, discover,
        offload,
    )  # fmt: skip


def confirm(sock: DatagramSocket, target: Endpoint) -> None:
    """A program says that it hears from there."""
    assert sock.stack.ip is not None
    now_ns, key = time.monotonic_ns(), key_of(sock, target)
    sock.stack.ip.confirm(now_ns, plain(target.ip), sock.device, key)


def send_raw(
    sock: RawSocket, packet: Packet, discover: int, index: int = 0, sender: Caller | None = None
) -> None:
    """A packet of another protocol, whole, in the same way. Raises: the same."""
    out = Outgoing(
        plain(packet.target.ip), sock.protocol, (packet.data,), plain(packet.source.ip),
        packet.tos, packet.ttl, index or sock.device, discover, NOTHING, sender=sender,
        mark=mark_of(sock), user=sock.inode.uid,
    )  # fmt: skip
    assert sock.stack.ip is not None
    if sock.protocol == IPPROTO_ICMP:
        count_sent(sock.stack.counters, packet.data)
    sock.stack.ip.send(time.monotonic_ns(), out)
    sock.count_sent(sender, len(packet.data))


class Arrivals:
    """What comes for datagram sockets of a stack: UDP as a protocol, raw sockets as who looks."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._known = KnownEnds(stack)

    def arrived(self, now_ns: int, packet: Arrived) -> bool:
        """udp_rcv()."""
        if packet.protocol == IPPROTO_UDPLITE:
            return self._arrived_lite(packet)
        data, stack = packet.payload, self._stack
        if len(data) < UDP_HEADER:
            stack.counters["Udp.InErrors"] += 1
            return True
        source_port, target_port, size, given = _UDP.unpack_from(data)
        if not UDP_HEADER <= size <= len(data) or (not given and not packet.is_v4):
            stack.counters["Udp.InErrors"] += 1
            return True
        data = data[:size]
        if given and not packet.checksum_is_good:
            before = pseudo_sum(packet.source, packet.target, IPPROTO_UDP, size)
            if checksum(data, before):
                stack.counters["Udp.InCsumErrors"] += 1
                return True
        step = packet.segment_size or size
        if size - UDP_HEADER > step * MAX_SEGMENTS:
            stack.counters["Udp.InErrors"] += 1
            return True
        for at in range(UDP_HEADER, max(size, UDP_HEADER + 1), step):
            is_taken = self._deliver(Packet(
                bytes(data[at : at + step]),
                Endpoint(mapped(packet.source), source_port),
                Endpoint(mapped(packet.target), target_port),
                packet.ttl,
                packet.tos,
                index=packet.index,
            ), packet)  # fmt: skip
        return is_taken

    def _arrived_lite(self, packet: Arrived) -> bool:
        """udplite_rcv(), udplite_checksum_init(): the header says how much is covered."""
        data, counters = packet.payload, self._stack.counters
        if len(data) < UDP_HEADER:
            counters["UdpLite.InErrors"] += 1
            return True
        source_port, target_port, covered, given = _UDP.unpack_from(data)
        covered = covered or len(data)
        if not UDP_HEADER <= covered <= len(data) or not given:
            counters["UdpLite.InErrors"] += 1
            return True
        before = pseudo_sum(packet.source, packet.target, IPPROTO_UDPLITE, len(data))
        if checksum(data[:covered], before):
            counters["UdpLite.InCsumErrors"] += 1
            return True
        return self._deliver(Packet(
            bytes(data[UDP_HEADER:]),
            Endpoint(mapped(packet.source), source_port),
            Endpoint(mapped(packet.target), target_port),
            packet.ttl,
            packet.tos,
            coverage=covered if covered < len(data) else 0,
            index=packet.index,
        ), packet)  # fmt: skip

    def _deliver(self, datagram: Packet, packet: Arrived) -> bool:
        stack = self._stack
        ports = stack.ports_of(packet.protocol)
        if packet.is_group:
            stack.fan_out.begin(to_everybody(ports, datagram))
            return True
        receiver = receiver_of(ports, datagram)
        if receiver is None:
            row = "UdpLite" if packet.protocol == IPPROTO_UDPLITE else "Udp"
            stack.counters[f"{row}.NoPorts"] += 1
            return False
        if packet.protocol == IPPROTO_UDP and stack.ip is not None:
            self._known.add(stack.ip, packet, datagram)
        receiver.deliver(datagram)
        return True

    def failed(self, now_ns: int, failure: Failure) -> bool:
        """__udp4_lib_err(), __udp6_lib_err()."""
        source_port, target_port, _, _ = _UDP.unpack_from(failure.quoted)
        ours = Endpoint(mapped(failure.source), source_port)
        theirs = Endpoint(mapped(failure.target), target_port)
        holder = self._stack.interfaces.holder(failure.source)
        index = failure.index or (0 if holder is None else holder.index)
        answer = Packet(b"", theirs, ours, index=index)
        sock = receiver_of(self._stack.ports_of(failure.protocol), answer)
        if sock is None:
            return False
        is_fatal = failure.is_fatal
        if failure.number == EMSGSIZE.number:
            is_fatal = discover_of(sock, theirs, None) != abi.IP_PMTUDISC_DONT
        sock.complained(failure, theirs, failure.quoted[UDP_HEADER:], is_fatal=is_fatal)
        return True

    # --- raw and ping sockets

    def seen(self, now_ns: int, packet: Arrived) -> bool:
        """Every packet: raw_local_deliver(), ping_rcv()."""
        raw = self._stack.raw
        if not raw:
            return False
        family = AF_INET if packet.is_v4 else AF_INET6
        whole = Packet(
            bytes(packet.payload),
            Endpoint(mapped(packet.source), 0),
            Endpoint(mapped(packet.target), 0),
            packet.ttl,
            packet.tos,
            packet.head if packet.is_v4 else b"",
            index=packet.index,
        )
        some = cast("list[RawSocket]", list(islice(raw, RAW_LOOKED_AT)))
        is_wanted = any(
            (sock.family, sock.protocol) == (family, packet.protocol) and not sock.is_ping
            for sock in some
        )
        show_raw(self._stack, whole, family, packet.protocol)
        return is_wanted

    def raw_failed(self, now_ns: int, failure: Failure) -> bool:
        """Raw sockets of the protocol, and ping sockets whose request it was: raw_err()."""
        is_known = False
        family = AF_INET if len(failure.target) == 4 else AF_INET6
        theirs = Endpoint(mapped(failure.target), 0)
        for each in list(islice(self._stack.raw, RAW_LOOKED_AT)):
            sock = cast("RawSocket", each)
            if (sock.family, sock.protocol) != (family, failure.protocol):
                continue
            if sock.is_ping and not _is_request_of(sock, failure):
                continue
            if sock.remote is not None and sock.remote.ip != theirs.ip:
                continue
            is_known = True
            sock.complained(failure, theirs, failure.quoted, is_fatal=failure.is_fatal)
        return is_known


def _is_request_of(sock: RawSocket, failure: Failure) -> bool:
    is_icmp = failure.protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6)
    return is_icmp and failure.quoted[4:6] == struct.pack(">H", sock.local.port)


def plug(stack: Stack) -> None:
    """Let the datagram sockets of a stack have its packets. Preconditions: `stack.ip` is there."""
    assert stack.ip is not None
    arrivals = Arrivals(stack)
    for is_v4 in (True, False):
        stack.ip.handlers[is_v4, IPPROTO_UDP] = arrivals
        stack.ip.handlers[is_v4, IPPROTO_UDPLITE] = arrivals
    stack.ip.seen, stack.ip.failures = arrivals.seen, arrivals.raw_failed
    stack.ip.has_viewers = lambda: bool(stack.raw or stack.taps)
    stack.ip.is_joined = lambda ip, index: (mapped(ip), index) in stack.memberships
    stack.ip.counters = stack.counters
    stack.ip.fib.rules = stack.routes.rules
    loop, inward = stack.kernel.loop, stack.ip.inward
    inward.soon = lambda: loop.call_soon(lambda: inward.go_on(time.monotonic_ns()))
    if stack.netfilter is not None:
        stack.netfilter.plug()
    stack.ip.wall_ms = lambda: time.time_ns() // 1_000_000
