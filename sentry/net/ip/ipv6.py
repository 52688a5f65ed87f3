"""IPv6 headers and extension headers: RFC 8200, 4443; net/ipv6/ip6_input.c, exthdrs.c.

`walk` goes over the extension headers of a packet up to its transport and says what is wrong.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from sentry.abi.socket import (
    ICMPV6_HDR_FIELD,
    ICMPV6_UNK_OPTION,
    IPPROTO_DSTOPTS,
    IPPROTO_FRAGMENT,
    IPPROTO_HOPOPTS,
    IPPROTO_NONE,
    IPPROTO_ROUTING,
)
from sentry.net.ip.checksum import Bytes

HEADER_SIZE: Final = 40
FRAGMENT_SIZE: Final = 8
MAX_PAYLOAD: Final = 65535
LEAST_MTU: Final = 1280
ANY: Final = bytes(16)
LOOPBACK: Final = bytes(15) + b"\x01"
ALL_NODES: Final = b"\xff\x02" + bytes(13) + b"\x01"
ALL_ROUTERS: Final = b"\xff\x02" + bytes(13) + b"\x02"
MAX_HEADERS: Final = 16
"""Extension headers of a packet: a ceiling of ours."""
MAX_OPTIONS: Final = 8
"""Of a header, padding apart: net.ipv6.max_hbh_opts_number, max_dst_opts_number."""
PAD1, PADN, ROUTER_ALERT = 0, 1, 5
RPL, SEGMENTS = 3, 4
"""Types of routing headers."""
MAX_PADDING: Final = 7
"""RFC 4942, 2.1.9.5."""
EXTENSIONS: Final = (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT)
_HEADER: Final = struct.Struct(">IHBB16s16s")
_FRAGMENT: Final = struct.Struct(">BBHI")


class Header(NamedTuple):
    """struct ipv6hdr."""

    tos: int
    flow: int
    payload: int
    """Bytes behind it."""
    following: int
    hops: int
    source: bytes
    target: bytes


def parse(data: Bytes) -> Header | None:
    """The header of a packet; None: none, or cut, or such addresses cannot be. ip6_rcv_core()."""
    found = parse_quoted(data)
    if found is None or found.payload > len(data) - HEADER_SIZE:
        return None
    source, target = found.source, found.target
    if source[0] == 0xFF or LOOPBACK in (source, target) or target == ANY:
        return None
    if target[0] == 0xFF and target[1] & 15 in (0, 1):
        return None
    return found


def parse_quoted(data: Bytes) -> Header | None:
    """The header in the complaint about a packet."""
    if len(data) < HEADER_SIZE:
        return None
    first, payload, following, hops, source, target = _HEADER.unpack_from(data)
    if first >> 28 != 6:
        return None
    return Header(first >> 20 & 0xFF, first & 0xFFFFF, payload, following, hops, source, target)


def build(header: Header) -> bytes:
    """40 bytes."""
    tos, flow, payload, following, hops, source, target = header
    return _HEADER.pack(6 << 28 | tos << 20 | flow, payload, following, hops, source, target)


class Fragment(NamedTuple):
    """A fragment header."""

    following: int
    offset: int
    """In bytes."""
    has_more: bool
    identification: int


def parse_fragment(data: Bytes, at: int) -> Fragment:
    """Preconditions: `FRAGMENT_SIZE` bytes are there."""
    following, _, place, identification = _FRAGMENT.unpack_from(data, at)
    return Fragment(following, place & 0xFFF8, bool(place & 1), identification)


def build_fragment(fragment: Fragment) -> bytes:
    """8 bytes."""
    following, offset, has_more, identification = fragment
    return _FRAGMENT.pack(following, 0, offset | has_more, identification)


class Walk(NamedTuple):
    """Where the extension headers of a packet lead."""

    protocol: int = IPPROTO_NONE
    """The transport, or IPPROTO_FRAGMENT."""
    at: int = 0
    """Where its header begins, in bytes from the IP header on."""
    following_at: int = 0
    """Where the number of this protocol stands."""
    problem: int = -1
    """The code of a parameter problem; -1: none."""
    pointer: int = 0
    is_dropped: bool = False
    """It is not for here, without a word."""


DROPPED: Final = Walk(is_dropped=True)


def walk(data: Bytes, following: int, target_is_group: bool) -> Walk:
    """Over the extension headers of a packet that came, with what each asks for."""
    at, following_at = HEADER_SIZE, 6
    for number in range(MAX_HEADERS):
        if following not in EXTENSIONS:
            return Walk(following, at, following_at)
        if following == IPPROTO_FRAGMENT:
            if len(data) < at + FRAGMENT_SIZE:
                return DROPPED
            return Walk(following, at, following_at)
        if following == IPPROTO_HOPOPTS and number:
            return Walk(problem=1, pointer=following_at)
        if len(data) < at + 8:
            return DROPPED
        size = 8 + data[at + 1] * 8
        if len(data) < at + size:
            return DROPPED
        wrong = (
            _routing(data, at, target_is_group)
            if following == IPPROTO_ROUTING
            else _options(data, at, at + size, target_is_group)
        )
        if wrong is not None:
            return wrong
        following, following_at, at = data[at], at, at + size
    return DROPPED


def hop_by_hop(data: Bytes) -> Walk | None:
    """What is wrong with the header that every router on the way reads; None: nothing."""
    end = HEADER_SIZE + 8 + data[HEADER_SIZE + 1] * 8 if len(data) >= HEADER_SIZE + 8 else 0
    if not HEADER_SIZE < end <= len(data):
        return DROPPED
    return _options(data, HEADER_SIZE, end, False)


def transport_of(data: Bytes) -> tuple[int, int]:
    """The protocol behind all extension headers and where it begins, whatever they say; where one
    is cut, that one. ipv6_skip_exthdr()."""
    following, at = data[6], HEADER_SIZE
    for _ in range(MAX_HEADERS):
        if following not in EXTENSIONS or len(data) < at + 8:
            break
        if following == IPPROTO_FRAGMENT:
            if parse_fragment(data, at).offset:
                break
            size = FRAGMENT_SIZE
        else:
            size = 8 + data[at + 1] * 8
        following, at = data[at], at + size
    return following, at


def _routing(data: Bytes, at: int, target_is_group: bool) -> Walk | None:
    """No segment may be left, for none is a router here: ipv6_rthdr_rcv(). Those of RPL and of
    segment routing are dropped, which rpl_seg_enabled and seg6_enabled of 0 mean."""
    if target_is_group or data[at + 2] in (RPL, SEGMENTS):
        return DROPPED
    if data[at + 3]:
        return Walk(problem=ICMPV6_HDR_FIELD, pointer=at + 2)
    return None


def _options(data: Bytes, begin: int, end: int, target_is_group: bool) -> Walk | None:
    """TLVs of a hop-by-hop or destination options header: ip6_parse_tlv()."""
    at, padding, number = begin + 2, 0, 0
    while at < end:
        kind = data[at]
        if kind == PAD1:
            size = 1
        elif at + 2 > end or at + 2 + data[at + 1] > end:
            return DROPPED
        else:
            size = 2 + data[at + 1]
        if kind == PADN and any(data[at + 2 : at + size]):
            return DROPPED
        if kind in (PAD1, PADN):
            padding += size
        else:
            padding, number = 0, number + 1
            if number > MAX_OPTIONS:
                return DROPPED
            unknown = _unknown_option(kind, at, target_is_group) if kind != ROUTER_ALERT else None
            if unknown is not None:
                return unknown
        if padding > MAX_PADDING:
            return DROPPED
        at += size
    return None


def _unknown_option(kind: int, at: int, target_is_group: bool) -> Walk | None:
    """Its first two bits say what to do: ip6_tlvopt_unknown()."""
    action = kind >> 6
    if action == 0:
        return None
    if action == 1 or (action == 3 and target_is_group):
        return DROPPED
    return Walk(problem=ICMPV6_UNK_OPTION, pointer=at)


def is_multicast(ip: bytes) -> bool:
    """ff00::/8."""
    return ip[0] == 0xFF


def is_link_local(ip: bytes) -> bool:
    """fe80::/10."""
    return ip[0] == 0xFE and ip[1] & 0xC0 == 0x80


def solicited_node(ip: bytes) -> bytes:
    """The group in which a neighbour is asked for: RFC 4291, 2.7.1."""
    return b"\xff\x02" + bytes(9) + b"\x01\xff" + ip[13:]
