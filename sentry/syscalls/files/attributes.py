"""Attributes of files: chmod, chown, times, truncate."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

from sentry.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from sentry.abi.inotify import IN_MODIFY
from sentry.abi.stat import UTIME_NOW, UTIME_OMIT
from sentry.errors import EINVAL
from sentry.syscalls.args import UserPath
from sentry.syscalls.files.stat import at_path
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import (
    Addr,
    DirFd,
    File,
    Int,
    Mode,
    Offset,
    Path,
    PathAddr,
    Uid,
    UInt,
)
from sentry.vfs.attributes import (
    Named,
    Times,
    chmod_location,
    chown_location,
    set_times,
    truncate_inode,
    truncate_path,
)
from sentry.vfs.flags import check_append_only
from sentry.vfs.location import Location
from sentry.vfs.walk import resolve
from sentry.vfs.watches import tell_changed

if TYPE_CHECKING:
    from sentry.kernel.task import Task

NS = 1_000_000_000


# --- chmod


@syscall(90)
def sys_chmod(task: Task, path: Path, mode: Mode) -> None:
    """chmod(2)."""
    with Named(partial(resolve, task, AT_FDCWD, path)) as place:
        chmod_location(task, place, mode)


@syscall(91)
def sys_fchmod(task: Task, file: File, mode: Mode) -> None:
    """fchmod(2)."""
    chmod_location(task, file.location, mode)


@syscall(268)
def sys_fchmodat(task: Task, dirfd: DirFd, path: Path, mode: Mode) -> None:
    """fchmodat(2): the system call has no flags."""
    with Named(partial(resolve, task, dirfd, path)) as place:
        chmod_location(task, place, mode)


@syscall(452)
def sys_fchmodat2(
    task: Task, dirfd: DirFd, path: PathAddr, mode: Mode, flags: UInt
) -> None:
    """fchmodat2(2)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise EINVAL(f"flags {flags:#x}")
    with Named(partial(at_path, task, dirfd, path, flags)) as place:
        chmod_location(task, place, mode)


# --- chown


def chown(task: Task, place: Location, uid: int, gid: int) -> None:
    """chown_common(): ids are those of the caller's user namespace."""
    chown_location(task, place, task.creds.kuid(uid), task.creds.kgid(gid))


@syscall(92)
def sys_chown(task: Task, path: Path, uid: Uid, gid: Uid) -> None:
    """chown(2)."""
    with Named(partial(resolve, task, AT_FDCWD, path)) as place:
        chown(task, place, uid, gid)


@syscall(94)
def sys_lchown(task: Task, path: Path, uid: Uid, gid: Uid) -> None:
    """lchown(2)."""
    with Named(partial(resolve, task, AT_FDCWD, path, follow=False)) as place:
        chown(task, place, uid, gid)


@syscall(93)
def sys_fchown(task: Task, file: File, uid: Uid, gid: Uid) -> None:
    """fchown(2)."""
    chown(task, file.location, uid, gid)


