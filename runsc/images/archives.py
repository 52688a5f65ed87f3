"""Where images lie: a folder of OCI's layout, or an archive of one, or of `docker save`.

An archive is a tar that is not compressed. It is read in place: its headers once, to know where its
files are, then whatever is asked for.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from runsc.errors import why
from runsc.images.documents import MAX_DOCUMENT
from runsc.images.errors import ImageError, shown
from runsc.images.streams import Part
from runsc.images.tar import HARD_LINK, TarReader

LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
SAVED: Final = "manifest.json"
MAX_MEMBERS: Final = 1 << 16
"""What has more files is no archive of an image."""
MAX_NAME: Final = 4096
"""Bytes of a name and of what it leads to; no file of an image has longer ones."""
MAX_LINKS: Final = 8


class Place(Protocol):
    """Files by name."""

    def has(self, name: str) -> bool:
        """Whether there is one."""

    def opened(self, name: str) -> AbstractContextManager[Part]:
        """Its bytes. Raises: ImageError, OSError."""


def document(place: Place, name: str) -> bytes:
    """A small file. Raises: ImageError, OSError."""
    with place.opened(name) as part:
        if part.size > MAX_DOCUMENT:
            raise ImageError(f"has {shown(name)} of {part.size} bytes")
        found = b""
        while data := part.read(MAX_DOCUMENT):
            found += data
    return found


class Layout:
    """A folder. Of it regular files are read, and no link is followed out of it or within it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def has(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self._path, name))

    @contextmanager
    def opened(self, name: str) -> Iterator[Part]:
        fd = self._open(name)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise ImageError(f"has {shown(name)}, which is no file")
            yield Part(fd, 0, info.st_size)
        finally:
            os.close(fd)

    def _open(self, name: str) -> int:
        """A descriptor of it, one component at a time. Nothing waits, whatever lies there."""
        *folders, last = parts = name.split("/")
        if "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
            raise ImageError(f"has no {shown(name)}")
        common = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        at = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                inner = os.open(folder, common | os.O_DIRECTORY, dir_fd=at)
                os.close(at)
                at = inner
            return os.open(last, common, dir_fd=at)
        except OSError as error:
            raise ImageError(f"has no {shown(name)}: {why(error)}") from None
        finally:
            os.close(at)


class Archive:
    """A tar that holds an image. Closes nothing."""

    def __init__(self, fd: int, members: dict[bytes, tuple[int, int] | bytes]) -> None:
        """`members`: offset and size, or where a link leads."""
        self._fd = fd
        self._members = members

    @classmethod
    def of(cls, fd: int, size: int) -> Archive | None:
        """The archive in a file; None if it holds no image, but a root. Raises: ImageError."""
        members: dict[bytes, tuple[int, int] | bytes] = {}
        part = Part(fd, 0, size)
        reader = TarReader(part)
        for _ in range(MAX_MEMBERS):
            member = reader.next()
            if member is None:
                break
            if len(member.path) + len(member.target) > MAX_NAME:
                continue
            name = _plain(member.path)
            if member.kind == stat.S_IFREG:
                members[name] = part.offset, member.size
            elif member.kind == HARD_LINK:
                members[name] = _plain(member.target)
            elif member.kind == stat.S_IFLNK:
                members[name] = _plain(posixpath.join(posixpath.dirname(name), member.target))
        else:
            return None
        found = cls(fd, members)
        layout = found.has(LAYOUT) and found.has(INDEX)
        return found if layout or found.has(SAVED) else None

    def has(self, name: str) -> bool:
        return name.encode() in self._members

    @contextmanager
    def opened(self, name: str) -> Iterator[Part]:
        where: tuple[int, int] | bytes | None = _plain(name.encode(errors="surrogateescape"))
        for _ in range(MAX_LINKS):
            if not isinstance(where, bytes):
                break
            where = self._members.get(where)
        if where is None or isinstance(where, bytes):
            raise ImageError(f"has no {shown(name)}")
        yield Part(self._fd, *where)


class Plain:
    """A tar that is a root itself: its one layer, whatever that is called."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size

    def has(self, name: str) -> bool:
        return False

    @contextmanager
    def opened(self, name: str) -> Iterator[Part]:
        yield Part(self._fd, 0, self._size)


def _plain(name: bytes) -> bytes:
    """A name as others write it: "./a//b" is "a/b". It is looked up among the archive's alone."""
    return posixpath.normpath(b"/" + name).lstrip(b"/")
