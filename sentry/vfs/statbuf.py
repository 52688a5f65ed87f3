"""struct stat of an inode, kept until its attributes are others."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.stat import STAT
from sentry.vfs.interface import Attributes, Inode

if TYPE_CHECKING:
    from sentry.vfs.file import Caller

NS: Final = 1_000_000_000
UNSIGNED: Final = (1 << 64) - 1
IDS_AT: Final = 28
"""Where st_uid and st_gid are."""
_IDS = struct.Struct("<II")


def pack_stat(caller: Caller, inode: Inode, a: Attributes) -> bytes:
    """struct stat for somebody. The same `Attributes` object again costs nothing."""
    data = kept_stat(inode, a)
    creds = caller.creds
    if creds.user_ns is None:
        return data
    uid, gid = inode.owner_for(caller, a)
    shown = bytearray(data)
    _IDS.pack_into(shown, IDS_AT, creds.shown_uid(uid), creds.shown_gid(gid))
    return bytes(shown)


def kept_stat(inode: Inode, a: Attributes) -> bytes:
    """struct stat, with kernel ids."""
    known = inode.packed
    if known is not None and known[0] is a:
        return known[1]
    data = STAT.pack(
        a.dev if a.dev is not None else inode.fs.dev, a.ino, a.nlink, a.mode,
        a.uid, a.gid, 0, a.rdev, a.size, a.block_size, a.blocks,
        a.atime_ns // NS & UNSIGNED, a.atime_ns % NS, a.mtime_ns // NS & UNSIGNED, a.mtime_ns % NS,
        a.ctime_ns // NS & UNSIGNED, a.ctime_ns % NS, b"",
    )  # fmt: skip
    inode.packed = a, data
    return data
