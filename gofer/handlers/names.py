"""Changing directories: mkdir, mknod, symlink, link, rename, unlink; reading links."""

from __future__ import annotations

import errno
import os
import stat

from gofer._native import lib
from gofer.connection import Connection
from gofer.files import require_writable
from gofer.handlers.open import adopt_owner
from gofer.native import check, check_name, error, stat_block
from gofer.node import Node, identity_of
from gofer.p9.attributes import Attributes
from gofer.p9.constants import AT_REMOVEDIR
from gofer.p9.extensions import (
    Rlinkx,
    Rmakex,
    Rrenamex,
    Tlinkx,
    Tmakex,
    Trenamex,
)
from gofer.p9.messages import (
    Rlink,
    Rmkdir,
    Rmknod,
    Rreadlink,
    Rremove,
    Rrename,
    Rrenameat,
    Rsymlink,
    Runlinkat,
    Tlink,
    Tmkdir,
    Tmknod,
    Treadlink,
    Tremove,
    Trename,
    Trenameat,
    Tsymlink,
    Tunlinkat,
)
from gofer.replies import handles

_MAKEABLE = (stat.S_IFDIR, stat.S_IFLNK, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)


@handles(Tmkdir)
def mkdir(conn: Connection, msg: Tmkdir) -> Rmkdir:
    fid = conn.fids.get(msg.dfid)
    owner = (stat.S_IFDIR | msg.mode & 0o7777, fid.uid, msg.gid)
    return Rmkdir(Attributes.unpack(_make(conn, fid.node, msg.name, b"", owner)).qid())


@handles(Tmknod)
def mknod(conn: Connection, msg: Tmknod) -> Rmknod:
    """Devices are refused: the Gofer makes none, and opens none."""
    fid = conn.fids.get(msg.dfid)
    if stat.S_IFMT(msg.mode) in (stat.S_IFDIR, stat.S_IFLNK):
        raise error(errno.EINVAL)
    owner = (msg.mode, fid.uid, msg.gid)
    return Rmknod(Attributes.unpack(_make(conn, fid.node, msg.name, b"", owner)).qid())


@handles(Tsymlink)
def symlink(conn: Connection, msg: Tsymlink) -> Rsymlink:
    fid = conn.fids.get(msg.fid)
    owner = (stat.S_IFLNK | 0o777, fid.uid, msg.gid)
    return Rsymlink(Attributes.unpack(_make(conn, fid.node, msg.name, msg.target, owner)).qid())


@handles(Tmakex)
def makex(conn: Connection, msg: Tmakex) -> Rmakex:
    fid = conn.fids.get(msg.fid)
    owner = (msg.mode, msg.uid, msg.gid)
    return Rmakex(_make(conn, fid.node, msg.name, msg.target, owner, msg.time_ns))


def _make(
    conn: Connection, parent: Node, name: bytes, target: bytes, owner: tuple[int, int, int],
    time_ns: int = 0,
) -> bytes:  # fmt: skip
    """Make anything that is not opened; the attributes it has then."""
    check_name(name)
    require_writable(parent)
    mode = owner[0]
    fmt = stat.S_IFMT(mode) or stat.S_IFREG
    if fmt not in _MAKEABLE:
        raise error(errno.EPERM)
    parent_fd = conn.table.fd(parent)
    if fmt == stat.S_IFDIR:
        os.mkdir(name, mode & 0o777, dir_fd=parent_fd)
    elif fmt == stat.S_IFLNK:
        if not target or b"\0" in target:
            raise error(errno.ENOENT if not target else errno.EINVAL)
        os.symlink(target, name, dir_fd=parent_fd)
    else:
        os.mknod(name, fmt | mode & 0o777, dir_fd=parent_fd)
    return adopt_owner(parent_fd, name, fmt, owner, conn.shared.uid, time_ns)


@handles(Treadlink)
def readlink(conn: Connection, msg: Treadlink) -> Rreadlink:
    node = conn.fids.get(msg.fid).node
    if node.fmt != stat.S_IFLNK:
        raise error(errno.EINVAL)
    return Rreadlink(os.readlink(b"", dir_fd=conn.table.fd(node)))


@handles(Tlink)
def link(conn: Connection, msg: Tlink) -> Rlink:
    directory = conn.fids.get(msg.dfid).node
    _link(conn, conn.fids.get(msg.fid).node, directory, msg.name)
    return Rlink()


@handles(Tlinkx)
def linkx(conn: Connection, msg: Tlinkx) -> Rlinkx:
    node = conn.fids.get(msg.fid).node
    directory = conn.fids.get(msg.newdirfid).node
    with conn.table.child_or_self(node, msg.name) as source:
        _link(conn, source, directory, msg.newname)
        return Rlinkx(conn.table.attributes(source))


