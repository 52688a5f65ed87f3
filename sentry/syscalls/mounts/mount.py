"""mount, umount2, pivot_root: mount(2), fs/namespace.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.mount import (
    MNT_DETACH,
    MNT_EXPIRE,
    MNT_FORCE,
    MS_BIND,
    MS_MGC_MSK,
    MS_MGC_VAL,
    MS_MOVE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SILENT,
    UMOUNT_NOFOLLOW,
)
from sentry.errors import EAGAIN, EBUSY, EINVAL, ENAMETOOLONG, ENODEV, ENOENT, ENOTDIR, EPERM
from sentry.platform.constants import PAGE_SIZE
from sentry.syscalls.files.names import second_path
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, PathAddr, Size
from sentry.vfs import mounting, unmounting
from sentry.vfs.file import Result
from sentry.vfs.grafting import check_place
from sentry.vfs.location import Location
from sentry.vfs.mount import MOUNT_FLAGS, top
from sentry.vfs.mounting import check_mount_root, may_mount
from sentry.vfs.paths import is_reachable
from sentry.vfs.propagation import KINDS
from sentry.vfs.walk import resolve
from sentry.wait.steps import in_steps

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.args import UserPath
    from sentry.wait.steps import Steps

MS_NOUSER = 1 << 31
"""The kernel's own: no header of its interface has it."""


def read_data(task: Task, addr: int) -> bytes:
    """copy_mount_options(): a page at most, up to its NUL."""
    if not addr:
        return b""
    first = PAGE_SIZE - addr % PAGE_SIZE
    data: bytes = task.mm.read(addr, first)
    if b"\0" not in data and first < PAGE_SIZE:
        data += task.mm.read(addr + first, PAGE_SIZE - first)
    return data.split(b"\0", 1)[0]


def read_source(source: UserPath) -> bytes | None:
    """copy_mount_string(), as long as a path. Raises: EFAULT, EINVAL."""
    try:
        return source.read() if source else None
    except ENAMETOOLONG:
        raise EINVAL("source") from None


@syscall(165)
def sys_mount(
    task: Task, source: PathAddr, target: PathAddr, kind: Addr, flags: Size, data: Addr
) -> Result:
    """mount(2): path_mount() tells the operations apart by the flags."""
    fs_type = task.mm.read_cstr(kind, PAGE_SIZE, EINVAL) if kind else None
    device = read_source(source)
    options = read_data(task, data)
    place = resolve(task, AT_FDCWD, target.read())
    if flags & MS_MGC_MSK == MS_MGC_VAL:
        flags &= ~MS_MGC_MSK
    if flags & MS_NOUSER:
        raise EINVAL(f"flags {flags:#x}")
    may_mount(task)
    lock = task.mounts.lock
    if flags & MS_REMOUNT:
        lock.check()
        mount = check_mount_root(task, place)
        if flags & MS_BIND:
            mounting.set_mount_flags(mount, mounting.remount_flags(mount, flags))
        else:
            mounting.remount(task, place, flags, options)
        return 0
    if flags & MS_BIND or not flags & KINDS:
        check_place(task.mounts, place)
    if flags & MS_BIND:
        found = source_of(task, device)
        steps = mounting.bind(task, found, place, recursive=bool(flags & MS_REC))
    elif flags & KINDS:
        steps = change_propagation(task, place, flags)
    elif flags & MS_MOVE:
        steps = mounting.move(task, source_of(task, device), place)
    else:
        steps = new(task, place, (fs_type, device, options), flags)
    return in_steps(steps, lock)


def source_of(task: Task, device: bytes | None) -> Location:
    """What is bound or moved. Raises: EINVAL without a name."""
    if not device:
        raise EINVAL("no source")
    return resolve(task, AT_FDCWD, device)


def change_propagation(task: Task, place: Location, flags: int) -> Steps[None]:
    """MS_SHARED and its kin: flags_to_propagation_type()."""
    kind = flags & ~(MS_REC | MS_SILENT)
    if kind & ~KINDS or kind & (kind - 1):
        raise EINVAL(f"flags {flags:#x}")
    return mounting.change_propagation(task, place, kind, recursive=bool(flags & MS_REC))


