"""Byte-range locks: Tlock, Tgetlock."""

from __future__ import annotations

import errno

from gofer.connection import Connection
from gofer.locks import END, Lock
from gofer.native import error
from gofer.p9.constants import LOCK_BLOCKED, LOCK_SUCCESS, LOCK_TYPE_UNLCK
from gofer.p9.messages import Rgetlock, Rlock, Tgetlock, Tlock
from gofer.replies import handles


def _wanted(conn: Connection, msg: Tlock | Tgetlock) -> Lock:
    if msg.kind > LOCK_TYPE_UNLCK or len(msg.client_id) > 256:
        raise error(errno.EINVAL)
    end = END if not msg.length else min(msg.start + msg.length, END)
    return Lock(msg.start, end, msg.kind, (conn.number, msg.fid, msg.client_id, msg.proc_id))


@handles(Tlock)
def lock(conn: Connection, msg: Tlock) -> Rlock:
    """Tlock: a client that may wait asks again after LOCK_BLOCKED."""
    fid = conn.fids.get(msg.fid)
    if fid.file is None:
        raise error(errno.EBADF)
    done = conn.shared.locks.apply(fid.node.identity, _wanted(conn, msg))
    return Rlock(LOCK_SUCCESS if done else LOCK_BLOCKED)


@handles(Tgetlock)
def getlock(conn: Connection, msg: Tgetlock) -> Rgetlock:
    """Tgetlock: the lock in the way, or LOCK_TYPE_UNLCK."""
    fid = conn.fids.get(msg.fid)
    held = conn.shared.locks.conflict(fid.node.identity, _wanted(conn, msg))
    if held is None:
        return Rgetlock(LOCK_TYPE_UNLCK, msg.start, msg.length, msg.proc_id, msg.client_id)
    length = 0 if held.end == END else held.end - held.start
    return Rgetlock(held.kind, held.start, length, held.owner[3], held.owner[2])
