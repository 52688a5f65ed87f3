"""Connections to sockets of the host: those that are an attachment themselves, or, where the caller
of runsc lets programs reach more, that lie in one."""

from __future__ import annotations

import errno
import socket
import stat
from typing import Any, Final

from gofer._native import ffi, lib
from gofer.connection import Connection
from gofer.native import check, error
from gofer.node import Node
from gofer.p9.extensions import Rconnectx, Tconnectx
from gofer.replies import Donation, handles

KINDS: Final = frozenset({socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET})
MAX_GROUPS: Final = 1024
MAX_NAME: Final = 107
"""sun_path has room for no more: unix(7)."""


@handles(Tconnectx)
def connect(conn: Connection, msg: Tconnectx) -> Donation:
    """connect(2). The name of an attachment was fixed before this process was confined; what lies
    in one is a name in its directory. If that has become a link meanwhile, it leads to nothing but
    another socket of that tree, for `..` ends at its root and `/` is empty.

    Raises: what Linux says to this user; ECONNREFUSED for what may not be connected to.
    """
    if not conn.donates:
        raise error(errno.ECONNREFUSED)
    if msg.kind not in KINDS:
        raise error(errno.EINVAL)
    groups, count = groups_of(msg.groups)
    with conn.table.child_or_self(conn.fids.get(msg.fid).node, msg.name) as node:
        name = _name(conn, node)
        try:
            fd = check(lib.gofer_connect(name, msg.kind, msg.uid, msg.gid, groups, count))
        finally:
            if node.parent is not None:
                check(lib.gofer_chdir(node.attachment.fd))
    return Donation(Rconnectx(), (fd,))


def groups_of(packed: bytes) -> tuple[Any, int]:
    """An array of the bytes of a message, which has to live as long, and its length.

    Raises: EINVAL.
    """
    count, rest = divmod(len(packed), 4)
    if rest or count > MAX_GROUPS:
        raise error(errno.EINVAL)
    return ffi.from_buffer("uint32_t[]", packed) if count else ffi.NULL, count


def _name(conn: Connection, node: Node) -> bytes:
    """What connect(2) takes, in the working directory where it is relative.

    Raises: ECONNREFUSED, EINVAL.
    """
    attachment, parent = node.attachment, node.parent
    if parent is None and attachment.connects:
        return attachment.connects
    if parent is None or not attachment.reaches or node.fmt != stat.S_IFSOCK or not node.linked:
        raise error(errno.ECONNREFUSED)
    if len(node.name) > MAX_NAME:
        raise error(errno.EINVAL)
    check(lib.gofer_chdir(conn.table.fd(parent)))
    return node.name
