"""The Internet checksum, RFC 1071, and the pseudo headers of RFC 768, 9293 and 8200."""

from __future__ import annotations

import struct

from sentry.platform._native import ffi, lib

Bytes = bytes | bytearray | memoryview


def partial_sum(data: Bytes, before: int = 0) -> int:
    """The folded sum, not inverted, of what is in front and of these bytes.

    Preconditions: what is in front has an even size.
    """
    if isinstance(data, bytes):
        return lib.internet_sum(data, len(data), before)
    return lib.internet_sum(ffi.from_buffer("uint8_t[]", data), len(data), before)


def checksum(data: Bytes, before: int = 0) -> int:
    """What stands in a header that has 0 in its place; 0 where the sum is right."""
    return ~partial_sum(data, before) & 0xFFFF


def filled(data: Bytes, start: int, at: int) -> bytearray:
    """A copy with the sum of all from `start` on at `at`, where that of a pseudo header is."""
    whole = bytearray(data)
    whole[at : at + 2] = (checksum(memoryview(whole)[start:]) or 0xFFFF).to_bytes(2)
    return whole


def pseudo_sum(source: bytes, target: bytes, protocol: int, size: int) -> int:
    """The sum of a pseudo header; addresses of 4 or 16 bytes."""
    return partial_sum(source + target + struct.pack(">II", size, protocol))
