"""Messages of neighbour discovery: RFC 4861, 4; include/net/ndisc.h. What is done with them is in
`sentry.net.ip.discovery`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from sentry.net.link.ethernet import ADDRESS_SIZE

HEADER_SIZE: Final = 8
"""Of ICMPv6, with the four bytes that are flags here."""
ROUTER_SOLICITATION: Final = 133
ROUTER_ADVERTISEMENT: Final = 134
SOLICITATION: Final = 135
ADVERTISEMENT: Final = 136
REDIRECT: Final = 137
HOP_LIMIT: Final = 255
"""What has another has passed a router, and is not from a neighbour."""
SOURCE_HARDWARE, TARGET_HARDWARE, PREFIX, REDIRECTED, MTU = range(1, 6)
IP_SIZE, LEAST_MTU = 40, 1280
MAX_OPTIONS: Final = 64
"""Of a message: a ceiling of ours."""
_ADVERTISED: Final = struct.Struct(">BBHII")
_PREFIX: Final = struct.Struct(">BBII4x16s")
"""Of an option, without the two bytes in front."""
ON_LINK, AUTONOMOUS = 0x80, 0x40
FOREVER_S: Final = 0xFFFFFFFF
MAX_PREFIX: Final = 128


class Neighbour(NamedTuple):
    """A solicitation or advertisement."""

    target: bytes
    hardware: bytes
    """Of the option; empty: there is none."""
    is_router: bool = False
    is_solicited: bool = False
    overrides: bool = False


class Prefix(NamedTuple):
    """What a router says of addresses that begin alike."""

    network: bytes
    """Of which the bits behind the prefix may be anything."""
    length: int
    """In bits, 0 to 128."""
    is_on_link: bool
    """All of them are neighbours."""
    is_autonomous: bool
    """A host may make itself one."""
    valid_s: int
    preferred_s: int
    """Seconds; `FOREVER_S`: for ever."""


class Router(NamedTuple):
    """What an advertisement of a router says."""

    reachable_ms: int
    """How long a neighbour is taken as reachable; 0: it says nothing of it."""
    hardware: bytes
    """Of the option; empty: there is none."""
    mtu: int
    """0: it says nothing of it."""
    lifetime_s: int = 0
    """How long it is a default router; 0: it is none."""
    prefixes: tuple[Prefix, ...] = ()


class Redirect(NamedTuple):
    """There is a better way."""

    target: bytes
    destination: bytes
    hardware: bytes


def options(data: bytes) -> dict[int, list[bytes]] | None:
    """Bodies by number, without the two bytes in front; None: one has no size, or is cut."""
    found: dict[int, list[bytes]] = {}
    at = 0
    for _ in range(MAX_OPTIONS):
        if at == len(data):
            return found
        if at + 2 > len(data) or not data[at + 1]:
            return None
        end = at + data[at + 1] * 8
        if end > len(data):
            return None
        found.setdefault(data[at], []).append(data[at + 2 : end])
        at = end
    return None


def _hardware(found: dict[int, list[bytes]], kind: int) -> bytes:
    return found[kind][0][:ADDRESS_SIZE] if kind in found else b""


def parse_neighbour(data: bytes, kind: int) -> Neighbour | None:
    """Of SOLICITATION or ADVERTISEMENT, from the header of ICMPv6 on."""
    if len(data) < HEADER_SIZE + 16:
        return None
    found = options(data[HEADER_SIZE + 16 :])
    target = data[HEADER_SIZE : HEADER_SIZE + 16]
    if found is None or target[0] == 0xFF:
        return None
    flags = data[4]
    if kind == SOLICITATION:
        return Neighbour(target, _hardware(found, SOURCE_HARDWARE))
    return Neighbour(
        target,
        _hardware(found, TARGET_HARDWARE),
        bool(flags & 0x80),
        bool(flags & 0x40),
        bool(flags & 0x20),
    )


def parse_router(data: bytes) -> Router | None:
    """Of ROUTER_ADVERTISEMENT."""
    start = 4 + _ADVERTISED.size
    if len(data) < start:
        return None
    found = options(data[start:])
    if found is None:
        return None
    _, _, lifetime_s, reachable_ms, _ = _ADVERTISED.unpack_from(data, 4)
    mtu = int.from_bytes(found[MTU][0][2:6]) if MTU in found else 0
    prefixes = tuple(
        _prefix(body) for body in found.get(PREFIX, ())
        if len(body) == _PREFIX.size and body[0] <= MAX_PREFIX
    )  # fmt: skip
    return Router(reachable_ms, _hardware(found, SOURCE_HARDWARE), mtu, lifetime_s, prefixes)


def _prefix(body: bytes) -> Prefix:
    length, flags, valid_s, preferred_s, network = _PREFIX.unpack(body)
    return Prefix(
        network, length, bool(flags & ON_LINK), bool(flags & AUTONOMOUS), valid_s, preferred_s
    )


def parse_redirect(data: bytes) -> Redirect | None:
    """Of REDIRECT."""
    if len(data) < HEADER_SIZE + 32:
        return None
    found = options(data[HEADER_SIZE + 32 :])
    if found is None:
        return None
    target, destination = data[8:24], data[24:40]
    if destination[0] == 0xFF:
        return None
    return Redirect(target, destination, _hardware(found, TARGET_HARDWARE))


def build_solicitation(target: bytes, hardware: bytes) -> bytes:
    """Behind type, code and checksum. `hardware` empty: without the option."""
    return bytes(4) + target + _option(SOURCE_HARDWARE, hardware)


def build_router_solicitation(hardware: bytes) -> bytes:
    """Behind type, code and checksum: from an address that is ours, so with the option."""
    return bytes(4) + _option(SOURCE_HARDWARE, hardware)


def build_advertisement(
    target: bytes, hardware: bytes, *, is_solicited: bool, is_router: bool = False
) -> bytes:
    """Behind type, code and checksum: of somebody who means what it says."""
    flags = 0x80 * is_router | 0x40 * is_solicited | 0x20
    return bytes([flags, 0, 0, 0]) + target + _option(TARGET_HARDWARE, hardware)


def build_redirect(target: bytes, destination: bytes, hardware: bytes, quoted: bytes) -> bytes:
    """Behind type, code and checksum, with as much of the packet as fits into the least MTU."""
    body = bytes(4) + target + destination + _option(TARGET_HARDWARE, hardware)
    room = (LEAST_MTU - IP_SIZE - 4 - len(body) - 8) & ~7
    about = quoted[:room]
    about += bytes(-len(about) % 8)
    return body + bytes([REDIRECTED, 1 + len(about) // 8]) + bytes(6) + about


def _option(kind: int, hardware: bytes) -> bytes:
    return bytes([kind, 1]) + hardware if hardware else b""
