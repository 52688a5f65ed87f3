"""`Frame`: a packet on the loopback with its link header, and where it goes."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    ETH_P_802_2,
    ETH_P_IP,
    ETH_P_IPV6,
    PACKET_HOST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    PACKET_OUTGOING,
)
from sentry.net.inet.raw_header import received4, received6
from sentry.net.sysctls import takes_martians

if TYPE_CHECKING:
    from sentry.net.inet.packet import Packet
    from sentry.net.packet_socket import PacketSocket
    from sentry.net.stack import Stack

ETH_HEADER: Final = 14
FIRST_ETHERTYPE: Final = 0x600
"""Smaller numbers are lengths: ETH_P_802_3_MIN."""
LOOPBACK_INDEX: Final = 1
LOOPBACK_NETWORK: Final = 127
PARSERS: Final = {ETH_P_IP: (received4, AF_INET), ETH_P_IPV6: (received6, AF_INET6)}


class Frame(Struct):
    """What packet sockets see."""

    data: bytes
    ethertype: int
    kind: int
    """PACKET_HOST and others: sll_pkttype."""
    size: int
    """Bytes that there were before a filter cut it."""
    index: int = LOOPBACK_INDEX
    stamp_ns: int = field(default_factory=time.time_ns)

    def cut(self, keep: int) -> Frame:
        """At most so many bytes of it."""
        return replace(self, data=self.data[:keep]) if keep < len(self.data) else self


def show_frame(stack: Stack, data: bytes, sent_as: int, sender: PacketSocket | None) -> Frame:
    """Packet sockets see a frame go out, but for who sent it, and come in. The latter."""
    (ethertype,) = struct.unpack_from(">H", data, 12)
    if ethertype < FIRST_ETHERTYPE:
        ethertype = ETH_P_802_2
    kind = PACKET_HOST
    if any(data[:6]):
        kind = PACKET_MULTICAST if data[0] & 1 else PACKET_OTHERHOST
    taps = list(stack.taps)
    out = Frame(data, sent_as, PACKET_OUTGOING, len(data))
    for tap in taps:
        if tap is not sender:
            tap.hear(out)
    come = Frame(data, ethertype, kind, len(data), stamp_ns=out.stamp_ns)
    for tap in taps:
        tap.hear(come)
    return come


def transmit(stack: Stack, data: bytes, sent_as: int, sender: PacketSocket) -> None:
    """A program sends a frame of its own: what comes back goes to IP."""
    from sentry.net.inet.raw import take_in  # noqa: PLC0415  raw sockets show frames, too

    come = show_frame(stack, data, sent_as, sender)
    if come.kind == PACKET_OTHERHOST:
        return
    parse, family = PARSERS.get(come.ethertype, (None, 0))
    found = parse(data[ETH_HEADER:]) if parse is not None else None
    if found is None:
        return
    packet, protocol = found
    if family == AF_INET6 and not stack.interfaces.is_local(packet.target.ip):
        return
    if family == AF_INET and not _is_for_us4(stack, packet):
        return
    take_in(stack, packet, family, protocol)


def _is_for_us4(stack: Stack, packet: Packet) -> bool:
    """ip_route_input_slow(): what seems to come from the host itself is a Martian."""
    source, target = packet.source.ip[12:], packet.target.ip[12:]
    if not stack.interfaces.is_local(target):
        return False
    if LOOPBACK_NETWORK in (source[0], target[0]) and not takes_martians(stack, "route_localnet"):
        return False
    return not stack.interfaces.is_local(source) or takes_martians(stack, "accept_local")
