"""Open files of fids, and how a node is opened for real.

A node's descriptor is O_PATH: it names the file but cannot read it. Reading needs a second open by
name, which checks that the same inode came out, and that it is what may be opened at all: regular
files and directories. Devices, fifos, sockets and links never are (but see `handlers/fifo.py`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from gofer.native import error, open_stat
from gofer.node import Node, NodeTable, mode_of

_KEPT_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC
"""Of a client's open flags; what else it may ask for is done by itself or by steps here."""


class OpenFile:
    """A descriptor that a fid reads and writes by. Jobs in the pool hold it open by `pins`."""

    __slots__ = ("_closing", "_pins", "fd", "flags")

    def __init__(self, fd: int, flags: int) -> None:
        self.fd = fd
        self.flags = flags
        self._pins = 0
        self._closing = False

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    def pin(self) -> None:
        """A job uses the descriptor now."""
        self._pins += 1

    def unpin(self) -> None:
        self._pins -= 1
        if self._closing and not self._pins:
            self._close()

    def close(self) -> None:
        """Close it, when the last job is done with it."""
        self._closing = True
        if not self._pins:
            self._close()

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def wants_write(flags: int) -> bool:
    """Whether open(2) with these flags can change the file."""
    return flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)


def require_writable(node: Node) -> None:
    """Raises EROFS below a read-only attachment."""
    if node.attachment.readonly:
        raise error(errno.EROFS)


def open_node(table: NodeTable, node: Node, flags: int) -> int:
    """A new descriptor of a regular file or directory.

    Raises ELOOP (link), ENXIO (device, fifo, socket), EISDIR, EROFS, ESTALE (the name means
    another file by now).
    """
    if wants_write(flags):
        require_writable(node)
    if node.fmt == stat.S_IFDIR:
        if wants_write(flags):
            raise error(errno.EISDIR)
        return _opened(open_stat(table.fd(node), b".", os.O_RDONLY | os.O_DIRECTORY), node)
    if node.fmt == stat.S_IFLNK:
        raise error(errno.ELOOP)
    if node.fmt != stat.S_IFREG:
        raise error(errno.ENXIO)
    if flags & os.O_DIRECTORY:
        raise error(errno.ENOTDIR)
    if flags & os.O_ACCMODE == os.O_ACCMODE:
        raise error(errno.EINVAL)
    if node.parent is None or not node.linked:
        fd = _duplicate(node, flags)
    else:
        parent = table.fd(node.parent)
        fd = _opened(open_stat(parent, node.name, flags & _KEPT_FLAGS), node)
    if flags & os.O_TRUNC:
        try:
            os.ftruncate(fd, 0)
        except OSError:
            os.close(fd)
            raise
    return fd


def open_regular(parent_fd: int, name: bytes, flags: int) -> tuple[int, bytes]:
    """Open whatever regular file `name` is now; attributes of what was opened. Raises OSError."""
    fd, block = open_stat(parent_fd, name, flags & _KEPT_FLAGS)
    if fd < 0:
        raise error(-fd)
    if stat.S_ISREG(mode_of(block)):
        return fd, block
    os.close(fd)
    raise error(errno.ESTALE)


def _opened(result: tuple[int, bytes], node: Node) -> int:
    fd, block = result
    if fd < 0:
        raise error(errno.ESTALE if fd in (-errno.ENOENT, -errno.ELOOP) else -fd)
    if not node.is_now(block) or stat.S_IFMT(mode_of(block)) != node.fmt:
        os.close(fd)
        raise error(errno.ESTALE)
    return fd


def _duplicate(node: Node, flags: int) -> int:
    """A copy of the descriptor of a file without a name: an unlinked one, or an attached one."""
    if node.fd < 0:
        raise error(errno.ESTALE)
    have = fcntl.fcntl(node.fd, fcntl.F_GETFL)
    if have & os.O_PATH:
        raise error(errno.ESTALE)
    want = os.O_RDWR if flags & os.O_TRUNC else flags & os.O_ACCMODE
    if have & os.O_ACCMODE not in (os.O_RDWR, want):
        raise error(errno.EACCES)
    return fcntl.fcntl(node.fd, fcntl.F_DUPFD_CLOEXEC, 0)
