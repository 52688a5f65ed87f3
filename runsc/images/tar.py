"""Archives of tar as they come: headers as values, and where the bytes of files belong.

tar(5), POSIX.1-2024 pax ("pax Interchange Format"), GNU's manual, "Basic Tar Format". Taken is what
writers of images use: v7, ustar, pax and GNU's long names, numbers and sparse files. Everything in
an archive is its maker's word: every number is checked, and no header takes more than `MOST` bytes.
CPython's `tarfile` reads headers of any size into memory, and takes what is wrong for an end.
"""

from __future__ import annotations

from collections.abc import Iterator
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG
from typing import Final

import msgspec

from runsc.images.errors import ImageError, shown
from runsc.images.pax import Pax, read_pax
from runsc.images.sparse import Spans, checked, old_gnu, read_map
from runsc.images.streams import PIECE, Stream

BLOCK: Final = 512
MOST: Final = 1 << 20
"""Bytes of an extended header, or of a long name."""
MAX_ID: Final = 0xFFFFFFFE
"""The one behind it means "as it is" to chown(2)."""
MAX_MAJOR, MAX_MINOR = 0xFFF, 0xFFFFF
"""Of a device: MKDEV() of include/linux/kdev_t.h."""
MAX_SIZE: Final = 1 << 44
"""Bytes of a file, holes included: as ext4 has it."""
TIME_MAX: Final = (1 << 63) - 1

HARD_LINK: Final = 0
KINDS: Final = {
    b"0": S_IFREG, b"\0": S_IFREG, b"7": S_IFREG, b"S": S_IFREG, b"1": HARD_LINK, b"2": S_IFLNK,
    b"3": S_IFCHR, b"4": S_IFBLK, b"5": S_IFDIR, b"6": S_IFIFO,
}  # fmt: skip
PASSED_OVER: Final = (b"g", b"V")
"""Words about the whole archive: pax headers for what follows, which no engine heeds; a name."""


class Member(msgspec.Struct, frozen=True, gc=False):
    """One file of an archive."""

    path: bytes
    """As it stands there."""
    kind: int
    """S_IFMT bits, or `HARD_LINK`."""
    mode: int
    """Without the kind."""
    uid: int
    gid: int
    mtime_ns: int
    target: bytes = b""
    """Of links of both kinds."""
    device: tuple[int, int] = (0, 0)
    """Major, minor."""
    size: int = 0
    """Of regular files, holes included."""
    spans: Spans = ()
    """Where bytes of it are that are no hole: offset, length."""
    xattrs: dict[bytes, bytes] = msgspec.field(default_factory=dict)


