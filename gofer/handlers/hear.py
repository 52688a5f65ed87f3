"""Hearing of what others change in an exclusive tree: see `gofer.hearing`."""

from __future__ import annotations

import errno

from gofer.connection import Connection
from gofer.native import error
from gofer.p9.extensions import Rhearx, Thearx
from gofer.replies import Later, handles


@handles(Thearx)
def hear(conn: Connection, msg: Thearx) -> Rhearx | Later:
    """One request of a session waits at a time: waiting in any number would have no bound."""
    hearing = conn.shared.hearing
    root = conn.fids.get(msg.fid).node
    if not hearing.belongs_to(conn):
        hearing.start(conn, root)
        return Rhearx(0, b"")
    if conn.listens:
        raise error(errno.EBUSY)
    return hearing.take(conn) or Later()
