"""An IPv4 packet that comes from a link: net/ipv4/ip_input.c, fib_frontend.c, ip_fragment.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sentry.abi.netlink import RTN_BROADCAST, RTN_MULTICAST
from sentry.abi.socket import (
    ICMP_DEST_UNREACH,
    ICMP_PARAMETERPROB,
    ICMP_PORT_UNREACH,
    ICMP_PROT_UNREACH,
)
from sentry.net.ip import forward, ipv4
from sentry.net.ip.fragments import Key, Piece, TooLarge
from sentry.net.ip.seam import Arrived

if TYPE_CHECKING:
    from sentry.net.ip.layer import IpLayer
    from sentry.net.link.link import FromLink, Link

POINTER_SHIFT: Final = 24


def arrived(
    layer: IpLayer, now_ns: int, link: Link, data: memoryview, frame: FromLink
) -> None:
    """ip_rcv(), ip_rcv_finish(), ip_local_deliver()."""
    counters = layer.counters
    counters["Ip.InReceives"] += 1
    counters["IpExt.InOctets"] += len(data)
    header = ipv4.parse(data)
    if header is None:
        counters["Ip.InHdrErrors"] += 1
        return
    passing = None
    if layer.filter is not None:
        data = data[: header.total]
        if header.is_fragment:  # nf_defrag_ipv4
            data, frame = _whole(layer, now_ns, link, (data, header), frame)
        passing = layer.filter.came(now_ns, link.index, data, frame) if data else None
        if passing is None:
            return
        data = memoryview(passing.data)
        header = ipv4.parse(data)
        if header is None:
            return
    elif header.is_fragment and _is_judged(layer, link, header):
        data, frame = _whole(layer, now_ns, link, (data, header), frame)
        header = ipv4.parse(data)
        if header is None:
            return
    kind = layer.kind_of_target(header.target, link.index)
    is_taken = kind or (layer.forwards(is_v4=True) and not ipv4.is_multicast(header.target))
    if not is_taken or not _ends_may_be(layer, header, link):
        counters["Ip.InAddrErrors"] += 1
        return
    head = bytes(data[: header.size])
    packet = Arrived(
        header.protocol, header.source, header.target, data[header.size : header.total],
        header.tos, header.ttl, link.index, head, frame.checksum_is_good, frame.segment_size,
        frame.to_us, kind in (RTN_BROADCAST, RTN_MULTICAST), passing,
    )  # fmt: skip
    if header.size > ipv4.HEADER_SIZE:
        options = ipv4.check_options(head[ipv4.HEADER_SIZE :])
        if options.wrong_at >= 0:
            counters["Ip.InHdrErrors"] += 1
            where = options.wrong_at << POINTER_SHIFT
            layer.icmp.complain(now_ns, packet, ICMP_PARAMETERPROB, 0, where)
            return
        if options.end >= 0:  # nobody is shown what stands behind it
            packet.head = head[: ipv4.HEADER_SIZE + options.end].ljust(header.size, b"\0")
        if options.has_source_route:  # net.ipv4.conf.*.accept_source_route is 0
            return
    if not kind:
        forward.forward4(layer, now_ns, header, packet, frame)
    elif not header.is_fragment or _reassemble(layer, now_ns, header, packet):
        layer.deliver(now_ns, packet)


def _is_judged(layer: IpLayer, link: Link, header: ipv4.Header) -> bool:
    """It is for somebody else, and somebody has to see it whole."""
    is_ours = layer.kind_of_target(header.target, link.index)
    return layer.gate is not None and not is_ours and layer.forwards(is_v4=True)


def _ends_may_be(layer: IpLayer, header: ipv4.Header, link: Link) -> bool:
    """The source is neither a group's nor nobody's, nor ours, and the loopback's network stays on
    the loopback, unless net.ipv4.conf.*.route_localnet says otherwise: ip_route_input_slow()."""
    source = header.source
    if ipv4.is_loopback(header.target) and not layer.routes_loopback(link):
        return False
    if source == ipv4.ANY:
        return header.target == ipv4.BROADCAST
    return ipv4.may_be_source(source) and layer.fib.local(source) is None


def _whole(
    layer: IpLayer, now_ns: int, link: Link, cut: tuple[memoryview, ipv4.Header], frame: FromLink
) -> tuple[memoryview, FromLink]:
    """What fragments make, also of those for others, before rules see it; empty: not yet whole."""
    data, header = cut
    packet = Arrived(
        header.protocol, header.source, header.target, data[header.size : header.total],
        header.tos, header.ttl, link.index, bytes(data[: header.size]),
    )  # fmt: skip
    if not _reassemble(layer, now_ns, header, packet):
        return memoryview(b""), frame
    whole = memoryview(packet.head + packet.payload)
    return whole, replace(frame, left=b"", checksum_is_good=False, segment_size=0)


def _reassemble(layer: IpLayer, now_ns: int, header: ipv4.Header, packet: Arrived) -> bool:
    """Whether the packet is whole now, and then it is what its fragments make: ip_defrag()."""
    counters = layer.counters
    counters["Ip.ReasmReqds"] += 1
    has_more = bool(header.fragment & ipv4.MORE_FRAGMENTS)
    data = packet.payload
    if has_more:
        data = data[: len(data) & ~7]
    offset = (header.fragment & ipv4.OFFSET) * 8
    key = Key(header.source, header.target, header.protocol, header.identification, packet.index)
    piece = Piece(offset, has_more, data, packet.head, header.tos)
    try:
        whole = layer.fragments4.add(now_ns, key, piece)
    except TooLarge:
        counters["Ip.ReasmFails"] += 1
        return False
    if whole is None:
        return False
    first = ipv4.parse_quoted(whole.head)
    if first is None or first.size + len(whole.data) > ipv4.MAX_SIZE:
        counters["Ip.ReasmFails"] += 1
        return False
    counters["Ip.ReasmOKs"] += 1
    total = first.size + len(whole.data)
    made = first._replace(total=total, fragment=0, tos=whole.tos)
    packet.head = ipv4.build(made, whole.head[ipv4.HEADER_SIZE :])
    packet.payload, packet.tos, packet.ttl = memoryview(whole.data), whole.tos, first.ttl
    packet.checksum_is_good, packet.segment_size = False, 0
    return True


def protocol_unknown(layer: IpLayer, now_ns: int, packet: Arrived) -> None:
    """Nobody speaks it here."""
    layer.counters["Ip.InUnknownProtos"] += 1
    layer.icmp.complain(now_ns, packet, ICMP_DEST_UNREACH, ICMP_PROT_UNREACH)


def port_unreachable(layer: IpLayer, now_ns: int, packet: Arrived) -> None:
    """Nobody has this port."""
    layer.icmp.complain(now_ns, packet, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH)
