"""Where a copy comes from: the extended attribute `origin`, by which its st_ino stays the same.

It holds a file handle of the lower file (struct ovl_fb of fs/overlayfs/overlayfs.h), of which only
the number is used. It can be written by hand: then a file has the number that it says, as it would
have with the handle of another file.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentry.vfs.filesystem import FileSystem

_HANDLE: Final = struct.Struct("<BBBBB16sIQ")
"""Version, magic, length, flags, type, UUID of the file system; generation and inode number."""
_MAGIC: Final = 0xFB
_KIND: Final = 1
"""FILEID_INO32_GEN, as name_to_handle_at(2) has it here: sentry.vfs.handles."""
_HEAD: Final = (0, _MAGIC, _HANDLE.size, 0, _KIND)


def uuid_of(fs: FileSystem) -> bytes:
    """16 bytes; zeros of what has none."""
    return fs.uuid.ljust(16, b"\0")[:16]


def handle(fs: FileSystem, ino: int) -> bytes:
    """ovl_encode_real_fh()."""
    return _HANDLE.pack(*_HEAD, uuid_of(fs), 0, ino & (1 << 64) - 1)


def read_handle(value: bytes) -> tuple[bytes, int] | None:
    """UUID and inode number, of one that `handle` could have made: ovl_check_fb_len()."""
    if len(value) != _HANDLE.size:
        return None
    *head, uuid, _, ino = _HANDLE.unpack(value)
    return (uuid, ino) if tuple(head) == _HEAD else None
