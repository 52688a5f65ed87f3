"""Blocks of LZ4, as its doc/lz4_Block_format.md has them: packed greedily, unpacked slowly."""

from __future__ import annotations

LAST_LITERALS, LAST_MATCH = 5, 12
"""The last bytes are literals, and no match begins in the last ones."""


def _rest(length: int) -> bytes:
    if length < 15:
        return b""
    return b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])


def sequence(literals: bytes, distance: int = 0, match: int = 0) -> bytes:
    """One; without a match it is the last one."""
    more = max(match - 4, 0)
    head = bytes([min(len(literals), 15) << 4 | min(more, 15)])
    tail = distance.to_bytes(2, "little") + _rest(more) if match else b""
    return head + _rest(len(literals)) + literals + tail


def packed(data: bytes) -> bytes:
    """A block that has these bytes."""
    out, seen = bytearray(), dict[bytes, int]()
    at = begin = 0
    while at < len(data) - LAST_MATCH:
        key = data[at : at + 4]
        found = seen.get(key, -1 << 20)
        seen[key] = at
        if at - found > 0xFFFF:
            at += 1
            continue
        end = at + 4
        while end < len(data) - LAST_LITERALS and data[end] == data[found + end - at]:
            end += 1
        out += sequence(data[begin:at], at - found, end - at)
        begin = at = end
    return bytes(out + sequence(data[begin:]))


def unpacked(data: bytes, size: int) -> bytes | None:
    """The first `size` bytes of what a block has; None where it is none, or too short."""
    out, at = bytearray(), 0
    while len(out) < size:
        if at >= len(data):
            return None
        token, at = data[at], at + 1
        count, at = _length(data, at, token >> 4)
        if count < 0:
            return None
        if at + count > len(data) and len(out) + count <= size:
            return None
        taken = min(count, size - len(out))
        if at + taken > len(data):
            return None
        out += data[at : at + taken]
        at += count
        if len(out) >= size:
            break
        if at >= len(data):
            return None
        if at + 2 > len(data):
            return None
        distance, at = int.from_bytes(data[at : at + 2], "little"), at + 2
        match, at = _length(data, at, token & 15)
        if match < 0 or not 0 < distance <= len(out):
            return None
        for _ in range(min(match + 4, size - len(out))):
            out.append(out[-distance])
    return bytes(out)


def _length(data: bytes, at: int, length: int) -> tuple[int, int]:
    """With the bytes that follow; -1 where these end amidst."""
    if length < 15:
        return length, at
    while at < len(data):
        more, at = data[at], at + 1
        length += more
        if more != 255:
            return length, at
    return -1, at