@syscall(260)
def sys_fchownat(
    task: Task, dirfd: DirFd, path: PathAddr, uid: Uid, gid: Uid, flags: Int
) -> None:
    """fchownat(2)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise EINVAL(f"flags {flags:#x}")
    with Named(partial(at_path, task, dirfd, path, flags)) as place:
        chown(task, place, uid, gid)


# --- times


def read_timespecs(task: Task, addr: int) -> Times | None:
    """Two struct timespec; None when both are UTIME_OMIT. Raises: EINVAL."""
    now = task.kernel.vfs.now_ns()
    if not addr:
        return Times(now, now, True)
    seconds, ns, mtime_seconds, mtime_ns = struct.unpack("<qqqq", task.mm.read(addr, 32))
    if ns == mtime_ns == UTIME_OMIT:
        return None
    both_now = ns == mtime_ns == UTIME_NOW
    return Times(_time_ns(seconds, ns, now), _time_ns(mtime_seconds, mtime_ns, now), both_now)


def _time_ns(seconds: int, ns: int, now_ns: int) -> int | None:
    """What one of them says. Raises: EINVAL."""
    if ns == UTIME_OMIT:
        return None
    if ns == UTIME_NOW:
        return now_ns
    if not 0 <= ns < NS:
        raise EINVAL(f"tv_nsec {ns}")
    return seconds * NS + ns


def set_times_at(
    task: Task, dirfd: int, path: UserPath, times: Times, flags: int
) -> None:
    """do_utimes(): a null path means the open file `dirfd`."""
    if not path and dirfd != AT_FDCWD:
        if flags:
            raise EINVAL("flags with a null path")
        set_times(task, task.files.get(dirfd & 0xFFFFFFFF).location, times)
        return
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise EINVAL(f"flags {flags:#x}")
    with Named(partial(at_path, task, dirfd, path, flags)) as place:
        set_times(task, place, times)


@syscall(280)
def sys_utimensat(
    task: Task, dirfd: DirFd, path: PathAddr, times: Addr, flags: Int
) -> None:
    """utimensat(2): the file is looked for before the times are judged."""
    try:
        wanted = read_timespecs(task, times)
    except EINVAL:
        if not path and dirfd != AT_FDCWD and not flags:
            task.files.get(dirfd & 0xFFFFFFFF)
        elif (path or dirfd == AT_FDCWD) and not flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
            at_path(task, dirfd, path, flags)
        raise
    if wanted is not None:
        set_times_at(task, dirfd, path, wanted, flags)


def read_timevals(task: Task, addr: int) -> Times:
    """Two struct timeval. Raises: EINVAL."""
    now = task.kernel.vfs.now_ns()
    if not addr:
        return Times(now, now, True)
    values = struct.unpack("<qqqq", task.mm.read(addr, 32))
    if not (0 <= values[1] < 1_000_000 and 0 <= values[3] < 1_000_000):
        raise EINVAL("tv_usec")
    return Times(values[0] * NS + values[1] * 1000, values[2] * NS + values[3] * 1000)


@syscall(235)
def sys_utimes(task: Task, path: PathAddr, times: Addr) -> None:
    """utimes(2)."""
    set_times_at(task, AT_FDCWD, path, read_timevals(task, times), 0)


@syscall(261)
def sys_futimesat(task: Task, dirfd: DirFd, path: PathAddr, times: Addr) -> None:
    """futimesat(2)."""
    set_times_at(task, dirfd, path, read_timevals(task, times), 0)


@syscall(132)
def sys_utime(task: Task, path: PathAddr, times: Addr) -> None:
    """utime(2): two time_t in seconds."""
    now = task.kernel.vfs.now_ns()
    wanted = Times(now, now, True)
    if times:
        atime, mtime = struct.unpack("<qq", task.mm.read(times, 16))
        wanted = Times(atime * NS, mtime * NS)
    set_times_at(task, AT_FDCWD, path, wanted, 0)


# --- truncate


@syscall(76)
def sys_truncate(task: Task, path: PathAddr, length: Offset) -> None:
    """truncate(2)."""
    if length < 0:
        raise EINVAL(f"length {length}")
    with Named(lambda: resolve(task, AT_FDCWD, path.read())) as location:
        truncate_path(task, location, length)
    tell_changed(location.dentry, IN_MODIFY)


@syscall(77)
def sys_ftruncate(task: Task, fd: UInt, length: Offset) -> None:
    """ftruncate(2)."""
    if length < 0:
        raise EINVAL(f"length {length}")
    file = task.files.get(fd)
    if not file.inode.is_regular or not file.writable:
        raise EINVAL("not a regular file open for writing")
    check_append_only(file.inode)
    truncate_inode(task, file.location, length)
    tell_changed(file.location.dentry, IN_MODIFY)
