"""Which directories the sandboxes of this user have as roots that may be written behind, and as
mounts that can be written to, so that each can tell whether it is alone.

Each holds a description of one file, and with it read locks (fcntl(2), F_OFD_SETLK): a byte for
each directory that it has, and one for each directory above that. Where a byte lies is made of what
it says, so no directory need be listed, and nothing is left of who has ended. Who starts sets its
own first and looks then: of two that start at once each sees the other.

Sandboxes of other users, and those that were not told to write behind, are not seen.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import PurePath
from typing import Final

from runsc.containers.names import default_root

_FLOCK: Final = struct.Struct("=hhxxxxqqixxxx")
"""struct flock of 64-bit machines: type, whence, start, length, process."""
_MASK: Final = (1 << 64) - 1


class Kind(IntEnum):
    """What is said of a directory."""

    ROOT = 1
    MOUNT = 2
    ABOVE_ROOT = 3
    ABOVE_MOUNT = 4


_ALL: Final = tuple(Kind)


def claim(root: str, mounts: Sequence[str]) -> int:
    """Say that this sandbox has these; the descriptor that holds it. Raises: OSError."""
    # To read alone: by what the Gofer holds nobody can lock out others.
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(f"{default_root()}.claims", flags, 0o600)
    try:
        said: dict[int, None] = {}
        for path, kind, above in (
            (root, Kind.ROOT, Kind.ABOVE_ROOT),
            *((path, Kind.MOUNT, Kind.ABOVE_MOUNT) for path in mounts),
        ):
            said[_place(path, kind)] = None
            said.update(dict.fromkeys(_place(each, above) for each in _above(path)))
        for place in said:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK, place))
    except OSError:
        os.close(fd)
        raise
    return fd


def shared(fd: int, root: str) -> str:
    """Why others may change it; "": they do not. `fd`: of `claim`. Raises: OSError."""
    if _others(fd, root, (Kind.ROOT,)):
        return "another sandbox has it"
    around = any(_others(fd, each, (Kind.ROOT, Kind.MOUNT)) for each in _above(root))
    if around or _others(fd, root, _ALL):
        return "another sandbox has a part of it, or what it is a part of"
    return ""


def shows_a_root(fd: int, mount: str) -> bool:
    """Whether another sandbox's root overlaps with it. Raises: OSError."""
    if _others(fd, mount, (Kind.ROOT, Kind.ABOVE_ROOT)):
        return True
    return any(_others(fd, each, (Kind.ROOT,)) for each in _above(mount))


def _above(path: str) -> Iterator[str]:
    return map(str, PurePath(os.path.realpath(path)).parents)


def _others(fd: int, path: str, kinds: Sequence[Kind]) -> bool:
    """Whether other descriptions have said this."""
    for kind in kinds:
        asked = _lock(fcntl.F_WRLCK, _place(path, kind))
        if _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK:
            return True
    return False


def _lock(kind: int, place: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)


def _place(path: str, kind: Kind) -> int:
    """A number of 62 bits: splitmix64 of directory and kind."""
    seen = os.stat(path)
    mixed = seen.st_ino * 0x9E3779B97F4A7C15 + seen.st_dev * 0xC2B2AE3D27D4EB4F + kind & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return (mixed ^ mixed >> 31) >> 2
