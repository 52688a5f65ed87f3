"""Extended attributes, of regular files and directories.

xattr calls want a real descriptor, so links and special files have none here; user attributes are
forbidden on them anyway (xattr(7)). What only the host's administrator may set is refused, but for
file capabilities (capabilities(7)): the host checks the value, and says for whose root it is.
"""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType

from gofer.connection import Connection
from gofer.fid import Fid, XattrState
from gofer.files import open_node, require_writable
from gofer.native import error
from gofer.node import Node
from gofer.p9.extensions import (
    Rgetxattrx,
    Rremovexattrx,
    Rsetxattrx,
    Tgetxattrx,
    Tremovexattrx,
    Tsetxattrx,
)
from gofer.p9.messages import Rxattrcreate, Rxattrwalk, Txattrcreate, Txattrwalk
from gofer.replies import handles

_MAX_VALUE = 65536
_REFUSED = (b"trusted.", b"security.")
_CAPABILITIES = b"security.capability"
_LISTS = (b"system.posix_acl_access", b"system.posix_acl_default")


class _Real:
    """A descriptor that xattr calls accept. Raises EOPNOTSUPP."""

    __slots__ = ("_fd",)

    def __init__(self, conn: Connection, node: Node) -> None:
        if node.fmt not in (stat.S_IFREG, stat.S_IFDIR):
            raise error(errno.EOPNOTSUPP)
        self._fd = open_node(conn.table, node, os.O_RDONLY)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)


def _read(conn: Connection, node: Node, name: bytes) -> bytes:
    """A value, or all names if `name` is empty."""
    if not name and node.fmt not in (stat.S_IFREG, stat.S_IFDIR):
        return b""
    with _Real(conn, node) as fd:
        if name:
            return os.getxattr(fd, _checked(name))
        return b"".join(os.fsencode(item) + b"\0" for item in os.listxattr(fd))


def _checked(name: bytes) -> bytes:
    if not name or b"\0" in name or len(name) > 255:
        raise error(errno.ERANGE)
    return name


def _check_writable(node: Node, name: bytes) -> None:
    """Raises EROFS, EPERM, EOPNOTSUPP: of what is the system's, access control lists alone."""
    require_writable(node)
    if _checked(name).startswith(_REFUSED) and name != _CAPABILITIES:
        raise error(errno.EPERM)
    if name.startswith(b"system.") and name not in _LISTS:
        raise error(errno.EOPNOTSUPP)


def _write(conn: Connection, node: Node, name: bytes, value: bytes, flags: int) -> None:
    _check_writable(node, name)
    with _Real(conn, node) as fd:
        os.setxattr(fd, name, value, flags & (os.XATTR_CREATE | os.XATTR_REPLACE))


def _remove(conn: Connection, node: Node, name: bytes) -> None:
    _check_writable(node, name)
    with _Real(conn, node) as fd:
        os.removexattr(fd, name)


@handles(Txattrwalk)
def xattrwalk(conn: Connection, msg: Txattrwalk) -> Rxattrwalk:
    """Txattrwalk: newfid reads the value, or the list of names."""
    fid = conn.fids.get(msg.fid)
    conn.fids.check_free(msg.newfid)
    data = _read(conn, fid.node, msg.name)
    new = conn.fids.bind(msg.newfid, fid.node, fid.uid)
    try:
        conn.fids.hold(new, XattrState(msg.name, data))
    except OSError:
        conn.fids.remove(msg.newfid)
        raise
    return Rxattrwalk(len(data))


@handles(Txattrcreate)
def xattrcreate(conn: Connection, msg: Txattrcreate) -> Rxattrcreate:
    """Txattrcreate: the value is written to the fid and set by its clunk; size 0 removes it."""
    fid = conn.fids.get(msg.fid)
    if fid.file is not None or fid.xattr is not None:
        raise error(errno.EBUSY)
    require_writable(fid.node)
    if msg.attr_size > _MAX_VALUE:
        raise error(errno.E2BIG)
    conn.fids.hold(fid, XattrState(_checked(msg.name), b"", msg.attr_size, msg.flags))
    return Rxattrcreate()


def commit_xattr(conn: Connection, fid: Fid) -> None:
    """The end of Txattrcreate. Raises EIO if less came than was announced."""
    state = fid.xattr
    assert state is not None
    if len(state.data) != state.size:
        raise error(errno.EIO)
    if state.size:
        _write(conn, fid.node, state.name, state.data, state.flags)
    else:
        _remove(conn, fid.node, state.name)


@handles(Tgetxattrx)
def getxattrx(conn: Connection, msg: Tgetxattrx) -> Rgetxattrx:
    with conn.table.child_or_self(conn.fids.get(msg.fid).node, msg.name) as node:
        return Rgetxattrx(_read(conn, node, msg.attr))


@handles(Tsetxattrx)
def setxattrx(conn: Connection, msg: Tsetxattrx) -> Rsetxattrx:
    with conn.table.child_or_self(conn.fids.get(msg.fid).node, msg.name) as node:
        _write(conn, node, msg.attr, msg.value, msg.flags)
    return Rsetxattrx()


@handles(Tremovexattrx)
def removexattrx(conn: Connection, msg: Tremovexattrx) -> Rremovexattrx:
    with conn.table.child_or_self(conn.fids.get(msg.fid).node, msg.name) as node:
        _remove(conn, node, msg.attr)
    return Rremovexattrx()
