"""How execve(2) opens and reads programs: do_open_execat(), fs/exec.c.

While a program (or script) is held by `open_exec`, nobody may open it for writing, and somebody who
writes to it keeps it from starting: ETXTBSY.
"""

from __future__ import annotations

from sentry.abi.fcntl import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW
from sentry.auth.permissions import MAY_EXEC
from sentry.errors import EINVAL, ELOOP
from sentry.mm.buffers import KernelDest
from sentry.vfs.file import Caller, FileDescription
from sentry.vfs.interface import Inode
from sentry.vfs.open import OpenHow, allow_write, deny_write, open_location
from sentry.vfs.walk import resolve
from sentry.wait.again import CURRENT, again

EXECUTE = OpenHow(0, 0, MAY_EXEC)


def open_exec(caller: Caller, dirfd: int, path: bytes, flags: int) -> FileDescription:
    """Open a program to run it, with a use; `close_exec` gives it back. `flags`: execveat's.

    Raises: EACCES unless it is a regular file with execute rights on a mount without noexec.
    """
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        raise EINVAL(f"execveat flags {flags:#x}")
    if CURRENT.call is None:
        caller.kernel.vfs.budget.check_files()
    location = resolve(
        caller,
        dirfd,
        path,
        follow=not flags & AT_SYMLINK_NOFOLLOW,
        empty_ok=bool(flags & AT_EMPTY_PATH),
    )
    if location.dentry.inode.is_symlink:
        raise ELOOP("a symbolic link")
    file = open_location(caller, location, EXECUTE).incref()
    try:
        deny_write(file.inode)
    except BaseException:
        file.decref()
        raise
    return file


class Running:
    """A program runs from a file: nobody can open it for writing while this object lives."""

    __slots__ = ("_inode",)

    def __init__(self, inode: Inode) -> None:
        deny_write(inode)
        self._inode = inode

    def __del__(self) -> None:
        allow_write(self._inode)


def close_exec(file: FileDescription) -> None:
    """The program has been mapped, or was refused."""
    allow_write(file.inode)
    file.decref()


async def read_exec(caller: Caller, file: FileDescription, offset: int, count: int) -> bytes:
    """kernel_read(): up to `count` bytes at `offset`, fewer at the end of the file."""
    data = bytearray()
    while len(data) < count:
        dest = KernelDest(count - len(data))
        n = await again(file.read_at, caller, dest, offset + len(data))
        if not n:
            break
        data += dest.data[:n]
    return bytes(data)
