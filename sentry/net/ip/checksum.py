"""The Internet checksum, RFC 1071, and the pseudo headers of RFC 768, 9293 and 8200."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from sentry.platform._native import ffi, lib

Bytes = bytes | bytearray | memoryview


def partial_sum(data: Bytes, before: int = 0) -> int:
    """The folded sum, not inverted, of what is in front and of these bytes.

    Preconditions: what is in front has an even size.
    """
    if isinstance(data, bytes):
        return lib.internet_sum(data, len(data), before)
    return lib.internet_sum(ffi.from_buffer("uint8_t[]", data), len(data), before)


def sum_of_pieces(pieces: Iterable[Bytes], before: int = 0) -> int:
    """The same of several, of any sizes. After an odd size the bytes of a word change places."""
    total, is_odd = before, False
    for piece in pieces:
        own = partial_sum(piece)
        if is_odd:
            own = own >> 8 | (own & 0xFF) << 8
        total += own
        is_odd ^= bool(len(piece) & 1)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: Bytes, before: int = 0) -> int:
    """What stands in a header that has 0 in its place; 0 where the sum is right."""
    return ~partial_sum(data, before) & 0xFFFF


def pseudo_sum(source: bytes, target: bytes, protocol: int, size: int) -> int:
    """The sum of a pseudo header; addresses of 4 or 16 bytes."""
    return partial_sum(source + target + struct.pack(">II", size, protocol))
