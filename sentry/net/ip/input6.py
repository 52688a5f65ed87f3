"""An IPv6 packet that comes from a link: net/ipv6/ip6_input.c, reassembly.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from sentry.abi.netlink import RTN_MULTICAST
from sentry.abi.socket import (
    ICMPV6_DEST_UNREACH,
    ICMPV6_HDR_FIELD,
    ICMPV6_HDR_INCOMP,
    ICMPV6_PARAMPROB,
    ICMPV6_PORT_UNREACH,
    ICMPV6_UNK_NEXTHDR,
    IPPROTO_FRAGMENT,
    IPPROTO_ICMPV6,
    IPPROTO_NONE,
    IPPROTO_TCP,
    IPPROTO_UDP,
)
from sentry.net.ip import forward, ipv6
from sentry.net.ip.fragments import Key, Piece, TooLarge
from sentry.net.ip.seam import Arrived

if TYPE_CHECKING:
    from sentry.net.ip.layer import IpLayer
    from sentry.net.link.link import FromLink, Link

LEAST = {IPPROTO_TCP: 20, IPPROTO_UDP: 8, IPPROTO_ICMPV6: 4}
"""Bytes of a transport that a first fragment has to have: RFC 7112, ipv6frag_thdr_truncated()."""
PAYLOAD_AT = 4
"""Where the header says how long the packet is."""


def arrived(
    layer: IpLayer, now_ns: int, link: Link, data: memoryview, frame: FromLink
) -> None:
    """ipv6_rcv(), ip6_input_finish()."""
    counters = layer.counters
    counters["Ip6InReceives"] += 1
    counters["Ip6InOctets"] += len(data)
    header = ipv6.parse(data)
    if header is None:
        counters["Ip6InHdrErrors"] += 1
        return
    passing = None
    if layer.filter is not None:
        data, frame = _before_rules(layer, now_ns, link, (data, header), frame)
        passing = layer.filter.came(now_ns, link.index, data, frame) if data else None
        if passing is None:
            return
        data = memoryview(passing.data)
        header = ipv6.parse(data)
        if header is None:
            return
    kind = layer.kind_of_target(header.target, link.index)
    is_taken = kind or (layer.forwards(is_v4=False) and not ipv6.is_multicast(header.target))
    if not is_taken or layer.is_local(header.source):
        counters["Ip6InAddrErrors"] += 1
        return
    data = data[: ipv6.HEADER_SIZE + header.payload]
    packet = Arrived(
        header.following, header.source, header.target, data[ipv6.HEADER_SIZE :], header.tos,
        header.hops, link.index, bytes(data[: ipv6.HEADER_SIZE]), frame.checksum_is_good,
        frame.segment_size, frame.to_us, kind == RTN_MULTICAST, passing,
    )  # fmt: skip
    if not kind:
        forward.forward6(layer, now_ns, data, packet, frame)
        return
    place = ipv6.walk(data, header.following, packet.is_group)
    if place.protocol == IPPROTO_FRAGMENT and place.problem < 0 and not place.is_dropped:
        if passing is not None:  # for somebody else before rules saw it
            return
        whole = _reassemble(layer, now_ns, data, packet, place)
        if whole is None:
            return
        data = whole
        place = ipv6.walk(data, data[6], packet.is_group)
        if place.protocol == IPPROTO_FRAGMENT:
            place = ipv6.DROPPED
    if place.problem >= 0:
        counters["Ip6InHdrErrors"] += 1
        layer.icmp6.complain(now_ns, packet, ICMPV6_PARAMPROB, place.problem, place.pointer)
    elif not place.is_dropped and place.protocol != IPPROTO_NONE:
        packet.protocol = place.protocol
        packet.head, packet.payload = bytes(data[: place.at]), data[place.at :]
        layer.deliver(now_ns, packet)


def _before_rules(
    layer: IpLayer, now_ns: int, link: Link, came: tuple[memoryview, ipv6.Header], frame: FromLink
) -> tuple[memoryview, FromLink]:
    """The packet alone; fragments for us are put together before rules see them, those for others
    are not. Empty: it is not yet whole."""
    data, header = came
    data = data[: ipv6.HEADER_SIZE + header.payload]
    if not layer.kind_of_target(header.target, link.index):
        return data, frame
    place = ipv6.walk(data, header.following, ipv6.is_multicast(header.target))
    if place.protocol != IPPROTO_FRAGMENT or place.problem >= 0 or place.is_dropped:
        return data, frame
    packet = Arrived(
        header.following, header.source, header.target, data[ipv6.HEADER_SIZE :], header.tos,
        header.hops, link.index, bytes(data[: ipv6.HEADER_SIZE]), to_us=frame.to_us,
        is_group=ipv6.is_multicast(header.target),
    )  # fmt: skip
    whole = _reassemble(layer, now_ns, data, packet, place)
    if whole is None:
        return memoryview(b""), frame
    return whole, replace(frame, left=b"", checksum_is_good=False, segment_size=0)


def _reassemble(
    layer: IpLayer, now_ns: int, data: memoryview, packet: Arrived, place: ipv6.Walk
) -> memoryview | None:
    """The whole packet without a fragment header, once it is there: ipv6_frag_rcv()."""
    counters = layer.counters
    counters["Ip6ReasmReqds"] += 1
    fragment = ipv6.parse_fragment(data, place.at)
    before = bytearray(data[: place.at])
    before[place.following_at] = fragment.following
    rest = data[place.at + ipv6.FRAGMENT_SIZE :]
    if not fragment.offset and not fragment.has_more:  # RFC 6946
        counters["Ip6ReasmOKs"] += 1
        return memoryview(_with_size(before, rest))
    if not fragment.offset and _lacks_headers(before, rest, packet.is_group):
        layer.icmp6.complain(now_ns, packet, ICMPV6_PARAMPROB, ICMPV6_HDR_INCOMP)
        return None
    key = Key(packet.source, packet.target, 0, fragment.identification, packet.index)
    piece = Piece(fragment.offset, fragment.has_more, rest, bytes(before), packet.tos)
    try:
        whole = layer.fragments6.add(now_ns, key, piece)
    except TooLarge:
        counters["Ip6ReasmFails"] += 1
        is_end = fragment.offset + len(rest) > ipv6.MAX_PAYLOAD
        where = place.at + 2 if is_end else PAYLOAD_AT
        layer.icmp6.complain(now_ns, packet, ICMPV6_PARAMPROB, ICMPV6_HDR_FIELD, where)
        return None
    if whole is None:
        return None
    size = len(whole.head) - ipv6.HEADER_SIZE + len(whole.data)
    if size > ipv6.MAX_PAYLOAD:
        counters["Ip6ReasmFails"] += 1
        return None
    counters["Ip6ReasmOKs"] += 1
    packet.checksum_is_good, packet.segment_size, packet.tos = False, 0, whole.tos
    packet.ttl = whole.head[7]
    return memoryview(_with_size(bytearray(whole.head), memoryview(whole.data)))


def _with_size(head: bytearray, rest: memoryview) -> bytes:
    size = len(head) - ipv6.HEADER_SIZE + len(rest)
    head[PAYLOAD_AT : PAYLOAD_AT + 2] = size.to_bytes(2)
    return bytes(head) + rest


def _lacks_headers(before: bytearray, rest: memoryview, is_group: bool) -> bool:
    whole = bytes(before) + rest[:1024]
    place = ipv6.walk(whole, whole[6], is_group)
    if place.is_dropped:
        return True
    return place.problem < 0 and len(whole) < place.at + LEAST.get(place.protocol, 0)


def protocol_unknown(layer: IpLayer, now_ns: int, packet: Arrived) -> None:
    """Nobody speaks it here."""
    layer.counters["Ip6InUnknownProtos"] += 1
    place = ipv6.walk(packet.head, packet.head[6], packet.is_group)
    layer.icmp6.complain(now_ns, packet, ICMPV6_PARAMPROB, ICMPV6_UNK_NEXTHDR, place.following_at)


def port_unreachable(layer: IpLayer, now_ns: int, packet: Arrived) -> None:
    """Nobody has this port."""
    layer.icmp6.complain(now_ns, packet, ICMPV6_DEST_UNREACH, ICMPV6_PORT_UNREACH)
