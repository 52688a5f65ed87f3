"""Ranges of addresses, found in as many steps as there are lengths of prefixes: at most 129.

An address is an integer of 128 bits, an IPv4 one mapped, so that one structure serves both.
"""

from __future__ import annotations

import ipaddress
from typing import Final

BITS: Final = 128
MAPPED: Final = 0xFFFF << 32
V4_BITS: Final = 96
"""How much of a mapped address is not the IPv4 one."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def span(network: Network) -> tuple[int, int]:
    """The first address of a range, and the length of its prefix, of 128 bits."""
    first = int(network.network_address)
    if network.version == 4:
        return MAPPED | first, V4_BITS + network.prefixlen
    return first, network.prefixlen


class Prefixes:
    """A number for each range: a set of bits, which add up where a range is there already."""

    __slots__ = ("_lengths", "_tables")

    def __init__(self) -> None:
        self._tables: dict[int, dict[int, int]] = {}
        self._lengths: tuple[int, ...] = ()
        """The longest first."""

    def add(self, network: Network, bits: int) -> None:
        """Put `bits` to a range."""
        first, length = span(network)
        if length not in self._tables:
            self._tables[length] = {}
            self._lengths = tuple(sorted(self._tables, reverse=True))
        table, start = self._tables[length], first >> (BITS - length)
        table[start] = table.get(start, 0) | bits

    def around(self, address: int) -> list[tuple[int, int]]:
        """The length and the bits of each range that has the address, the longest first."""
        found = []
        for length in self._lengths:
            bits = self._tables[length].get(address >> (BITS - length))
            if bits is not None:
                found.append((length, bits))
        return found
