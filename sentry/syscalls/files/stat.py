"""What files and file systems are: stat, statx, statfs, access."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi.fcntl import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
)
from sentry.abi.mount import MS_MANDLOCK, MS_NOEXEC, MS_NOSYMFOLLOW, MS_SYNCHRONOUS
from sentry.abi.stat import (
    S_IFBLK,
    S_IFCHR,
    S_IFIFO,
    S_IFSOCK,
    STATFS,
    STATX,
    STATX__RESERVED,
    STATX_ATTR_APPEND,
    STATX_ATTR_AUTOMOUNT,
    STATX_ATTR_DAX,
    STATX_ATTR_IMMUTABLE,
    STATX_ATTR_MOUNT_ROOT,
    STATX_ATTR_NODUMP,
    STATX_BASIC_STATS,
    STATX_BTIME,
    STATX_MNT_ID,
    STATX_MNT_ID_UNIQUE,
)
from sentry.auth.credentials import Credentials
from sentry.auth.permissions import MAY_ACCESS, MAY_EXEC, MAY_WRITE
from sentry.errors import EACCES, EINVAL, EROFS
from sentry.syscalls.args import UserOut as Out
from sentry.syscalls.args import UserPath
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import (
    Addr,
    DirFd,
    Int,
    OutAddr,
    Path,
    PathAddr,
    RawFile,
    UInt,
    UserOut,
)
from sentry.vfs.access import check_device, check_inode
from sentry.vfs.interface import Attributes
from sentry.vfs.location import Location
from sentry.vfs.statbuf import pack_stat
from sentry.vfs.walk import resolve, walk

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.kernel.task import Task

NS = 1_000_000_000
USTAT = struct.Struct("<i4xQ6s6s4x")
"""struct ustat: f_tfree, f_tinode, two names that nobody sets."""


def stat_path(task: Task, dirfd: int, path: bytes, buf: int, flags: int) -> None:
    """stat(2) of a path that is not empty, or must not be."""
    follow, empty_ok = not flags & AT_SYMLINK_NOFOLLOW, bool(flags & AT_EMPTY_PATH)
    mount, dentry, asked = walk(task, dirfd, path, follow, empty_ok)
    inode = dentry.inode
    attributes = inode.stat() if dentry is mount.root else inode.stat_walked(asked is inode)
    task.mm.write(buf, pack_stat(task, inode, attributes))


@syscall(4)
def sys_stat(task: Task, path: Path, buf: OutAddr) -> None:
    """stat(2)."""
    stat_path(task, AT_FDCWD, path, buf, 0)


@syscall(6)
def sys_lstat(task: Task, path: Path, buf: OutAddr) -> None:
    """lstat(2)."""
    stat_path(task, AT_FDCWD, path, buf, AT_SYMLINK_NOFOLLOW)


@syscall(5)
def sys_fstat(task: Task, file: RawFile, buf: OutAddr) -> None:
    """fstat(2)."""
    inode = file.location.dentry.inode
    task.mm.write(buf, pack_stat(task, inode, inode.stat()))


@syscall(262)
def sys_newfstatat(
    task: Task, dirfd: DirFd, path: PathAddr, buf: OutAddr, flags: UInt
) -> None:
    """fstatat(2). AT_EMPTY_PATH allows a null path, too, since Linux 6.11."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise EINVAL(f"flags {flags:#x}")
    name = path.read() if path or not flags & AT_EMPTY_PATH else b""
    if not name and flags & AT_EMPTY_PATH and dirfd >= 0:
        inode = task.files.get_raw(dirfd).location.dentry.inode
        task.mm.write(buf, pack_stat(task, inode, inode.stat()))
    else:
        stat_path(task, dirfd, name, buf, flags)


def at_path(task: Task, dirfd: int, path: UserPath, flags: int) -> Location:
    """The place of the *at calls with AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH."""
    empty_ok = bool(flags & AT_EMPTY_PATH)
    name = path.read() if path or not empty_ok else b""
    return resolve(
        task, dirfd, name, follow=not flags & AT_SYMLINK_NOFOLLOW, empty_ok=empty_ok
    )


@syscall(332)
def sys_statx(
    task: Task, dirfd: DirFd, path: PathAddr, flags: UInt, mask: UInt, buf: UserOut
) -> None:
    """statx(2)."""
    known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE
    if mask & STATX__RESERVED:
        raise EINVAL("STATX__RESERVED")
    if flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE or flags & ~known:
        raise EINVAL(f"flags {flags:#x}")
    location = at_path(task, dirfd, path, flags)
    buf.put(pack_statx(task, location, location.dentry.inode.stat(), mask))


def device_parts(dev: int) -> tuple[int, int]:
    """Major and minor of a dev_t in the form of struct stat."""
    return dev >> 8 & 0xFFF, dev & 0xFF | dev >> 12 & 0xFFF00


def pack_statx(task: Task, location: Location, a: Attributes, mask: int) -> bytes:
    """struct statx: the basic fields, whatever was asked for; the birth time only if it was."""
    mount = location.mount
    mount_id = STATX_MNT_ID_UNIQUE if mask & STATX_MNT_ID_UNIQUE else STATX_MNT_ID
    shown_id = mount.unique_id if mask & STATX_MNT_ID_UNIQUE else mount.id
    known = STATX_BASIC_STATS | mount_id
    btime = (0, 0)
    if mask & STATX_BTIME and a.btime_ns is not None:
        known |= STATX_BTIME
        btime = divmod(a.btime_ns, NS)
    inode, creds = location.dentry.inode, task.creds
    uid, gid = inode.owner_for(task, a)
    attributes, settable = 0, 0
    if inode.fs.has_flags:  # STATX_ATTR_* are the numbers of FS_*_FL
        settable = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP
        attributes = inode.file_flags & settable
    is_root = location.dentry is mount.root
    dev = a.dev if a.dev is not None else location.dentry.inode.fs.dev
    return STATX.pack(
        known, a.block_size, attributes | (STATX_ATTR_MOUNT_ROOT if is_root else 0), a.nlink,
        creds.shown_uid(uid), creds.shown_gid(gid), a.mode, b"", a.ino, a.size, a.blocks,
        STATX_ATTR_MOUNT_ROOT | STATX_ATTR_AUTOMOUNT | STATX_ATTR_DAX | settable,
        *divmod(a.atime_ns, NS), 0,
        *btime, 0, *divmod(a.ctime_ns, NS), 0, *divmod(a.mtime_ns, NS), 0, *device_parts(a.rdev),
        *device_parts(dev), shown_id, 0, 0, 0, 0, 0, 0, b"", b"",
    )  # fmt: skip


# --- statfs


def put_statfs(location: Location, buf: Out) -> None:
    """struct statfs of the file system there."""
    mount = location.mount
    fs = location.dentry.inode.fs
    s = fs.statfs()
    flags = 0x0020 | mount.flags & 0xF | (1 if mount.read_only else 0)
    flags |= mount.flags & 0xC00 | (0x1000 if mount.flags & 0x200000 else 0)
    flags |= fs.sb_flags & (MS_SYNCHRONOUS | MS_MANDLOCK)
    flags |= 0x2000 if mount.flags & MS_NOSYMFOLLOW else 0
    fsid = fs.dev.to_bytes(8, "little")
    buf.put(
        STATFS.pack(
            s.magic, s.block_size, s.blocks, s.blocks_free, s.blocks_free, s.files, s.files_free,
            fsid, s.name_max, s.block_size, flags, b"",
        )
    )  # fmt: skip


@syscall(137)
def sys_statfs(task: Task, path: Path, buf: UserOut) -> None:
    """statfs(2)."""
    put_statfs(resolve(task, AT_FDCWD, path), buf)


@syscall(138)
def sys_fstatfs(task: Task, file: RawFile, buf: UserOut) -> None:
    """fstatfs(2)."""
    put_statfs(file.location, buf)


# --- access


def access(task: Task, dirfd: int, path: UserPath, mode: int, flags: int) -> None:
    """do_faccessat()."""
    if mode & ~7:
        raise EINVAL(f"mode {mode:o}")
    if flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise EINVAL(f"flags {flags:#x}")
    creds = task.creds if flags & AT_EACCESS else task.creds.for_access()
    empty_ok = bool(flags & AT_EMPTY_PATH)
    name = path.read() if path or not empty_ok else b""
    follow = not flags & AT_SYMLINK_NOFOLLOW
    location = resolve(task, dirfd, name, follow=follow, empty_ok=empty_ok, creds=creds)
    check_place(task, creds, location, mode)


def check_place(task: Task, creds: Credentials, location: Location, mode: int) -> None:
    """What access(2) asks of a place. Raises: EACCES, EROFS."""
    inode = location.dentry.inode
    if mode & MAY_EXEC and inode.is_regular and location.mount.flags & MS_NOEXEC:
        raise EACCES("a noexec mount")
    if not mode:
        return
    if mode & MAY_EXEC or not inode.belongs_to(task):
        check_inode(creds, inode, mode | MAY_ACCESS)
    if inode.kind in (S_IFCHR, S_IFBLK) and mode & ~MAY_EXEC:
        check_device(task, inode.kind, inode.rdev, mode)
    special = inode.kind in (S_IFCHR, S_IFIFO, S_IFSOCK, S_IFBLK)
    if mode & MAY_WRITE and not special and location.mount.read_only:
        raise EROFS("a read-only mount")


@syscall(21)
def sys_access(task: Task, path: PathAddr, mode: Int) -> None:
    """access(2)."""
    access(task, AT_FDCWD, path, mode, 0)


@syscall(269)
def sys_faccessat(task: Task, dirfd: DirFd, path: PathAddr, mode: Int) -> None:
    """faccessat(2): the system call has no flags."""
    access(task, dirfd, path, mode, 0)


@syscall(439)
def sys_faccessat2(
    task: Task, dirfd: DirFd, path: PathAddr, mode: Int, flags: Int
) -> None:
    """faccessat2(2)."""
    access(task, dirfd, path, mode, flags)


# --- file systems by device and by number


@syscall(136)
def sys_ustat(task: Task, device: UInt, out: UserOut) -> None:
    """ustat(2): free room of the mounted file system with this device number."""
    for mount in task.mounts:
        if mount.fs.dev == device:
            found = mount.fs.statfs()
            out.put(USTAT.pack(found.blocks_free & 0x7FFFFFFF, found.files_free, b"", b""))
            return
    raise EINVAL(f"device {device:#x}")


@syscall(139)
def sys_sysfs(task: Task, option: Int, first: Addr, second: Addr) -> int:
    """sysfs(2): the types of file systems by number, by name, and how many there are."""
    names = sorted(task.kernel.vfs.types)
    if option == 1:
        wanted = task.mm.read_path(first)
        if wanted not in names:
            raise EINVAL(f"{wanted!r}")
        return names.index(wanted)
    if option == 2:
        first &= 0xFFFFFFFF
        if first >= len(names):
            raise EINVAL(f"type {first}")
        task.mm.write(second, names[first] + b"\0")
        return 0
    if option == 3:
        return len(names)
    raise EINVAL(f"option {option}")
