"""`gofer._native` as Python likes it: bytes, OSError. Names are checked before the call."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from gofer._native import ffi, lib
from gofer.p9.fields import ATTR_SIZE

if TYPE_CHECKING:
    from gofer._native import GoferStatfs

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
    rc = lib.gofer_stat(dirfd, name, _block)
    return rc if rc else _block_view[:]


def open_stat(dirfd: int, name: bytes, flags: int) -> tuple[int, bytes]:
    """Open a child and read the attributes of what was opened. (-errno, b"") on failure."""
    fd = lib.gofer_open_stat(dirfd, name, flags, _block)
    return (fd, _block_view[:]) if fd >= 0 else (fd, b"")


def create(
    parent_fd: int, name: bytes, access: int, owner: tuple[int, int, int]
) -> tuple[int, bytes]:
    """A new regular file and its attributes, given to `owner` (mode, uid, gid; see `own`).
    (-errno, b"") on failure."""
    fd = lib.gofer_create(parent_fd, name, access, *owner, _block)
    return (fd, _block_view[:]) if fd >= 0 else (fd, b"")


def own(fd: int, made: bytes, owner: tuple[int, int, int]) -> bytes:
    """Give what was just made to (mode, uid, gid), NOID: as it is; what its attributes are then."""
    _block_view[:] = made
    check(lib.gofer_own(fd, *owner, _block))
    return _block_view[:]


def statfs(fd: int) -> GoferStatfs:
    """struct gofer_statfs, with the fields of Rstatfs; until the next call."""
    check(lib.gofer_statfs(fd, _statfs))
    return _statfs


def list_directory(fd: int, offset: int, count: int, dotdot: int) -> bytes:
    """Entries of Rreaddir; `dotdot` stands in for the inode number of `..` unless 0."""
    out = ffi.new("uint8_t[]", count)
    n = check(lib.gofer_readdir(fd, offset, out, count, dotdot))
    return ffi.buffer(out, n)[:]


def list_directory_attr(fd: int, offset: int, count: int) -> bytes:
    """Entries of Rreaddirx."""
    out = ffi.new("uint8_t[]", count)
    n = check(lib.gofer_readdir_attr(fd, offset, out, count))
    return ffi.buffer(out, n)[:]


def check_name(name: bytes) -> bytes:
    """A name that is one component. Raises EINVAL, ENAMETOOLONG, ENOENT (empty)."""
    if not name:
        raise error(errno.ENOENT)
    if b"/" in name or b"\0" in name or name in (b".", b".."):
        raise error(errno.EINVAL)
    if len(name) > 255:
        raise error(errno.ENAMETOOLONG)
    return name


def forget_code() -> None:
    """What is needed of programs and libraries is mapped again, 16 pages at a fault: of much that
    begins a process nothing is."""
    lib.gofer_forget_code()
