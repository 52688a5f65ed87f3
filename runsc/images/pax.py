"""Extended headers of pax: what a member has that its header has no room for."""

from __future__ import annotations

from typing import Final

import msgspec

from runsc.images.errors import ImageError, shown
from runsc.images.sparse import Spans, pairs

XATTR: Final = b"SCHILY.xattr."
SPARSE: Final = b"GNU.sparse."
MAX_XATTRS: Final = 60 << 10
"""Bytes of extended attributes of a file, names included: what EROFS has beside an inode."""
MAX_DIGITS: Final = 24


class Sparse(msgspec.Struct, frozen=True):
    """A sparse file of GNU tar, formats 0.0, 0.1 and 1.0 of its manual, "Storing Sparse Files"."""

    size: int
    spans: Spans | None
    """None: before the bytes of the file (1.0)."""


class Pax(msgspec.Struct, frozen=True, gc=False):
    """What an extended header says; what it does not say is None, or empty."""

    path: bytes = b""
    target: bytes = b""
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    sparse: Sparse | None = None
    xattrs: dict[bytes, bytes] = msgspec.field(default_factory=dict)


def read_pax(data: bytes) -> Pax:
    """The records of a header: "LENGTH KEY=VALUE" and a newline, one after the other.

    An empty value is none, and of one key the last counts. Raises: ImageError.
    """
    found: dict[bytes, bytes] = {}
    sparse: dict[bytes, list[bytes]] = {}
    xattrs: dict[bytes, bytes] = {}
    for key, value in _records(data):
        if key.startswith(XATTR):
            xattrs[key[len(XATTR) :]] = value
        elif key.startswith(SPARSE):
            sparse.setdefault(key[len(SPARSE) :], []).append(value)
        elif value:
            found[key] = value
    _check_xattrs(xattrs)
    names = sparse.get(b"name", [b""])
    return Pax(
        path=_text(names[-1] or found.get(b"path", b"")),
        target=_text(found.get(b"linkpath", b"")),
        size=_decimal(found.get(b"size")),
        uid=_decimal(found.get(b"uid")),
        gid=_decimal(found.get(b"gid")),
        mtime_ns=_time(found.get(b"mtime")),
        sparse=_sparse(sparse),
        xattrs=xattrs,
    )


def _records(data: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + MAX_DIGITS)
        digits = data[at : max(space, at)]
        end = at + int(digits) if digits.isdigit() else -1
        if not space < end <= len(data) or data[end - 1] != ord("\n"):
            raise ImageError("has an extended header that is damaged")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise ImageError("has an extended header that is damaged")
        found.append((key, value))
        at = end
    return found


def _text(value: bytes) -> bytes:
    if b"\0" in value:
        raise ImageError(f"has a name with a NUL: {shown(value)}")
    return value


def _decimal(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > MAX_DIGITS:
        raise ImageError(f"has an extended header with a wrong number: {shown(value)}")
    return int(value)


def _time(value: bytes | None) -> int | None:
    """Seconds with a fraction, as nanoseconds."""
    if value is None:
        return None
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > MAX_DIGITS or not (fraction or b"0").isdigit():
        raise ImageError(f"has an extended header with a wrong time: {shown(value)}")
    found = int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -found if value.startswith(b"-") else found


def _check_xattrs(xattrs: dict[bytes, bytes]) -> None:
    """Their sizes, as setxattr(2) bounds them."""
    for name in xattrs:
        if not 0 < len(name) <= 255 or b"\0" in name:
            raise ImageError(f"has an extended attribute with a wrong name: {shown(name)}")
    if sum(len(name) + len(value) + 8 for name, value in xattrs.items()) > MAX_XATTRS:
        raise ImageError(f"has a file with more than {MAX_XATTRS} bytes of extended attributes")


def _sparse(values: dict[bytes, list[bytes]]) -> Sparse | None:
    """What GNU tar says of a sparse file; None: that it is none."""
    last = {key: given[-1] for key, given in values.items()}
    size = _decimal(last.get(b"realsize", last.get(b"size")))
    if size is None:
        return None
    if b"map" in last:
        numbers = last[b"map"].split(b",") if last[b"map"] else []
        return Sparse(size, pairs(numbers))
    if last.get(b"major") == b"1":
        return Sparse(size, None)
    offsets, lengths = values.get(b"offset", []), values.get(b"numbytes", [])
    if len(offsets) != len(lengths):
        raise ImageError("has a sparse file with a damaged map")
    return Sparse(size, pairs([n for both in zip(offsets, lengths, strict=True) for n in both]))
