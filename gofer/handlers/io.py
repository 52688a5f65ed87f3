"""Data: read, write, readdir, fsync."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from gofer._native import lib
from gofer.connection import Connection
from gofer.fid import Fid
from gofer.files import OpenFile, open_node
from gofer.native import check, error, list_directory, list_directory_attr
from gofer.node import Node
from gofer.p9.codec import Message
from gofer.p9.constants import HEADER_SIZE
from gofer.p9.extensions import Rreaddirx, Rsyncx, Treaddirx, Tsyncx
from gofer.p9.messages import (
    Rfsync,
    Rread,
    Rreaddir,
    Rwrite,
    Tfsync,
    Tread,
    Treaddir,
    Twrite,
)
from gofer.replies import Job, handles

R = TypeVar("R", bound=Message)

_DATA_HEADER = HEADER_SIZE + 4
_I64_MAX = (1 << 63) - 1


@handles(Tread)
def read(conn: Connection, msg: Tread) -> Rread | Job:
    """read(5): what the page cache has is answered at once, the rest by the pool."""
    fid = conn.fids.get(msg.fid)
    count = min(msg.count, conn.msize - _DATA_HEADER)
    if fid.xattr is not None:
        if fid.xattr.size >= 0:
            raise error(errno.EBADF)
        return Rread(fid.xattr.data[msg.offset : msg.offset + count])
    file = _regular(fid)
    if not file.readable:
        raise error(errno.EBADF)
    offset = msg.offset
    if offset + count > _I64_MAX:
        raise error(errno.EINVAL)
    buffer = bytearray(count)
    try:
        n = os.preadv(file.fd, [buffer], offset, os.RWF_NOWAIT)
        if n == count or offset + n >= os.fstat(file.fd).st_size:
            return Rread(bytes(memoryview(buffer)[:n]))
    except OSError as problem:
        if problem.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
            raise
    return Job(lambda: Rread(os.pread(file.fd, count, offset)), file, size=count)


@handles(Twrite)
def write(conn: Connection, msg: Twrite) -> Rwrite | Job:
    """write(5)."""
    fid = conn.fids.get(msg.fid)
    if fid.xattr is not None:
        return Rwrite(_write_xattr(fid, msg))
    file = _regular(fid)
    if not file.writable:
        raise error(errno.EBADF)
    data, offset = msg.data, msg.offset
    if offset + len(data) > _I64_MAX:
        raise error(errno.EFBIG)
    return Job(lambda: Rwrite(os.pwrite(file.fd, data, offset)), file, size=len(data))


def _write_xattr(fid: Fid, msg: Twrite) -> int:
    state = fid.xattr
    assert state is not None
    if state.size < 0:
        raise error(errno.EBADF)
    if msg.offset != len(state.data) or msg.offset + len(msg.data) > state.size:
        raise error(errno.EINVAL)
    state.data += msg.data
    return len(msg.data)


def _regular(fid: Fid) -> OpenFile:
    if fid.file is None:
        raise error(errno.EBADF)
    if fid.node.fmt == stat.S_IFDIR:
        raise error(errno.EISDIR)
    return fid.file


@handles(Treaddir)
def readdir(conn: Connection, msg: Treaddir) -> Rreaddir:
    """Treaddir: `offset` is the cookie of the last entry seen; `..` of the root is the root."""
    fid = conn.fids.get(msg.fid)
    node = fid.node
    if node.fmt != stat.S_IFDIR:
        raise error(errno.ENOTDIR)
    if fid.file is None:
        raise error(errno.EBADF)
    count = min(msg.count, conn.msize - _DATA_HEADER)
    dotdot = node.identity[1] if node.parent is None else 0
    return Rreaddir(list_directory(fid.file.fd, msg.offset, count, dotdot))


@handles(Treaddirx)
def readdirx(conn: Connection, msg: Treaddirx) -> Rreaddirx:
    """The fid need not be open: cookies hold from one open of a directory to the next."""
    fid = conn.fids.get(msg.fid)
    if fid.node.fmt != stat.S_IFDIR:
        raise error(errno.ENOTDIR)
    count = min(msg.count, conn.msize - _DATA_HEADER)
    if fid.file is not None:
        return Rreaddirx(list_directory_attr(fid.file.fd, msg.offset, count))
    fd = open_node(conn.table, fid.node, os.O_RDONLY)
    try:
        return Rreaddirx(list_directory_attr(fd, msg.offset, count))
    finally:
        os.close(fd)


@handles(Tfsync)
def fsync(conn: Connection, msg: Tfsync) -> Job | Rfsync:
    """fsync(2) or fdatasync(2) by the fid's file, or by one opened for it."""
    sync = os.fdatasync if msg.datasync else os.fsync
    return _synced(conn, msg.fid, sync, Rfsync())


@handles(Tsyncx)
def syncx(conn: Connection, msg: Tsyncx) -> Job | Rsyncx:
    """syncfs(2) by the fid's file, or by one opened for it."""
    return _synced(conn, msg.fid, lambda fd: check(lib.gofer_syncfs(fd)), Rsyncx())


def _synced(
    conn: Connection, fid_number: int, sync: Callable[[int], object], reply: R
) -> Job | R:
    fid = conn.fids.get(fid_number)
    file, owned = fid.file, False
    if file is None:
        if not _syncable(fid.node):
            return reply
        file, owned = OpenFile(open_node(conn.table, fid.node, os.O_RDONLY), os.O_RDONLY), True
    fd = file.fd

    def work() -> R:
        sync(fd)
        return reply

    return Job(work, file, owned)


def _syncable(node: Node) -> bool:
    return node.fmt in (stat.S_IFREG, stat.S_IFDIR)
