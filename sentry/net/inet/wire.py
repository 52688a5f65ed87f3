"""What a raw socket sees of other sockets: packets with their headers. RFC 768, RFC 1071."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_UDP

if TYPE_CHECKING:
    from sentry.net.inet.packet import Packet
    from sentry.net.stack import Stack


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def checksum6(packet: Packet, data: bytes, protocol: int) -> int:
    """Of an IPv6 payload with its pseudo header, which has the checksum in it or 0. RFC 8200."""
    pseudo = packet.source.ip + packet.target.ip + struct.pack(">II", len(data), protocol)
    return checksum(pseudo + data)


def show_raw(stack: Stack, packet: Packet, family: int, protocol: int) -> None:
    """Every raw socket that wants a packet gets it."""
    for sock in list(stack.raw):
        if sock.refs and sock.family == family and sock.accepts(packet, protocol):
            sock.deliver(packet)


def show_udp(stack: Stack, packet: Packet) -> None:
    """A datagram on its way, for raw sockets of UDP."""
    size = len(packet.data) + 8
    source, target = packet.source, packet.target
    addresses = (source.ip[12:] + target.ip[12:]) if target.is_v4 else source.ip + target.ip
    head = struct.pack(">HHH", source.port, target.port, size & 0xFFFF)
    pseudo = addresses + struct.pack(">HH", IPPROTO_UDP, size & 0xFFFF)
    total = checksum(pseudo + head + bytes(2) + packet.data) or 0xFFFF
    whole = replace(packet, data=head + struct.pack(">H", total) + packet.data)
    show_raw(stack, whole, AF_INET if target.is_v4 else AF_INET6, IPPROTO_UDP)
