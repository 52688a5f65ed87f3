"""Attributes as they come over 9P or from fstat(2), as the vfs wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gofer.p9 import constants as c
from gofer.p9.attributes import BTIME
from gofer.p9.attributes import Attributes as WireAttributes
from gofer.p9.constants import NOID
from gofer.p9.extensions import Tsetattrx
from sentry.platform.host_io import HostStat
from sentry.vfs.interface import Attributes, Changes

FIRST_TOLD: Final = 1 << 62
"""Hosts count their inodes from below."""
MAX_TOLD: Final = 262_144
Extents = Sequence[tuple[int, int, int]]
"""First id inside, first one of the host, how many."""
OVERFLOW_ID = 65534
BORN_HERE: Final = 1 << 31
"""Of `flags`, within the Sentry only: the birth time is not the host's (GoferInode.born_here)."""
_MASK = (1 << 64) - 1
_I64_MAX = (1 << 63) - 1


class Numbering:
    """Inode numbers of one attachment: the host's own on the device of its root.

    A tree may hold other mounts of the host, whose inode numbers overlap; the whole attachment is
    one device inside, so theirs are mixed with the device number. What the Sentry names before the
    host has made it gets a number of its own, and keeps it as long as it has a name; not where the
    host has such numbers, too: an overlayfs over several file systems (xino).
    """

    __slots__ = ("_dev", "_next", "_taken", "_told", "_unmade")

    def __init__(self, dev: int) -> None:
        self._dev = dev
        self._next = FIRST_TOLD
        self._told: dict[int, int] = {}
        """The host's numbers → those that were told instead."""
        self._unmade = 0
        self._taken = False
        """The host has numbers from there on."""

    def give(self) -> int:
        """A number for something that is to be made; 0: there is none any more."""
        if self._taken or len(self._told) + self._unmade >= MAX_TOLD:
            return 0
        self._unmade += 1
        self._next += 1
        return self._next - 1

    def settle(self, told: int, ino: int) -> None:
        """It is made, and the host's number is this; 0: it has no name any more."""
        self._unmade -= 1
        if ino:
            self._told[ino] = told

    def forget(self, ino: int) -> None:
        """What has this number at the host has lost its last name."""
        self._told.pop(ino, None)

    def ino(self, dev: int, ino: int) -> int:
        """The number shown inside."""
        if dev == self._dev:
            if ino >= self._next:
                self._taken = True
            return self._told.get(ino, ino)
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
        size & _I64_MAX,  # from whoever serves: there is no room for more in struct stat
        blocks & _I64_MAX,
        blksize,
        atime,
        mtime,
        ctime,
        btime if flags & BTIME else None,
    )


def to_wire(known: Attributes, key: tuple[int, int], flags: int) -> WireAttributes:
    """The same back. `key`: st_dev and st_ino of the host."""
    _, mode, nlink, uid, gid, rdev, size, blocks, blksize, atime, mtime, ctime, btime, _ = known
    if btime is not None:
        flags |= BTIME
    return WireAttributes(
        mode, uid, gid, nlink, *key, rdev, size, blocks, atime, mtime, ctime, btime or 0, blksize,
        flags,
    )  # fmt: skip


class Owners:
    """Users and groups of the host as those inside: who is in a user namespace there.

    The Gofer is in it, too, and its host has translated; what fstat(2) says here is not.
    """

    __slots__ = ("_gids", "_uids")

    def __init__(self, uids: Extents, gids: Extents) -> None:
        self._uids, self._gids = tuple(uids), tuple(gids)

    def inside(self, attributes: Attributes) -> Attributes:
        """from_kuid_munged()."""
        uid, gid = _find(self._uids, attributes.uid), _find(self._gids, attributes.gid)
        return attributes._replace(uid=uid, gid=gid)


def _find(extents: Extents, number: int) -> int:
    for first, outside, count in extents:
        if outside <= number < outside + count:
            return first + number - outside
    return OVERFLOW_ID


def from_stat(told: HostStat, ino: int, btime_ns: int | None) -> Attributes:
    """What fstat(2) of a donated descriptor says."""
    return tuple.__new__(Attributes, (ino, *told, btime_ns, None))


def from_spare(
    made: WireAttributes, ino: int, given: tuple[int, int, int], now_ns: int
) -> Attributes:
    """Of a new file that gets this mode, uid and gid."""
    _, _, _, _, _, _, rdev, size, blocks, _, _, _, btime, blksize, flags = made
    mode, uid, gid = given
    return tuple.__new__(
        Attributes,
        (
            ino, mode, 1, uid, gid, rdev, size, blocks, blksize, now_ns, now_ns, now_ns,
            btime if flags & BTIME else None, None,
        ),
    )  # fmt: skip


def linked(known: Attributes, nlink: int, mtime_ns: int, ctime_ns: int) -> Attributes:
    """The same with another number of links, and these times."""
    ino, mode, _, uid, gid, rdev, size, blocks, blksize, atime, _, _, btime, dev = known
    return tuple.__new__(
        Attributes,
        (
            ino, mode, nlink, uid, gid, rdev, size, blocks, blksize, atime, mtime_ns, ctime_ns,
            btime, dev,
        ),
    )  # fmt: skip


def what_changes(changes: Changes) -> int:
    """`valid` of a Tsetattrx."""
    valid = 0
    if changes.mode is not None:
        valid |= c.SETATTR_MODE
    if changes.uid is not None:
        valid |= c.SETATTR_UID
    if changes.gid is not None:
        valid |= c.SETATTR_GID
    if changes.size is not None:
        valid |= c.SETATTR_SIZE
    if changes.atime_ns is not None:
        valid |= c.SETATTR_ATIME | (0 if changes.times_now else c.SETATTR_ATIME_SET)
    if changes.mtime_ns is not None:
        valid |= c.SETATTR_MTIME | (0 if changes.times_now else c.SETATTR_MTIME_SET)
    return valid


def setting(where: tuple[int, bytes], valid: int, changes: Changes) -> Tsetattrx:
    """The request that makes them. `where`: a fid, and a name below it or none."""
    fid, name = where
    return Tsetattrx(
        fid,
        name,
        valid,
        changes.mode or 0,
        NOID if changes.uid is None else changes.uid,
        NOID if changes.gid is None else changes.gid,
        changes.size or 0,
        _on_the_wire(changes.atime_ns),
        _on_the_wire(changes.mtime_ns),
    )


def _on_the_wire(time_ns: int | None) -> int:
    """The nearest time that a message can hold; the host's file system may hold less."""
    return max(-1 << 63, min(time_ns or 0, (1 << 63) - 1))
