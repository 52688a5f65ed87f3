"""IGMP and MLD: what is said on a link of the groups that programs have joined there.

RFC 3376 and 3810, and 2236 and 2710 where a querier speaks those; net/ipv4/igmp.c and
net/ipv6/mcast.c.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import AF_INET6, IPPROTO_HOPOPTS, IPPROTO_ICMPV6, IPPROTO_IGMP
from sentry.net.deadlines import earlier
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.membership import GENERAL, SECOND_NS, Membership, Record
from sentry.net.link.link import LinkPacket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.net.ip.ground import Ground
    from sentry.net.ip.seam import Arrived, Failure
    from sentry.net.link.link import Link

QUERY_SIZE: Final = {4: 8, 16: 24}
"""Of the versions before the last, which say more."""
QUERY3_SIZE: Final = {4: 12, 16: 28}
ROUTER_ALERT4: Final = b"\x94\x04\0\0"
HOP_BY_HOP: Final = bytes([IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0])
"""An extension header with a router alert."""
ALL_SYSTEMS4: Final = b"\xe0\0\0\x01"
ALL_ROUTERS4: Final = b"\xe0\0\0\x02"
LISTENERS4: Final = b"\xe0\0\0\x16"
ALL_ROUTERS6: Final = b"\xff\x02" + bytes(13) + b"\x02"
LISTENERS6: Final = b"\xff\x02" + bytes(13) + b"\x16"
INTERNET_CONTROL: Final = 0xC0
TENTH_NS: Final = SECOND_NS // 10
MS_NS: Final = 1_000_000
FIRST_NS: Final = 10 * SECOND_NS
"""Of queries of IGMPv1, which do not say."""
HEADERS: Final = 80
"""Room for those of IP before the records of a report."""


class Groups:
    """Of one layer: the protocol IGMP, and that part of ICMPv6."""

    def __init__(self, layer: Ground) -> None:
        self._layer = layer
        self._of: dict[tuple[int, int], Membership] = {}
        """By interface, and the size of an address."""

    # --- what programs do

    def joined(self, now_ns: int, group: bytes, index: int) -> None:
        """Somebody has joined, as the first."""
        if index in self._layer.links and not _is_silent(group):
            self._at(index, len(group)).joined(now_ns, group)

    def left(self, now_ns: int, group: bytes, index: int) -> None:
        """The last has left."""
        if index in self._layer.links and not _is_silent(group):
            self._at(index, len(group)).left(now_ns, group)

    def link_came(self, now_ns: int, index: int, joined: Iterable[bytes]) -> None:
        """An interface is up, where these were joined already."""
        for group in joined:
            self.joined(now_ns, group, index)

    def link_went(self, index: int) -> None:
        """It is no more."""
        for size in QUERY_SIZE:
            self._of.pop((index, size), None)

    def _at(self, index: int, size: int) -> Membership:
        found = self._of.get((index, size))
        if found is None:
            announce = partial(self._announce4 if size == 4 else self._announce6, index)
            standing = partial(self._solicited, index) if size == 16 else tuple
            found = self._of[index, size] = Membership(self._layer.chance, announce, standing)
        return found

    def _solicited(self, index: int) -> list[bytes]:
        """The groups of our own addresses."""
        interface = self._layer.interface(index)
        own = () if interface is None else interface.of_family(AF_INET6)
        return [ipv6.solicited_node(each.ip) for each in own]

    # --- in

    def arrived(self, now_ns: int, packet: Arrived) -> bool:
        """igmp_rcv()."""
        data = packet.payload
        is_query = len(data) >= QUERY_SIZE[4] and data[0] == abi.IGMP_HOST_MEMBERSHIP_QUERY
        if is_query and packet.ttl == 1 and not checksum(data):
            code = data[1]
            is_older = len(data) < QUERY3_SIZE[4]
            within_ns = (code if is_older else _decoded(code, 4)) * TENTH_NS or FIRST_NS
            self._asked(now_ns, packet.index, bytes(data[4:8]), within_ns, is_older=is_older)
        return True

    def failed(self, now_ns: int, failure: Failure) -> bool:
        """Nobody is told of that."""
        return False

    def asked6(self, now_ns: int, packet: Arrived) -> None:
        """igmp6_event_query(). Preconditions: a message of ICMPv6 whose sum is right."""
        data = packet.payload
        if len(data) < QUERY_SIZE[16] or packet.ttl != 1 or not ipv6.is_link_local(packet.source):
            return
        code = int.from_bytes(data[4:6])
        is_older = len(data) < QUERY3_SIZE[16]
        within_ns = (code if is_older else _decoded(code, 12)) * MS_NS
        self._asked(now_ns, packet.index, bytes(data[8:24]), within_ns, is_older=is_older)

    def _asked(
        self, now_ns: int, index: int, group: bytes, within_ns: int, *, is_older: bool
    ) -> None:
        if index in self._layer.links:
            wanted = group if any(group) else GENERAL
            self._at(index, len(group)).asked(now_ns, wanted, within_ns, is_older=is_older)

    # --- out

    def _announce4(self, index: int, now_ns: int, is_older: bool, records: list[Record]) -> None:
        link = self._layer.links[index]
        source = self._layer.source_towards(link, LISTENERS4) or bytes(4)
        if not is_older:
            for part in self._cut(index, records):
                body = _report(abi.IGMPV3_HOST_MEMBERSHIP_REPORT, part)
                self._send4(now_ns, link, source, LISTENERS4, body)
            return
        for record in records:
            kind = abi.IGMPV2_HOST_MEMBERSHIP_REPORT
            to = record.group
            if record.is_left:
                kind, to = abi.IGMP_HOST_LEAVE_MESSAGE, ALL_ROUTERS4
            self._send4(now_ns, link, source, to, bytes([kind, 0, 0, 0]) + record.group)

    def _send4(
        self, now_ns: int, link: Link, source: bytes, to: bytes, body: bytes
    ) -> None:
        body = _summed(body, 0)
        size = ipv4.HEADER_SIZE + len(ROUTER_ALERT4)
        total = size + len(body)
        header = ipv4.Header(
            size, total, INTERNET_CONTROL, 0, ipv4.DONT_FRAGMENT, 1, IPPROTO_IGMP, source, to
        )
        pieces = (ipv4.build(header, ROUTER_ALERT4), body)
        link.send(now_ns, to, LinkPacket(pieces, total, True, IPPROTO_IGMP))

    def _announce6(self, index: int, now_ns: int, is_older: bool, records: list[Record]) -> None:
        link, source = self._layer.links[index], bytes(16)
        interface = self._layer.interface(index)
        for own in () if interface is None else interface.of_family(AF_INET6):
            if ipv6.is_link_local(own.ip):
                source = own.ip
                break
        if not is_older:
            for part in self._cut(index, records):
                body = _report(abi.ICMPV6_MLD2_REPORT, part)
                self._send6(now_ns, link, source, LISTENERS6, body)
            return
        for record in records:
            kind = abi.ICMPV6_MGM_REDUCTION if record.is_left else abi.ICMPV6_MGM_REPORT
            to = ALL_ROUTERS6 if record.is_left else record.group
            self._send6(now_ns, link, source, to, bytes([kind, *bytes(7)]) + record.group)

    def _send6(
        self, now_ns: int, link: Link, source: bytes, to: bytes, body: bytes
    ) -> None:
        body = _summed(body, pseudo_sum(source, to, IPPROTO_ICMPV6, len(body)))
        size = len(HOP_BY_HOP) + len(body)
        header = ipv6.Header(0, 0, size, IPPROTO_HOPOPTS, 1, source, to)
        pieces = (ipv6.build(header), HOP_BY_HOP, body)
        link.send(
            now_ns, to, LinkPacket(pieces, ipv6.HEADER_SIZE + size, False, IPPROTO_ICMPV6)
        )
        self._layer.counters["Icmp6OutMsgs"] += 1

    def _cut(self, index: int, records: list[Record]) -> Iterable[list[Record]]:
        """As many as fit into a packet."""
        interface = self._layer.interface(index)
        if interface is None:
            return
        each = 4 + len(records[0].group)
        most = max((interface.mtu - HEADERS) // each, 1)
        for at in range(0, len(records), most):
            yield records[at : at + most]

    # --- time

    def timer(self) -> int | None:
        """When `timeout` is to be called, in ns."""
        first = None
        for each in self._of.values():
            first = earlier(first, each.timer())
        return first

    def timeout(self, now_ns: int) -> None:
        """What is due, a bounded number of groups of each link."""
        for (index, _), each in list(self._of.items()):
            if index in self._layer.links:
                each.timeout(now_ns)


def _is_silent(group: bytes) -> bool:
    """Everybody is a member, or it is of this host alone: nobody is told."""
    if len(group) == 4:
        return group == ALL_SYSTEMS4
    return group == ipv6.ALL_NODES or group[1] & 15 < 2


def _decoded(code: int, mantissa: int) -> int:
    """A time as the last versions have it: from the highest bit on, a small float of a mantissa of
    so many bits and an exponent of three. RFC 3376, 4.1.1; RFC 3810, 5.1.3."""
    if code < 1 << (mantissa + 3):
        return code
    kept = code & ((1 << mantissa) - 1)
    return (kept | 1 << mantissa) << ((code >> mantissa & 7) + 3)


def _report(kind: int, records: list[Record]) -> bytes:
    """Of IGMPv3 and MLDv2, without its sum."""
    head = struct.pack(">BxHHH", kind, 0, 0, len(records))
    return head + b"".join(bytes([each.kind, 0, 0, 0]) + each.group for each in records)


def _summed(body: bytes, before: int) -> bytes:
    return body[:2] + checksum(body, before).to_bytes(2) + body[4:]
