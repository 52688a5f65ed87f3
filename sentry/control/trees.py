"""Trees of a container, for who asks from outside: listed, made, removed. See files.py.

A walk goes from a directory to a name in it, never by a path, and follows no link: what a program
puts into its way meanwhile is named itself. It is as deep as the tree and holds no open file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

import msgspec

from sentry.abi.fcntl import AT_FDCWD, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY
from sentry.abi.limits import PATH_MAX
from sentry.control.answers import FileEntry
from sentry.errors import EBUSY, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ESRCH
from sentry.mm.buffers import KernelSource
from sentry.vfs import names
from sentry.vfs.open import OpenHow, open_used
from sentry.vfs.walk import resolve
from sentry.wait.again import again
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.control.outside import Acting
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.interface import DirEntry, Inode
    from sentry.vfs.location import Location

PIECE: Final = 1 << 16
"""Bytes of lines that wait to be written."""
IN_PLACE: Final = OpenHow.strict(O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK, 0, 0)
BY_PATH: Final = OpenHow.strict(O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0, 0)


class Lines:
    """Values as lines of JSON, into a pipe: as fast as somebody reads it."""

    def __init__(self, caller: Caller, pipe: FileDescription) -> None:
        self._caller = caller
        self._pipe = pipe
        self._data = bytearray()

    async def add(self, value: msgspec.Struct) -> None:
        """One more. Raises: EPIPE when nobody reads any more."""
        self._data += msgspec.json.encode(value) + b"\n"
        if len(self._data) >= PIECE:
            await self.flush()

    async def flush(self) -> None:
        """All that waits."""
        source = KernelSource(self._data)
        self._data = bytearray()
        while source.count:
            await again(self._pipe.write, self._caller, source)


class Level:
    """A directory of a walk."""

    __slots__ = ("left", "name", "path", "place")

    def __init__(
        self, place: Location, left: Iterator[DirEntry], name: bytes = b"", path: bytes = b""
    ) -> None:
        self.place = place
        self.left = left
        """Names that have not been looked at."""
        self.name = name
        """Its own, in the one above."""
        self.path = path


async def entered(caller: Caller, dirfd: int, path: bytes, how: OpenHow) -> Location:
    """A directory, which may be read. Raises: ENOTDIR, EACCES, and as open(2)."""
    file = await again(open_used, caller, dirfd, path, how)
    place = file.location
    file.decref()
    return place


async def _names(place: Location) -> Iterator[DirEntry]:
    return iter(await again(place.dentry.inode.entries))


async def described(caller: Caller, path: bytes, place: Location) -> FileEntry:
    """What lstat(2) says, and readlink(2)."""
    inode = place.dentry.inode
    found = await again(inode.stat)
    target = b""
    if inode.is_symlink:
        target = await again(_text_of, inode, caller)
    return FileEntry(
        path, found.mode, found.size, found.uid, found.gid, found.nlink, found.mtime_ns, target
    )


def _text_of(link: Inode, caller: Caller) -> bytes:
    return link.readlink_for(caller) or link.readlink()


async def listed(acting: Acting, path: bytes, depth: int, lines: Lines) -> None:
    """Tell what is in a directory, so many levels of it, a directory before what is in it.

    Raises: ENAMETOOLONG for what no path leads to; a tree may be deeper than that.
    """
    caller, pace = cast("Caller", acting), Pace()
    place = await entered(caller, AT_FDCWD, path, BY_PATH)
    levels = [Level(place, await _names(place), path=path.rstrip(b"/") + b"/")]
    acting.files.enter(place)
    while levels:
        await pace.rest()
        level = levels[-1]
        entry = next(level.left, None)
        if entry is None:
            levels.pop()
            acting.files.leave()
            continue
        number = len(levels) - 1
        where = level.path + entry.name
        if len(where) >= PATH_MAX:
            raise ENAMETOOLONG("a tree that is too deep")
        try:
            found = await again(resolve, caller, number, entry.name, follow=False)
            told = await described(caller, where, found)
        except (ENOENT, ESRCH):  # somebody was faster, or a process has ended
            continue
        await lines.add(told)
        if found.dentry.inode.is_dir and len(levels) < depth:
            try:
                place = await entered(caller, number, entry.name, IN_PLACE)
                left = await _names(place)
            except (ENOENT, ESRCH):
                continue
            levels.append(Level(place, left, path=where + b"/"))
            acting.files.enter(place)


async def make_all(caller: Caller, path: bytes, mode: int) -> bool:
    """A directory, and those above it that are missing: mkdir -p. Whether it was not there."""
    parts, made = path.split(b"/"), False
    for count in range(1, len(parts) + 1):
        if not parts[count - 1]:
            continue
        try:
            await again(names.mkdir, caller, AT_FDCWD, b"/".join(parts[:count]), mode)
            made = True
        except EEXIST:
            made = False
    return made


async def remove_all(acting: Acting, path: bytes) -> None:
    """A name, and all that is below it, which stays in one mount: rm -r --one-file-system.

    Raises: EBUSY for the root and what is mounted, EINVAL for `.` and `..`, ENOTEMPTY where names
    come faster than they go.
    """
    caller = cast("Caller", acting)
    last = path.rstrip(b"/").rpartition(b"/")[2]
    if last in (b".", b".."):
        raise EINVAL("which name?")
    if not last and path:
        raise EBUSY("the root")
    try:
        await again(names.unlink, caller, AT_FDCWD, path)
    except EISDIR:
        await _empty(acting, path)
        await again(names.rmdir, caller, AT_FDCWD, path)


async def _empty(acting: Acting, path: bytes) -> None:
    caller, pace = cast("Caller", acting), Pace()
    place = await entered(caller, AT_FDCWD, path.rstrip(b"/"), IN_PLACE)
    _check_plain(place)
    levels = [Level(place, await _names(place))]
    acting.files.enter(place)
    while True:
        await pace.rest()
        level, number = levels[-1], len(levels) - 1
        entry = next(level.left, None)
        if entry is None:
            levels.pop()
            acting.files.leave()
            if not levels:
                return
            await again(names.rmdir, caller, number - 1, level.name)
            continue
        try:
            await again(names.unlink, caller, number, entry.name)
        except ENOENT:
            continue
        except EISDIR:
            place = await entered(caller, number, entry.name, IN_PLACE)
            _check_plain(place)
            levels.append(Level(place, await _names(place), entry.name))
            acting.files.enter(place)


def _check_plain(place: Location) -> None:
    """Nothing is mounted there. Raises: EBUSY."""
    if place.dentry is place.mount.root and place.mount.parent is not None:
        raise EBUSY("a mount point")
