"""Attributes of a file as our extensions carry them: a block of 96 bytes.

The server's C code writes the block straight from statx(2), the client reads it here. It has what
Rgetattr lacks (st_dev, the host's inode number) and times as nanoseconds.
"""

from __future__ import annotations

import stat
import struct
from typing import NamedTuple

from gofer.p9.constants import QTDIR, QTFILE, QTSYMLINK
from gofer.p9.fields import ATTR_SIZE, Qid

BTIME, NO_ACL, NO_DEFAULT_ACL, NO_XATTRS = 1, 2, 4, 8
"""Of `flags`: btime_ns is known; it has no access control list, as a directory no default one, for
sure. Whether there are any is asked of directories and of open files only: acl(5). A file that was
made without a name (Tsparex) has no extended attribute at all."""
_BLOCK = struct.Struct("<4I5Q4q2I")
assert _BLOCK.size == ATTR_SIZE


class Attributes(NamedTuple):
    """struct stat of the host, and the birth time."""

    mode: int
    uid: int
    gid: int
    nlink: int
    dev: int
    ino: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    blksize: int
    flags: int

    def pack(self) -> bytes:
        return _BLOCK.pack(*self)

    @classmethod
    def unpack(cls, block: bytes) -> Attributes:
        return tuple.__new__(cls, _BLOCK.unpack(block))  # half the price of _make

    def qid(self) -> Qid:
        """A qid that is the same for the same inode, and whose version follows its changes."""
        kind = self.mode & 0o170000
        qtype = QTDIR if kind == stat.S_IFDIR else QTSYMLINK if kind == stat.S_IFLNK else QTFILE
        path = self.ino ^ (self.dev * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        return Qid(qtype, (self.ctime_ns ^ self.ctime_ns >> 32) & 0xFFFFFFFF, path)
