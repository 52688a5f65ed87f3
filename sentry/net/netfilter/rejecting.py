"""What a rejected packet is answered with: nf_reject_ipv4.c, nf_reject_ipv6.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import nftables as nft
from sentry.abi.socket import ICMP_DEST_UNREACH, ICMPV6_DEST_UNREACH, IPPROTO_TCP
from sentry.errors import ECONNREFUSED, EHOSTUNREACH
from sentry.net.ip import icmp, ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.seam import Failure, Outgoing
from sentry.net.link.link import LinkPacket
from sentry.net.netfilter.packet import Packet
from sentry.net.tcp.segment import ACK, FIN, RST, SYN

if TYPE_CHECKING:
    from sentry.net.ip.layer import IpLayer
    from sentry.net.netfilter.machine import Run
    from sentry.net.netfilter.nat import Translation

HEADER_SIZE: Final = 20
TTL: Final = 64
QUOTED: Final = 8
ANY4: Final = {0: 0, 1: 3, 2: 1, 3: 13}
ANY6: Final = {0: 0, 1: 4, 2: 3, 3: 1}
"""NFT_REJECT_ICMPX_*: codes of ICMP and ICMPv6."""


def icmp_code(kind: int, code: int, *, is_v4: bool) -> int:
    """Of a destination that is unreachable."""
    if kind != nft.NFT_REJECT_ICMPX_UNREACH:
        return code
    return (ANY4 if is_v4 else ANY6)[code]


def errno_of(kind: int, code: int, *, is_v4: bool) -> int:
    """What a socket hears whose packet was rejected."""
    if kind == nft.NFT_REJECT_TCP_RST:
        return ECONNREFUSED.number
    told = icmp_code(kind, code, is_v4=is_v4)
    if is_v4:
        return icmp.UNREACHABLE[min(told, len(icmp.UNREACHABLE) - 1)][0].number
    return (ECONNREFUSED if told == 4 else EHOSTUNREACH).number


def reject(
    layer: IpLayer, translation: Translation, run: Run, kind: int, code: int
) -> None:
    """Tell the sender of a packet that has come by a link, or is to leave by one."""
    packet = run.packet
    if run.hook == nft.NF_INET_LOCAL_OUT:
        _fail(layer, run, kind, code)
    elif kind == nft.NFT_REJECT_TCP_RST:
        _reset(layer, translation, run)
    else:
        told = icmp_code(kind, code, is_v4=packet.is_v4)
        unreachable = ICMP_DEST_UNREACH if packet.is_v4 else ICMPV6_DEST_UNREACH
        about = packet.arrived()
        (layer.icmp if packet.is_v4 else layer.icmp6).complain(
            run.now_ns, about, unreachable, told
        )


def _fail(layer: IpLayer, run: Run, kind: int, code: int) -> None:
    """Of a socket here: it hears that at once, as if somebody had answered."""
    failure = failure_of(run.packet, kind, code, run.packet.source)
    if failure is not None:
        layer.fail(run.now_ns, failure)


def failure_of(packet: Packet, kind: int, code: int, offender: bytes) -> Failure | None:
    """As its sender hears it, and from whom. None: there is too little of it."""
    quoted = bytes(packet.data[packet.at :])
    if len(quoted) < QUOTED:
        return None
    told = icmp_code(kind, code, is_v4=packet.is_v4)
    number = errno_of(kind, code, is_v4=packet.is_v4)
    unreachable = ICMP_DEST_UNREACH if packet.is_v4 else ICMPV6_DEST_UNREACH
    return Failure(
        packet.protocol, packet.source, packet.target, quoted, unreachable, told, number, True,
        offender,
    )  # fmt: skip


def _reset(layer: IpLayer, translation: Translation, run: Run) -> None:
    """nf_send_reset(), nf_send_reset6(): as if the target had sent it."""
    packet = run.packet
    segment = _segment(packet)
    if segment is None or packet.is_group:
        return
    if layer.is_local(packet.target):
        out = Outgoing(packet.source, IPPROTO_TCP, (segment,), packet.target, by_itself=True)
        layer.send_or_drop(run.now_ns, out)
        return
    made = _answer(packet, segment)
    made.connection, made.info = packet.connection, nft.IP_CT_ESTABLISHED + nft.IP_CT_IS_REPLY
    translation.apply(made, is_source=False)
    translation.apply(made, is_source=True)
    path = layer.path_or_none(run.now_ns, made.target, 0)
    if path is not None and layer.gate_at(path.interface) is None:
        layer.links[path.interface].send(run.now_ns, path.next_hop, LinkPacket(
            (bytes(made.data),), len(made.data), made.is_v4, IPPROTO_TCP
        ))  # fmt: skip


def _segment(packet: Packet) -> bytes | None:
    """RFC 9293, 3.10.7.1; None: a reset is not answered."""
    if packet.protocol != IPPROTO_TCP or not packet.has(HEADER_SIZE):
        return None
    source, target, sequence, acknowledged, offset, flags = struct.unpack_from(
        ">HHIIBB", packet.data, packet.at
    )
    if flags & RST:
        return None
    number = acknowledgement = 0
    answer = RST
    if flags & ACK:
        number = acknowledged
    else:
        size = len(packet.data) - packet.at - (offset >> 4) * 4
        size += bool(flags & SYN) + bool(flags & FIN)
        acknowledgement, answer = sequence + size & 0xFFFFFFFF, RST | ACK
    head = struct.pack(
        ">HHIIBBHHH", target, source, number, acknowledgement, 5 << 4, answer, 0, 0, 0
    )
    before = pseudo_sum(packet.target, packet.source, IPPROTO_TCP, len(head))
    return head[:16] + checksum(head, before).to_bytes(2) + head[18:]


def _answer(packet: Packet, segment: bytes) -> Packet:
    """A whole packet, from the target to the source."""
    source, target = packet.target, packet.source
    if packet.is_v4:
        total = ipv4.HEADER_SIZE + len(segment)
        head = ipv4.build(ipv4.Header(
            ipv4.HEADER_SIZE, total, 0, 0, ipv4.DONT_FRAGMENT, TTL, IPPROTO_TCP, source, target
        ))  # fmt: skip
    else:
        head = ipv6.build(ipv6.Header(0, 0, len(segment), IPPROTO_TCP, TTL, source, target))
    return Packet(head + segment, is_v4=packet.is_v4)


