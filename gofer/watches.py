"""Watches: how a client hears that somebody else has changed what it remembers.

There is one inotify instance, made before the process was confined, for the first session that asks
for it. That gets its descriptor and reads the events itself: the kernel queues them within the call
that makes the change, so a look at the queue is a look at all of them. Watching takes kernel
memory of the host, so there is a ceiling.
"""

from __future__ import annotations

import errno
import fcntl
import stat

from gofer._native import lib
from gofer.native import check, error
from gofer.node import Node, NodeTable


class Watches:
    """The instance, and what it watches."""

    __slots__ = ("_fd", "_owner", "_watched", "limit")

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self.limit = limit
        self._owner: object = None
        self._watched: set[int] = set()

    def descriptor(self, owner: object) -> int:
        """A copy of its descriptor for the session `owner`. Raises: EOPNOTSUPP, EBUSY."""
        if self._fd < 0:
            raise error(errno.EOPNOTSUPP)
        if self._owner not in (None, owner):
            raise error(errno.EBUSY)
        self._owner = owner
        return fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, 0)

    def add(self, owner: object, table: NodeTable, node: Node) -> int:
        """Watch a directory, a link or a special file; the number that its events have.

        Raises: ENOTDIR for others, ENOSPC at the ceiling here or that of the host's user.
        """
        self._check(owner)
        if len(self._watched) >= self.limit:
            raise error(errno.ENOSPC)
        at, name = node, b"."
        if not node.is_dir():
            if node.fmt == stat.S_IFREG or node.parent is None or not node.linked:
                raise error(errno.ENOTDIR)
            at, name = node.parent, node.name
        number = check(lib.gofer_watch(self._fd, table.fd(at), name, node.attachment.fd))
        self._watched.add(number)
        return number

    def remove(self, owner: object, number: int) -> None:
        """Watch it no more. The host may have ended the watch before."""
        self._check(owner)
        if number not in self._watched:
            raise error(errno.EINVAL)
        self._watched.remove(number)
        lib.gofer_unwatch(self._fd, number)

    def release(self, owner: object) -> None:
        """The session is over. What is in the queue may be for others now, so it stays its own."""
        if self._owner is owner:
            for number in self._watched:
                lib.gofer_unwatch(self._fd, number)
            self._watched.clear()

    def _check(self, owner: object) -> None:
        if self._owner is not owner or owner is None:
            raise error(errno.EBADF)
