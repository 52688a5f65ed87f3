"""Messages and attributes of netlink(7): how they are packed and read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sentry.abi.netlink import NLA_TYPE_MASK, NLMSG_ERROR, NLMSGHDR
from sentry.errors import EINVAL

if TYPE_CHECKING:
    from sentry.net.packets import NetlinkPort
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller

HEADER: Final = NLMSGHDR.size

Reply = tuple[int, bytes]
"""(type, body) of an answer."""


class Request(Struct, frozen=True):
    """One message of a program."""

    kind: int
    flags: int
    sequence: int
    body: bytes
    caller: Caller
    stack: Stack
    sock: NetlinkPort

    def fixed(self, size: int) -> bytes:
        """The struct at its beginning. Raises: EINVAL."""
        if len(self.body) < size:
            raise EINVAL(f"message of {len(self.body)} bytes")
        return self.body[:size]

    def attributes(self, size: int) -> dict[int, bytes]:
        """What follows a struct of `size` bytes."""
        return parse_attributes(self.body[(size + 3) & ~3 :])


Handler = Callable[[Request], Iterable[Reply] | None]
"""Gives the answers, or nothing; raises an errno."""


def message(kind: int, flags: int, sequence: int, port: int, body: bytes) -> bytes:
    """A whole message, padded."""
    size = HEADER + len(body)
    return NLMSGHDR.pack(size, kind, flags, sequence, port) + body + bytes(-size % 4)


def error_message(request: bytes, number: int, port: int, flags: int) -> bytes:
    """NLMSG_ERROR: a negative errno (0: an acknowledgement) and the request or its header."""
    header = NLMSGHDR.unpack(request)
    body = struct.pack("<i", -number) + request
    return message(NLMSG_ERROR, flags, header.nlmsg_seq, port, body)


def attribute(kind: int, value: bytes) -> bytes:
    """struct nlattr with its value, padded."""
    size = 4 + len(value)
    return struct.pack("<HH", size, kind) + value + bytes(-size % 4)


def text(kind: int, value: str) -> bytes:
    """A string with its NUL."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """One byte."""
    return attribute(kind, bytes([value & 0xFF]))


def u32(kind: int, value: int) -> bytes:
    """Four bytes."""
    return attribute(kind, struct.pack("<I", value & 0xFFFFFFFF))


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """By type; of two of a type the last counts. Raises: EINVAL for one that is cut."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("<HH", data, at)
        if size < 4 or at + size > len(data):
            break  # trailing bytes are ignored: nla_parse() of old-style messages
        found[kind & NLA_TYPE_MASK] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def number(value: bytes) -> int:
    """An attribute that is a u32. Raises: EINVAL (ERANGE is for strict ones)."""
    if len(value) < 4:
        raise EINVAL("attribute is too short")
    return int.from_bytes(value[:4], "little")
