"""`Handle`: what a server calls an open file or directory, from OPEN to RELEASE."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from sentry.abi import fuse as f
from sentry.abi.fcntl import O_ACCMODE, O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC
from sentry.abi.fuse import (
    FOPEN_KEEP_CACHE,
    FUSE_FLUSH,
    FUSE_NO_OPEN_SUPPORT,
    FUSE_NO_OPENDIR_SUPPORT,
    FUSE_OPEN,
    FUSE_OPEN_OUT,
    FUSE_OPENDIR,
    FUSE_RELEASE,
    FUSE_RELEASE_FLOCK_UNLOCK,
    FUSE_RELEASEDIR,
)
from sentry.errors import ENOSYS, EOVERFLOW
from sentry.fs.fuse.request import Request
from sentry.suppress import suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentry.fs.fuse.inode import FuseInode

NOT_SENT = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC


class Handle:
    """One. RELEASE follows the last FLUSH."""

    __slots__ = (
        "_released", "_uses", "fh", "flags", "inode", "is_real", "open_flags", "unlocks",
    )  # fmt: skip

    def __init__(self, inode: FuseInode, fh: int, flags: int, open_flags: int) -> None:
        self.inode = inode
        self.fh = fh
        self.flags = flags
        """As open(2) was given them."""
        self.open_flags = open_flags
        """FOPEN_*."""
        self.is_real = True
        """The server knows it; else it needs none."""
        self.unlocks: int | None = None
        """Who had a lock of flock(2) on it."""
        self._uses = 0
        self._released = False

    @property
    def writes(self) -> bool:
        """It was opened for writing."""
        return self.flags & O_ACCMODE != 0

    def flush(self, owner: int, done: Callable[[Request], object]) -> None:
        """A descriptor was closed: `done` has the answer."""
        inode = self.inode
        connection = inode.sb.connection
        body = f.FUSE_FLUSH_IN.pack(self.fh, 0, 0, owner)
        request = Request(connection, FUSE_FLUSH, inode.nodeid, body)
        with suppress(EOVERFLOW):
            request.who = connection.who(inode.sb.task)
        request.on_done = partial(self._flushed, done)
        self.hold()
        connection.submit_closing(request)

    def hold(self) -> None:
        """It is flushed soon, or a request names it: not to be released before."""
        self._uses += 1

    def let_go(self) -> None:
        """It was flushed, or that is answered."""
        self._uses -= 1
        if self._released and not self._uses:
            self._send_release()

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the length of requests of somebody else than who has it open."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    def _flushed(self, done: Callable[[Request], object], request: Request) -> None:
        if isinstance(request.error, ENOSYS):
            self.inode.sb.connection.lacks.add(FUSE_FLUSH)
            request.error = None
        done(request)
        self.let_go()

    def release(self) -> None:
        """Nobody has it open any more."""
        self._released = True
        if not self._uses:
            self._send_release()

    def _send_release(self) -> None:
        if not self.is_real:
            return
        inode = self.inode
        unlocks = self.unlocks
        body = f.FUSE_RELEASE_IN.pack(
            self.fh, self.flags & ~NOT_SENT, 0 if unlocks is None else FUSE_RELEASE_FLOCK_UNLOCK,
            unlocks or 0,
        )  # fmt: skip
        opcode = FUSE_RELEASEDIR if inode.is_dir else FUSE_RELEASE
        request = Request(inode.sb.connection, opcode, inode.nodeid, body)
        request.on_done = lambda _: inode.expire()  # which also keeps it until then
        inode.sb.connection.submit_behind(request)


def open_handle(inode: FuseInode, flags: int) -> Handle:
    """OPEN, OPENDIR: fuse_file_open(). Raises: what the server says, NotNow."""
    connection = inode.sb.connection
    opcode = FUSE_OPENDIR if inode.is_dir else FUSE_OPEN
    needless = FUSE_NO_OPENDIR_SUPPORT if inode.is_dir else FUSE_NO_OPEN_SUPPORT
    if opcode in connection.lacks:
        return _needless(inode, flags)
    body = f.FUSE_OPEN_IN.pack(flags & ~NOT_SENT, 0)
    undo = partial(_undo, inode, flags)
    try:
        request = inode.ask((inode, opcode), opcode, body, FUSE_OPEN_OUT.size, undo=undo)
        handle: Handle = request.once(partial(handle_of, inode, flags))
    except ENOSYS:
        if not connection.flags & needless:
            raise
        connection.lacks.add(opcode)
        return _needless(inode, flags)
    return handle


def handle_of(inode: FuseInode, flags: int, data: bytes, at: int = 0) -> Handle:
    """struct fuse_open_out."""
    out = FUSE_OPEN_OUT.unpack(data, at)
    return Handle(inode, out.fh, flags, out.open_flags)


def _undo(inode: FuseInode, flags: int, data: bytes) -> None:
    handle_of(inode, flags, data).release()


def _needless(inode: FuseInode, flags: int) -> Handle:
    """The server has no use for OPEN."""
    handle = Handle(inode, 0, flags, FOPEN_KEEP_CACHE)
    handle.is_real = False
    return handle
