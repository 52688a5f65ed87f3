"""Attributes: getattr, setattr, statfs."""

from __future__ import annotations

import os
import stat

from gofer._native import lib
from gofer.connection import Connection
from gofer.fid import Fid
from gofer.files import open_node, require_writable
from gofer.native import check, statfs
from gofer.node import Node
from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.extensions import Rsetattrx, Tsetattrx
from gofer.p9.messages import Rgetattr, Rsetattr, Rstatfs, Tgetattr, Tsetattr, Tstatfs
from gofer.replies import handles

_SECOND = 1_000_000_000
_I64_MAX = (1 << 63) - 1


@handles(Tgetattr)
def getattr_(conn: Connection, msg: Tgetattr) -> Rgetattr:
    """Everything statx(2) tells, whatever was asked for; `valid` says what that is."""
    a = Attributes.unpack(conn.table.attributes(conn.fids.get(msg.fid).node))
    valid = c.GETATTR_BASIC | (c.GETATTR_BTIME if a.flags & 1 else 0)
    times: list[int] = []
    for ns in (a.atime_ns, a.mtime_ns, a.ctime_ns, a.btime_ns):
        times += [(ns // _SECOND) & 0xFFFFFFFFFFFFFFFF, ns % _SECOND]
    return Rgetattr(
        valid,
        a.qid(),
        a.mode,
        a.uid,
        a.gid,
        a.nlink,
        a.rdev,
        a.size,
        a.blksize,
        a.blocks,
        times[0],
        times[1],
        times[2],
        times[3],
        times[4],
        times[5],
        times[6],
        times[7],
        0,
        0,
    )


@handles(Tsetattr)
def setattr_(conn: Connection, msg: Tsetattr) -> Rsetattr:
    fid = conn.fids.get(msg.fid)
    atime = min(msg.atime_sec * _SECOND + msg.atime_nsec, _I64_MAX)
    mtime = min(msg.mtime_sec * _SECOND + msg.mtime_nsec, _I64_MAX)
    _apply(conn, fid.node, fid, msg, (atime, mtime))
    return Rsetattr()


@handles(Tsetattrx)
def setattrx(conn: Connection, msg: Tsetattrx) -> Rsetattrx:
    fid = conn.fids.get(msg.fid)
    with conn.table.child_or_self(fid.node, msg.name) as node:
        times = (msg.atime_ns, msg.mtime_ns)
        _apply(conn, node, None if msg.name else fid, msg, times)
        block = conn.table.attributes(node)
    if fid.node.is_dir():
        conn.learn(msg.fid, fid.node)
    return Rsetattrx(block)


def _apply(
    conn: Connection,
    node: Node,
    fid: Fid | None,
    msg: Tsetattr | Tsetattrx,
    times_ns: tuple[int, int],
) -> None:
    """Owner, then mode (chown clears set-id bits), size, times."""
    require_writable(node)
    fd = conn.table.fd(node)
    valid = msg.valid
    if valid & (c.SETATTR_UID | c.SETATTR_GID):
        uid = msg.uid if valid & c.SETATTR_UID else c.NOID
        gid = msg.gid if valid & c.SETATTR_GID else c.NOID
        check(lib.gofer_chown(fd, uid, gid))
    if valid & c.SETATTR_MODE:
        check(lib.gofer_chmod(_chmod_fd(node, fid, fd), msg.mode & 0o7777))
    if valid & c.SETATTR_SIZE:
        _truncate(conn, node, fid, msg.size)
    which = 0
    if valid & c.SETATTR_ATIME:
        which |= 1 | (4 if valid & c.SETATTR_ATIME_SET else 0)
    if valid & c.SETATTR_MTIME:
        which |= 2 | (8 if valid & c.SETATTR_MTIME_SET else 0)
    if which:
        check(lib.gofer_utimens(fd, *times_ns, which))


def _chmod_fd(node: Node, fid: Fid | None, fd: int) -> int:
    """A real descriptor if there is one: it serves before Linux 6.6 too."""
    return fid.file.fd if fid is not None and fid.file is not None else fd


def _truncate(conn: Connection, node: Node, fid: Fid | None, size: int) -> None:
    size = min(size, _I64_MAX)
    if fid is not None and fid.file is not None and fid.file.writable:
        os.ftruncate(fid.file.fd, size)
        return
    fd = open_node(conn.table, node, os.O_WRONLY)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


@handles(Tstatfs)
def statfs_(conn: Connection, msg: Tstatfs) -> Rstatfs:
    node = conn.fids.get(msg.fid).node
    if stat.S_ISLNK(node.fmt) and node.parent is not None:
        node = node.parent
    found = statfs(conn.table.fd(node))
    return Rstatfs(**{name: getattr(found, name) for name in Rstatfs.fields})
