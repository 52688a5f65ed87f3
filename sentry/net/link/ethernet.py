"""Ethernet frames: IEEE 802.3, RFC 894, 1112, 2464."""

from __future__ import annotations

import struct
from typing import Final

from msgspec import Struct

from sentry.abi.socket import ETH_P_8021AD, ETH_P_8021Q

ADDRESS_SIZE: Final = 6
HEADER_SIZE: Final = 14
BROADCAST: Final = b"\xff" * ADDRESS_SIZE
VLAN_TAGS: Final = (ETH_P_8021Q, ETH_P_8021AD)
TAG_SIZE: Final = 4
VLAN_ID: Final = 0x0FFF
MAX_TAGS: Final = 2
"""That are looked behind: 802.1ad."""
LEAST_TYPE: Final = 0x600
"""A smaller number is a length: 802.2, of which nothing is spoken here."""
_HEADER: Final = struct.Struct(">6s6sH")
_TAG: Final = struct.Struct(">HH")


class Frame(Struct, frozen=True, gc=False):
    """A link header."""

    target: bytes
    source: bytes
    ethertype: int
    start: int
    """Where what it carries begins, in bytes of what was parsed."""


def parse(data: bytes, at: int = 0) -> Frame | None:
    """The header that begins at `at`; None: it is too short, of another kind or VLAN.

    A tag with the number 0 says a priority alone, and is passed over. One with another number is
    for an interface of that VLAN, which has it already: vlan_do_receive(),
    __netif_receive_skb_core().
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


def tag_of(data: bytes | memoryview, at: int = 0) -> tuple[int, int] | None:
    """TPID and TCI of the outermost VLAN tag of a frame that begins at `at`; None: it has none."""
    start = at + HEADER_SIZE
    if len(data) < start + TAG_SIZE:
        return None
    kind, control = _TAG.unpack_from(data, start - 2)
    return (kind, control) if kind in VLAN_TAGS else None


def behind_tags(data: bytes | memoryview, at: int = 0) -> tuple[int, int] | None:
    """Where that begins what a frame carries, and its type, whatever VLAN it is of; None: it is too
    short, or of another kind."""
    if len(data) < at + HEADER_SIZE:
        return None
    start = at + HEADER_SIZE
    kind = int.from_bytes(data[start - 2 : start])
    for _ in range(MAX_TAGS):
        if kind not in VLAN_TAGS:
            break
        start += TAG_SIZE
        if len(data) < start:
            return None
        kind = int.from_bytes(data[start - 2 : start])
    return (start, kind) if kind >= LEAST_TYPE else None


def link_size(data: bytes | memoryview, at: int = 0) -> int:
    """Bytes of the link header of a frame that begins at `at`, with its tags."""
    found = behind_tags(data, at)
    return HEADER_SIZE if found is None else found[0] - at


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
