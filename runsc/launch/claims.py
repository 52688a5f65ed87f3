"""Which directories the sandboxes of this user have as roots that are kept on the host, and as
mounts that can be written to, so that each can tell whether it is alone.

Each holds a description of one file, and with it read locks (fcntl(2), F_OFD_SETLK): a byte for
each directory that it has, and one for each directory above that. Where a byte lies is made of what
it says, so no directory need be listed, and nothing is left of who has ended. Who starts sets its
own first and looks then: of two that start at once each sees the other.

Who is alone says that it writes behind, and looks once more: a later one either is seen by that, or
sees what was said, and has the first one write through from then on (`neighbours`).

Sandboxes of other users are not seen, nor mounts and roots that can only be read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
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
    BEHIND = 5
    """It is a root that is written behind."""
    ABOVE_BEHIND = 6


_CHANGED: Final = (Kind.ROOT, Kind.MOUNT, Kind.ABOVE_ROOT, Kind.ABOVE_MOUNT)
_BEHIND: Final = (Kind.BEHIND, Kind.ABOVE_BEHIND)


def claim(root: str, mounts: Sequence[str]) -> int:
    """Say that this sandbox has these; the descriptor that holds it. `root`: "" where it is not
    written to. Raises: OSError."""
    # To read alone: by what the Gofer holds nobody can lock out others. A FIFO of somebody else's,
    # in /tmp, is not waited for.
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(f"{default_root()}.claims", flags, 0o600)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "the file of claims is somebody else's")
        said = dict.fromkeys(_places(root, Kind.ROOT, Kind.ABOVE_ROOT) if root else ())
        for path in mounts:
            said |= dict.fromkeys(_places(path, Kind.MOUNT, Kind.ABOVE_MOUNT))
        _lock_all(fd, fcntl.F_RDLCK, said)
    except OSError:
        os.close(fd)
        raise
    return fd


def say_behind(fd: int, root: str) -> None:
    """It is written behind. `fd`: of `claim`. Raises: OSError."""
    _lock_all(fd, fcntl.F_RDLCK, _places(root, *_BEHIND))


def say_through(fd: int, root: str) -> None:
    """It is not, after all. Raises: OSError."""
    _lock_all(fd, fcntl.F_UNLCK, _places(root, *_BEHIND))


def shared(fd: int, root: str) -> str:
    """Why others may change it; "": they do not. `fd`: of `claim`. Raises: OSError."""
    if not _is_locked(fd, 0, 0):
        return ""
    if _others(fd, root, (Kind.ROOT,)):
        return "another sandbox has it"
    around = any(_others(fd, each, (Kind.ROOT, Kind.MOUNT)) for each in _above(root))
    if around or _others(fd, root, _CHANGED):
        return "another sandbox has a part of it, or what it is a part of"
    return ""


def behind(fd: int, paths: Sequence[str]) -> list[str]:
    """Those that overlap with roots which other sandboxes write behind. Raises: OSError."""
    found: list[str] = []
    if not _is_locked(fd, 0, 0):
        return found
    above: dict[str, bool] = {}
    for path in paths:
        around = False
        for each in _above(path):
            if each not in above:
                above[each] = _others(fd, each, (Kind.BEHIND,))
            around = around or above[each]
        if around or _others(fd, path, _BEHIND):
            found.append(path)
    return found


def _above(path: str) -> Iterator[str]:
    path = os.path.realpath(path)
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


def _places(path: str, kind: Kind, above: Kind) -> Iterator[int]:
    """Of what is said of a directory, and of those above it."""
    yield _place(path, kind)
    for each in _above(path):
        yield _place(each, above)


def _others(fd: int, path: str, kinds: Sequence[Kind]) -> bool:
    """Whether other descriptions have said this."""
    return any(_is_locked(fd, _place(path, kind), 1) for kind in kinds)


def _lock_all(fd: int, kind: int, places: Iterable[int]) -> None:
    for place in places:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))


def _is_locked(fd: int, start: int, length: int) -> bool:
    """By others, any of these bytes; `length` 0: of all."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK


def _place(path: str, kind: Kind) -> int:
    """A number of 62 bits: splitmix64 of directory and kind."""
    seen = os.stat(path)
    mixed = seen.st_ino * 0x9E3779B97F4A7C15 + seen.st_dev * 0xC2B2AE3D27D4EB4F + kind & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return (mixed ^ mixed >> 31) >> 2
