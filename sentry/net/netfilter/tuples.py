"""`Tuple`: which connection a packet belongs to, by its addresses and ports.

net/netfilter/nf_conntrack_core.c, nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi.socket import (
    IPPROTO_DCCP,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)

if TYPE_CHECKING:
    from sentry.net.netfilter.packet import Packet

PORTED: Final = frozenset(
    {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_DCCP}
)
"""Whose header begins with two ports."""
ANSWERS: Final = {
    True: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    False: {128: 129, 129: 128, 139: 140, 140: 139},
}
"""Types of ICMP that ask, and what answers them: by whether it is that of IPv4."""
ASKS: Final = frozenset({(True, 8), (True, 13), (True, 15), (True, 17), (False, 128), (False, 139)})
"""By (is IPv4, type): what may begin a connection."""
PORTS_SIZE: Final = 8
"""Bytes of a transport that has ports, at least."""


class Tuple(NamedTuple):
    """One direction. Of ICMP `source_id` is the identifier and `target_id` (type, code)."""

    protocol: int
    source: bytes
    source_id: int
    target: bytes
    target_id: int

    @property
    def is_v4(self) -> bool:
        """The family."""
        return len(self.source) == 4

    @property
    def inverted(self) -> Tuple:
        """As an answer has it."""
        protocol, source, source_id, target, target_id = self
        if protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6):
            kind = target_id >> 8
            back = ANSWERS[len(source) == 4].get(kind, kind) << 8 | target_id & 0xFF
            return Tuple(protocol, target, source_id, source, back)
        return Tuple(protocol, target, target_id, source, source_id)


def tuple_of(packet: Packet) -> Tuple | None:
    """None: it is of none that could be told."""
    protocol, at, data = packet.protocol, packet.at, packet.data
    if packet.is_later:
        return None
    if protocol in PORTED:
        if not packet.has(PORTS_SIZE):
            return None
        ports = struct.unpack_from(">HH", data, at)
        return Tuple(protocol, packet.source, ports[0], packet.target, ports[1])
    if is_icmp(packet):
        if not packet.has(PORTS_SIZE):
            return None
        kind, code, _, ident = struct.unpack_from(">BBHH", data, at)
        if kind not in ANSWERS[packet.is_v4]:
            return None
        return Tuple(protocol, packet.source, ident, packet.target, kind << 8 | code)
    return Tuple(protocol, packet.source, 0, packet.target, 0)


def is_icmp(packet: Packet) -> bool:
    """That of its own family."""
    return packet.protocol == (IPPROTO_ICMP if packet.is_v4 else IPPROTO_ICMPV6)
