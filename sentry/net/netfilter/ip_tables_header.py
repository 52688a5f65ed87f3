"""What a rule of iptables says of a packet's header: struct ipt_ip, struct ip6t_ip6.

ip_packet_match() of net/ipv4/netfilter/ip_tables.c, ip6_packet_match() of
net/ipv6/netfilter/ip6_tables.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import ip_tables as abi
from sentry.errors import EINVAL
from sentry.net.netfilter.matching import padded

if TYPE_CHECKING:
    from sentry.net.netfilter.packet import Packet

HEADER4: Final = struct.Struct("<4s4s4s4s16s16s16s16sHBB")
HEADER6: Final = struct.Struct("<16s16s16s16s16s16s16s16sHBBB")
"""Source, target and their masks, names of interfaces and their masks, protocol, (traffic class,)
flags, what is inverted."""


def named(interface: str) -> int:
    """The name of an interface as `Header.fits` compares it; of none it is empty."""
    return int.from_bytes(padded(interface))


class Header:
    """Read from the beginning of an entry."""

    __slots__ = (
        "asks_fragment", "checks_protocol", "iif", "iif_mask", "is_empty", "is_goto",
        "not_fragment", "not_iif", "not_oif", "not_protocol", "not_source", "not_target", "oif",
        "oif_mask", "protocol", "source", "source_mask", "target", "target_mask",
    )  # fmt: skip

    def __init__(self, raw: bytes, *, is_v4: bool) -> None:
        """Raises: EINVAL for flags that are not known. ip_checkentry(), ip6_checkentry()."""
        form = HEADER4 if is_v4 else HEADER6
        *numbers, protocol = form.unpack_from(raw)[:9]
        flags, inverted = form.unpack_from(raw)[-2:]
        known = abi.IPT_F_MASK if is_v4 else abi.IP6T_F_MASK
        if flags & ~known or inverted & ~abi.IPT_INV_MASK:
            raise EINVAL("flags of an entry")
        source, target, source_mask, target_mask, iif, oif, iif_mask, oif_mask = (
            int.from_bytes(each) for each in numbers
        )
        self.source_mask, self.target_mask = source_mask, target_mask
        self.source, self.target = source, target
        if not is_v4:  # of IPv6 the mask counts for both sides
            self.source, self.target = source & source_mask, target & target_mask
        self.iif, self.iif_mask = iif & iif_mask, iif_mask
        self.oif, self.oif_mask = oif & oif_mask, oif_mask
        self.protocol = protocol
        self.checks_protocol = bool(protocol) and (is_v4 or bool(flags & abi.IP6T_F_PROTO))
        self.asks_fragment = is_v4 and bool(flags & abi.IPT_F_FRAG)
        self.is_goto = bool(flags & (abi.IPT_F_GOTO if is_v4 else abi.IP6T_F_GOTO))
        self.not_source = bool(inverted & abi.IPT_INV_SRCIP)
        self.not_target = bool(inverted & abi.IPT_INV_DSTIP)
        self.not_iif = bool(inverted & abi.IPT_INV_VIA_IN)
        self.not_oif = bool(inverted & abi.IPT_INV_VIA_OUT)
        self.not_protocol = bool(inverted & abi.IPT_INV_PROTO)
        self.not_fragment = is_v4 and bool(inverted & abi.IPT_INV_FRAG)
        self.is_empty = not any(raw[: form.size])

    def fits(self, packet: Packet, iif: int, oif: int) -> bool:
        """A packet, and the names of its interfaces as numbers."""
        if (int.from_bytes(packet.source) & self.source_mask == self.source) == self.not_source:
            return False
        if (int.from_bytes(packet.target) & self.target_mask == self.target) == self.not_target:
            return False
        if (iif & self.iif_mask == self.iif) == self.not_iif:
            return False
        if (oif & self.oif_mask == self.oif) == self.not_oif:
            return False
        if self.checks_protocol and (packet.protocol == self.protocol) == self.not_protocol:
            return False
        return (self.asks_fragment and not packet.is_later) == self.not_fragment
