"""What servers say of files, checked: attributes, names of directories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi.fuse import FUSE_ATTR, FUSE_DIRENT, FUSE_ENTRY_OUT, FuseAttr, FuseEntryOut
from sentry.abi.stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK
from sentry.auth.userns import NO_ID, OVERFLOW_ID, kernel_id
from sentry.errors import EIO
from sentry.vfs.interface import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.auth.userns import UserNamespace

MAX_SIZE: Final = (1 << 63) - 1
NS: Final = 1_000_000_000
LONGEST_NAME: Final = 1024
"""FUSE_NAME_MAX: bytes of a name in a listing."""
KINDS: Final = frozenset({S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK})
ATTR_AT: Final = FUSE_ENTRY_OUT.size - FUSE_ATTR.size
DIRENT_SIZE: Final = 24
"""Bytes of struct fuse_dirent before the name."""
assert FUSE_DIRENT.size == DIRENT_SIZE + 1
FOREVER_NS: Final = 1 << 62


def signed(number: int) -> int:
    """64 bits as a signed number, as Linux passes them on."""
    return number - (1 << 64) if number >> 63 else number


def checked(attr: FuseAttr) -> FuseAttr:
    """fuse_invalid_attr(). Raises: EIO."""
    if attr.mode & S_IFMT not in KINDS or attr.size > MAX_SIZE:
        raise EIO("impossible attributes")
    return attr


def attributes_of(attr: FuseAttr, ns: UserNamespace | None, default_block: int) -> Attributes:
    """Checked attributes as stat(2) shows them: fuse_change_attributes_common()."""
    block = 1 << (attr.blksize.bit_length() - 1) if attr.blksize else default_block
    return Attributes(
        attr.ino, attr.mode & 0o177777, attr.nlink, _known(ns, attr.uid, "uid"),
        _known(ns, attr.gid, "gid"), attr.rdev, attr.size, attr.blocks & MAX_SIZE,
        min(block, 1 << 30), _time(attr.atime, attr.atimensec), _time(attr.mtime, attr.mtimensec),
        _time(attr.ctime, attr.ctimensec),
    )  # fmt: skip


def _known(ns: UserNamespace | None, number: int, kind: str) -> int:
    found = kernel_id(ns, number, kind)
    return OVERFLOW_ID if found == NO_ID else found


def _time(seconds: int, nanoseconds: int) -> int:
    """Seconds are a signed number; what 64 bits of nanoseconds cannot hold is the nearest."""
    return max(-MAX_SIZE, min(signed(seconds) * NS + min(nanoseconds, NS - 1), MAX_SIZE))


def split_time(time_ns: int) -> tuple[int, int]:
    """Seconds as the protocol has them, and nanoseconds."""
    seconds, nanoseconds = divmod(time_ns, NS)
    return seconds & (1 << 64) - 1, nanoseconds


def until(now_ns: int, seconds: int, nanoseconds: int) -> int:
    """When something that holds for so long is to be asked for again: fuse_time_to_jiffies()."""
    if not seconds and not nanoseconds:
        return 0
    return min(now_ns + seconds * NS + min(nanoseconds, NS - 1), FOREVER_NS)


def entry_of(data: bytes, at: int = 0) -> tuple[FuseEntryOut, FuseAttr]:
    """struct fuse_entry_out, and the attributes in it, unchecked."""
    return FUSE_ENTRY_OUT.unpack(data, at), FUSE_ATTR.unpack(data, at + ATTR_AT)


class Listed(NamedTuple):
    """A name of a listing."""

    name: bytes
    ino: int
    kind: int
    """S_IFMT bits."""
    following: int
    """The position after it."""
    entry: int
    """Where its struct fuse_entry_out is in the answer; -1: there is none."""


def listing(data: bytes, with_entries: bool) -> Iterator[Listed]:
    """The names of an answer to READDIR or READDIRPLUS. Raises: EIO for an impossible name."""
    before = FUSE_ENTRY_OUT.size if with_entries else 0
    at, end = 0, len(data)
    while at + before + DIRENT_SIZE < end:
        entry = FUSE_DIRENT.unpack(data, at + before)
        first = at + before + DIRENT_SIZE
        following = at + (before + DIRENT_SIZE + entry.namelen + 7 & ~7)
        if not 0 < entry.namelen <= LONGEST_NAME:
            raise EIO("the length of a name")
        if following > end:
            return
        name = data[first : first + entry.namelen]
        if b"/" in name or b"\0" in name:
            raise EIO("an impossible name")
        kind = (entry.type & 15) << 12
        yield Listed(name, entry.ino, kind, signed(entry.off), at if with_entries else -1)
        at = following
