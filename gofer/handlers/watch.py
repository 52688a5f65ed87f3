"""Watching what the host may change: see `gofer.watches`."""

from __future__ import annotations

import errno

from gofer.attachment import CacheMode
from gofer.connection import Connection
from gofer.native import error
from gofer.p9.extensions import (
    Rnotifyx,
    Runwatchx,
    Rwatchx,
    Tnotifyx,
    Tunwatchx,
    Twatchx,
)
from gofer.replies import Donation, handles


@handles(Tnotifyx)
def notify(conn: Connection, msg: Tnotifyx) -> Donation:
    """The queue of events, for one session."""
    if not conn.donates:
        raise error(errno.EOPNOTSUPP)
    return Donation(Rnotifyx(), (conn.shared.watches.descriptor(conn),))


@handles(Twatchx)
def watch(conn: Connection, msg: Twatchx) -> Rwatchx:
    """Watch first, then look: what changes from now on makes an event."""
    with conn.table.child_or_self(conn.fids.get(msg.fid).node, msg.name) as node:
        if node.attachment.cache is not CacheMode.SHARED:
            raise error(errno.EINVAL)
        number = conn.shared.watches.add(conn, conn.table, node)
        return Rwatchx(number, conn.table.attributes(node))


@handles(Tunwatchx)
def unwatch(conn: Connection, msg: Tunwatchx) -> Runwatchx:
    """Also for a watch that the host has ended."""
    conn.shared.watches.remove(conn, msg.number)
    return Runwatchx()
