"""Records of getdents64(2), made many at a time in C (native/dirents.h)."""

from __future__ import annotations

from array import array
from typing import Final

from sentry.errors import EIO
from sentry.platform._native import ffi, lib

LONGEST: Final = 4096
"""Bytes of a name, of whatever file system."""


def pack(
    entries: list[tuple[bytes, int, int]], position: int, data: bytearray, ends: array[int]
) -> None:
    """Append a record for each (name, inode number, S_IFMT bits) to `data`, and its end to `ends`.

    The first one stands at `position`. Raises: EIO for a name that is too long.
    """
    names, inos, kinds = zip(*entries, strict=True)
    lengths = array("H", [min(len(name), LONGEST + 1) for name in names])
    if max(lengths) > LONGEST:
        raise EIO("a name that is too long")
    types = bytes([kind >> 12 for kind in kinds])
    count, at, before = len(entries), len(data), len(ends)
    together = b"".join(names)
    data.extend(bytes(len(together) + count * lib.DIRENT_MORE))
    ends.extend(array("Q", bytes(8 * count)))
    end = lib.dirents_pack(
        together,
        ffi.from_buffer("uint16_t[]", lengths),
        ffi.from_buffer("uint64_t[]", array("Q", inos)),
        types,
        count,
        position,
        ffi.from_buffer("uint8_t[]", data),
        at,
        ffi.from_buffer("uint64_t[]", ends)[before : before + count],
    )
    del data[end:]
