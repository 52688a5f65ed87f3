"""The host's side of files that go into a sandbox, or come from one.

What comes is named by the sandbox, which is not trusted: a name is one component after the other,
each opened in the folder before it, and no link is followed. What is there already is not touched.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final

import msgspec

MAX_DEPTH: Final = 1000
"""Folders in each other."""
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(msgspec.Struct, frozen=True):
    """A file or folder of the host."""

    below: bytes
    """Empty, or a slash and where it is below the first one."""
    mode: int
    is_dir: bool


class Source:
    """What is to be copied: the file or folder, and what is below it, folders first.

    A sandbox may have it, too, by a mount, and change it meanwhile: below the first one no link is
    followed, so nothing else of the host is copied. Raises: OSError.
    """

    def __init__(self, local: str) -> None:
        self._top = os.open(local, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._mode = os.fstat(self._top).st_mode
        if not stat.S_ISDIR(self._mode) and not stat.S_ISREG(self._mode):
            self.close()
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), local)

    def __iter__(self) -> Iterator[Entry]:
        is_dir = stat.S_ISDIR(self._mode)
        yield Entry(b"", self._mode & 0o777, is_dir)
        waiting = [b""] if is_dir else []
        while waiting:
            folder = waiting.pop()
            for name, mode in self._names(folder):
                below = folder + b"/" + name
                if stat.S_ISDIR(mode):
                    waiting.append(below)
                elif not stat.S_ISREG(mode):
                    continue
                yield Entry(below, mode & 0o777, stat.S_ISDIR(mode))

    def _names(self, folder: bytes) -> list[tuple[bytes, int]]:
        with _Folder(self._top, [*folder.split(b"/")[1:], b""]) as (fd, _), os.scandir(fd) as found:
            return sorted(
                (os.fsencode(each.name), each.stat(follow_symlinks=False).st_mode)
                for each in found
            )

    def opened(self, entry: Entry) -> IO[bytes]:
        """A file, to be read. A FIFO that has taken its place meanwhile keeps nobody waiting."""
        if not entry.below:
            return os.fdopen(os.dup(self._top), "rb")
        with _Folder(self._top, entry.below.split(b"/")[1:]) as (fd, name):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.fdopen(os.open(name, flags, dir_fd=fd), "rb")

    def close(self) -> None:
        """Nothing more is read."""
        os.close(self._top)


class Target:
    """A place of the host where a file or a tree is to be."""

    def __init__(self, local: str, max_bytes: int) -> None:
        self._local = os.fsencode(local)
        head, name = os.path.split(os.path.abspath(local))
        self.left = max_bytes
        """So many bytes more."""
        self._name = os.fsencode(name)
        self._top = os.open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def folder(self, below: bytes, mode: int) -> None:
        """Make one. Raises: OSError; ValueError for a name that is none."""
        with self._named(below), _Folder(self._top, self._parts(below)) as (fd, name):
            os.mkdir(name, mode & 0o777 | 0o700, dir_fd=fd)

    def file(self, below: bytes, mode: int) -> Made:
        """Make one, to be written to. Raises: the same."""
        with self._named(below), _Folder(self._top, self._parts(below)) as (fd, name):
            made = os.open(name, NEW, mode & 0o777, dir_fd=fd)
        return Made(self, made)

    def close(self) -> None:
        """Nothing more is made."""
        top, self._top = self._top, -1
        if top >= 0:
            with suppress(OSError):
                os.close(top)

    @contextmanager
    def _named(self, below: bytes) -> Iterator[None]:
        """What goes wrong is told of the whole path."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fsdecode(self._local + below)) from None

    def _parts(self, below: bytes) -> list[bytes]:
        """Raises: ValueError."""
        parts = below.split(b"/")
        if parts[0] or len(parts) > MAX_DEPTH or not self._name:
            raise ValueError(f"no name: {below!r}")
        if any(part in (b"", b".", b"..") or b"\0" in part for part in parts[1:]):
            raise ValueError(f"no name: {below!r}")
        return [self._name, *parts[1:]]


class Made:
    """A file of the host that is written to."""

    def __init__(self, target: Target, fd: int) -> None:
        self._target = target
        self._file = os.fdopen(fd, "wb")

    def __enter__(self) -> Made:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Raises: OSError, EFBIG when that is too much."""
        self._target.left -= len(data)
        if self._target.left < 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self._file.write(data)


class _Folder:
    """The folder that the last of these names is in, by way of all others."""

    def __init__(self, top: int, parts: list[bytes]) -> None:
        self._top = top
        self._parts = parts

    def __enter__(self) -> tuple[int, bytes]:
        fd = os.dup(self._top)
        try:
            for part in self._parts[:-1]:
                inner = os.open(part, FOLDER, dir_fd=fd)
                os.close(fd)
                fd = inner
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return fd, self._parts[-1]

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
