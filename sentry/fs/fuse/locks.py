"""Locks that a server keeps: GETLK, SETLK, SETLKW. fuse_file_lock(), fs/fuse/file.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.fcntl import F_RDLCK, F_UNLCK, F_WRLCK
from sentry.abi.fuse import (
    FUSE_FLOCK_LOCKS,
    FUSE_GETLK,
    FUSE_LK_FLOCK,
    FUSE_LK_IN,
    FUSE_LK_OUT,
    FUSE_POSIX_LOCKS,
    FUSE_SETLK,
    FUSE_SETLKW,
)
from sentry.errors import EINTR, EIO
from sentry.vfs.locks import END, RecordLock, Request
from sentry.wait.fiber import Interrupted

if TYPE_CHECKING:
    from sentry.fs.fuse.handle import Handle
    from sentry.vfs.file import Caller

KINDS: Final = {None: F_UNLCK, False: F_RDLCK, True: F_WRLCK}


def has_records(handle: Handle) -> bool:
    """The server keeps the locks of fcntl(2)."""
    return bool(handle.inode.sb.connection.flags & FUSE_POSIX_LOCKS)


def has_flocks(handle: Handle) -> bool:
    """And those of flock(2)."""
    return bool(handle.inode.sb.connection.flags & FUSE_FLOCK_LOCKS)


class ServerLocks:
    """The locks of an open file."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def _body(
        self, caller: Caller, request: Request, flags: int, *, is_question: bool = False
    ) -> bytes:
        connection = self._handle.inode.sb.connection
        kind = KINDS[request.exclusive]
        named = request.exclusive is not None and not is_question
        pid = connection.shown_pid(caller.group.tgid) if named else 0
        owner = connection.owner_of(request.owner)
        start, end = request.start, request.end
        return FUSE_LK_IN.pack(self._handle.fh, owner, start, end, kind, pid, flags, 0)

    def get(self, caller: Caller, request: Request) -> RecordLock | None:
        """F_GETLK: the first lock in the way. Raises: EIO for an impossible one."""
        inode = self._handle.inode
        body = self._body(caller, request, 0, is_question=True)
        answer = inode.ask((self._handle, FUSE_GETLK), FUSE_GETLK, body, FUSE_LK_OUT.size)
        found = answer.once(FUSE_LK_OUT.unpack)
        if found.lk_type == F_UNLCK:
            return None
        if found.lk_type not in (F_RDLCK, F_WRLCK) or not found.lk_start <= found.lk_end <= END:
            raise EIO("an impossible lock")
        pid = inode.sb.connection.known_pid(found.lk_pid)
        return RecordLock(None, pid, found.lk_type == F_WRLCK, found.lk_start, found.lk_end)

    def set(self, caller: Caller, request: Request, wait: bool, flags: int = 0) -> int:
        """F_SETLK, F_SETLKW. Raises: what the server says; Interrupted for EINTR."""
        opcode = FUSE_SETLKW if wait else FUSE_SETLK
        body = self._body(caller, request, flags)
        try:
            self._handle.inode.ask((self._handle, opcode), opcode, body).once(len)
        except EINTR:
            raise Interrupted from None
        return 0

    def flock(self, caller: Caller, file: object, exclusive: bool | None, wait: bool) -> int:
        """flock(2) of a description."""
        connection = self._handle.inode.sb.connection
        self._handle.unlocks = connection.owner_of(file)
        asked = Request(file, caller.group.tgid, exclusive, 0, END)
        return self.set(caller, asked, wait, FUSE_LK_FLOCK)
