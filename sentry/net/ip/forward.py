"""A packet for somebody else, if the namespace is a router: net/ipv4/ip_forward.c,
net/ipv6/ip6_output.c.

What its frame left to others (a checksum, cutting into segments) is left to the next link, once it
is certain that it is about this packet: whoever made the frame may be an attacker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sentry.abi import socket as abi
from sentry.abi.socket import IPPROTO_HOPOPTS, IPPROTO_UDP
from sentry.errors import EACCES, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, Errno
from sentry.net.ip import discovery, ipv4, ipv6
from sentry.net.ip.checksum import filled
from sentry.net.ip.fragments import split
from sentry.net.ip.left import left_to_do
from sentry.net.link.link import EthernetLink, LinkPacket
from sentry.net.rules import DSCP, PLAIN, RouteKey, ports_of

if TYPE_CHECKING:
    from sentry.net.ip.checksum import Bytes
    from sentry.net.ip.ground import Ground
    from sentry.net.ip.seam import Arrived, Path
    from sentry.net.link.link import FromLink
    from sentry.net.link.vnet import Offload

COPIED: Final = 0x80
"""The option stands in each fragment: IPOPT_COPIED."""
HOPS_AT: Final = 7
CODES4: Final[dict[type[Errno], int]] = {
    ENETUNREACH: abi.ICMP_NET_UNREACH, EHOSTUNREACH: abi.ICMP_HOST_UNREACH,
    EACCES: abi.ICMP_PKT_FILTERED,
}  # fmt: skip
"""What its sender is told where there is no way; else nothing: ip_error()."""
CODES6: Final[dict[type[Errno], int]] = {
    ENETUNREACH: abi.ICMPV6_NOROUTE, EHOSTUNREACH: abi.ICMPV6_NOROUTE,
    EACCES: abi.ICMPV6_ADM_PROHIBITED,
}  # fmt: skip
"""ip6_pkt_discard(), ip6_pkt_prohibit()."""
JUDGED: Final = 1024
"""Bytes of a payload that are looked at where what leaves is judged, and quoted to its sender."""


def forward4(
    layer: Ground, now_ns: int, header: ipv4.Header, packet: Arrived, frame: FromLink
) -> None:
    """ip_route_input_slow(), ip_forward(). Preconditions: the header is right; the target is one
    host's, and not ours."""
    counters = layer.counters
    if not packet.to_us or layer.fib.local(header.target) is not None:
        counters["Ip.InAddrErrors"] += 1
        return
    if not _may_come(layer, now_ns, packet, (header.protocol, packet.payload)):
        return
    try:
        transport = packet.payload[:0] if header.is_fragment else packet.payload
        path = layer.path(now_ns, header.target, 0, _key(layer, packet, header.tos, transport))
    except Errno as error:
        counters["IpExt.InNoRoutes"] += 1
        if type(error) in CODES4:
            code = CODES4[type(error)]
            layer.icmp.complain(now_ns, packet, abi.ICMP_DEST_UNREACH, code)
        return
    if header.ttl <= 1:
        counters["Ip.InHdrErrors"] += 1
        layer.icmp.complain(now_ns, packet, abi.ICMP_TIME_EXCEEDED, abi.ICMP_EXC_TTL)
        return
    payload = packet.payload
    if _is_answered(layer, packet, path, (header.protocol, payload)):
        return
    protocol = 0 if header.is_fragment else header.protocol
    left = left_to_do(frame.left, frame.link_size, header.size, protocol, payload)
    interface = layer.interface(path.interface)
    if left is None or interface is None:
        counters["Ip.InDiscards"] += 1
        return
    offload, headers = left
    mtu = layer.mtu_of(interface, is_v4=True)
    is_whole = header.total <= mtu or 0 < offload.segment_size <= mtu - headers
    if not is_whole and header.fragment & ipv4.DONT_FRAGMENT:
        counters["Ip.FragFails"] += 1
        layer.icmp.complain(now_ns, packet, abi.ICMP_DEST_UNREACH, abi.ICMP_FRAG_NEEDED, mtu)
        return
    counters["Ip.ForwDatagrams"] += 1
    sent = header._replace(ttl=header.ttl - 1)
    options = packet.head[ipv4.HEADER_SIZE :]
    packet.head = ipv4.build(sent, options)
    about = _remembered(layer, packet, path)
    if path.interface == packet.index:
        _redirect4(layer, now_ns, packet, path)
    if packet.passing is not None:
        passed = _filtered(layer, now_ns, packet, path, header.size)
        found = None if passed is None else ipv4.parse_quoted(passed)
        if passed is None or found is None:
            return
        sent, packet.head, payload = found, bytes(passed[: header.size]), passed[header.size :]
    if not _may_go(layer, now_ns, about, path, (packet.head, payload)):
        return
    link = layer.links[path.interface]
    if is_whole:
        whole = (packet.head, payload)
        link.send(now_ns, path.next_hop, LinkPacket(
            whole, header.total, True, header.protocol, offload, headers
        ))  # fmt: skip
        return
    base, more = sent.fragment & ipv4.OFFSET, sent.fragment & ipv4.MORE_FRAGMENTS
    pieces = (_summed(payload, offload, header.size),)
    for offset, has_more, piece in split(pieces, mtu - header.size):
        flags = ipv4.MORE_FRAGMENTS if has_more else more
        own = sent._replace(total=header.size + len(piece), fragment=flags | base + offset // 8)
        built = ipv4.build(own, _copied(options) if offset else options)
        counters["Ip.FragCreates"] += 1
        link.send(now_ns, path.next_hop, LinkPacket(
            (built, piece), own.total, True, header.protocol
        ))  # fmt: skip
    counters["Ip.FragOKs"] += 1


def forward6(
    layer: Ground, now_ns: int, data: memoryview, packet: Arrived, frame: FromLink
) -> None:
    """ip6_forward(). `data`: the packet, with a right header. The same preconditions."""
    counters = layer.counters
    if not packet.to_us or packet.source == ipv6.ANY or ipv6.is_link_local(packet.target):
        counters["Ip6InDiscards"] += 1
        return
    protocol, at = ipv6.transport_of(data)
    if not _may_come(layer, now_ns, packet, (protocol, data[at:])):
        return
    if data[6] == IPPROTO_HOPOPTS:
        place = ipv6.hop_by_hop(data)
        if place is not None:
            if place.problem >= 0:
                counters["Ip6InHdrErrors"] += 1
                layer.icmp6.complain(
                    now_ns, packet, abi.ICMPV6_PARAMPROB, place.problem, place.pointer
                )
            return
    try:
        key = _key(layer, packet, packet.tos, data[at:], protocol)
        path = layer.path(now_ns, packet.target, 0, key)
    except Errno as error:
        counters["Ip6InNoRoutes"] += 1
        if type(error) in CODES6:
            code = CODES6[type(error)]
            layer.icmp6.complain(now_ns, packet, abi.ICMPV6_DEST_UNREACH, code)
        return
    if packet.ttl <= 1:
        counters["Ip6InHdrErrors"] += 1
        layer.icmp6.complain(now_ns, packet, abi.ICMPV6_TIME_EXCEED, abi.ICMPV6_EXC_HOPLIMIT)
        return
    if _is_answered(layer, packet, path, (protocol, data[at:])):
        return
    if path.interface == packet.index:
        _redirect6(layer, now_ns, packet, path)
    elif ipv6.is_link_local(packet.source):
        counters["Ip6InAddrErrors"] += 1
        layer.icmp6.complain(now_ns, packet, abi.ICMPV6_DEST_UNREACH, abi.ICMPV6_NOT_NEIGHBOUR)
        return
    left = left_to_do(frame.left, frame.link_size, at, protocol, data[at:])
    interface = layer.interface(path.interface)
    if left is None or interface is None:
        counters["Ip6InDiscards"] += 1
        return
    offload, headers = left
    mtu = max(layer.mtu_of(interface, is_v4=False), ipv6.LEAST_MTU)
    if len(data) > mtu and not 0 < offload.segment_size <= mtu - headers:
        counters["Ip6InTooBigErrors"] += 1
        counters["Ip6FragFails"] += 1
        layer.icmp6.complain(now_ns, packet, abi.ICMPV6_PKT_TOOBIG, 0, mtu)
        return
    counters["Ip6OutForwDatagrams"] += 1
    head = bytearray(data[: ipv6.HEADER_SIZE])
    head[HOPS_AT] -= 1
    about = _remembered(layer, packet, path)
    if packet.passing is not None:
        packet.head = bytes(head)
        passed = _filtered(layer, now_ns, packet, path, len(head))
        if passed is None:
            return
        head, data = bytearray(passed[: ipv6.HEADER_SIZE]), passed
    if not _may_go(layer, now_ns, about, path, (head, data[ipv6.HEADER_SIZE :])):
        return
    layer.links[path.interface].send(now_ns, path.next_hop, LinkPacket(
        (bytes(head), data[ipv6.HEADER_SIZE :]), len(data), False, protocol, offload, headers
    ))  # fmt: skip


def _key(
    layer: Ground, packet: Arrived, tos: int, transport: memoryview, protocol: int | None = None
) -> RouteKey:
    """`protocol`: None: as the header says."""
    if not layer.fib.asks:
        return PLAIN
    own = packet.protocol if protocol is None else protocol
    mark = 0 if packet.passing is None else packet.passing.mark
    source_port, port = ports_of(own, transport)
    return RouteKey(
        packet.source, 0, packet.index, mark, tos & DSCP, 0, own, source_port, port
    )


def _may_come(
    layer: Ground, now_ns: int, packet: Arrived, transport: tuple[int, memoryview]
) -> bool:
    """What has come in from outside may; where there are rules that was asked before them."""
    gate = layer.gate_at(packet.index)
    if gate is None or packet.passing is not None:
        return True
    protocol, payload = transport
    return gate.arriving(now_ns, replace(packet, protocol=protocol, payload=payload))


def _is_answered(
    layer: Ground, packet: Arrived, path: Path, transport: tuple[int, memoryview]
) -> bool:
    """It would leave, and somebody has an answer to it."""
    protocol, datagram = transport
    if layer.answers is None or protocol != IPPROTO_UDP:
        return False
    leaves = layer.gate_at(packet.index) is None and layer.gate_at(path.interface) is not None
    return leaves and layer.answers(packet, datagram)


def _remembered(layer: Ground, packet: Arrived, path: Path) -> Arrived:
    """As its sender knows it, if he may have to hear of it: rules change it where it is."""
    if packet.passing is None or layer.gate_at(path.interface) is None:
        return packet
    return replace(packet, payload=memoryview(bytes(packet.payload[:JUDGED])))


def _may_go(
    layer: Ground, now_ns: int, about: Arrived, path: Path, packet: tuple[Bytes, Bytes]
) -> bool:
    """What is about to go on may leave, if it does: to the target that it has now, though rules may
    have changed that behind routing. Who has sent what is denied hears so."""
    gate = layer.gate_at(path.interface)
    if gate is None:
        return True
    head, payload = packet
    target = bytes(head[16:20] if about.is_v4 else head[24:40])
    if target != about.target and not layer.leads_to(now_ns, path, target):
        layer.counters["Ip.OutDiscards" if about.is_v4 else "Ip6OutDiscards"] += 1
        return False
    try:
        beginning = bytes(head) + bytes(payload[:JUDGED])
        return gate.passing(now_ns, beginning, len(head) + len(payload))
    except Errno as error:
        is_refused = isinstance(error, ECONNREFUSED)
    if about.is_v4:
        code = abi.ICMP_PORT_UNREACH if is_refused else abi.ICMP_PKT_FILTERED
        layer.icmp.complain(now_ns, about, abi.ICMP_DEST_UNREACH, code)
    else:
        code = abi.ICMPV6_PORT_UNREACH if is_refused else abi.ICMPV6_ADM_PROHIBITED
        layer.icmp6.complain(now_ns, about, abi.ICMPV6_DEST_UNREACH, code)
    return False


def _filtered(
    layer: Ground, now_ns: int, packet: Arrived, path: Path, header_size: int
) -> memoryview | None:
    """What rules make of it, with the header with which it would go. None: it is lost."""
    passing = packet.passing
    passing.set_header(packet.head[:header_size])
    if layer.filter is None or not layer.filter.goes_on(now_ns, passing, path):
        return None
    return memoryview(passing.data)


def _summed(payload: memoryview, offload: Offload, header_size: int) -> Bytes:
    """With its checksum, which nobody else can fill in once it is cut."""
    if offload.checksum_at < 0:
        return payload
    start, at = offload.checksum_start - header_size, offload.checksum_at - header_size
    return filled(payload, start, at)


def _copied(options: bytes) -> bytes:
    """Of a later fragment: what is not copied is no option. ip_options_fragment()."""
    made, at = bytearray(options), 0
    while at < len(options) and options[at] != ipv4.END:
        size = 1 if options[at] == ipv4.NOOP else options[at + 1]
        if not options[at] & COPIED:
            made[at : at + size] = bytes([ipv4.NOOP] * size)
        at += size
    return bytes(made)


def _redirect4(layer: Ground, now_ns: int, packet: Arrived, path: Path) -> None:
    """Who sends to us what goes back by the same link is told where to send it."""
    if not int(layer.sysctls.get("net/ipv4/conf/all/send_redirects", "1")):
        return
    if len(path.next_hop) != len(packet.target):
        return  # a router that cannot be named
    if _is_near(layer, packet) and layer.redirects.allows(now_ns, packet.source):
        gateway = int.from_bytes(path.next_hop)
        layer.icmp.complain(now_ns, packet, abi.ICMP_REDIRECT, abi.ICMP_REDIR_HOST, gateway)


def _redirect6(layer: Ground, now_ns: int, packet: Arrived, path: Path) -> None:
    """ndisc_send_redirect()."""
    link = layer.links[path.interface]
    if path.next_hop != packet.target and not ipv6.is_link_local(path.next_hop):
        return
    if not isinstance(link, EthernetLink) or not _is_near(layer, packet):
        return
    if layer.redirects.allows(now_ns, packet.source):
        discovery.send_redirect(layer, now_ns, link, packet, path.next_hop)


def _is_near(layer: Ground, packet: Arrived) -> bool:
    """Who sent it is a neighbour, as far as routes say."""
    if ipv6.is_link_local(packet.source) and not packet.is_v4:
        return True
    back = layer.fib.lookup(packet.source, packet.index)
    return back is not None and not back.gateway
