"""Walks: Twalk, and Twalkx with attributes, the link's text and the open in one message."""

from __future__ import annotations

import errno
import os
import stat

from gofer.connection import Connection
from gofer.fid import Fid
from gofer.files import OpenFile, open_node, open_regular, require_writable, wants_write
from gofer.native import check_name, error, stat_block
from gofer.node import Node, mode_of
from gofer.p9.attributes import Attributes
from gofer.p9.constants import (
    DONATE_IF_REGULAR,
    NOFID,
    NOOPEN,
    OPENED_DONATED,
    OPENED_FID,
    OPENED_NO,
)
from gofer.p9.extensions import Rwalkx, Twalkx
from gofer.p9.fields import Qid
from gofer.p9.messages import Rwalk, Twalk
from gofer.replies import Donation, handles


@handles(Twalk)
def walk(conn: Connection, msg: Twalk) -> Rwalk:
    """walk(5): an error of the first name is an error, later ones end the list of qids.

    The fid may be open, as other servers allow it and clients expect it.
    """
    fid = conn.fids.get(msg.fid)
    if fid.file is not None and msg.newfid == msg.fid:
        raise error(errno.EBUSY)
    if msg.newfid != msg.fid:
        conn.fids.check_free(msg.newfid)
    node = fid.node
    qids: list[Qid] = []
    node.refs += 1
    try:
        for name in msg.names:
            try:
                node, block = _step(conn, node, name)
            except OSError:
                if not qids:
                    raise
                return Rwalk(qids)
            qids.append(Attributes.unpack(block).qid())
        _bind(conn, fid, msg.fid, msg.newfid, node)
    finally:
        conn.table.release(node)
    return Rwalk(qids)


@handles(Twalkx)
def walkx(conn: Connection, msg: Twalkx) -> Rwalkx | Donation:
    """See `gofer.p9.extensions.Twalkx`. A lookup that binds no fid opens nothing."""
    fid = conn.fids.get(msg.fid)
    if fid.file is not None and msg.newfid == msg.fid:
        raise error(errno.EBUSY)
    if msg.newfid not in (NOFID, msg.fid):
        conn.fids.check_free(msg.newfid)
    blocks: list[bytes] = []
    node = fid.node
    node.refs += 1
    try:
        if not msg.names:
            blocks.append(conn.table.attributes(node))
            return _finish(conn, msg, fid, node, blocks)
        for name in msg.names[:-1]:
            try:
                node, block = _step(conn, node, name)
            except OSError as problem:
                return _stopped(problem, blocks)
            blocks.append(block)
        return _last(conn, msg, fid, node, blocks)
    finally:
        conn.table.release(node)


def _last(
    conn: Connection, msg: Twalkx, fid: Fid, parent: Node, blocks: list[bytes]
) -> Rwalkx | Donation:
    """The last component of a Twalkx: without a new fid it needs no node."""
    try:
        name = check_name(msg.names[-1])
        parent_fd = conn.table.fd(parent)
        block = stat_block(parent_fd, name)
        if isinstance(block, int):
            raise error(-block)
    except OSError as problem:
        return _stopped(problem, blocks)
    if msg.newfid == NOFID:
        return _unbound(msg, parent, name, blocks, block)
    node = conn.table.adopt(parent, name, block)
    node.refs += 1
    try:
        if conn.shared.hearing.hear_of(node):
            block = conn.table.attributes(node)  # since it is heard of
        blocks.append(block)
        return _finish(conn, msg, fid, node, blocks)
    except FileNotFoundError as problem:
        return _stopped(problem, blocks)
    finally:
        conn.table.release(node)


def _unbound(
    msg: Twalkx, parent: Node, name: bytes, blocks: list[bytes], block: bytes
) -> Rwalkx | Donation:
    """Attributes of a child, and its descriptor if wanted, without a fid."""
    mode = mode_of(block)
    fd = parent.fd
    try:
        if msg.flags == NOOPEN or (msg.donate == DONATE_IF_REGULAR and not stat.S_ISREG(mode)):
            target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(mode) else b""
            return Rwalkx(0, OPENED_NO, target, [*blocks, block])
        if not msg.donate or not stat.S_ISREG(mode):
            raise error(errno.EINVAL)
        if wants_write(msg.flags):
            require_writable(parent)
        opened, block = open_regular(fd, name, msg.flags)
        if msg.flags & os.O_TRUNC:
            try:
                os.ftruncate(opened, 0)
                block = _block(opened)
            except OSError:
                os.close(opened)
                raise
        return Donation(Rwalkx(0, OPENED_DONATED, b"", [*blocks, block]), (opened,))
    except OSError as problem:
        return _stopped(problem, [*blocks, block])


def _finish(
    conn: Connection, msg: Twalkx, fid: Fid, node: Node, blocks: list[bytes]
) -> Rwalkx | Donation:
    """Open if asked to, and bind the new fid when nothing can fail any more."""
    target = b""
    if node.fmt == stat.S_IFLNK and node.parent is not None and msg.names:
        target = os.readlink(node.name, dir_fd=conn.table.fd(node.parent))
    if msg.flags == NOOPEN:
        _bind(conn, fid, msg.fid, msg.newfid, node)
        return Rwalkx(0, OPENED_NO, target, blocks)
    try:
        opened = open_node(conn.table, node, msg.flags)
    except OSError as problem:
        return _stopped(problem, blocks)
    donate = msg.donate and conn.donates and stat.S_ISREG(node.fmt)
    try:
        if msg.flags & os.O_TRUNC:
            blocks[-1] = _block(opened)
        bound = _bind(conn, fid, msg.fid, msg.newfid, node)
        if donate:
            return Donation(Rwalkx(0, OPENED_DONATED, target, blocks), (opened,))
        if bound is None:
            raise error(errno.EINVAL)
    except OSError:
        os.close(opened)
        raise
    bound.file = OpenFile(opened, msg.flags)
    return Rwalkx(0, OPENED_FID, target, blocks)


def _step(conn: Connection, node: Node, name: bytes) -> tuple[Node, bytes]:
    """One component down, or up by `..` (not above the root). Moves the caller's reference.

    `.` stays, as clients that walk to what they have listed expect it.
    """
    if name in (b".", b".."):
        target = node if name == b"." else node.parent or node
        block: bytes | int = conn.table.attributes(target)
    else:
        check_name(name)
        found, block = conn.table.child(node, name)
        if found is None:
            assert isinstance(block, int)
            raise error(-block)
        target = found
    assert isinstance(block, bytes)
    target.refs += 1
    conn.table.release(node)
    return target, block


def _bind(conn: Connection, fid: Fid, number: int, newfid: int, node: Node) -> Fid | None:
    if newfid == NOFID:
        return None
    if newfid != number:
        return conn.fids.bind(newfid, node, fid.uid)
    if fid.node is not node:
        conn.fids.rebind(fid, node)
    return fid


def _stopped(problem: OSError, blocks: list[bytes]) -> Rwalkx:
    return Rwalkx(problem.errno or errno.EIO, OPENED_NO, b"", blocks)


def _block(fd: int) -> bytes:
    block = stat_block(fd, b"")
    if isinstance(block, int):
        raise error(-block)
    return block
