"""What others see of a packet: its bytes with their headers. RFC 768, 791, 792, 1071, 8200."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sentry.abi.netlink import ARPHRD_ETHER, ARPHRD_LOOPBACK
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_UDP,
    PACKET_HOST,
)
from sentry.bpf.filter import Packet as Filtered
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.packets import ETH_HEADER, Packet

if TYPE_CHECKING:
    from sentry.net.stack import Stack

PORT_UNREACHABLE: Final = {AF_INET: b"\x03\x03", AF_INET6: b"\x01\x04"}
"""Type and code of ICMP."""
QUOTED: Final = {AF_INET: 576 - 28, AF_INET6: 1280 - 48}
"""Bytes of a packet that the complaint about it shows."""
INTERNET_CONTROL: Final = 0xC0


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


def checksum_udp(packet: Packet, data: bytes) -> int:
    """The same of a datagram of either family, whose header counts as `data`."""
    if not packet.target.is_v4:
        return checksum6(packet, data, IPPROTO_UDP)
    pseudo = packet.source.ip[12:] + packet.target.ip[12:]
    return checksum(pseudo + struct.pack(">HH", IPPROTO_UDP, len(data) & 0xFFFF) + data)


def with_header(packet: Packet, family: int, protocol: int) -> bytes:
    """The packet behind its IP header."""
    if packet.head:
        return packet.head + packet.data
    size = len(packet.data)
    if family == AF_INET6:
        first = 6 << 28 | packet.tos << 20
        head = struct.pack(">IHBB", first, size & 0xFFFF, protocol, packet.ttl)
        return head + packet.source.ip + packet.target.ip + packet.data
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, packet.tos, size + 20 & 0xFFFF, 0, 0x4000, packet.ttl,
        protocol, 0, packet.source.ip[12:], packet.target.ip[12:],
    )  # fmt: skip
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + packet.data


def seen_by_filter(packet: Packet, family: int, protocol: int, *, from_header: bool) -> Filtered:
    """A packet that has come, for the filter of a socket that sees it from its IP header on, or
    from behind that."""
    kind = ETH_P_IP if family == AF_INET else ETH_P_IPV6
    whole = with_header(packet, family, protocol)
    start = ETH_HEADER if from_header else ETH_HEADER + len(whole) - len(packet.data)
    seen = Filtered(link_header(kind) + whole, start, network=ETH_HEADER, link=0)
    hardware = ARPHRD_LOOPBACK if packet.index == LOOPBACK_INDEX else ARPHRD_ETHER
    return seen.of(kind, PACKET_HOST, packet.index, hardware)


def link_header(kind: int) -> bytes:
    """Of the loopback: no addresses."""
    return bytes(12) + struct.pack(">H", kind)


def show(stack: Stack, packet: Packet, family: int, protocol: int) -> None:
    """A packet on its way, for packet sockets and for raw sockets."""
    if stack.taps:
        from sentry.net.frame import show_frame  # noqa: PLC0415  few programs look

        kind = ETH_P_IP if family == AF_INET else ETH_P_IPV6
        show_frame(stack, link_header(kind) + with_header(packet, family, protocol), kind, None)
    show_raw(stack, packet, family, protocol)


def show_raw(stack: Stack, packet: Packet, family: int, protocol: int) -> None:
    """Every raw socket that wants a packet gets it, and the last one of the ping sockets."""
    if stack.raw:
        stack.fan_out.begin(_shown_raw(stack, packet, family, protocol))


def _shown_raw(stack: Stack, packet: Packet, family: int, protocol: int) -> Iterator[None]:
    ping = None
    for sock in list(stack.raw):
        if sock.family == family and sock in stack.raw and sock.accepts(packet, protocol):
            if sock.is_ping:
                ping = sock
            else:
                sock.deliver(packet)
        yield
    if ping is not None and ping in stack.raw:
        ping.deliver(packet)


def show_udp(stack: Stack, packet: Packet) -> Packet:
    """A datagram on its way, as a packet with its header."""
    size = len(packet.data) + 8
    head = struct.pack(">HHHH", packet.source.port, packet.target.port, size & 0xFFFF, 0)
    total = checksum_udp(packet, head + packet.data) or 0xFFFF
    whole = replace(packet, data=head[:6] + struct.pack(">H", total) + packet.data)
    show(stack, whole, AF_INET if packet.target.is_v4 else AF_INET6, IPPROTO_UDP)
    return whole


def show_unreachable(stack: Stack, whole: Packet) -> None:
    """Nobody has the port of a datagram: the complaint that comes back. icmp_send()."""
    family = AF_INET if whole.target.is_v4 else AF_INET6
    protocol = IPPROTO_ICMP if family == AF_INET else IPPROTO_ICMPV6
    quoted = with_header(whole, family, IPPROTO_UDP)[: QUOTED[family]]
    data = PORT_UNREACHABLE[family] + bytes(6) + quoted
    tos = INTERNET_CONTROL if family == AF_INET else 0
    answer = Packet(data, whole.target._replace(port=0), whole.source._replace(port=0), tos=tos)
    total = checksum(data) if family == AF_INET else checksum6(answer, data, protocol)
    answer.data = data[:2] + struct.pack(">H", total) + data[4:]
    show(stack, answer, family, protocol)
