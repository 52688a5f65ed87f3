"""fanotify(7)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.fanotify import (
    FAN_CLASS_CONTENT,
    FAN_CLASS_PRE_CONTENT,
    FAN_CLOEXEC,
    FAN_EVENT_ON_CHILD,
    FAN_FS_ERROR,
    FAN_MARK_ADD,
    FAN_MARK_DONT_FOLLOW,
    FAN_MARK_EVICTABLE,
    FAN_MARK_FILESYSTEM,
    FAN_MARK_FLUSH,
    FAN_MARK_IGNORE,
    FAN_MARK_IGNORED_MASK,
    FAN_MARK_IGNORED_SURV_MODIFY,
    FAN_MARK_MOUNT,
    FAN_MARK_ONLYDIR,
    FAN_MARK_REMOVE,
    FAN_NONBLOCK,
    FAN_RENAME,
    FAN_REPORT_DIR_FID,
    FAN_REPORT_FD_ERROR,
    FAN_REPORT_FID,
    FAN_REPORT_NAME,
    FAN_REPORT_PIDFD,
    FAN_REPORT_TARGET_FID,
    FAN_REPORT_TID,
    FAN_UNLIMITED_MARKS,
    FAN_UNLIMITED_QUEUE,
)
from sentry.abi.fcntl import (
    O_ACCMODE,
    O_APPEND,
    O_CLOEXEC,
    O_DSYNC,
    O_LARGEFILE,
    O_NOATIME,
    O_NONBLOCK,
    O_SYNC,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.auth.permissions import MAY_READ
from sentry.errors import EINVAL, EISDIR, ENOTDIR, EOPNOTSUPP, EPERM
from sentry.fs.fanotify import FanotifyFile, group_of
from sentry.fs.fanotify_event import FID_BITS
from sentry.fs.fanotify_mark import EVENTS, IGNORING, PATH_EVENTS, Holder
from sentry.fs.proc.sysctl import get_sysctl
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Int, PathAddr, Size, UInt
from sentry.vfs.access import check_inode
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Inode
from sentry.vfs.marks import DIRENT_EVENTS, EVENT_FLAGS
from sentry.vfs.mount import Mount
from sentry.vfs.walk import resolve
from sentry.wait.again import begun
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.vfs.location import Location

CLASSES: Final = FAN_CLASS_CONTENT | FAN_CLASS_PRE_CONTENT
PRIVILEGED: Final = (
    CLASSES | FAN_REPORT_TID | FAN_REPORT_PIDFD | FAN_REPORT_FD_ERROR | FAN_UNLIMITED_QUEUE
    | FAN_UNLIMITED_MARKS
)  # fmt: skip
"""FANOTIFY_ADMIN_INIT_FLAGS."""
INIT_FLAGS: Final = PRIVILEGED | FID_BITS | FAN_CLOEXEC | FAN_NONBLOCK
EVENT_FILE_FLAGS: Final = (
    O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC | O_CLOEXEC | O_LARGEFILE | O_NOATIME
)
TYPES: Final = FAN_MARK_MOUNT | FAN_MARK_FILESYSTEM
COMMANDS: Final = FAN_MARK_ADD | FAN_MARK_REMOVE | FAN_MARK_FLUSH
MARK_FLAGS: Final = (
    TYPES | COMMANDS | IGNORING | FAN_MARK_DONT_FOLLOW | FAN_MARK_ONLYDIR
    | FAN_MARK_IGNORED_SURV_MODIFY | FAN_MARK_EVICTABLE
)  # fmt: skip
HOLDERS: Final[dict[int, type[Holder]]] = {
    0: Inode, FAN_MARK_MOUNT: Mount, FAN_MARK_FILESYSTEM: FileSystem
}  # fmt: skip
PARTIAL: Final = "no permission events (EINVAL); FAN_UNLIMITED_QUEUE and _MARKS have ceilings"


def _limit(task: Task, name: str) -> int:
    """A number below /proc/sys/fs/fanotify."""
    return max(int(get_sysctl(task.kernel, f"fs/fanotify/{name}")), 0)


@syscall(300, partial=PARTIAL)
def sys_fanotify_init(task: Task, flags: UInt, event_flags: UInt) -> int:
    """fanotify_init(2): without CAP_SYS_ADMIN a group that is told handles, and not who did it."""
    mode, kind = flags & FID_BITS, flags & CLASSES
    sees = task.creds.has(CAP_SYS_ADMIN)
    if (flags & PRIVILEGED or not mode) and not sees:
        raise EPERM("needs CAP_SYS_ADMIN")
    if flags & ~INIT_FLAGS:
        raise EINVAL(f"flags {flags:#x}")
    if flags & FAN_REPORT_PIDFD and flags & FAN_REPORT_TID:
        raise EINVAL("a pidfd of a thread")
    if event_flags & ~EVENT_FILE_FLAGS or event_flags & O_ACCMODE == O_ACCMODE:
        raise EINVAL(f"event flags {event_flags:#x}")
    if mode and kind:
        raise EINVAL("handles are told to FAN_CLASS_NOTIF alone")
    if mode & FAN_REPORT_NAME and not mode & FAN_REPORT_DIR_FID:
        raise EINVAL("a name without its directory")
    both = FAN_REPORT_NAME | FAN_REPORT_FID
    if mode & FAN_REPORT_TARGET_FID and mode & both != both:
        raise EINVAL("FAN_REPORT_TARGET_FID by itself")
    limit = task.rlimit(RLIMIT_NOFILE)
    limits = _limit(task, "max_user_groups"), _limit(task, "max_queued_events")
    if kind == CLASSES:
        raise EINVAL("two classes")
    task.files.free_from(0, limit)
    file = FanotifyFile(task.kernel.vfs, task.creds, flags, event_flags, limits, sees)
    return task.files.install(file, limit, cloexec=bool(flags & FAN_CLOEXEC))


@syscall(301, partial=PARTIAL)
def sys_fanotify_mark(
    task: Task, fd: Int, flags: UInt, mask: Size, dirfd: Int, path: PathAddr
) -> None:
    """fanotify_mark(2): do_fanotify_mark()."""
    kind, command, ignores = flags & TYPES, flags & COMMANDS, flags & IGNORING
    if mask >> 32 or flags & ~MARK_FLAGS or kind not in HOLDERS:
        raise EINVAL(f"flags {flags:#x}, mask {mask:#x}")
    if command in (FAN_MARK_ADD, FAN_MARK_REMOVE):
        if not mask:
            raise EINVAL("no events")
    elif command != FAN_MARK_FLUSH or flags & ~(TYPES | FAN_MARK_FLUSH):
        raise EINVAL(f"flags {flags:#x}")
    if mask & ~(EVENTS | EVENT_FLAGS) or ignores == IGNORING:
        raise EINVAL(f"flags {flags:#x}, mask {mask:#x}")
    kept = 0
    if ignores == FAN_MARK_IGNORED_MASK:
        mask, kept = mask & ~EVENT_FLAGS, EVENT_FLAGS
    group = group_of(task.files.get(fd & 0xFFFFFFFF))
    _check_group(task, group, flags, mask)
    if command == FAN_MARK_FLUSH:
        flushed = partial(group.flushing, HOLDERS[kind])
        begun((group, "flush"), lambda: driven(flushed()))
        return
    location = _find(task, dirfd, path, flags)
    inode = location.dentry.inode
    if command == FAN_MARK_ADD:
        _check_events(group, inode, flags, mask)
    check_inode(task.creds, inode, MAY_READ)
    fs = location.mount.fs
    mode = group.mode & FID_BITS
    if kind and mode and not fs.has_handles:
        raise EOPNOTSUPP("handles mean nothing there")
    if kind and not task.creds.has_in(fs.owner, CAP_SYS_ADMIN):
        raise EPERM("somebody else's file system")
    on_dir = not kind and inode.is_dir
    if command == FAN_MARK_ADD and ignores and not flags & FAN_MARK_IGNORED_SURV_MODIFY:
        if ignores == FAN_MARK_IGNORE and (kind or on_dir):
            raise EINVAL("needs FAN_MARK_IGNORED_SURV_MODIFY") if kind else EISDIR("a directory")
        if not kind and inode.write_count > 0:
            return
    if not on_dir:
        mask, kept = mask & ~FAN_EVENT_ON_CHILD, FAN_EVENT_ON_CHILD
        if mode & FAN_REPORT_DIR_FID and command == FAN_MARK_ADD and not ignores:
            mask |= FAN_EVENT_ON_CHILD
    holder: Holder = inode if not kind else location.mount if kind == FAN_MARK_MOUNT else fs
    if command == FAN_MARK_ADD:
        group.mark(holder, mask, flags, _limit(task, "max_user_marks"))
    else:
        group.unmark(holder, mask, flags, kept)


def _check_group(task: Task, group: FanotifyFile, flags: int, mask: int) -> None:
    """What a group may be told of. Raises: EPERM, EINVAL."""
    kind, mode = flags & TYPES, group.mode & FID_BITS
    if kind and not task.creds.has_in(group.user_ns, CAP_SYS_ADMIN):
        raise EPERM("marks of mounts and file systems")
    if mask & FAN_FS_ERROR and kind != FAN_MARK_FILESYSTEM:
        raise EINVAL("errors are those of a file system")
    if flags & FAN_MARK_EVICTABLE and kind:
        raise EINVAL("only inodes are evicted")
    if mask & ~(PATH_EVENTS | EVENT_FLAGS) and (not mode or kind == FAN_MARK_MOUNT):
        raise EINVAL("events without a place")
    if mask & FAN_RENAME and not mode & FAN_REPORT_NAME:
        raise EINVAL("FAN_RENAME without names")


def _find(task: Task, dirfd: int, path: PathAddr, flags: int) -> Location:
    """fanotify_find_path(). Raises: EBADF, ENOTDIR."""
    if path:
        location = resolve(task, dirfd, path.read(), follow=not flags & FAN_MARK_DONT_FOLLOW)
    else:
        location = task.files.get(dirfd & 0xFFFFFFFF).location
    if flags & FAN_MARK_ONLYDIR and not location.dentry.inode.is_dir:
        raise ENOTDIR("not a directory")
    return location


def _check_events(group: FanotifyFile, inode: Inode, flags: int, mask: int) -> None:
    """fanotify_events_supported(). Raises: EINVAL, ENOTDIR."""
    if flags & TYPES and inode.fs.nameless:
        raise EINVAL("of all nameless files")
    strict = group.mode & FAN_REPORT_TARGET_FID or mask & FAN_RENAME or flags & FAN_MARK_IGNORE
    if strict and not flags & TYPES and not inode.is_dir and mask & (DIRENT_EVENTS | EVENT_FLAGS):
        raise ENOTDIR("events of a directory")
