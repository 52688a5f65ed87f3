"""Ethernet frames: IEEE 802.3, RFC 894, 1112, 2464."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

ADDRESS_SIZE: Final = 6
HEADER_SIZE: Final = 14
BROADCAST: Final = b"\xff" * ADDRESS_SIZE
VLAN_TAGS: Final = (0x8100, 0x88A8)
TAG_SIZE: Final = 4
VLAN_ID: Final = 0x0FFF
LEAST_TYPE: Final = 0x600
"""A smaller number is a length: 802.2, of which nothing is spoken here."""
_HEADER: Final = struct.Struct(">6s6sH")
_TAG: Final = struct.Struct(">HH")


class Frame(NamedTuple):
    """A link header."""

    target: bytes
    source: bytes
    ethertype: int
    start: int
    """Where what it carries begins, in bytes of what was parsed."""


def parse(data: bytes, at: int = 0) -> Frame | None:
    """The header that begins at `at`; None: it is too short, of another kind or VLAN.

    A tag with the number 0 says a priority alone, and is passed over. One with another number is
    for an interface of that VLAN, which is not here: vlan_do_receive(), __netif_receive_skb_core().
    """
    if len(data) < at + HEADER_SIZE:
        return None
    target, source, kind = _HEADER.unpack_from(data, at)
    start = at + HEADER_SIZE
    if kind in VLAN_TAGS:
        if len(data) < start + TAG_SIZE:
            return None
        control, kind = _TAG.unpack_from(data, start)
        start += TAG_SIZE
        if control & VLAN_ID:
            return None
    if kind < LEAST_TYPE:
        return None
    return Frame(target, source, kind, start)


def build(target: bytes, source: bytes, ethertype: int) -> bytes:
    """A link header."""
    return _HEADER.pack(target, source, ethertype)


def is_group(hardware: bytes) -> bool:
    """Multicast or broadcast."""
    return bool(hardware[0] & 1)


def is_usable(hardware: bytes) -> bool:
    """is_valid_ether_addr(): somebody may have it."""
    return len(hardware) == ADDRESS_SIZE and not is_group(hardware) and any(hardware)


def group_address(ip: bytes) -> bytes:
    """Where packets for a group go, or for all; empty: it is none. RFC 1112, 6.4; RFC 2464, 7."""
    if len(ip) == 16:
        return b"\x33\x33" + ip[12:] if ip[0] == 0xFF else b""
    if ip == b"\xff" * 4:
        return BROADCAST
    return b"\x01\x00\x5e" + bytes([ip[1] & 0x7F]) + ip[2:] if ip[0] >> 4 == 14 else b""
