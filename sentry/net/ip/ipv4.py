"""IPv4 headers: RFC 791, 1122, 6864; net/ipv4/ip_input.c, ip_options.c."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from sentry.net.ip.checksum import Bytes, checksum

HEADER_SIZE: Final = 20
MAX_SIZE: Final = 65535
DONT_FRAGMENT: Final = 0x4000
MORE_FRAGMENTS: Final = 0x2000
OFFSET: Final = 0x1FFF
ANY: Final = bytes(4)
BROADCAST: Final = b"\xff" * 4
_HEADER: Final = struct.Struct(">BBHHHBBH4s4s")

END, NOOP, RECORD_ROUTE, TIMESTAMP, LOOSE_ROUTE, ROUTER_ALERT, STRICT_ROUTE = (
    0, 1, 7, 68, 131, 148, 137,
)  # fmt: skip
WITH_ADDRESS, PRESPECIFIED = 1, 3
"""What a TIMESTAMP asks for, beside the times."""
SOURCE_ROUTES: Final = (LOOSE_ROUTE, STRICT_ROUTE)


class Header(NamedTuple):
    """struct iphdr."""

    size: int
    total: int
    tos: int
    identification: int
    fragment: int
    """Flags, and the offset in units of 8 bytes."""
    ttl: int
    protocol: int
    source: bytes
    target: bytes

    @property
    def is_fragment(self) -> bool:
        """Not the whole packet."""
        return bool(self.fragment & (MORE_FRAGMENTS | OFFSET))


def parse(data: Bytes) -> Header | None:
    """The header of a packet; None: it is none, is cut, or its sum is wrong. ip_rcv_core()."""
    if len(data) < HEADER_SIZE:
        return None
    first, tos, total, identification, fragment, ttl, protocol, _, source, target = (
        _HEADER.unpack_from(data)
    )
    size = (first & 15) * 4
    if first >> 4 != 4 or size < HEADER_SIZE or not size <= total <= len(data):
        return None
    if checksum(bytes(data[:size])):
        return None
    return Header(size, total, tos, identification, fragment, ttl, protocol, source, target)


def parse_quoted(data: Bytes) -> Header | None:
    """The header in the complaint about a packet: the rest of it may be missing."""
    if len(data) < HEADER_SIZE:
        return None
    first, tos, total, identification, fragment, ttl, protocol, _, source, target = (
        _HEADER.unpack_from(data)
    )
    size = (first & 15) * 4
    if first >> 4 != 4 or not HEADER_SIZE <= size <= len(data):
        return None
    return Header(size, total, tos, identification, fragment, ttl, protocol, source, target)


def build(header: Header, options: bytes = b"") -> bytes:
    """With its sum. `size` counts the options, whose size is a multiple of 4."""
    size, total, tos, identification, fragment, ttl, protocol, source, target = header
    fields = [0x40 | size // 4, tos, total, identification, fragment, ttl, protocol]
    plain = _HEADER.pack(*fields, 0, source, target) + options
    return _HEADER.pack(*fields, checksum(plain), source, target) + options


class Options(NamedTuple):
    """What options say."""

    wrong_at: int = -1
    """Where the header is wrong, in bytes; -1: nowhere."""
    has_source_route: bool = False
    end: int = -1
    """Where the list ends before the header does; -1: it does not."""


def check_options(options: bytes) -> Options:
    """Of a packet that came: ip_options_compile()."""
    at, seen, end = 0, set[int](), -1
    while at < len(options):
        kind = options[at]
        if kind == END:
            end = at
            break
        if kind == NOOP:
            at += 1
            continue
        wrong = _wrong_at(options, at, seen)
        if wrong >= 0:
            return Options(HEADER_SIZE + at + wrong)
        seen.add(kind)
        at += options[at + 1]
    return Options(-1, not seen.isdisjoint(SOURCE_ROUTES), end)


def _wrong_at(options: bytes, at: int, seen: set[int]) -> int:
    """Of one option, from its first byte on; -1: right."""
    kind = options[at]
    if at + 1 >= len(options):
        return 0
    size = options[at + 1]
    if not 2 <= size <= len(options) - at:
        return 0
    if kind == ROUTER_ALERT:
        return 1 if size < 4 else -1
    if kind in SOURCE_ROUTES:
        wrong = _too_small(options, at, 3)
        return 0 if wrong < 0 and not seen.isdisjoint(SOURCE_ROUTES) else wrong
    if kind not in (RECORD_ROUTE, TIMESTAMP):
        return -1
    if kind in seen:
        return 0
    wrong = _too_small(options, at, 4 if kind == TIMESTAMP else 3)
    return wrong if wrong >= 0 else _no_room(options, at)


def _too_small(options: bytes, at: int, least: int) -> int:
    """The size, and the pointer behind it, which counts from 1."""
    if options[at + 1] < least:
        return 1
    return 2 if options[at + 2] <= least else -1


def _no_room(options: bytes, at: int) -> int:
    """What is to be filled in has to fit, or nothing is."""
    size, pointer = options[at + 1], options[at + 2]
    if options[at] == RECORD_ROUTE:
        return 2 if pointer <= size < pointer + 3 else -1
    flags = options[at + 3] & 15
    if pointer > size:
        return 3 if flags != PRESPECIFIED and options[at + 3] >> 4 == 15 else -1
    has_address = flags in (WITH_ADDRESS, PRESPECIFIED)
    return 2 if pointer + (7 if has_address else 3) > size else -1


def is_multicast(ip: bytes) -> bool:
    """224.0.0.0/4."""
    return ip[0] >> 4 == 14


def is_loopback(ip: bytes) -> bool:
    """127.0.0.0/8."""
    return ip[0] == 127


def may_be_source(ip: bytes) -> bool:
    """Nobody sends from a group, from the loopback's network or from 0.0.0.0/8."""
    return ip[0] not in (0, 127) and ip[0] < 224
