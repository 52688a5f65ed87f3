"""`FileSystem`: what a program derives from to serve a tree of files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import time_ns
from typing import Any

BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Stat:
    """What stat(2) says of a file."""

    mode: int
    """Type and permissions, as in `st_mode`."""
    size: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = field(default_factory=time_ns)
    atime_ns: int = 0
    """0: as `mtime_ns`; the same of `ctime_ns`."""
    ctime_ns: int = 0
    links: int = 1
    number: int = 0
    """`st_ino`; 0: one is made of the path."""


def regular(size: int, mode: int = 0o644, **more: int) -> Stat:
    """A regular file of so many bytes."""
    return Stat(stat.S_IFREG | mode, size, **more)


def folder(mode: int = 0o755, **more: int) -> Stat:
    """A directory."""
    return Stat(stat.S_IFDIR | mode, BLOCK, links=2, **more)


def link(target: str, **more: int) -> Stat:
    """A symbolic link to `target`."""
    return Stat(stat.S_IFLNK | 0o777, len(os.fsencode(target)), **more)


class FileSystem:
    """A tree of files. Paths begin with `/`, which is its root, and have no `.` or `..`.

    Without more than `stat`, `list` and `read` it can only be read. Methods raise OSError (such as
    FileNotFoundError), with an errno, which the program in the sandbox gets. With `AsyncSandbox`
    each of them may be a coroutine function.
    """

    def stat(self, path: str) -> Any:
        """The file's `Stat`. Raises: FileNotFoundError."""
        raise _error(errno.ENOENT, path)

    def list(self, path: str) -> Any:
        """Names in a directory: an iterable."""
        raise _error(errno.ENOTDIR, path)

    def read(self, path: str, offset: int, size: int) -> Any:
        """Up to `size` bytes from there on; none at the end."""
        raise _error(errno.EINVAL, path)

    def read_link(self, path: str) -> Any:
        """Where a symbolic link leads to."""
        raise _error(errno.EINVAL, path)

    def opened(self, path: str, writable: bool) -> Any:
        """A regular file is being opened."""

    def closed(self, path: str) -> Any:
        """What was opened is closed, by the last who had it open so."""

    def write(self, path: str, offset: int, data: bytes) -> Any:
        """Write there; how many bytes were taken (None: all)."""
        raise _error(errno.EROFS, path)

    def create(self, path: str, mode: int, uid: int, gid: int) -> Any:
        """Make an empty regular file, where nothing is."""
        raise _error(errno.EROFS, path)

    def make_folder(self, path: str, mode: int, uid: int, gid: int) -> Any:
        """Make a directory, where nothing is."""
        raise _error(errno.EROFS, path)

    def make_link(self, path: str, target: str, uid: int, gid: int) -> Any:
        """Make a symbolic link, where nothing is."""
        raise _error(errno.EROFS, path)

    def remove(self, path: str) -> Any:
        """Remove a file that is no directory."""
        raise _error(errno.EROFS, path)

    def remove_folder(self, path: str) -> Any:
        """Remove an empty directory."""
        raise _error(errno.EROFS, path)

    def rename(self, old: str, new: str) -> Any:
        """Give a file, or a directory with all that is in it, another name, whoever has that."""
        raise _error(errno.EROFS, old)

    def truncate(self, path: str, size: int) -> Any:
        """Make a file so long."""
        raise _error(errno.EROFS, path)

    def set_mode(self, path: str, mode: int) -> Any:
        """Other permissions."""
        raise _error(errno.EROFS, path)

    def set_owner(self, path: str, uid: int | None, gid: int | None) -> Any:
        """Another owner; None: as it is."""
        raise _error(errno.EROFS, path)

    def set_times(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> Any:
        """Other times; None: as it is."""
        raise _error(errno.EROFS, path)

    def sync(self, path: str) -> Any:
        """fsync(2): what was written is where it stays."""

    def room(self) -> Any:
        """Bytes that it could hold and that are free, for df(1)."""
        return 0, 0


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def names_of(found: Iterable[str]) -> list[str]:
    """Of a listing, those that are names."""
    return [name for name in found if name not in ("", ".", "..") and "/" not in name]
