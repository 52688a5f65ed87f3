"""FUSE_NOTIFY_*: what a server says unasked. fs/fuse/dev.c, fs/fuse/dir.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.fuse import (
    FUSE_NOTIFY_DELETE,
    FUSE_NOTIFY_DELETE_OUT,
    FUSE_NOTIFY_INVAL_ENTRY,
    FUSE_NOTIFY_INVAL_ENTRY_OUT,
    FUSE_NOTIFY_INVAL_INODE,
    FUSE_NOTIFY_INVAL_INODE_OUT,
    FUSE_NOTIFY_POLL,
    FUSE_NOTIFY_POLL_WAKEUP_OUT,
    FUSE_NOTIFY_REPLY,
    FUSE_NOTIFY_RESEND,
    FUSE_NOTIFY_RETRIEVE,
    FUSE_NOTIFY_RETRIEVE_IN,
    FUSE_NOTIFY_RETRIEVE_OUT,
    FUSE_NOTIFY_STORE,
    FUSE_NOTIFY_STORE_OUT,
)
from sentry.errors import EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR
from sentry.fs.fuse.directory import FuseDirectory
from sentry.fs.fuse.regular import FuseRegular
from sentry.fs.fuse.request import Request
from sentry.fs.fuse.wire import LONGEST_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.fs.fuse.mounted import MountedFs


def take(fs: MountedFs, code: int, data: bytes) -> None:
    """A notice. Raises: EINVAL, ENOENT for what is not known here."""
    notice = NOTICES.get(code)
    if notice is None:
        raise EINVAL(f"notice {code}")
    notice(fs, data)


def _poll(fs: MountedFs, data: bytes) -> None:
    """A file is ready: nobody asks servers for that."""
    if len(data) != FUSE_NOTIFY_POLL_WAKEUP_OUT.size:
        raise EINVAL(f"{len(data)} bytes")


def _inval_inode(fs: MountedFs, data: bytes) -> None:
    """Attributes, and with an offset that is not negative data of a file, are other ones now."""
    if len(data) != FUSE_NOTIFY_INVAL_INODE_OUT.size:
        raise EINVAL(f"{len(data)} bytes")
    out = FUSE_NOTIFY_INVAL_INODE_OUT.unpack(data)
    inode = fs.known(out.ino)
    inode.expire()
    if out.off >= 0 and isinstance(inode, FuseRegular):
        inode.drop_pages(out.off, out.len)


def _name(data: bytes, size: int, length: int) -> bytes:
    if length > LONGEST_NAME:
        raise ENAMETOOLONG(f"{length} bytes")
    name = data[size:-1]
    if len(name) != length or len(data) != size + length + 1:
        raise EINVAL(f"{len(data)} bytes")
    return name


def _directory(fs: MountedFs, nodeid: int) -> FuseDirectory:
    inode = fs.known(nodeid)
    if not isinstance(inode, FuseDirectory):
        raise ENOTDIR(f"node {nodeid}")
    return inode


def _inval_entry(fs: MountedFs, data: bytes) -> None:
    """A name means something else now."""
    size = FUSE_NOTIFY_INVAL_ENTRY_OUT.size
    if len(data) < size:
        raise EINVAL(f"{len(data)} bytes")
    out = FUSE_NOTIFY_INVAL_ENTRY_OUT.unpack(data)
    directory = _directory(fs, out.parent)
    if directory.names.pop(_name(data, size, out.namelen), None) is None:
        raise ENOENT("not remembered")
    directory.expire()


def _delete(fs: MountedFs, data: bytes) -> None:
    """A name is gone, if it still is this node's."""
    size = FUSE_NOTIFY_DELETE_OUT.size
    if len(data) < size:
        raise EINVAL(f"{len(data)} bytes")
    out = FUSE_NOTIFY_DELETE_OUT.unpack(data)
    directory = _directory(fs, out.parent)
    name = _name(data, size, out.namelen)
    if directory.names.pop(name, None) is None:
        raise ENOENT("not remembered")
    directory.expire()
    child = fs.known(out.child)
    child.lost_name()


def _store(fs: MountedFs, data: bytes) -> None:
    """Data of a file, where pages of it are in memory."""
    size = FUSE_NOTIFY_STORE_OUT.size
    if len(data) < size:
        raise EINVAL(f"{len(data)} bytes")
    out = FUSE_NOTIFY_STORE_OUT.unpack(data)
    if len(data) - size != out.size:
        raise EINVAL(f"{len(data)} bytes")
    inode = fs.known(out.nodeid)
    inode.expire()
    if isinstance(inode, FuseRegular):
        inode.drop_pages(out.offset, out.size)


def _retrieve(fs: MountedFs, data: bytes) -> None:
    """What is in memory of a file: nothing is kept but what is mapped, so none."""
    if len(data) != FUSE_NOTIFY_RETRIEVE_OUT.size:
        raise EINVAL(f"{len(data)} bytes")
    out = FUSE_NOTIFY_RETRIEVE_OUT.unpack(data)
    fs.known(out.nodeid)
    body = FUSE_NOTIFY_RETRIEVE_IN.pack(0, out.offset, 0, 0, 0, 0)
    request = Request(fs.connection, FUSE_NOTIFY_REPLY, out.nodeid, body)
    fs.connection.submit_notice(request, out.notify_unique)


def _resend(fs: MountedFs, data: bytes) -> None:
    """A server that was started anew wants to have what its predecessor did not answer."""
    if data:
        raise EINVAL(f"{len(data)} bytes")
    fs.connection.resend()


NOTICES: Final[dict[int, Callable[[MountedFs, bytes], None]]] = {
    FUSE_NOTIFY_POLL: _poll,
    FUSE_NOTIFY_INVAL_INODE: _inval_inode,
    FUSE_NOTIFY_INVAL_ENTRY: _inval_entry,
    FUSE_NOTIFY_STORE: _store,
    FUSE_NOTIFY_RETRIEVE: _retrieve,
    FUSE_NOTIFY_DELETE: _delete,
    FUSE_NOTIFY_RESEND: _resend,
}
