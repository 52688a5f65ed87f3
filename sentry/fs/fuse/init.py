"""INIT: what kernel and server agree on. process_init_reply(), fs/fuse/inode.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.fuse import (
    FUSE_ABORT_ERROR,
    FUSE_AUTO_INVAL_DATA,
    FUSE_BIG_WRITES,
    FUSE_CACHE_SYMLINKS,
    FUSE_DO_READDIRPLUS,
    FUSE_DONT_MASK,
    FUSE_EXPLICIT_INVAL_DATA,
    FUSE_FLOCK_LOCKS,
    FUSE_HAS_EXPIRE_ONLY,
    FUSE_HAS_IOCTL_DIR,
    FUSE_HAS_RESEND,
    FUSE_INIT,
    FUSE_INIT_EXT,
    FUSE_INIT_IN,
    FUSE_INIT_OUT,
    FUSE_KERNEL_MINOR_VERSION,
    FUSE_KERNEL_VERSION,
    FUSE_NO_OPEN_SUPPORT,
    FUSE_NO_OPENDIR_SUPPORT,
    FUSE_PARALLEL_DIROPS,
    FUSE_POSIX_LOCKS,
    FUSE_READDIRPLUS_AUTO,
    FUSE_SPLICE_MOVE,
    FUSE_SPLICE_READ,
    FUSE_SPLICE_WRITE,
)
from sentry.fs.fuse.connection import MAX_DATA
from sentry.fs.fuse.request import Request
from sentry.platform.constants import PAGE_SIZE

if TYPE_CHECKING:
    from sentry.fs.fuse.connection import Connection

OLDEST_MINOR: Final = 12
"""Before it (Linux 2.6.31) some messages are shorter."""
MAX_READAHEAD: Final = MAX_DATA
KNOWN: Final = (
    FUSE_ABORT_ERROR | FUSE_AUTO_INVAL_DATA | FUSE_BIG_WRITES | FUSE_CACHE_SYMLINKS
    | FUSE_DONT_MASK | FUSE_DO_READDIRPLUS | FUSE_EXPLICIT_INVAL_DATA | FUSE_FLOCK_LOCKS
    | FUSE_HAS_EXPIRE_ONLY | FUSE_HAS_IOCTL_DIR | FUSE_HAS_RESEND | FUSE_INIT_EXT
    | FUSE_NO_OPENDIR_SUPPORT | FUSE_NO_OPEN_SUPPORT | FUSE_PARALLEL_DIROPS | FUSE_POSIX_LOCKS
    | FUSE_READDIRPLUS_AUTO | FUSE_SPLICE_MOVE | FUSE_SPLICE_READ | FUSE_SPLICE_WRITE
)  # fmt: skip
"""What is offered to a server."""


def send(connection: Connection) -> None:
    """The first request: fuse_send_init()."""
    body = FUSE_INIT_IN.pack(
        FUSE_KERNEL_VERSION, FUSE_KERNEL_MINOR_VERSION, MAX_READAHEAD, KNOWN & 0xFFFFFFFF,
        KNOWN >> 32, b"",
    )  # fmt: skip
    request = Request(
        connection, FUSE_INIT, 0, body, FUSE_INIT_OUT.size, is_variable=True
    )
    request.on_done = lambda done: _answered(connection, done)
    connection.submit(request)


def _answered(connection: Connection, request: Request) -> None:
    """Take what the server says; whatever that is, nobody waits for it any longer."""
    if not connection.alive:
        return
    data = request.data.ljust(FUSE_INIT_OUT.size, b"\0")
    out = FUSE_INIT_OUT.unpack(data)
    if request.error is not None or out.major != FUSE_KERNEL_VERSION or out.minor < OLDEST_MINOR:
        connection.refused = True
    else:
        flags = out.flags
        if flags & FUSE_INIT_EXT:
            flags |= out.flags2 << 32
        connection.flags = flags & KNOWN
        connection.minor = out.minor
        connection.max_write = min(max(out.max_write, PAGE_SIZE), MAX_DATA)
        if out.max_background:
            connection.max_background = out.max_background
            connection.threshold = out.max_background * 3 // 4
        if out.congestion_threshold:
            connection.threshold = out.congestion_threshold
    connection.initialized = True
    connection.wake_all()