def _link(conn: Connection, node: Node, directory: Node, name: bytes) -> None:
    """linkat(2) of the very inode. Linking a descriptor needs CAP_DAC_READ_SEARCH in the first
    user namespace; without it the name is linked, and the result checked."""
    check_name(name)
    require_writable(directory)
    if node.attachment is not directory.attachment:
        raise error(errno.EXDEV)
    directory_fd = conn.table.fd(directory)
    rc = lib.gofer_link(conn.table.fd(node), directory_fd, name)
    if rc not in (-errno.ENOENT, -errno.EPERM) or node.parent is None or not node.linked:
        check(rc)
        return
    if node.is_dir():
        raise error(errno.EPERM)
    parent_fd = conn.table.fd(node.parent)
    os.link(node.name, name, src_dir_fd=parent_fd, dst_dir_fd=directory_fd, follow_symlinks=False)
    block = stat_block(directory_fd, name)
    if isinstance(block, bytes) and identity_of(block) != node.identity:
        os.unlink(name, dir_fd=directory_fd)
        raise error(errno.ESTALE)


@handles(Trenameat)
def renameat(conn: Connection, msg: Trenameat) -> Rrenameat:
    old, new = conn.fids.get(msg.olddirfid).node, conn.fids.get(msg.newdirfid).node
    _rename(conn, (old, msg.oldname), (new, msg.newname), 0)
    return Rrenameat()


@handles(Trename)
def rename(conn: Connection, msg: Trename) -> Rrename:
    """Rename of a fid, by the name that it was walked to with."""
    node, new = conn.fids.get(msg.fid).node, conn.fids.get(msg.dfid).node
    if node.parent is None:
        raise error(errno.EBUSY)
    if not node.linked:
        raise error(errno.ENOENT)
    _rename(conn, (node.parent, node.name), (new, msg.name), 0)
    return Rrename()


@handles(Trenamex)
def renamex(conn: Connection, msg: Trenamex) -> Rrenamex:
    if msg.flags not in (0, lib.RENAME_NOREPLACE, lib.RENAME_EXCHANGE):
        raise error(errno.EINVAL)
    old, new = conn.fids.get(msg.olddirfid).node, conn.fids.get(msg.newdirfid).node
    _rename(conn, (old, msg.oldname), (new, msg.newname), msg.flags)
    return Rrenamex()


def _rename(conn: Connection, old: tuple[Node, bytes], new: tuple[Node, bytes], flags: int) -> None:
    """renameat2(2), then the same in the tree of nodes."""
    (old_dir, old_name), (new_dir, new_name) = old, new
    check_name(old_name)
    check_name(new_name)
    require_writable(old_dir)
    if old_dir.attachment is not new_dir.attachment:
        raise error(errno.EXDEV)
    table = conn.table
    replaced = table.pin(new_dir, new_name)
    old_fd, new_fd = table.fd(old_dir), table.fd(new_dir)
    check(lib.gofer_renameat2(old_fd, old_name, new_fd, new_name, flags))
    moved = old_dir.children.get(old_name)
    if moved is not None and moved is replaced:
        return
    if flags == lib.RENAME_EXCHANGE:
        if moved is not None:
            table.move(moved, new_dir, new_name)
        if replaced is not None:
            table.move(replaced, old_dir, old_name)
        return
    if replaced is None:
        replaced = new_dir.children.get(new_name)
    if replaced is not None:
        table.detach(replaced)
    if moved is not None:
        table.move(moved, new_dir, new_name)


@handles(Tunlinkat)
def unlinkat(conn: Connection, msg: Tunlinkat) -> Runlinkat:
    if msg.flags & ~AT_REMOVEDIR:
        raise error(errno.EINVAL)
    directory = conn.fids.get(msg.dirfd).node
    _unlink(conn, directory, msg.name, bool(msg.flags))
    conn.learn(msg.dirfd, directory)
    return Runlinkat()


@handles(Tremove)
def remove(conn: Connection, msg: Tremove) -> Rremove:
    """remove(5): the fid is clunked whether or not the file could be removed."""
    fid = conn.fids.get(msg.fid)
    node = fid.node
    node.refs += 1
    conn.shared.locks.release_fid(node.identity, conn.number, msg.fid)
    conn.fids.remove(msg.fid)
    try:
        if node.parent is None:
            raise error(errno.EBUSY)
        if not node.linked:
            raise error(errno.ENOENT)
        _unlink(conn, node.parent, node.name, node.is_dir())
    finally:
        conn.table.release(node)
    return Rremove()


def _unlink(conn: Connection, directory: Node, name: bytes, is_dir: bool) -> None:
    check_name(name)
    require_writable(directory)
    table = conn.table
    table.pin(directory, name)
    fd = table.fd(directory)
    if is_dir:
        os.rmdir(name, dir_fd=fd)
    else:
        os.unlink(name, dir_fd=fd)
    gone = directory.children.get(name)
    if gone is not None:
        table.detach(gone)
