"""IP headers that a program makes itself: IP_HDRINCL, IPV6_HDRINCL, IPPROTO_RAW. raw(7)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.errors import EINVAL
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.inet.wire import checksum
from sentry.net.packets import Packet

if TYPE_CHECKING:
    from sentry.net.stack import Stack

IP_HEADER: Final = 20
IP6_HEADER: Final = 40
DONT_FRAGMENT: Final = 0x4000
IP: Final = struct.Struct(">BBHHHBBH4s4s")
IP6: Final = struct.Struct(">IHBB16s16s")


def parse4(stack: Stack, data: bytes, source: Endpoint) -> tuple[Packet, int] | None:
    """The packet and its protocol; the kernel fills in what is 0: raw_send_hdrinc().

    None for one that nobody can receive. Raises: EINVAL.
    """
    if len(data) < IP_HEADER:
        raise EINVAL("no IP header")
    first, tos, _, ident, fragment, ttl, protocol, _, sender, target = IP.unpack_from(data)
    size = (first & 15) * 4
    if not IP_HEADER <= size <= len(data):
        raise EINVAL("length of the IP header")
    if sender == bytes(4):
        sender = source.ip[12:]
    if not ident and not fragment & DONT_FRAGMENT:
        ident = stack.next_ip_id()
    total = len(data) & 0xFFFF
    head = IP.pack(first, tos, total, ident, fragment, ttl, protocol, 0, sender, target)
    head += data[IP_HEADER:size]
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    if first >> 4 != 4:
        return None
    packet = Packet(
        data[size:], Endpoint(MAPPED + sender, 0), Endpoint(MAPPED + target, 0), ttl, tos, head=head
    )
    return packet, protocol


def received4(data: bytes) -> tuple[Packet, int] | None:
    """A packet that came from the link; None for one that is dropped: ip_rcv_core()."""
    if len(data) < IP_HEADER:
        return None
    first, tos, total, _, _, ttl, protocol, _, sender, target = IP.unpack_from(data)
    size = (first & 15) * 4
    if first >> 4 != 4 or not IP_HEADER <= size <= total <= len(data) or checksum(data[:size]):
        return None
    source, local = Endpoint(MAPPED + sender, 0), Endpoint(MAPPED + target, 0)
    return Packet(data[size:total], source, local, ttl, tos, head=data[:size]), protocol


def received6(data: bytes) -> tuple[Packet, int] | None:
    """The same of IPv6: ip6_rcv_core()."""
    if len(data) < IP6_HEADER:
        return None
    first, size, protocol, hops, sender, target = IP6.unpack_from(data)
    if first >> 28 != 6 or size > len(data) - IP6_HEADER:
        return None
    payload = data[IP6_HEADER : IP6_HEADER + size]
    packet = Packet(payload, Endpoint(sender, 0), Endpoint(target, 0), hops, first >> 20 & 0xFF)
    return packet, protocol


def parse6(data: bytes) -> tuple[Packet, int] | None:
    """A packet of a program, where the kernel fills in nothing: rawv6_send_hdrinc(). EINVAL."""
    if len(data) < IP6_HEADER:
        raise EINVAL("no IPv6 header")
    return received6(data)
