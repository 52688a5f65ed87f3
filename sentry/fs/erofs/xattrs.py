"""Extended attributes of an inode: behind it, and shared ones. fs/erofs/xattr.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.auth.acl import ACCESS, DEFAULT
from sentry.errors import EUCLEAN

if TYPE_CHECKING:
    from sentry.fs.erofs.image import Image
    from sentry.fs.erofs.layout import Node, Super

HEADER: Final = 12
"""Bytes of struct erofs_xattr_ibody_header, without the numbers of shared ones."""
_ENTRY: Final = struct.Struct("<BBH")
"""struct erofs_xattr_entry: length of the name, index of its prefix, size of the value."""
_PREFIXES: Final = {1: b"user.", 2: ACCESS, 3: DEFAULT, 4: b"trusted.", 6: b"security."}

Place = tuple[int, int]
"""Where a value lies, in bytes, and its size."""


def find_xattrs(image: Image, of: Super, node: Node) -> dict[bytes, Place]:
    """All of them by name; those of unknown prefixes are none. Raises: EUCLEAN."""
    found: dict[bytes, Place] = {}
    if not node.xattrs:
        return found
    body = image.read(node.body, node.xattrs)
    count = body[4]
    at = HEADER + 4 * count
    if at > len(body):
        raise EUCLEAN("shared attributes")
    while at + _ENTRY.size <= len(body):
        at = _take(found, body, at, node.body)
    for number in struct.unpack_from(f"<{count}I", body, HEADER):
        place = of.xattrs_at + 4 * number
        head = image.read(place, _ENTRY.size)
        raw = head + image.read(place + _ENTRY.size, head[0])
        name, size = _named(raw, 0)
        value = place + len(raw)
        image.check(value, size)
        if name:
            found.setdefault(name, (value, size))
    return found


def _take(found: dict[bytes, Place], body: bytes, at: int, start: int) -> int:
    """The entry there; where the next one is."""
    name, size = _named(body, at)
    value = at + _ENTRY.size + body[at]
    end = value + size
    if end > len(body):
        raise EUCLEAN("an attribute that is cut short")
    if name:
        found.setdefault(name, (start + value, size))
    return end + 3 & ~3


def _named(raw: bytes, at: int) -> tuple[bytes, int]:
    """The name of an entry, empty if its prefix is unknown, and the size of its value."""
    length, index, size = _ENTRY.unpack_from(raw, at)
    prefix, rest = _PREFIXES.get(index, b""), raw[at + _ENTRY.size :][:length]
    whole = prefix in (ACCESS, DEFAULT)
    if not prefix or whole == bool(rest) or b"\0" in rest:
        return b"", size
    return prefix + rest, size
