"""A packet that goes to a link: net/ipv4/ip_output.c, net/ipv6/ip6_output.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.socket import (
    IP_PMTUDISC_DO,
    IP_PMTUDISC_DONT,
    IP_PMTUDISC_INTERFACE,
    IP_PMTUDISC_OMIT,
    IP_PMTUDISC_PROBE,
    IPPROTO_FRAGMENT,
)
from sentry.errors import EADDRNOTAVAIL, EINVAL, EMSGSIZE, ENETUNREACH
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import filled
from sentry.net.ip.fragments import split
from sentry.net.ip.inward import as_it_comes
from sentry.net.link.link import LinkPacket
from sentry.net.link.vnet import Offload
from sentry.net.rules import DSCP, PLAIN, RouteKey, ports_of

if TYPE_CHECKING:
    from sentry.net.ip.checksum import Bytes
    from sentry.net.ip.layer import IpLayer
    from sentry.net.ip.seam import Outgoing, Path

NEVER_SPLIT: Final = (IP_PMTUDISC_DO, IP_PMTUDISC_PROBE, IP_PMTUDISC_INTERFACE)
BY_LINK: Final = (IP_PMTUDISC_PROBE, IP_PMTUDISC_INTERFACE, IP_PMTUDISC_OMIT)
"""What was learned of the path does not count."""
MARKED: Final = (IP_PMTUDISC_DONT, IP_PMTUDISC_INTERFACE, IP_PMTUDISC_OMIT)
"""Not with DF."""


def send(layer: IpLayer, now_ns: int, out: Outgoing) -> Path:
    """ip_queue_xmit(), ip6_xmit(): by which way it went. Raises: what `IpLayer.send` says."""
    is_ours = layer.is_local(out.target)
    path, source = layer.inward.way(out) if is_ours else _way(layer, now_ns, out)
    if layer.filter is not None:
        passed = layer.filter.leaves(now_ns, out, source, path)
        if passed is None:
            return path
        out, source, path = passed
    elif is_ours:
        layer.inward.take(as_it_comes(out, source))
        return path
    gate = layer.gate_at(path.interface)
    if gate is not None and not gate.leaving(now_ns, out, source):
        return path
    mtu = path.mtu
    interface = layer.interface(path.interface)
    if out.discover in BY_LINK and interface is not None:
        mtu = layer.mtu_of(interface, is_v4=len(out.target) == 4)
    if len(out.target) == 4:
        _send4(layer, now_ns, out, path, source, mtu)
    else:
        _send6(layer, now_ns, out, path, source, mtu)
    return path


def _way(layer: IpLayer, now_ns: int, out: Outgoing) -> tuple[Path, bytes]:
    """By which one it goes, and from where."""
    if out.source and not (
        len(out.source) == len(out.target) and may_send_from(layer, out.source)
    ):
        raise EINVAL("an address that is none of the links'")
    path = layer.path(now_ns, out.target, out.index, key_of(layer, out))
    source = out.source or path.source
    if not source:
        raise (
            EADDRNOTAVAIL("no address to send from")
            if len(out.target) == 16
            else ENETUNREACH("no address to send from")
        )
    return path, source


def key_of(layer: IpLayer, out: Outgoing) -> RouteKey:
    """What rules of routing are asked of a packet."""
    if not layer.fib.asks:
        return PLAIN
    source_port, port = ports_of(out.protocol, out.pieces[0] if out.pieces else b"")
    return RouteKey(
        out.source, mark=out.mark, tos=out.tos & DSCP, user=out.user, protocol=out.protocol,
        source_port=source_port, port=port,
    )  # fmt: skip


def send_back(layer: IpLayer, now_ns: int, out: Outgoing) -> None:
    """In the place of whoever its source is, to somebody inside: nowhere else does it go.

    Raises: ENETUNREACH, EHOSTUNREACH, EMSGSIZE.
    """
    path = layer.path(now_ns, out.target)
    if layer.gate_at(path.interface) is None:
        send_by_family = _send4 if len(out.target) == 4 else _send6
        send_by_family(layer, now_ns, out, path, out.source, path.mtu)


def send_frame(layer: IpLayer, now_ns: int, index: int, frame: bytes, sender: object) -> None:
    """A frame that a program has made, by a link. Where there is a gate its packet goes as it is
    routed, whatever its link header says. Raises: what the gate says, ENETUNREACH, EHOSTUNREACH,
    and EINVAL for a source that is not ours.
    """
    gate = layer.gate_at(index)
    if gate is None:
        layer.links[index].send_frame(frame)
        return
    packet = gate.frame(now_ns, frame, sender)
    if packet is not None:
        begin, end = (12, 20) if packet.is_v4 else (8, 40)
        both = bytes(packet.pieces[0][begin:end])
        source, target = both[: len(both) // 2], both[len(both) // 2 :]
        if not may_send_from(layer, source):
            raise EINVAL("an address that is none of the links'")
        path = layer.path(now_ns, target, index, RouteKey(source))
        layer.links[path.interface].send(now_ns, path.next_hop, packet)


def may_send_from(layer: IpLayer, source: bytes) -> bool:
    """Nothing leaves from the loopback's address, or from what is not ours: __ip_dev_find()."""
    if source == ipv6.LOOPBACK or (len(source) == 4 and ipv4.is_loopback(source)):
        return False
    return layer.is_local(source)


