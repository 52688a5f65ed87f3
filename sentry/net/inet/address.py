"""Socket addresses of ip(7) and ipv6(7).

Inside, every address is 16 bytes: IPv4 ones are mapped (::ffff:a.b.c.d), so one table of ports
serves both families, as IPv6 sockets that take IPv4 want it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from sentry.abi.socket import AF_INET, AF_INET6, AF_UNSPEC
from sentry.errors import EAFNOSUPPORT, EINVAL

MAPPED: Final = bytes(10) + b"\xff\xff"
ANY4: Final = MAPPED + bytes(4)
ANY6: Final = bytes(16)
LOOPBACK4: Final = MAPPED + b"\x7f\0\0\x01"
LOOPBACK6: Final = bytes(15) + b"\x01"


class Endpoint(NamedTuple):
    """An address and a port."""

    ip: bytes
    port: int

    @property
    def is_v4(self) -> bool:
        """An IPv4 address."""
        return self.ip[:12] == MAPPED

    @property
    def is_any(self) -> bool:
        """The wildcard of either family."""
        return self.ip in (ANY4, ANY6)


def parse(raw: bytes, family: int) -> Endpoint:
    """struct sockaddr_in or sockaddr_in6 for a socket of `family`. EINVAL, EAFNOSUPPORT."""
    if len(raw) < 2:
        raise EINVAL("address")
    (given,) = struct.unpack_from("<H", raw)
    if family == AF_INET6:
        if len(raw) < 24:
            raise EINVAL("sockaddr_in6")
        if given != AF_INET6:
            raise EAFNOSUPPORT(f"family {given}")
        port, ip = struct.unpack_from(">H4x16s", raw, 2)
        return Endpoint(ip, port)
    if len(raw) < 16:
        raise EINVAL("sockaddr_in")
    if given not in (AF_INET, AF_UNSPEC):
        raise EAFNOSUPPORT(f"family {given}")
    port, ip = struct.unpack_from(">H4s", raw, 2)
    if given == AF_UNSPEC and ip != bytes(4):
        raise EAFNOSUPPORT("family")
    return Endpoint(MAPPED + ip, port)


def is_unspec(raw: bytes) -> bool:
    """An address of family AF_UNSPEC: connect(2) dissolves an association with it."""
    return len(raw) >= 2 and raw[:2] == b"\0\0"


def pack(endpoint: Endpoint, family: int) -> bytes:
    """The address as a socket of `family` shows it."""
    if family == AF_INET:
        ip = endpoint.ip[12:] if endpoint.is_v4 else bytes(4)
        return struct.pack("<H", AF_INET) + struct.pack(">H4s8x", endpoint.port, ip)
    return struct.pack("<H", AF_INET6) + struct.pack(">H4x16s4x", endpoint.port, endpoint.ip)


def is_multicast(ip: bytes) -> bool:
    """224.0.0.0/4 or ff00::/8."""
    return ip[12] >> 4 == 14 if ip[:12] == MAPPED else ip[0] == 0xFF


def needs_scope(ip: bytes) -> bool:
    """fe80::/10, ff01::/16, ff02::/16: addresses that need a link to mean something."""
    link_local = ip[0] == 0xFE and ip[1] & 0xC0 == 0x80
    return link_local or (ip[0] == 0xFF and ip[1] & 15 in (1, 2))


def is_broadcast(ip: bytes) -> bool:
    """255.255.255.255, and the broadcast address of the loopback's network."""
    return ip[:12] == MAPPED and ip[12:] in (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")


def is_group(ip: bytes) -> bool:
    """An address that is nobody's own: multicast, broadcast."""
    return is_multicast(ip) or is_broadcast(ip)


def target_of(endpoint: Endpoint) -> Endpoint:
    """Where a packet for it goes: the wildcard means the loopback address."""
    if endpoint.ip == ANY4:
        return Endpoint(LOOPBACK4, endpoint.port)
    if endpoint.ip == ANY6:
        return Endpoint(LOOPBACK6, endpoint.port)
    return endpoint


def plain(ip: bytes) -> bytes:
    """An address as packets have it."""
    return ip[12:] if ip[:12] == MAPPED else ip


def mapped(ip: bytes) -> bytes:
    """An address as sockets have it."""
    return MAPPED + ip if len(ip) == 4 else ip
