"""Opening a program to run it: do_open_execat() and deny_write_access(), fs/exec.c, fs/namei.c."""

from __future__ import annotations

from sentry.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from sentry.mm.buffers import KernelDest
from sentry.vfs.file import Caller, FileDescription, settle
from sentry.vfs.open import (
    EXECUTE,
    EXECUTE_NOFOLLOW,
    allow_write,
    deny_write,
    open_location,
    open_path,
)


async def open_exec(caller: Caller, dirfd: int, path: bytes, flags: int) -> FileDescription:
    """Open a regular file that may be executed; nobody can open it for writing until `close_exec`.

    Raises: EACCES, ETXTBSY, and what the path walk raises.
    """
    how = EXECUTE_NOFOLLOW if flags & AT_SYMLINK_NOFOLLOW else EXECUTE
    if not path and flags & AT_EMPTY_PATH and dirfd != AT_FDCWD:
        file = await open_location(caller, caller.files.get_raw(dirfd).location, how)
    else:
        file = await open_path(caller, dirfd, path, how)
    file.incref()
    try:
        deny_write(file.inode)
    except BaseException:
        file.decref()
        raise
    return file


async def close_exec(file: FileDescription) -> None:
    """Done with a file of open_exec."""
    allow_write(file.inode)
    file.decref()


async def read_exec(caller: Caller, file: FileDescription, offset: int, count: int) -> bytes:
    """Up to `count` bytes at `offset`; short at the end of the file only."""
    dest = KernelDest(count)
    while dest.count:
        got = await settle(file.read_at(caller, dest, offset + count - dest.count))
        if got == 0:
            break
    return dest.getvalue()