def _send4(layer: IpLayer, now_ns: int, out: Outgoing, path: Path, source: bytes, mtu: int) -> None:
    layer.counters["Ip.OutRequests"] += 1
    size = sum(map(len, out.pieces))
    total = ipv4.HEADER_SIZE + size
    if total > ipv4.MAX_SIZE:
        raise EMSGSIZE("larger than any packet")
    layer.counters["IpExt.OutOctets"] += total
    is_whole = total <= mtu or out.offload.segment_size
    identification, fragment = 0, ipv4.DONT_FRAGMENT
    if not is_whole or out.discover in MARKED or path.may_fragment:
        identification, fragment = int.from_bytes(layer.chance(2)), 0
    header = ipv4.Header(
        ipv4.HEADER_SIZE, total, out.tos, identification, fragment, out.ttl, out.protocol, source,
        out.target,
    )  # fmt: skip
    link = layer.links[path.interface]
    if is_whole:
        whole = (ipv4.build(header), *out.pieces)
        link.send(now_ns, path.next_hop, _packet(out, whole, total, ipv4.HEADER_SIZE))
        return
    room = mtu - ipv4.HEADER_SIZE
    if out.discover in NEVER_SPLIT or room < 8:
        layer.counters["Ip.FragFails"] += 1
        raise EMSGSIZE(f"the MTU is {mtu}")
    for offset, has_more, data in split(_summed(out), room):
        flags = ipv4.MORE_FRAGMENTS if has_more else 0
        own = header._replace(total=ipv4.HEADER_SIZE + len(data), fragment=flags | offset // 8)
        layer.counters["Ip.FragCreates"] += 1
        packet = LinkPacket((ipv4.build(own), data), own.total, True, out.protocol)
        link.send(now_ns, path.next_hop, packet)
    layer.counters["Ip.FragOKs"] += 1


def _send6(layer: IpLayer, now_ns: int, out: Outgoing, path: Path, source: bytes, mtu: int) -> None:
    layer.counters["Ip6OutRequests"] += 1
    size = sum(map(len, out.pieces))
    if size > ipv6.MAX_PAYLOAD:
        raise EMSGSIZE("larger than any packet")
    layer.counters["Ip6OutOctets"] += ipv6.HEADER_SIZE + size
    header = ipv6.Header(out.tos, 0, size, out.protocol, out.ttl, source, out.target)
    link = layer.links[path.interface]
    if ipv6.HEADER_SIZE + size <= mtu or out.offload.segment_size:
        whole = (ipv6.build(header), *out.pieces)
        packet = _packet(out, whole, ipv6.HEADER_SIZE + size, ipv6.HEADER_SIZE)
        link.send(now_ns, path.next_hop, packet)
        return
    room = mtu - ipv6.HEADER_SIZE - ipv6.FRAGMENT_SIZE
    if out.discover in NEVER_SPLIT or room < 8:
        layer.counters["Ip6FragFails"] += 1
        raise EMSGSIZE(f"the MTU is {mtu}")
    identification = int.from_bytes(layer.chance(4))
    for offset, has_more, data in split(_summed(out), room):
        fragment = ipv6.Fragment(out.protocol, offset, has_more, identification)
        own = header._replace(payload=ipv6.FRAGMENT_SIZE + len(data), following=IPPROTO_FRAGMENT)
        layer.counters["Ip6FragCreates"] += 1
        pieces = (ipv6.build(own) + ipv6.build_fragment(fragment), data)
        packet = LinkPacket(pieces, ipv6.HEADER_SIZE + own.payload, False, out.protocol)
        link.send(now_ns, path.next_hop, packet)
    layer.counters["Ip6FragOKs"] += 1


def _packet(out: Outgoing, pieces: tuple[Bytes, ...], size: int, header_size: int) -> LinkPacket:
    offload = out.offload
    if offload.checksum_at >= 0:
        offload = Offload(
            header_size + offload.checksum_start,
            header_size + offload.checksum_at,
            offload.segment_size,
            offload.has_cwr,
        )
    is_v4 = len(out.target) == 4
    whole_header = header_size + out.transport_size
    return LinkPacket(pieces, size, is_v4, out.protocol, offload, whole_header)


def _summed(out: Outgoing) -> tuple[Bytes, ...]:
    """The payload with its checksum, which nobody else can fill in once it is cut."""
    start, at = out.offload[:2]
    if at < 0:
        return out.pieces
    return (filled(b"".join(out.pieces), start, at),)
