"""The journal of a session, and files that get their names through it: see `gofer.journal`."""

from __future__ import annotations

import errno
import fcntl
import os

from gofer._native import lib
from gofer.conflicts import displaced
from gofer.connection import Connection
from gofer.fid import Fid
from gofer.files import open_node, require_writable
from gofer.native import check, check_name, error, stat_block, statfs
from gofer.node import Node
from gofer.p9.extensions import (
    Rdrainx,
    Rinheritx,
    Rjournalx,
    Rnamex,
    Rsparex,
    Tdrainx,
    Tinheritx,
    Tjournalx,
    Tnamex,
    Tsparex,
)
from gofer.p9.room import room_for
from gofer.replies import Donation, handles


@handles(Tjournalx)
def journal(conn: Connection, msg: Tjournalx) -> Donation:
    if not conn.donates:
        raise error(errno.EOPNOTSUPP)
    kept = conn.shared.journal
    return Donation(Rjournalx(kept.capacity), (kept.descriptor(conn),))


@handles(Tdrainx)
def drain(conn: Connection, msg: Tdrainx) -> Rdrainx:
    """It has been drained for this message as for any other."""
    if not conn.shared.journal.belongs_to(conn):
        raise error(errno.EBADF)
    return conn.shared.journal.reached(_room(conn.table.fd(conn.fids.get(msg.fid).node)))


@handles(Tsparex)
def spares(conn: Connection, msg: Tsparex) -> Donation:
    """As many as can be made; the error of the first."""
    fid = conn.fids.get(msg.fid)
    directory = fid.node
    if not directory.is_dir():
        raise error(errno.ENOTDIR)
    require_writable(directory)
    if not conn.donates:
        raise error(errno.EOPNOTSUPP)
    if not msg.newfids:
        raise error(errno.EINVAL)
    at = conn.table.fd(directory)
    conn.shared.hearing.makes_nameless(directory)
    made = conn.fids.bind_spares(msg.newfids, fid, at)
    for number in msg.newfids[len(made) :]:
        try:
            made.append(_spare(conn, fid, at, number))
        except OSError:
            if not made:
                raise
            break
    blocks, fds = zip(*made, strict=True)
    together = min(conn.table.max_open // 4, lib.DRAIN_SPARES // 2)
    try:
        room = _room(at)
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return Donation(Rsparex(list(blocks), room, together), fds)


def _spare(conn: Connection, of: Fid, at: int, number: int) -> tuple[bytes, int]:
    """The same as C does, with a node."""
    conn.fids.check_free(number)
    conn.table.check_nameless()
    fd = check(lib.gofer_open(at, b".", os.O_TMPFILE | os.O_RDWR, 0o600))
    donated = -1
    try:
        if lib.gofer_link(fd, at, b".") != -errno.EEXIST:
            raise error(errno.EOPNOTSUPP)
        block = stat_block(fd, b"")
        if isinstance(block, int):
            raise error(-block)
        donated = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
        conn.fids.bind(number, conn.table.nameless(of.node, block, fd), of.uid)
        return block, donated
    except OSError:
        os.close(fd)
        if donated >= 0:
            os.close(donated)
        raise


@handles(Tnamex)
def name(conn: Connection, msg: Tnamex) -> Rnamex:
    """What the host has put there meanwhile gives way, but a directory: `gofer.conflicts`."""
    node = conn.fids.get(msg.fid).node
    if node.linked or node.name:
        raise error(errno.EINVAL)
    try:
        check_name(msg.newname)
        directory = conn.fids.get(msg.newdirfid).node
        require_writable(directory)
        if node.attachment is not directory.attachment:
            raise error(errno.EXDEV)
        fd, at = conn.table.fd(node), conn.table.fd(directory)
        mode = msg.mode & 0o7777
        rc = lib.gofer_name(fd, at, msg.newname, mode, msg.uid, msg.gid, msg.time_ns)
        if rc == -errno.EEXIST and displaced(conn.table, directory, msg.newname):
            conn.log(f"journal: {msg.newname!r}: the host has made it, too, and gives way")
            rc = lib.gofer_link(fd, at, msg.newname)
        check(rc)
    finally:
        conn.shared.locks.release_fid(node.identity, conn.number, msg.fid)
        conn.fids.remove(msg.fid)
    conn.learn(msg.newdirfid, directory)
    return Rnamex()


@handles(Tinheritx)
def inherits(conn: Connection, msg: Tinheritx) -> Rinheritx:
    """A spare is made in the root: it has what is inherited there."""
    node = conn.fids.get(msg.fid).node
    at = node
    while at.parent is not None:
        at = at.parent
    here, there = _inherited(conn, node), _inherited(conn, at)
    return Rinheritx(int(here != there or here < 0))


def _inherited(conn: Connection, node: Node) -> int:
    fd = open_node(conn.table, node, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return lib.gofer_inherited(fd)
    finally:
        os.close(fd)


def _room(fd: int) -> int:
    found = statfs(fd)
    return room_for(found.blocks, found.bavail, found.files, found.ffree)
