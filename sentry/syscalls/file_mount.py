"""mount, umount2, pivot_root: mount(2), fs/namespace.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.mount import (
    MS_BIND,
    MS_MGC_MSK,
    MS_MGC_VAL,
    MS_MOVE,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SILENT,
    MS_SLAVE,
    MS_UNBINDABLE,
)
from sentry.errors import EAGAIN, EBUSY, EINVAL, ELOOP, ENODEV, ENOTDIR, EPERM
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, Path, PathAddr, Size
from sentry.vfs.dentry import Location
from sentry.vfs.mounts import MOUNT_FLAGS, Mount
from sentry.vfs.paths import is_reachable
from sentry.vfs.walk import resolve

if TYPE_CHECKING:
    from sentry.kernel.task import Task

MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW = 1, 2, 4, 8
PROPAGATION = {
    MS_SHARED: "shared",
    MS_PRIVATE: "private",
    MS_SLAVE: "slave",
    MS_UNBINDABLE: "unbindable",
}
PAGE = 4096


def may_mount(task: Task) -> None:
    """Raises: EPERM."""
    if not task.creds.has(CAP_SYS_ADMIN):
        raise EPERM("needs CAP_SYS_ADMIN")


def read_data(task: Task, addr: int) -> bytes:
    """copy_mount_options(): a page at most, up to its NUL."""
    if not addr:
        return b""
    first = PAGE - addr % PAGE
    data: bytes = task.mm.read(addr, first)
    if b"\0" not in data and first < PAGE:
        data += task.mm.read(addr + first, PAGE - first)
    return data.split(b"\0", 1)[0]


@syscall(165)
async def sys_mount(
    task: Task, source: PathAddr, target: PathAddr, kind: Addr, flags: Size, data: Addr
) -> None:
    """mount(2): path_mount() tells the five operations apart by the flags."""
    fs_type = task.mm.read_cstr(kind, PAGE) if kind else None
    device = task.mm.read_path(source) if source else b""
    options = read_data(task, data)
    place = await resolve(task, AT_FDCWD, task.mm.read_path(target))
    if flags & MS_MGC_MSK == MS_MGC_VAL:
        flags &= ~MS_MGC_MSK
    may_mount(task)
    if flags & MS_REMOUNT:
        remount(task, place, flags)
    elif flags & MS_BIND:
        await bind(task, device, place, bool(flags & MS_REC))
    elif flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE):
        change_propagation(task, place, flags)
    elif flags & MS_MOVE:
        await move(task, device, place)
    else:
        await new(task, place, (fs_type, device, options), flags)


def check_mount_root(task: Task, place: Location) -> Mount:
    """The place is the root of a mount of ours. Raises: EINVAL."""
    mount = place.mount
    if place.dentry is not mount.root or mount.namespace is not task.mounts:
        raise EINVAL("not a mount point")
    return mount


def remount(task: Task, place: Location, flags: int) -> None:
    """Other flags for a mount; without MS_BIND for the file system, which amounts to the same."""
    mount = check_mount_root(task, place)
    if flags & MS_RDONLY and not mount.flags & MS_RDONLY and mount.writers:
        raise EBUSY("open for writing")
    mount.set_flags(flags & MOUNT_FLAGS)


def same_kind(one: Location, other: Location) -> None:
    """A directory goes on a directory, a file on a file. Raises: ENOTDIR."""
    if one.dentry.inode.is_dir != other.dentry.inode.is_dir:
        raise ENOTDIR("a directory and a file")


async def bind(task: Task, device: bytes, place: Location, recursive: bool) -> None:
    """MS_BIND: do_loopback()."""
    if not device:
        raise EINVAL("nothing to bind")
    source = await resolve(task, AT_FDCWD, device)
    mounts = task.mounts
    if source.mount.namespace is not mounts or place.mount.namespace is not mounts:
        raise EINVAL("not in this namespace")
    if source.mount.propagation == "unbindable":
        raise EINVAL("unbindable")
    same_kind(source, place)
    top, copies = mounts.copy_tree(source.mount, source.dentry, recursive=recursive)
    mounts.attach(top, place)
    for mount, where in copies:
        mounts.attach(mount, where)


def change_propagation(task: Task, place: Location, flags: int) -> None:
    """MS_SHARED and its kin: remembered, and everything stays private."""
    kinds = [name for flag, name in PROPAGATION.items() if flags & flag]
    rest = flags & ~(MS_REC | MS_SILENT | MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE)
    if len(kinds) != 1 or rest:
        raise EINVAL(f"flags {flags:#x}")
    mount = check_mount_root(task, place)
    for each in task.mounts.tree(mount) if flags & MS_REC else [mount]:
        each.propagation = kinds[0]


async def move(task: Task, device: bytes, place: Location) -> None:
    """MS_MOVE: do_move_mount()."""
    if not device:
        raise EINVAL("nothing to move")
    source = await resolve(task, AT_FDCWD, device)
    mount = check_mount_root(task, source)
    if mount.parent is None:
        raise EINVAL("the root")
    same_kind(source, place)
    at: Mount | None = place.mount
    while at is not None:
        if at is mount:
            raise ELOOP("below itself")
        at = at.parent.mount if at.parent is not None else None
    task.mounts.detach(mount)
    task.mounts.attach(mount, place)


async def new(
    task: Task, place: Location, what: tuple[bytes | None, bytes, bytes], flags: int
) -> None:
    """A mount of a new file system: do_new_mount(). Raises: EINVAL, ENODEV."""
    fs_type, device, options = what
    if fs_type is None:
        raise EINVAL("no type")
    make = task.kernel.vfs.types.get(fs_type)
    if make is None:
        raise ENODEV(f"{fs_type!r}")
    fs = await make(task, device, flags, options)
    mount = task.kernel.vfs.new_mount(fs, flags & MOUNT_FLAGS)
    if mount.root.inode.is_dir != place.dentry.inode.is_dir:
        raise ENOTDIR("a directory and a file")
    task.mounts.check_room()
    task.mounts.attach(mount, place)


@syscall(166)
async def sys_umount2(task: Task, target: PathAddr, flags: Int) -> None:
    """umount2(2)."""
    if flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW):
        raise EINVAL(f"flags {flags:#x}")
    name = task.mm.read_path(target)
    place = await resolve(task, AT_FDCWD, name, follow=not flags & UMOUNT_NOFOLLOW)
    may_mount(task)
    mount = check_mount_root(task, place)
    if flags & MNT_EXPIRE:
        if flags & (MNT_FORCE | MNT_DETACH) or mount is task.fs.root.mount:
            raise EINVAL("MNT_EXPIRE")
        if task.mounts.busy(mount):
            raise EBUSY("in use")
        if not mount.expiring:
            mount.expiring = True
            raise EAGAIN("marked to expire")
    task.mounts.umount(mount, lazy=bool(flags & MNT_DETACH))


@syscall(155)
async def sys_pivot_root(task: Task, new_root: Path, put_old: Path) -> None:
    """pivot_root(2)."""
    may_mount(task)
    new_place = await resolve(task, AT_FDCWD, new_root)
    old_place = await resolve(task, AT_FDCWD, put_old)
    if not new_place.dentry.inode.is_dir or not old_place.dentry.inode.is_dir:
        raise ENOTDIR("not a directory")
    root = task.fs.root
    if root.mount is new_place.mount or root.mount is old_place.mount:
        raise EBUSY("on the current root")
    if root.dentry is not root.mount.root or root.mount is not task.mounts.root:
        raise EINVAL("the root is not a mount")
    mount = check_mount_root(task, new_place)
    if not is_reachable(old_place, new_place):
        raise EINVAL("put_old is not below new_root")
    task.mounts.pivot(mount, old_place)
