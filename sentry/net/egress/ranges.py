"""Where nothing goes unless a CIDR of a rule says so, and the addresses inside of addresses.

An IPv6 address may stand for an IPv4 one, which a translator or a tunnel on the way takes out of
it. Such an address is judged by what is inside, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final

from sentry.net.egress.prefixes import BITS, MAPPED, Prefixes

OWN: Final = "an address of the host"
_METADATA: Final = "the metadata of a cloud"
_PRIVATE: Final = "a private range"
_LOCAL: Final = "the host itself"
_LINK: Final = "link-local"
_MANY: Final = "multicast"
_NONE: Final = "no address of the outside"
_TRANSLATED: Final = "a local translator"

DENIED: Final = {
    "169.254.169.254/32": _METADATA,
    "169.254.170.2/32": _METADATA,  # credentials of ECS tasks
    "169.254.170.23/32": _METADATA,  # of EKS pods
    "100.100.100.200/32": _METADATA,  # Alibaba
    "168.63.129.16/32": _METADATA,  # Azure
    "192.0.0.192/32": _METADATA,  # Oracle
    "fd00:ec2::254/128": _METADATA,
    "fd00:ec2::23/128": _METADATA,
    "fd20:ce::254/128": _METADATA,  # Google
    "0.0.0.0/8": _LOCAL,  # Linux connects to itself
    "127.0.0.0/8": _LOCAL,
    "::/128": _LOCAL,
    "::1/128": _LOCAL,
    "169.254.0.0/16": _LINK,
    "fe80::/10": _LINK,
    "10.0.0.0/8": _PRIVATE,
    "172.16.0.0/12": _PRIVATE,
    "192.168.0.0/16": _PRIVATE,
    "100.64.0.0/10": _PRIVATE,  # RFC 6598: between a provider and its customers
    "192.0.0.0/24": _PRIVATE,  # RFC 6890
    "198.18.0.0/15": _PRIVATE,  # RFC 2544
    "fc00::/7": _PRIVATE,
    "fec0::/10": _PRIVATE,  # RFC 3879: as fc00::/7, once
    "224.0.0.0/4": _MANY,
    "ff00::/8": _MANY,
    "240.0.0.0/4": _NONE,
    "64:ff9b:1::/48": _TRANSLATED,  # RFC 8215: where the IPv4 address stands only its owner knows
}
"""Ranges of the IANA's registries of special addresses, and where clouds keep secrets."""

_WORD: Final = 0xFFFFFFFF
_TEREDO: Final = 0x20010000
_6TO4: Final = 0x2002
_LAST_32: Final = frozenset((
    0x0064FF9B << 64,  # 64:ff9b::/96, NAT64 (RFC 6052)
    0x0064FF9B0001 << 48,  # 64:ff9b:1::/96, the commonest form of RFC 8215
    0xFFFF << 16,  # ::ffff:0:0:0/96, IPv4-translated (RFC 2765)
    0,  # ::/96, IPv4-compatible (RFC 4291)
))  # fmt: skip
"""The first 96 bits where the last 32 are an IPv4 address."""
_ISATAP: Final = frozenset((0x5EFE, 0x02005EFE))
"""Bits 64 to 96 (RFC 5214)."""


class Denied:
    """The ranges above, and addresses that are the host's own."""

    __slots__ = ("_prefixes", "_reasons")

    def __init__(self, own: Iterable[str] = ()) -> None:
        self._prefixes = Prefixes()
        self._reasons: list[str] = []
        for cidr, reason in (*DENIED.items(), *((address, OWN) for address in own)):
            if reason not in self._reasons:
                self._reasons.append(reason)
            self._prefixes.add(ip_network(cidr), 1 << self._reasons.index(reason))

    def narrowest(self, address: int) -> tuple[int, str]:
        """The length of the narrowest range that has the address, and what it is; (0, "")."""
        for length, bits in self._prefixes.around(address):
            return length, self._reasons[bits.bit_length() - 1]
        return 0, ""


def forms(address: int) -> tuple[int, ...]:
    """An address, and those that are inside of it, mapped."""
    upper, last = address >> 32, address & _WORD
    if upper == 0xFFFF or address in (0, 1):
        return (address,)
    if upper in _LAST_32 or upper & _WORD in _ISATAP:
        return (address, MAPPED | last)
    if address >> (BITS - 16) == _6TO4:  # RFC 3056
        return (address, MAPPED | address >> 80 & _WORD)
    if address >> (BITS - 32) == _TEREDO:  # RFC 4380: the server, and the client's, inverted
        return (address, MAPPED | address >> 64 & _WORD, MAPPED | last ^ _WORD)
    return (address,)
