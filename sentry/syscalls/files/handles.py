"""File handles: name_to_handle_at(2), open_by_handle_at(2). fs/fhandle.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_DAC_READ_SEARCH
from sentry.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_HANDLE_FID,
    AT_HANDLE_MNT_ID_UNIQUE,
    AT_SYMLINK_FOLLOW,
    MAX_HANDLE_SZ,
    O_CLOEXEC,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.errors import EINVAL, EOPNOTSUPP, EOVERFLOW, EPERM, ESTALE
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, DirFd, Int, OpenFlags, PathAddr
from sentry.vfs.dentry import Dentry
from sentry.vfs.handles import HANDLE, HEADER, KIND, handle_of, remember, remembered
from sentry.vfs.location import Location
from sentry.vfs.open import OpenHow, open_found
from sentry.vfs.walk import resolve

if TYPE_CHECKING:
    from sentry.kernel.task import Task


@syscall(303)
def sys_name_to_handle_at(
    task: Task, dirfd: DirFd, path: PathAddr, handle: Addr, mount_id: Addr, flags: Int
) -> None:
    """name_to_handle_at(2): a buffer that is too small is told the size, with EOVERFLOW.

    With AT_HANDLE_FID it need not be possible to open what the handle is of.
    """
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH | AT_HANDLE_FID | AT_HANDLE_MNT_ID_UNIQUE):
        raise EINVAL(f"flags {flags:#x}")
    location = resolve(
        task,
        dirfd,
        path.read(),
        follow=bool(flags & AT_SYMLINK_FOLLOW),
        empty_ok=bool(flags & AT_EMPTY_PATH),
    )
    inode = location.dentry.inode
    if not inode.fs.has_handles and not flags & AT_HANDLE_FID:
        raise EOPNOTSUPP("no file handles")
    size, _ = HEADER.unpack(task.mm.read(handle, HEADER.size))
    if size > MAX_HANDLE_SZ:
        raise EINVAL(f"{size} bytes")
    if flags & AT_HANDLE_MNT_ID_UNIQUE:
        task.mm.write(mount_id, location.mount.unique_id.to_bytes(8, "little"))
    else:
        task.mm.write(mount_id, location.mount.id.to_bytes(4, "little"))
    if size < HANDLE.size:
        task.mm.write(handle, HEADER.pack(HANDLE.size, 0xFF))
        raise EOVERFLOW(f"{size} bytes")
    task.mm.write(handle, handle_of(inode))
    if inode.fs.has_handles:
        remember(task.kernel.vfs.dentries, location.dentry)


@syscall(304)
def sys_open_by_handle_at(task: Task, fd: Int, handle: Addr, flags: OpenFlags) -> int:
    """open_by_handle_at(2): `fd` is any file on the file system."""
    place = task.fs.cwd if fd == AT_FDCWD else task.files.get(fd & 0xFFFFFFFF).location
    if not task.creds.has(CAP_DAC_READ_SEARCH):
        raise EPERM("needs CAP_DAC_READ_SEARCH")
    size, kind = HEADER.unpack(task.mm.read(handle, HEADER.size))
    if not 0 < size <= MAX_HANDLE_SZ or kind < 0:
        raise EINVAL(f"{size} bytes of type {kind}")
    raw = task.mm.read(handle + HEADER.size, size)
    location = Location(place.mount, dentry_of(task, place, kind, raw))
    how = OpenHow.old(flags, 0)
    limit = task.rlimit(RLIMIT_NOFILE)
    task.files.free_from(0, limit)
    task.kernel.vfs.budget.check_files()
    file = open_found(task, location, how)
    try:
        return task.files.install(file, limit, cloexec=bool(flags & O_CLOEXEC))
    except BaseException:
        file.incref().decref()
        raise


def dentry_of(task: Task, place: Location, kind: int, raw: bytes) -> Dentry:
    """What a handle means. Raises: ESTALE."""
    if kind != KIND or len(raw) != HANDLE.size:
        raise ESTALE("not a handle of ours")
    generation, ino = HANDLE.unpack(raw)
    dentry = remembered(task.kernel.vfs.dentries, place.dentry.inode.fs.dev, ino)
    if dentry is None or generation:
        raise ESTALE(f"inode {ino}")
    inode = dentry.inode
    if dentry.unlinked and not inode.stat().nlink and not inode.open_count:
        raise ESTALE(f"inode {ino} is gone")
    return dentry