class TarReader:
    """The members of an archive, in their order."""

    def __init__(self, source: Stream) -> None:
        self._source = source
        self._left = 0
        """Bytes of the last member that were not read,"""
        self._padding = 0
        """and what fills up its last block."""
        self._spans: Spans = ()

    def next(self) -> Member | None:
        """The next one; None at the end. Raises: ImageError."""
        pax, name, target = Pax(), b"", b""
        while True:
            self._source.skip(self._left + self._padding)
            self._left = self._padding = 0
            header = self._block()
            if header is None or not any(header):
                return None
            _check_sum(header)
            kind = header[156:157]
            size = _number(header[124:136], "size", MAX_SIZE)
            if kind in (b"x", b"X"):
                pax = read_pax(self._small(size))
            elif kind == b"L":
                name = self._small(size).split(b"\0")[0]
            elif kind == b"K":
                target = self._small(size).split(b"\0")[0]
            elif kind in PASSED_OVER:
                self._expect(size)
            elif kind in KINDS:
                return self._member(header, pax, name, target)
            else:
                raise ImageError(f"{shown(_name_of(header))} is of the unknown kind {kind!r}")

    def data(self) -> Iterator[tuple[int, bytes]]:
        """The bytes of the last member, each piece with its offset in it. Raises: ImageError."""
        for offset, length in self._spans:
            at, end = offset, offset + length
            while at < end:
                data = self._source.read(min(end - at, PIECE))
                if not data:
                    raise ImageError("is cut short")
                self._left -= len(data)
                yield at, data
                at += len(data)

    # --- blocks

    def _block(self) -> bytes | None:
        """The next one; None where the archive ends instead."""
        data = self._source.read(BLOCK)
        if not data:
            return None
        return data if len(data) == BLOCK else data + self._exactly(BLOCK - len(data))

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            data = self._source.read(size)
            if not data:
                raise ImageError("is cut short")
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)

    def _expect(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK

    def _small(self, size: int) -> bytes:
        if size > MOST:
            raise ImageError(f"has a header of {size} bytes")
        data = self._exactly(size)
        self._padding = -size % BLOCK
        return data

    # --- members

    def _member(self, header: bytes, pax: Pax, name: bytes, target: bytes) -> Member:
        kind, path = KINDS[header[156:157]], pax.path or name or _name_of(header)
        if header[156:157] == b"\0" and path.endswith(b"/"):
            kind = S_IFDIR  # of tar before POSIX
        size, spans = self._contents(header, pax) if kind == S_IFREG else (0, ())
        mtime_ns = pax.mtime_ns
        if mtime_ns is None:
            mtime_ns = _number(header[136:148], "time", TIME_MAX, -TIME_MAX) * 10**9
        is_link, is_device = kind in (S_IFLNK, HARD_LINK), kind in (S_IFCHR, S_IFBLK)
        self._spans = spans
        return Member(
            path=path,
            kind=kind,
            mode=_number(header[100:108], "mode", (1 << 32) - 1) & 0o7777,
            uid=_id(header[108:116], pax.uid),
            gid=_id(header[116:124], pax.gid),
            mtime_ns=min(max(mtime_ns, -TIME_MAX), TIME_MAX),
            target=(pax.target or target or _text(header[157:257])) if is_link else b"",
            device=_device(header) if is_device else (0, 0),
            size=size,
            spans=spans,
            xattrs=pax.xattrs,
        )

    def _contents(self, header: bytes, pax: Pax) -> tuple[int, Spans]:
        """The size of a regular file, and where its bytes belong; they come next."""
        stored = _number(header[124:136], "size", MAX_SIZE) if pax.size is None else pax.size
        if stored > MAX_SIZE:
            raise ImageError(f"has a file of {stored} bytes")
        if header[156:157] == b"S":
            size, spans = self._old_gnu(header)
        elif pax.sparse is None:
            size, spans = stored, ((0, stored),) if stored else ()
        elif pax.sparse.spans is not None:
            size, spans = pax.sparse.size, pax.sparse.spans
        else:  # GNU's format 1.0: the map comes before the bytes
            size = pax.sparse.size
            spans, before = read_map(lambda: self._exactly(BLOCK))
            self._expect(stored)
            if before > stored:
                raise ImageError("has a sparse file whose map is longer than it")
            self._left -= before
            return size, checked(spans, size, stored - before, MAX_SIZE)
        self._expect(stored)
        return size, checked(spans, size, stored, MAX_SIZE)

    def _old_gnu(self, header: bytes) -> tuple[int, Spans]:
        """GNU's format of before pax: four spans in the header, more in the blocks behind it."""
        size = _number(header[483:495], "size", MAX_SIZE)
        return size, old_gnu(header, lambda: self._exactly(BLOCK), _sparse_number)


def _sparse_number(field: bytes) -> int:
    return _number(field, "sparse map", MAX_SIZE)


def _check_sum(header: bytes) -> None:
    """Raises: ImageError if this is no header. Some have summed up signed bytes."""
    text = header[148:156].split(b"\0")[0].strip(b" ")
    others = header[:148] + header[156:]
    unsigned = sum(others) + 8 * ord(" ")
    said = int(text, 8) if text.isdigit() and not set(text) & set(b"89") else -1
    if said != unsigned and said != unsigned - 256 * sum(byte > 127 for byte in others):
        raise ImageError("is no tar, or has a damaged header")


def _number(field: bytes, what: str, most: int, least: int = 0) -> int:
    """An octal number in text, or GNU's in binary, whose first bit is 1. Raises: ImageError."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & (1 << bits) - 1
        if field[0] & 0x40:
            value -= 1 << bits
    else:
        text = field.split(b"\0")[0].strip(b" ")
        if not set(text) <= set(b"01234567"):
            raise ImageError(f"has a header with a wrong {what}: {shown(text)}")
        value = int(text, 8) if text else 0
    if not least <= value <= most:
        raise ImageError(f"has a header with a wrong {what}: {value}")
    return value


def _id(field: bytes, pax: int | None) -> int:
    value = _number(field, "owner", MAX_ID) if pax is None else pax
    if value > MAX_ID:
        raise ImageError(f"has a header with a wrong owner: {value}")
    return value


def _device(header: bytes) -> tuple[int, int]:
    return (
        _number(header[329:337], "device", MAX_MAJOR),
        _number(header[337:345], "device", MAX_MINOR),
    )


def _text(field: bytes) -> bytes:
    return field.split(b"\0")[0]


def _name_of(header: bytes) -> bytes:
    """The name in a header: with POSIX's magic it may have a part before it."""
    name, prefix = _text(header[:100]), b""
    if header[257:263] == b"ustar\0":
        prefix = _text(header[345:500])
    return prefix + b"/" + name if prefix else name
