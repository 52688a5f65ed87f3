"""Control messages of datagrams: what a sender says, and what a receiver may ask to be told."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from sentry.abi import socket as abi
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IP,
    IPPROTO_IPV6,
)
from sentry.errors import EINVAL, ENETUNREACH
from sentry.net.inet import address
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.message import Ancillary
from sentry.net.stamps import Record, stamps

if TYPE_CHECKING:
    from sentry.net.inet.datagram import DatagramSocket
    from sentry.net.inet.inetsocket import InetSocket
    from sentry.net.packets import Packet
    from sentry.vfs.file import Caller

INT_SIZE: Final = 4
SEGMENT_SIZE: Final = 2


class SendOptions(Struct):
    """What control messages say about one datagram."""

    ttl: int | None = None
    tos: int | None = None
    source: bytes | None = None
    """16 bytes: the address to send from."""
    index: int = 0
    """The interface to send by, if it is not 0."""
    segment: int = 0
    """UDP_SEGMENT."""
    dont_fragment: bool | None = None
    """IPV6_DONTFRAG."""
    confirms: bool = False
    """MSG_CONFIRM: the neighbour on the way has just been heard from."""
    sender: Caller | None = None


def parse_send(
    sock: InetSocket, ancillary: Ancillary | None, target: Endpoint, scope: int = 0
) -> SendOptions:
    """ip_cmsg_send(), ip6_datagram_send_ctl(): those of the target's family count.

    `scope`: the interface that its address names, or 0. Raises: EINVAL, ENODEV.
    """
    options = SendOptions(index=scope)
    for level, kind, body in ancillary.records if ancillary is not None else ():
        if level == IPPROTO_IP and target.is_v4:
            _send_ip(sock, options, kind, body)
        elif level == IPPROTO_IPV6 and sock.family == AF_INET6:
            _send_ipv6(sock, options, kind, body)
        elif level == abi.SOL_UDP and kind == abi.UDP_SEGMENT:
            if len(body) != SEGMENT_SIZE:
                raise EINVAL("UDP_SEGMENT")
            options.segment = int.from_bytes(body, "little")
    return options


def _int(body: bytes, low: int, high: int) -> int:
    number = int.from_bytes(body, "little", signed=True)
    if len(body) != INT_SIZE or not low <= number <= high:
        raise EINVAL("control message")
    return number


def _send_ip(sock: InetSocket, options: SendOptions, kind: int, body: bytes) -> None:
    if kind == abi.IP_TTL:
        options.ttl = _int(body, 1, 255)
    elif kind == abi.IP_TOS:
        options.tos = body[0] if len(body) == 1 else _int(body, 0, 255)
    elif kind == abi.IP_PKTINFO:
        if len(body) != 12:
            raise EINVAL("struct in_pktinfo")
        index, source = struct.unpack("<i4s4x", body)
        if source != bytes(4):
            if not (sock.is_local(MAPPED + source) or sock.sends_from_anywhere):
                raise ENETUNREACH("no address of ours")
            options.source = MAPPED + source
        if index:
            options.index = sock.stack.interfaces.by_index(index).index
    elif kind == abi.IP_PROTOCOL:
        _int(body, 1, 255)
    elif kind != abi.IP_RETOPTS:
        raise EINVAL(f"control message {kind}")


def _send_ipv6(sock: InetSocket, options: SendOptions, kind: int, body: bytes) -> None:
    if kind in (abi.IPV6_PKTINFO, abi.IPV6_2292PKTINFO):
        if len(body) < 20:
            raise EINVAL("struct in6_pktinfo")
        source, index = struct.unpack("<16si", body[:20])
        if index:
            if (options.index or sock.device) not in (0, index):
                raise EINVAL("another interface than that of the address, or the socket")
            options.index = sock.stack.interfaces.by_index(index).index
        if source != bytes(16):
            if not (sock.is_local(source) or sock.free_bind()):
                raise EINVAL("source address")
            options.source = source
    elif kind in (abi.IPV6_HOPLIMIT, abi.IPV6_2292HOPLIMIT):
        number = _int(body, -1, 255)
        options.ttl = None if number == -1 else number
    elif kind == abi.IPV6_TCLASS:
        number = _int(body, -1, 255)
        options.tos = None if number == -1 else number
    elif kind == abi.IPV6_DONTFRAG:
        options.dont_fragment = bool(_int(body, 0, 1))
    elif kind not in (abi.IPV6_HOPOPTS, abi.IPV6_DSTOPTS, abi.IPV6_RTHDR):
        raise EINVAL(f"control message {kind}")


class Seen(NamedTuple):
    """What depends on who looks at a packet."""

    local: bytes
    """ipi_spec_dst."""
    port: int | None
    """Of IP_ORIGDSTADDR; None: the packet is too short to have one."""


def told(sock: DatagramSocket, packet: Packet, seen: Seen | None = None) -> list[Record]:
    """The control messages that the receiver asked for, in Linux's order. `seen`: where that is not
    what the socket says itself."""
    records = stamps(sock, packet.stamp_ns)
    if packet.dropped:
        records.append((abi.SOL_SOCKET, abi.SO_RXQ_OVFL, struct.pack("<I", packet.dropped)))
    if sock.family == AF_INET6:
        records += _told6(sock, packet, seen)
    if packet.source.is_v4:
        records += _told4(sock, packet, seen)
    return records


def _told4(sock: DatagramSocket, packet: Packet, seen: Seen | None) -> list[Record]:
    on, records = sock.ip_options, []
    if on[abi.IP_PKTINFO]:
        local = (seen or sock.seen(packet)).local
        info = struct.pack("<i4s4s", packet.index, local, packet.target.ip[12:])
        records.append((IPPROTO_IP, abi.IP_PKTINFO, info))
    if on[abi.IP_RECVTTL]:
        records.append((IPPROTO_IP, abi.IP_TTL, struct.pack("<i", packet.ttl)))
    if on[abi.IP_RECVTOS]:
        records.append((IPPROTO_IP, abi.IP_TOS, bytes([packet.tos])))
    port = (seen or sock.seen(packet)).port if on[abi.IP_RECVORIGDSTADDR] else None
    if port is not None:
        where = address.pack(Endpoint(packet.target.ip, port), AF_INET)
        records.append((IPPROTO_IP, abi.IP_ORIGDSTADDR, where))
    return records


def _told6(sock: DatagramSocket, packet: Packet, seen: Seen | None) -> list[Record]:
    on, records = sock.ipv6_options, []
    info = packet.target.ip + struct.pack("<i", packet.index)
    if on[abi.IPV6_RECVPKTINFO]:
        records.append((IPPROTO_IPV6, abi.IPV6_PKTINFO, info))
    if packet.source.is_v4:
        return records
    if on[abi.IPV6_2292PKTINFO]:
        records.append((IPPROTO_IPV6, abi.IPV6_2292PKTINFO, info))
    if on[abi.IPV6_RECVHOPLIMIT]:
        records.append((IPPROTO_IPV6, abi.IPV6_HOPLIMIT, struct.pack("<i", packet.ttl)))
    if on[abi.IPV6_2292HOPLIMIT]:
        records.append((IPPROTO_IPV6, abi.IPV6_2292HOPLIMIT, struct.pack("<i", packet.ttl)))
    if on[abi.IPV6_RECVTCLASS]:
        records.append((IPPROTO_IPV6, abi.IPV6_TCLASS, struct.pack("<i", packet.tos)))
    port = (seen or sock.seen(packet)).port if on[abi.IPV6_ORIGDSTADDR] else None
    if port is not None:
        where = address.pack(Endpoint(packet.target.ip, port), AF_INET6)
        records.append((IPPROTO_IPV6, abi.IPV6_ORIGDSTADDR, where))
    return records
