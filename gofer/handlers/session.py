"""Version, attach, duplication, clunk."""

from __future__ import annotations

import errno
import socket

from gofer.connection import Connection
from gofer.files import require_writable
from gofer.handlers.xattr import commit_xattr
from gofer.native import error
from gofer.p9.attributes import Attributes
from gofer.p9.constants import (
    MSIZE_MAX,
    MSIZE_MIN,
    NOFID,
    NONUNAME,
    VERSION,
    VERSION_EXTENDED,
    VERSION_UNKNOWN,
)
from gofer.p9.extensions import Rdupx, Rnearx, Tdupx, Tnearx
from gofer.p9.messages import (
    Rattach,
    Rauth,
    Rclunk,
    Rversion,
    Tattach,
    Tauth,
    Tclunk,
    Tversion,
)
from gofer.replies import Donation, handles


@handles(Tversion)
def version(conn: Connection, msg: Tversion) -> Rversion:
    """version(5): the session starts anew. `9P2000.L.x` for an unknown x is answered without it."""
    msize = min(msg.msize, MSIZE_MAX)
    base = msg.version == VERSION or msg.version.startswith(VERSION + b".")
    if not base or msize < MSIZE_MIN:
        conn.reset()
        conn.negotiated = False
        return Rversion(max(msize, MSIZE_MIN), VERSION_UNKNOWN)
    extended = msg.version == VERSION_EXTENDED
    conn.negotiate(msize, extended)
    return Rversion(msize, VERSION_EXTENDED if extended else VERSION)


@handles(Tauth)
def auth(conn: Connection, msg: Tauth) -> Rauth:
    """attach(5): no authentication is required; who holds the socket is trusted with the tree."""
    raise error(errno.ENOENT)


@handles(Tattach)
def attach(conn: Connection, msg: Tattach) -> Rattach:
    """attach(5): `aname` names an attachment; empty is the first one."""
    if msg.afid != NOFID:
        raise error(errno.EBADF)
    roots = conn.shared.roots
    root = roots.get(msg.aname)
    if root is None and not msg.aname:
        root = next(iter(roots.values()), None)
    if root is None:
        raise error(errno.ENOENT)
    qid = Attributes.unpack(conn.table.attributes(root)).qid()
    conn.fids.bind(msg.fid, root, 0 if msg.n_uname == NONUNAME else msg.n_uname)
    return Rattach(qid)


@handles(Tclunk)
def clunk(conn: Connection, msg: Tclunk) -> Rclunk:
    """clunk(5); a fid of Txattrcreate writes its attribute now. The fid is gone even on failure."""
    fid = conn.fids.get(msg.fid)
    try:
        if fid.xattr is not None and fid.xattr.size >= 0:
            require_writable(fid.node)
            commit_xattr(conn, fid)
    finally:
        conn.shared.locks.release_fid(fid.node.identity, conn.number, msg.fid)
        conn.fids.remove(msg.fid)
    return Rclunk()


@handles(Tdupx)
def duplicate(conn: Connection, msg: Tdupx) -> Donation:
    """A second session with the same fids, for a forked sandbox. Open files are not duplicated."""
    if conn.loop.connections >= conn.shared.limits.max_connections or not conn.donates:
        raise error(errno.EMFILE)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    copy = conn.loop.add(ours)
    try:
        copy.adopt(conn)
    except OSError:
        copy.close()
        theirs.close()
        raise
    return Donation(Rdupx(), (theirs.detach(),))


@handles(Tnearx)
def near(conn: Connection, msg: Tnearx) -> Rnearx:
    """What the client says of itself is believed: it is its own speed."""
    conn.table.hot.near(conn.sock.fileno(), msg.cpu)
    return Rnearx()
