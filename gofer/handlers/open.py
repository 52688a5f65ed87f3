"""Opening and creating files."""

from __future__ import annotations

import errno
import os
import stat

from gofer._native import lib
from gofer.connection import Connection
from gofer.files import OpenFile, open_node, open_regular, require_writable, wants_write
from gofer.native import check, check_name, create, error, open_stat, own, stat_block
from gofer.node import Node, mode_of
from gofer.p9.attributes import Attributes
from gofer.p9.constants import IO_HEADER_SIZE, NOFID, OPENED_DONATED, OPENED_FID
from gofer.p9.extensions import Rcreatex, Tcreatex
from gofer.p9.messages import Rlcreate, Rlopen, Tlcreate, Tlopen
from gofer.replies import Donation, handles

_ATTEMPTS = 16
_BOTH_TIMES = 0b1111
"""For `gofer_utimens`: to the values given."""


@handles(Tlopen)
def lopen(conn: Connection, msg: Tlopen) -> Rlopen:
    """Tlopen: Linux open flags; a fid is opened once."""
    fid = conn.fids.get(msg.fid)
    if fid.file is not None or fid.xattr is not None:
        raise error(errno.EBUSY)
    qid = Attributes.unpack(conn.table.attributes(fid.node)).qid()
    fid.file = OpenFile(open_node(conn.table, fid.node, msg.flags), msg.flags)
    return Rlopen(qid, conn.msize - IO_HEADER_SIZE)


@handles(Tlcreate)
def lcreate(conn: Connection, msg: Tlcreate) -> Rlcreate:
    """Tlcreate: the fid of the directory becomes the new file's."""
    fid = conn.fids.get(msg.fid)
    if fid.file is not None or fid.xattr is not None:
        raise error(errno.EBUSY)
    fd, _, block = _create(conn, fid.node, msg.name, msg.flags, (msg.mode, fid.uid, msg.gid))
    try:
        conn.fids.rebind(fid, conn.table.adopt(fid.node, msg.name, block))
    except OSError:
        os.close(fd)
        raise
    fid.file = OpenFile(fd, msg.flags)
    return Rlcreate(Attributes.unpack(block).qid(), conn.msize - IO_HEADER_SIZE)


@handles(Tcreatex)
def createx(conn: Connection, msg: Tcreatex) -> Rcreatex | Donation:
    """See `gofer.p9.extensions.Tcreatex`."""
    fid = conn.fids.get(msg.fid)
    if msg.newfid != NOFID:
        conn.fids.check_free(msg.newfid)
    elif not (msg.donate and conn.donates):
        raise error(errno.EINVAL)
    owner = (msg.mode, msg.uid, msg.gid)
    fd, created, block = _create(conn, fid.node, msg.name, msg.flags, owner)
    try:
        bound = None
        if msg.newfid != NOFID:
            node = conn.table.adopt(fid.node, msg.name, block)
            bound = conn.fids.bind(msg.newfid, node, fid.uid)
    except OSError:
        os.close(fd)
        raise
    if msg.donate and conn.donates:
        if created:
            conn.learn(msg.fid, fid.node)
        return Donation(Rcreatex(OPENED_DONATED, created, block), (fd,))
    assert bound is not None
    bound.file = OpenFile(fd, msg.flags)
    return Rcreatex(OPENED_FID, created, block)


def _create(
    conn: Connection, parent: Node, name: bytes, flags: int, owner: tuple[int, int, int]
) -> tuple[int, bool, bytes]:
    """open(2) with O_CREAT: descriptor, whether the file is new, its attributes.

    The new file is made with O_EXCL, so that its owner is set only on a file made here.
    """
    check_name(name)
    if not parent.is_dir():
        raise error(errno.ENOTDIR)
    parent_fd = conn.table.fd(parent)
    readonly = parent.attachment.readonly
    for _ in range(_ATTEMPTS):
        if not flags & os.O_EXCL:
            found = stat_block(parent_fd, name)
            if isinstance(found, bytes):
                return _open_existing(parent, parent_fd, name, flags, found)
            if found != -errno.ENOENT:
                raise error(-found)
        if readonly:
            present = isinstance(stat_block(parent_fd, name), bytes)
            raise error(errno.EEXIST if present else errno.EROFS)
        access = flags & (os.O_ACCMODE | os.O_SYNC | os.O_DSYNC)
        fd, block = create(parent_fd, name, access, owner)
        if fd == -errno.EEXIST and not flags & os.O_EXCL:
            continue
        check(fd)
        return fd, True, block
    raise error(errno.EBUSY)


def _open_existing(
    parent: Node, parent_fd: int, name: bytes, flags: int, found: bytes
) -> tuple[int, bool, bytes]:
    mode = mode_of(found)
    if stat.S_ISDIR(mode):
        raise error(errno.EISDIR)
    if not stat.S_ISREG(mode):
        raise error(errno.ELOOP if stat.S_ISLNK(mode) else errno.ENXIO)
    if wants_write(flags):
        require_writable(parent)
    fd, block = open_regular(parent_fd, name, flags)
    if flags & os.O_TRUNC:
        try:
            os.ftruncate(fd, 0)
        except OSError:
            os.close(fd)
            raise
        after = stat_block(fd, b"")
        block = after if isinstance(after, bytes) else block
    return fd, False, block


def _attributes(fd: int) -> bytes:
    block = stat_block(fd, b"")
    if isinstance(block, int):
        raise error(-block)
    return block


def adopt_owner(
    parent_fd: int, name: bytes, fmt: int, owner: tuple[int, int, int], maker: int,
    time_ns: int = 0,
) -> bytes:  # fmt: skip
    """Give a directory, link or special file that was just made its owner, and its times unless
    they are 0; its attributes.

    Between its making and this open somebody on the host may have put another file there: only
    what belongs to `maker`, this process's user, and has no second name is given away.
    """
    mode, uid, gid = owner
    fd, block = open_stat(parent_fd, name, os.O_PATH)
    if fd < 0:
        raise error(-fd)
    try:
        made = Attributes.unpack(block)
        if stat.S_IFMT(made.mode) != fmt or made.uid != maker:
            raise error(errno.ESTALE)
        if fmt != stat.S_IFDIR and made.nlink != 1:
            raise error(errno.ESTALE)
        # A link has no mode, and mknod and mkdir have set the lower bits already.
        block = own(fd, block, (0 if fmt == stat.S_IFLNK else mode, uid, gid))
        if time_ns > 0:
            check(lib.gofer_utimens(fd, time_ns, time_ns, _BOTH_TIMES))
        return _attributes(fd) if time_ns > 0 else block
    finally:
        os.close(fd)
