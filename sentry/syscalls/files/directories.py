"""Directories: listing them, and where a process is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SYS_CHROOT
from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.limits import PATH_MAX
from sentry.auth.permissions import MAY_CHDIR, MAY_EXEC
from sentry.errors import EFAULT, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, ERANGE
from sentry.syscalls.args import UserOut as Out
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import File, Int, Path, RawFile, Size, UInt, UserOut
from sentry.vfs.access import check_inode
from sentry.vfs.dirents import DirentSink
from sentry.vfs.file import FileDescription
from sentry.vfs.location import Location
from sentry.vfs.paths import path_of_cwd
from sentry.vfs.walk import resolve

if TYPE_CHECKING:
    from sentry.kernel.task import Task

MAX_LISTING = 1 << 15
"""Bytes of entries that one call gives at most, so that it takes no longer than a millisecond."""


def getdents(task: Task, file: FileDescription, buf: Out, count: int, *, old: bool) -> int:
    """Fill the buffer with whole entries, up to the first that cannot be written."""
    sink = DirentSink(max(min(count, MAX_LISTING), 0), old)
    before = file.position
    with file.inode.lock:
        n = file.entries(task, sink)
    after, file.position = file.position, before  # until the entries have been delivered
    try:
        if n:
            buf.put(sink.data)
    except EFAULT:
        n, after = sink.cut(task.mm.accessible(buf.addr, n, True), before)
        if not n:
            raise
        buf.put(sink.data)
    file.position = after
    return n


@syscall(217)
def sys_getdents64(task: Task, file: File, buf: UserOut, count: Int) -> int:
    """getdents64(2)."""
    return getdents(task, file, buf, count, old=False)


@syscall(78)
def sys_getdents(task: Task, file: File, buf: UserOut, count: Int) -> int:
    """getdents(2): the old form of the entries."""
    return getdents(task, file, buf, count, old=True)


@syscall(79)
def sys_getcwd(task: Task, buf: UserOut, size: Size) -> int:
    """getcwd(2): the length with the NUL."""
    fs = task.fs
    if fs.cwd.dentry.unlinked:
        raise ENOENT("the directory has been removed")
    path = path_of_cwd(fs.cwd, fs.root)
    if len(path) + 1 > PATH_MAX:
        raise ENAMETOOLONG(f"{len(path)} bytes")
    if len(path) + 1 > size:
        raise ERANGE(f"{size}")
    buf.put(path + b"\0")
    return len(path) + 1


def check_directory(task: Task, location: Location) -> None:
    """Somewhere to be: ENOTDIR, EACCES."""
    if not location.dentry.inode.is_dir:
        raise ENOTDIR("not a directory")
    check_inode(task.creds, location.dentry.inode, MAY_EXEC | MAY_CHDIR)


@syscall(80)
def sys_chdir(task: Task, path: Path) -> None:
    """chdir(2)."""
    location = resolve(task, AT_FDCWD, path)
    check_directory(task, location)
    task.fs.chdir(location)


@syscall(81)
def sys_fchdir(task: Task, file: RawFile) -> None:
    """fchdir(2)."""
    check_directory(task, file.location)
    task.fs.chdir(file.location)


@syscall(161)
def sys_chroot(task: Task, path: Path) -> None:
    """chroot(2)."""
    location = resolve(task, AT_FDCWD, path)
    check_directory(task, location)
    if not task.creds.own(CAP_SYS_CHROOT):
        raise EPERM("chroot")
    task.fs.chroot(location)


@syscall(95)
def sys_umask(task: Task, mask: UInt) -> int:
    """umask(2)."""
    old, task.fs.umask = task.fs.umask, mask & 0o777
    return old
