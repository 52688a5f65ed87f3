"""struct stat of an inode, kept until its attributes are others."""

from __future__ import annotations

from typing import Final

from sentry.abi.stat import STAT
from sentry.vfs.interface import Attributes, Inode

NS: Final = 1_000_000_000
UNSIGNED: Final = (1 << 64) - 1


def pack_stat(inode: Inode, a: Attributes) -> bytes:
    """struct stat. The same `Attributes` object again costs nothing."""
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
