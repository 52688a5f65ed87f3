"""Errors of ICMP about a packet of a connection: whose they are, and what is translated in them.

net/netfilter/nf_conntrack_proto_icmp.c, nf_nat_proto.c, nf_nat_icmp_reply_translation().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.net.ip import icmp, ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.netfilter.packet import ICMP_SUM_AT, Packet
from sentry.net.netfilter.tuples import (
    ANSWERS,
    PORTED,
    Tuple,
    is_icmp,
    tuple_of,
)

if TYPE_CHECKING:
    from sentry.net.ip.checksum import Bytes

HEADER_SIZE: Final = 8
ERRORS6: Final = range(1, 5)


def is_error(packet: Packet) -> bool:
    """One that quotes a packet."""
    if not is_icmp(packet) or not packet.has(HEADER_SIZE):
        return False
    kind = packet.data[packet.at]
    return kind in (icmp.ERRORS if packet.is_v4 else ERRORS6)


def quoted(packet: Packet) -> Packet | None:
    """What it quotes, from its IP header on; None: that is none."""
    inner = packet.data[packet.at + HEADER_SIZE :]
    header = ipv4.parse_quoted(inner) if packet.is_v4 else ipv6.parse_quoted(inner)
    return None if header is None else Packet(inner, is_v4=packet.is_v4)


def quoted_tuple(packet: Packet) -> Tuple | None:
    """Of the packet that it quotes."""
    inner = quoted(packet)
    return None if inner is None else tuple_of(inner)


def translate(packet: Packet, own: Tuple, *, is_source: bool) -> None:
    """What is quoted gets the source or target of `own`, as its sender knows it."""
    inner = quoted(packet)
    if inner is None:
        return
    rewrite(inner, own, is_source=is_source)
    at = packet.at + HEADER_SIZE
    packet.data[at:] = inner.data
    packet.is_changed = True
    _sum(packet)


def rewrite(packet: Packet, own: Tuple, *, is_source: bool) -> None:
    """The packet gets the source or the target of a tuple: nf_nat_manip_pkt()."""
    packet.set_address(own.source if is_source else own.target, is_source=is_source)
    if packet.protocol in PORTED and packet.has(4):
        packet.set_port(own.source_id if is_source else own.target_id, is_source=is_source)
    elif is_icmp(packet) and packet.has(6) and packet.data[packet.at] in ANSWERS[packet.is_v4]:
        packet.set_icmp_id(own.source_id)


def _sum(packet: Packet) -> None:
    """The sum of a message of ICMP, anew."""
    at = packet.at + ICMP_SUM_AT
    packet.data[at : at + 2] = b"\0\0"
    message: Bytes = bytes(packet.data[packet.at :])
    before = 0
    if not packet.is_v4:
        before = pseudo_sum(packet.source, packet.target, packet.protocol, len(message))
    packet.data[at : at + 2] = checksum(message, before).to_bytes(2)
    packet.is_partial = False
