"""Attributes as they come over 9P or from fstat(2), as the vfs wants them."""

from __future__ import annotations

import os

from gofer.p9.attributes import Attributes as WireAttributes
from sentry.platform.host_io import HostStat
from sentry.vfs.interface import Attributes

_MASK = (1 << 64) - 1


class Numbering:
    """Inode numbers of one attachment: the host's own on the device of its root.

    A tree may hold other mounts of the host, whose inode numbers overlap; the whole attachment is
    one device inside, so theirs are mixed with the device number.
    """

    __slots__ = ("_dev",)

    def __init__(self, dev: int) -> None:
        self._dev = dev

    def ino(self, dev: int, ino: int) -> int:
        """The number shown inside."""
        if dev == self._dev:
            return ino
        return (ino ^ (dev * 0x9E3779B97F4A7C15)) & _MASK or 1


def from_wire(wire: WireAttributes, ino: int) -> Attributes:
    """What a reply says."""
    mode, uid, gid, nlink, _, _, rdev, size, blocks, *times, blksize, flags = wire
    atime, mtime, ctime, btime = times
    return Attributes(
        ino,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        size,
        blocks,
        blksize,
        atime,
        mtime,
        ctime,
        btime if flags & 1 else None,
    )


def from_stat(stat: os.stat_result | HostStat, ino: int, btime_ns: int | None) -> Attributes:
    """What fstat(2) of a donated descriptor says."""
    return Attributes(
        ino,
        stat.st_mode,
        stat.st_nlink,
        stat.st_uid,
        stat.st_gid,
        stat.st_rdev,
        stat.st_size,
        stat.st_blocks,
        stat.st_blksize,
        stat.st_atime_ns,
        stat.st_mtime_ns,
        stat.st_ctime_ns,
        btime_ns,
    )
