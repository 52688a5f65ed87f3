"""What stays in the sandbox has no packets: one is made for the hooks, where there are any.

A datagram is judged each time, and so is a packet of a raw or ping socket, a connection by its SYN,
on its way out and in again: OUTPUT, POSTROUTING, PREROUTING, INPUT, with the loopback as both
interfaces.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import Struct
from msgspec.structs import replace

from sentry.abi import nftables as nft
from sentry.abi.netlink import RTN_LOCAL
from sentry.abi.socket import IPPROTO_TCP, IPPROTO_UDP
from sentry.errors import ENETUNREACH
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.netfilter import hooks
from sentry.net.netfilter.outgoing import owner_of
from sentry.net.netfilter.packet import Packet
from sentry.net.netfilter.rejecting import errno_of, failure_of
from sentry.net.tcp.segment import SYN

if TYPE_CHECKING:
    from sentry.net import packets
    from sentry.net.ip.seam import Failure
    from sentry.net.netfilter.conntrack import Connection
    from sentry.net.netfilter.hooks import Netfilter
    from sentry.net.stack import Stack

WINDOW: Final = 65535
OPTIONS: Final = b"\2\4\xff\xd7" b"\4\2" b"\x08\x0a" + bytes(8) + b"\1" b"\3\3\7"
"""Of a SYN on the loopback: its segment size, SACK, time stamps, window scaling."""
TTL: Final = 64
IP4_SIZE: Final = 4


class Judged(Struct, frozen=True):
    """What becomes of it."""

    source: Endpoint
    target: Endpoint
    """As who gets it sees both."""
    passes: bool = True
    at_output: bool = False
    """It did not get out: its sender hears of that."""
    errno: int = 0
    """With which it was rejected; 0: it is just lost."""
    has_no_way: bool = False
    """No rule: from there nothing leads to where it was translated to, which `errno` says."""
    failure: Failure | None = None
    """The complaint by ICMP about it, as a sender hears it; not of what is too short for one."""
    connection: Connection | None = None
    """As it is followed."""
    leaves: bool = False
    """Its target is nobody here any more: it is to go by a link, to be translated there."""


def judge_segment(
    stack: Stack, now_ns: int, source: Endpoint, target: Endpoint, sender: Any
) -> Judged | None:
    """The SYN of a connection; None: no rule could say anything."""
    place = _place(stack)
    if place is None:
        return None
    head = struct.pack(">HHIIBBHHH", source.port, target.port, 0, 0, 10 << 4, SYN, WINDOW, 0, 0)
    head += OPTIONS
    return _judge(place, now_ns, (source, target), (IPPROTO_TCP, 16, head), sender)


def judge_datagram(
    stack: Stack, now_ns: int, ends: tuple[Endpoint, Endpoint], data: bytes, sender: Any
) -> Judged | None:
    """A datagram, with its source and target; None: no rule could say anything."""
    place = _place(stack)
    if place is None:
        return None
    size = 8 + len(data)
    head = struct.pack(">HHHH", ends[0].port, ends[1].port, min(size, 0xFFFF), 0)
    return _judge(place, now_ns, ends, (IPPROTO_UDP, 6, head + data), sender)


def judge_packet(
    stack: Stack, now_ns: int, packet: packets.Packet, whole: bytes, sender: Any
) -> Judged | packets.Packet:
    """Another packet, which is `whole` with its header of IP, as it is when it comes in; or what
    becomes of it else."""
    place = _place(stack)
    if place is None:
        return packet
    ends, is_v4 = (packet.source, packet.target), packet.target.is_v4
    judged = Packet(whole, is_v4=is_v4)
    stopped = _stopped(place, now_ns, ends, judged, sender)
    if stopped is not None or not judged.is_changed:
        return stopped or packet
    size = len(whole) - len(packet.data)
    changed = bytes(judged.data)
    return replace(
        packet, data=changed[size:], source=_end(judged.source), target=_end(judged.target),
        ttl=judged.ttl, tos=judged.tos, head=changed[:size] if packet.head else b"",
    )  # fmt: skip


def _place(stack: Stack) -> Netfilter | None:
    """The rules, if there are any that packets meet."""
    found = cast("Netfilter | None", stack.netfilter)
    return found if found is not None and found.is_active else None


def _judge(
    place: Netfilter, now_ns: int, ends: tuple[Endpoint, Endpoint], what: tuple[int, int, bytes],
    sender: Any,
) -> Judged:  # fmt: skip
    packet = _packet(ends, *what)
    stopped = _stopped(place, now_ns, ends, packet, sender)
    if stopped is not None:
        return stopped
    ports: tuple[int, int] = struct.unpack_from(">HH", packet.data, packet.at)
    return Judged(
        _end(packet.source, ports[0]), _end(packet.target, ports[1]), connection=packet.connection
    )


def _end(address: bytes, port: int = 0) -> Endpoint:
    return Endpoint(MAPPED + address if len(address) == IP4_SIZE else address, port)


def _stopped(
    place: Netfilter, now_ns: int, ends: tuple[Endpoint, Endpoint], packet: Packet, sender: Any
) -> Judged | None:
    """None: it has got through, and is for us."""
    source, target = ends
    packet.owner, packet.stands_in = owner_of(sender), True
    packet.oif = LOOPBACK_INDEX
    packet.preferred = packet.source
    place.rejected = None
    at_output = True
    passes = place.run(now_ns, packet, hooks.OUT) and place.run(now_ns, packet, hooks.POST)
    if passes and place.kind_of(packet.target, 0) != RTN_LOCAL:
        if packet.connection is not None:
            place.conntrack.forget(now_ns, packet.connection)
        if not place.has_links:
            return Judged(source, target, False, at_output, ENETUNREACH.number, has_no_way=True)
        return Judged(source, target, leaves=True)
    if passes:
        at_output = False
        packet.oif, packet.iif = 0, LOOPBACK_INDEX
        passes = place.run(now_ns, packet, hooks.PRE) and place.run(now_ns, packet, hooks.IN)
    rejected, place.rejected = place.rejected, None
    if passes:
        return None
    if rejected is None:
        return Judged(source, target, False, at_output)
    number = errno_of(*rejected, is_v4=packet.is_v4)
    by_icmp = rejected[0] != nft.NFT_REJECT_TCP_RST
    failure = failure_of(packet, *rejected, packet.target) if by_icmp else None
    return Judged(source, target, False, at_output, number, failure=failure)


def _packet(
    ends: tuple[Endpoint, Endpoint], protocol: int, sum_at: int, transport: bytes
) -> Packet:
    source, target = ends
    if target.is_v4:
        first, last = source.ip[12:], target.ip[12:]
        transport = transport[: ipv4.MAX_SIZE - ipv4.HEADER_SIZE]
        total = ipv4.HEADER_SIZE + len(transport)
        head = ipv4.build(ipv4.Header(
            ipv4.HEADER_SIZE, total, 0, 0, ipv4.DONT_FRAGMENT, TTL, protocol, first, last
        ))  # fmt: skip
    else:
        first, last = source.ip, target.ip
        transport = transport[: ipv6.MAX_PAYLOAD]
        head = ipv6.build(ipv6.Header(0, 0, len(transport), protocol, TTL, first, last))
    before = pseudo_sum(first, last, protocol, len(transport))
    total = checksum(transport, before)
    whole = head + transport[:sum_at] + total.to_bytes(2) + transport[sum_at + 2 :]
    return Packet(whole, is_v4=target.is_v4)
