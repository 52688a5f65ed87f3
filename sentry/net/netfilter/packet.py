"""`Packet`: a packet of IP on its way through the hooks, whole, and what is known of it (sk_buff).

What of it is changed keeps its checksums right: in the header of IPv4, and in the transport, also
where that holds the sum of the pseudo header alone and the rest is left to others.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.socket import (
    IPPROTO_FRAGMENT,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum
from sentry.net.ip.seam import Arrived

if TYPE_CHECKING:
    from sentry.net.ip.checksum import Bytes
    from sentry.net.netfilter.conntrack import Connection

SUM_AT: Final = {IPPROTO_TCP: 16, IPPROTO_UDP: 6, IPPROTO_UDPLITE: 6, IPPROTO_ICMPV6: 2}
"""Where the sum stands in a transport whose pseudo header is part of it."""
ICMP_SUM_AT: Final = 2
HEADER_SUM: Final = slice(10, 12)
PLACES: Final = {
    (True, True): slice(12, 16), (True, False): slice(16, 20),
    (False, True): slice(8, 24), (False, False): slice(24, 40),
}  # fmt: skip
"""Of an address in the header: by (is IPv4, is the source)."""


class Packet:
    """One of them. `at`: where its transport begins, from the IP header on."""

    __slots__ = (
        "at", "connection", "data", "iif", "info", "is_changed", "is_group", "is_later",
        "is_partial", "is_v4", "mark", "oif", "owner", "preferred", "protocol", "stands_in",
        "steps", "to_us", "tracked",
    )  # fmt: skip
    data: bytearray
    iif: int
    is_later: bool
    is_v4: bool
    mark: int
    oif: int
    protocol: int

    def __init__(self, data: Bytes, *, is_v4: bool, iif: int = 0, oif: int = 0) -> None:
        """Preconditions: its header is right."""
        self.data = bytearray(data)
        self.is_v4 = is_v4
        self.iif, self.oif = iif, oif
        """The interfaces that it came by and leaves by; 0: none."""
        self.mark = 0
        self.connection: Connection | None = None
        self.info = 0
        """IP_CT_*, of a packet that has a connection."""
        self.steps = 0
        """Rules and expressions that it has met."""
        self.tracked = True
        """It may be followed: `notrack` has not said otherwise."""
        self.is_partial = False
        """The sum in its transport is that of the pseudo header."""
        self.is_changed = False
        self.is_group = False
        self.to_us = True
        self.stands_in = False
        """For what has no packets: who sends that hears of it by a call."""
        self.owner: tuple[int, int] | None = None
        """User and group of the socket that sends it."""
        self.preferred = b""
        """The address of ours that is best for where it goes: what `masquerade` takes."""
        if is_v4:
            self.at, self.protocol = (data[0] & 15) * 4, data[9]
            self.is_later = bool(int.from_bytes(data[6:8]) & ipv4.OFFSET)
        else:
            self.protocol, self.at = ipv6.transport_of(data)
            self.is_later = self.protocol == IPPROTO_FRAGMENT

    # --- what stands in it

    @property
    def source(self) -> bytes:
        """4 or 16 bytes."""
        return bytes(self.data[PLACES[self.is_v4, True]])

    @property
    def target(self) -> bytes:
        """4 or 16 bytes."""
        return bytes(self.data[PLACES[self.is_v4, False]])

    @property
    def tos(self) -> int:
        """TOS, or traffic class."""
        return self.data[1] if self.is_v4 else int.from_bytes(self.data[:2]) >> 4 & 0xFF

    @property
    def ttl(self) -> int:
        """TTL, or hop limit."""
        return self.data[8 if self.is_v4 else 7]

    def has(self, size: int) -> bool:
        """So many bytes of its transport are there."""
        return not self.is_later and len(self.data) >= self.at + size

    def arrived(self) -> Arrived:
        """As who complains about it sees it."""
        return Arrived(
            self.protocol, self.source, self.target, memoryview(bytes(self.data[self.at :])),
            self.tos, self.ttl, self.iif, bytes(self.data[: self.at]), to_us=self.to_us,
            is_group=self.is_group,
        )  # fmt: skip

    # --- changed

    def set_header(self, head: bytes) -> None:
        """Another header of IP, of the same size, for the same packet."""
        self.data[: len(head)] = head

    def set_address(self, new: bytes, *, is_source: bool) -> None:
        """Preconditions: the same family."""
        where = PLACES[self.is_v4, is_source]
        old = bytes(self.data[where])
        if old == new:
            return
        self.data[where] = new
        self.is_changed = True
        if self.is_v4:
            self.sum_header()
        self.words_changed(old, new)

    def set_port(self, new: int, *, is_source: bool) -> None:
        """Of a transport that has ports. Preconditions: 4 bytes of it are there."""
        at = self.at if is_source else self.at + 2
        self.set_word(at, new)

    def set_icmp_id(self, new: int) -> None:
        """Of an echo. Preconditions: 6 bytes of it are there."""
        self.set_word(self.at + 4, new)

    def set_word(self, at: int, new: int) -> None:
        """16 bits of the transport."""
        old, made = bytes(self.data[at : at + 2]), new.to_bytes(2)
        if old == made:
            return
        self.data[at : at + 2] = made
        self.is_changed = True
        self.words_changed(old, made, of_pseudo_header=False)

    def sum_header(self) -> None:
        """The sum of the header of IPv4."""
        self.data[HEADER_SUM] = b"\0\0"
        self.data[HEADER_SUM] = checksum(bytes(self.data[: self.at])).to_bytes(2)

    def sum_place(self) -> int:
        """Where the sum of the transport stands; -1: it has none that is known, or is cut."""
        where = SUM_AT.get(self.protocol, -1)
        if self.is_v4 and self.protocol == IPPROTO_ICMP:
            where = ICMP_SUM_AT
        return self.at + where if where >= 0 and self.has(where + 2) else -1

    def words_changed(self, old: bytes, new: bytes, *, of_pseudo_header: bool = True) -> None:
        """The sum of the transport, after 16-bit words have changed: RFC 1624."""
        if self.is_partial and not of_pseudo_header:
            return
        where = self.sum_place()
        if where < 0 or (of_pseudo_header and self.is_v4 and self.protocol == IPPROTO_ICMP):
            return
        found = int.from_bytes(self.data[where : where + 2])
        if not found and self.protocol == IPPROTO_UDP and not self.is_partial:
            return
        made = adjusted(found, old, new, is_partial=self.is_partial)
        if not made and self.protocol == IPPROTO_UDP and not self.is_partial:
            made = 0xFFFF
        self.data[where : where + 2] = made.to_bytes(2)


def adjusted(found: int, old: bytes, new: bytes, *, is_partial: bool = False) -> int:
    """A checksum after these bytes, an even number, have become those. A partial one is a plain
    sum."""
    total = found if is_partial else ~found & 0xFFFF
    total += sum(~each & 0xFFFF for each in _words(old)) + sum(_words(new))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total if is_partial else ~total & 0xFFFF


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(data) // 2}H", data)
