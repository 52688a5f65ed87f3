"""Sockets of programs that the host may connect to: names in directories that are served, where the
caller of runsc lets programs make such."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat

from gofer._native import lib
from gofer.connection import Connection
from gofer.files import require_writable
from gofer.handlers.connect import KINDS, groups_of
from gofer.handlers.open import adopt_owner
from gofer.native import check, check_name, error
from gofer.p9.extensions import Rbindx, Rlistenx, Tbindx, Tlistenx
from gofer.replies import Donation, handles

MAX_NAME = 108
"""sun_path, which needs no NUL at its end: unix(7)."""


@handles(Tbindx)
def bind(conn: Connection, msg: Tbindx) -> Donation:
    """bind(2) to one name in a directory, which no link leads out of: what is there is EADDRINUSE.

    Raises: EOPNOTSUPP where programs make none, EROFS.
    """
    fid = conn.fids.get(msg.fid)
    parent = fid.node
    if not conn.donates or not parent.attachment.binds:
        raise error(errno.EOPNOTSUPP)
    check_name(msg.name)
    if msg.kind not in KINDS or len(msg.name) > MAX_NAME:
        raise error(errno.EINVAL)
    require_writable(parent)
    conn.fids.check_free(msg.newfid)
    parent_fd = conn.table.fd(parent)
    check(lib.gofer_chdir(parent_fd))
    try:
        fd = check(lib.gofer_bind(msg.name, msg.kind, msg.mode & 0o777))
    finally:
        check(lib.gofer_chdir(parent.attachment.fd))
    theirs = -1
    try:
        owner = (stat.S_IFSOCK | msg.mode & 0o7777, msg.uid, msg.gid)
        block = adopt_owner(parent_fd, msg.name, stat.S_IFSOCK, owner, conn.shared.uid)
        theirs = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
        node = conn.table.adopt(parent, msg.name, block)
        conn.fids.bind(msg.newfid, node, fid.uid).socket = fd
    except OSError as problem:
        if problem.errno != errno.ESTALE:  # it is still ours
            os.unlink(msg.name, dir_fd=parent_fd)
        for each in (fd, theirs):
            if each >= 0:
                os.close(each)
        raise
    return Donation(Rbindx(block), (theirs,))


@handles(Tlistenx)
def listen(conn: Connection, msg: Tlistenx) -> Rlistenx:
    """listen(2), as somebody."""
    sock = conn.fids.get(msg.fid).socket
    if sock < 0:
        raise error(errno.EBADF)
    groups, count = groups_of(msg.groups)
    backlog = min(msg.backlog, socket.SOMAXCONN)
    check(lib.gofer_listen(sock, backlog, msg.uid, msg.gid, groups, count))
    return Rlistenx()