def new(
    task: Task, place: Location, what: tuple[bytes | None, bytes | None, bytes], flags: int
) -> Steps[None]:
    """A mount of a new file system: do_new_mount(). Raises: EINVAL, ENODEV, NotNow."""
    fs_type, device, options = what
    if fs_type is None:
        raise EINVAL("no type")
    make = task.kernel.vfs.type_of(fs_type)
    if make is None:
        raise ENODEV(f"{fs_type!r}")
    task.mounts.lock.check()
    task.mounts.check_room()
    source = b"none" if device is None else device
    fs = mounting.new_file_system(task, (fs_type, source, options), flags, make)
    return mounting.add_new(task, mounting.new_mount(task, fs, flags & MOUNT_FLAGS), place)


@syscall(166)
def sys_umount2(task: Task, target: PathAddr, flags: Int) -> Result:
    """umount2(2)."""
    if flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW):
        raise EINVAL(f"flags {flags:#x}")
    name = target.read()
    place = top(resolve(task, AT_FDCWD, name, follow=not flags & UMOUNT_NOFOLLOW))
    may_mount(task)
    task.mounts.lock.check()
    mount = check_mount_root(task, place)
    if mount.locked:
        raise EINVAL("locked")
    if flags & MNT_FORCE and not task.creds.has_in(mount.fs.owner, CAP_SYS_ADMIN):
        raise EPERM("MNT_FORCE")
    if flags & MNT_EXPIRE:
        if flags & (MNT_FORCE | MNT_DETACH) or mount is task.fs.root.mount:
            raise EINVAL("MNT_EXPIRE")
        if task.mounts.busy(mount):
            raise EBUSY("in use")
        if mount.expiring != 1:
            mount.expiring = 2
            raise EAGAIN("marked to expire")
    if flags & MNT_FORCE:
        mount.fs.begin_unmount()
    if mount is task.fs.root.mount and not flags & MNT_DETACH:
        # do_umount_root(): what cannot go is made read-only
        mounting.reconfigure(task, mount.fs, b"", mount.fs.sb_flags | MS_RDONLY)
        return 0
    if mount is task.mounts.root:
        raise EINVAL("not a mount that can go")
    going = unmounting.detach if flags & MNT_DETACH else unmounting.umount
    return in_steps(going.steps(mount), task.mounts.lock)


def directory(task: Task, name: bytes) -> Location:
    """LOOKUP_DIRECTORY. Raises: ENOTDIR."""
    place = resolve(task, AT_FDCWD, name)
    if not place.dentry.inode.is_dir:
        raise ENOTDIR("not a directory")
    return place


@syscall(155)
def sys_pivot_root(task: Task, new_root: PathAddr, put_old: PathAddr) -> None:
    """pivot_root(2)."""
    may_mount(task)
    new_name = new_root.read()
    old_name = second_path(put_old, lambda: directory(task, new_name))
    new_place = directory(task, new_name)
    old_place = directory(task, old_name)
    task.mounts.lock.check()
    check_place(task.mounts, old_place)
    root, new_mount = task.fs.root, new_place.mount
    parents = [m.parent.mount for m in (new_mount, root.mount) if m.parent is not None]
    if old_place.mount.group is not None or any(p.group is not None for p in parents):
        raise EINVAL("on a shared mount")
    for mount in (root.mount, new_mount, old_place.mount):
        if mount.namespace is not task.mounts:
            raise EINVAL("not in this namespace")
    if new_mount.locked:
        raise EINVAL("locked")
    if new_place.dentry.unlinked or old_place.dentry.unlinked:
        raise ENOENT("the directory has been removed")
    if root.mount in (new_mount, old_place.mount):
        raise EBUSY("on the current root")
    if root.dentry is not root.mount.root or new_place.dentry is not new_mount.root:
        raise EINVAL("not a mount point")
    if new_mount.parent is None or not is_reachable(old_place, new_place):
        raise EINVAL("put_old is not below new_root")
    if not is_reachable(new_place, root):
        raise EINVAL("new_root is not below the root")
    task.mounts.pivot(root.mount, new_mount, old_place)
    for other in task.kernel.pids.tasks.values():  # chroot_fs_refs()
        if not other.dead:
            other.fs.root_changed(root, new_mount.location)
