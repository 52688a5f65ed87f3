"""`gofer._native`, typed, and the small conversions around it."""

from __future__ import annotations

import errno
import os
from typing import Any, Protocol, cast

from gofer._native import ffi, lib  # type: ignore[import-not-found]
from gofer.p9.fields import ATTR_SIZE


class Native(Protocol):
    """The functions of native.c: a value >= 0, or -errno. Names are checked before the call."""

    def gofer_open(self, dirfd: int, name: bytes, flags: int, mode: int) -> int: ...
    def gofer_stat(self, dirfd: int, name: bytes, block: Any) -> int: ...
    def gofer_open_stat(self, dirfd: int, name: bytes, flags: int, block: Any) -> int: ...
    def gofer_chown(self, fd: int, uid: int, gid: int) -> int: ...
    def gofer_chmod(self, fd: int, mode: int) -> int: ...
    def gofer_utimens(self, fd: int, atime_ns: int, mtime_ns: int, which: int) -> int: ...
    def gofer_renameat2(
        self, olddir: int, old: bytes, newdir: int, name: bytes, flags: int
    ) -> int: ...
    def gofer_link(self, fd: int, newdir: int, newname: bytes) -> int: ...
    def gofer_notify(self) -> int: ...
    def gofer_watch(self, notify: int, dirfd: int, home: int) -> int: ...
    def gofer_unwatch(self, notify: int, number: int) -> int: ...
    def gofer_statfs(self, fd: int, out: Any) -> int: ...
    def gofer_readdir(self, fd: int, offset: int, out: Any, room: int, dotdot: int) -> int: ...
    def gofer_readdir_attr(self, fd: int, offset: int, out: Any, room: int) -> int: ...


native = cast(Native, lib)

_block = ffi.new("uint8_t[]", ATTR_SIZE)
_block_view = ffi.buffer(_block)
_statfs = ffi.new("struct gofer_statfs *")


def check(rc: int) -> int:
    """`rc`, or its errno as OSError."""
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc))
    return rc


def error(number: int) -> OSError:
    """The OSError of an errno."""
    return OSError(number, os.strerror(number))


def stat_block(dirfd: int, name: bytes) -> bytes | int:
    """The attribute block of a child (of `dirfd` itself if the name is empty), or -errno."""
    rc = native.gofer_stat(dirfd, name, _block)
    return rc if rc else cast(bytes, _block_view[:])


def open_stat(dirfd: int, name: bytes, flags: int) -> tuple[int, bytes]:
    """Open a child and read the attributes of what was opened. (-errno, b"") on failure."""
    fd = native.gofer_open_stat(dirfd, name, flags, _block)
    return (fd, _block_view[:]) if fd >= 0 else (fd, b"")


def statfs(fd: int) -> Any:
    """struct gofer_statfs, with the fields of Rstatfs; until the next call."""
    check(native.gofer_statfs(fd, _statfs))
    return _statfs


def list_directory(fd: int, offset: int, count: int, dotdot: int) -> bytes:
    """Entries of Rreaddir; `dotdot` stands in for the inode number of `..` unless 0."""
    out = ffi.new("uint8_t[]", count)
    n = check(native.gofer_readdir(fd, offset, out, count, dotdot))
    return cast(bytes, ffi.buffer(out, n)[:])


def list_directory_attr(fd: int, offset: int, count: int) -> bytes:
    """Entries of Rreaddirx."""
    out = ffi.new("uint8_t[]", count)
    n = check(native.gofer_readdir_attr(fd, offset, out, count))
    return cast(bytes, ffi.buffer(out, n)[:])


def check_name(name: bytes) -> bytes:
    """A name that is one component. Raises EINVAL, ENAMETOOLONG, ENOENT (empty)."""
    if not name:
        raise error(errno.ENOENT)
    if b"/" in name or b"\0" in name or name in (b".", b".."):
        raise error(errno.EINVAL)
    if len(name) > 255:
        raise error(errno.ENAMETOOLONG)
    return name
