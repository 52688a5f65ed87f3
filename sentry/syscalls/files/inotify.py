"""inotify(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.inotify import (
    IN_ALL_EVENTS,
    IN_CLOEXEC,
    IN_DONT_FOLLOW,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_NONBLOCK,
    IN_ONESHOT,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.auth.permissions import MAY_READ
from sentry.errors import EINVAL, ENOTDIR
from sentry.fs.inotify import InotifyFile, most_queued
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Int, PathAddr, UInt
from sentry.vfs.access import check_inode
from sentry.vfs.walk import resolve

if TYPE_CHECKING:
    from sentry.kernel.task import Task

KNOWN = (
    IN_ALL_EVENTS | IN_UNMOUNT | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_ADD
    | IN_MASK_CREATE | IN_ONESHOT | IN_Q_OVERFLOW | IN_IGNORED | IN_ISDIR
)  # fmt: skip


def create(task: Task, flags: int) -> int:
    """An inotify instance and its descriptor."""
    if flags & ~(IN_CLOEXEC | IN_NONBLOCK):
        raise EINVAL(f"flags {flags:#x}")
    limit = task.rlimit(RLIMIT_NOFILE)
    task.files.free_from(0, limit)
    file = InotifyFile(task.kernel.vfs, flags, most_queued(task.kernel))
    return task.files.install(file, limit, cloexec=bool(flags & IN_CLOEXEC))


@syscall(253)
def sys_inotify_init(task: Task) -> int:
    """inotify_init(2)."""
    return create(task, 0)


@syscall(294)
def sys_inotify_init1(task: Task, flags: Int) -> int:
    """inotify_init1(2)."""
    return create(task, flags)


@syscall(254)
def sys_inotify_add_watch(task: Task, fd: UInt, path: PathAddr, mask: UInt) -> int:
    """inotify_add_watch(2): the mask is checked first."""
    if not mask or mask & ~KNOWN:
        raise EINVAL(f"mask {mask:#x}")
    file = task.files.get(fd)
    if mask & IN_MASK_ADD and mask & IN_MASK_CREATE:
        raise EINVAL("IN_MASK_ADD and IN_MASK_CREATE")
    if not isinstance(file, InotifyFile):
        raise EINVAL("not an inotify descriptor")
    name = path.read()
    location = resolve(task, AT_FDCWD, name, follow=not mask & IN_DONT_FOLLOW)
    inode = location.dentry.inode
    if mask & IN_ONLYDIR and not inode.is_dir:
        raise ENOTDIR("not a directory")
    check_inode(task.creds, inode, MAY_READ)
    return file.watch(inode, mask)


@syscall(255)
def sys_inotify_rm_watch(task: Task, fd: UInt, wd: Int) -> None:
    """inotify_rm_watch(2)."""
    file = task.files.get(fd)
    if not isinstance(file, InotifyFile) or wd not in file.watches:
        raise EINVAL(f"watch {wd}")
    file.remove(file.watches[wd])
