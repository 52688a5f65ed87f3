"""Connections to sockets of the host: to those alone that are an attachment themselves."""

from __future__ import annotations

import errno
import socket
from typing import Final

from gofer._native import ffi, lib
from gofer.connection import Connection
from gofer.native import check, error
from gofer.p9.extensions import Rconnectx, Tconnectx
from gofer.replies import Donation, handles

KINDS: Final = frozenset({socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET})
MAX_GROUPS: Final = 1024


@handles(Tconnectx)
def connect(conn: Connection, msg: Tconnectx) -> Donation:
    """connect(2). The name was fixed before this process was confined.

    Raises: what Linux says to this user; ECONNREFUSED for what is no such attachment.
    """
    node = conn.fids.get(msg.fid).node
    name = node.attachment.connects
    if not name or node.parent is not None or not conn.donates:
        raise error(errno.ECONNREFUSED)
    count, rest = divmod(len(msg.groups), 4)
    if msg.kind not in KINDS or rest or count > MAX_GROUPS:
        raise error(errno.EINVAL)
    groups = ffi.from_buffer("uint32_t[]", msg.groups) if count else ffi.NULL
    fd = check(lib.gofer_connect(name, msg.kind, msg.uid, msg.gid, groups, count))
    return Donation(Rconnectx(), fd)
