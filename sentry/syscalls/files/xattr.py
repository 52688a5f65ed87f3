"""Extended attributes: xattr(7), fs/xattr.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sentry.abi.capability import CAP_SETFCAP, CAP_SYS_ADMIN
from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.inotify import IN_ATTRIB
from sentry.abi.stat import SOCKFS_MAGIC
from sentry.abi.xattr import (
    XATTR_CREATE,
    XATTR_LIST_MAX,
    XATTR_NAME_MAX,
    XATTR_REPLACE,
    XATTR_SIZE_MAX,
)
from sentry.auth import acl, file_caps
from sentry.auth.permissions import MAY_READ, MAY_WRITE, owner_or_capable
from sentry.errors import E2BIG, EINVAL, ENODATA, EOPNOTSUPP, EPERM, ERANGE
from sentry.syscalls.args import UserOut as Out
from sentry.syscalls.args import UserPath
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, PathAddr, Size, UInt, UserOut
from sentry.vfs.access import check_inode
from sentry.vfs.acls import get_acl, set_acl
from sentry.vfs.attributes import Named
from sentry.vfs.flags import check_fixed
from sentry.vfs.interface import Inode
from sentry.vfs.location import Location
from sentry.vfs.walk import resolve
from sentry.vfs.watches import tell_changed

if TYPE_CHECKING:
    from sentry.kernel.task import Task

SOCKET_PROTOCOL = b"system.sockprotoname"
CAPABILITY = b"security.capability"
Place = Callable[[], Location]
"""Finds the file, once the other arguments are checked."""


def read_name(task: Task, addr: int) -> bytes:
    """import_xattr_name(). Raises: EFAULT, ERANGE."""
    name: bytes = task.mm.read_cstr(addr, XATTR_NAME_MAX + 1, ERANGE)
    if not name or len(name) > XATTR_NAME_MAX:
        raise ERANGE(f"{len(name)} bytes")
    return name


def check(task: Task, inode: Inode, name: bytes, mask: int) -> None:
    """xattr_permission() and the handlers by prefix. Raises: EPERM, ENODATA, EOPNOTSUPP, EACCES."""
    creds = task.creds
    if mask & MAY_WRITE:
        check_fixed(inode)
    prefix, dot, rest = name.partition(b".")
    if dot and prefix == b"trusted":
        if not creds.has(CAP_SYS_ADMIN):
            raise EPERM("trusted.*") if mask & MAY_WRITE else ENODATA("trusted.*")
    elif not dot or prefix not in (b"security", b"system"):
        if dot and prefix == b"user":
            _check_user(task, inode, mask)
        check_inode(creds, inode, mask)
    if not dot or prefix not in (b"user", b"trusted", b"security"):
        raise EOPNOTSUPP(f"{name!r}")
    if prefix == b"user" and not inode.fs.xattr_user:
        raise EOPNOTSUPP(f"{name!r}")
    if not rest:
        raise EINVAL("nothing behind the prefix")
    if prefix == b"security":
        needed = CAP_SETFCAP if name == CAPABILITY else CAP_SYS_ADMIN
        setcap = name == CAPABILITY and creds.over(CAP_SETFCAP, inode.uid, inode.gid)
        if mask & MAY_WRITE and not setcap and not creds.has_in(inode.fs.owner, needed):
            raise EPERM("security.*")


def _check_user(task: Task, inode: Inode, mask: int) -> None:
    """user.* is for regular files and directories."""
    if not (inode.is_regular or inode.is_dir):
        raise EPERM("user.*") if mask & MAY_WRITE else ENODATA("user.*")
    sticky = inode.is_dir and inode.mode & 0o1000 and mask & MAY_WRITE
    if sticky and not owner_or_capable(task.creds, inode.uid):
        raise EPERM("user.* of a sticky directory")


# --- the four operations, on a place


def set_value(
    task: Task, place: Place, name: int, value: tuple[int, int], flags: int
) -> None:
    """setxattr: arguments first, then the place."""
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise EINVAL(f"flags {flags:#x}")
    key = read_name(task, name)
    addr, size = value
    if size > XATTR_SIZE_MAX:
        raise E2BIG(f"{size} bytes")
    data = task.mm.read(addr, size) if size else b""
    with Named(place) as location:
        _set(task, location, key, data, flags)


def _set(task: Task, location: Location, key: bytes, data: bytes, flags: int) -> None:
    location.mount.check_writable()
    if key in acl.NAMES:
        set_acl(task, location, key, data)
        return
    inode = location.dentry.inode
    if key == CAPABILITY and data:
        data = file_caps.to_store(task.creds, inode.fs.owner, (inode.uid, inode.gid), data)
    check(task, inode, key, MAY_WRITE)
    with inode.lock:
        inode.setxattr(key, data, flags)
    tell_changed(location.dentry, IN_ATTRIB)


def get_value(
    task: Task, place: Place, name: int, value: Out, size: int
) -> int:
    """getxattr: a size of 0 asks for the length."""
    key = read_name(task, name)
    inode = place().dentry.inode
    if key in acl.NAMES:
        data = get_acl(task, inode, key)
    else:
        if key != SOCKET_PROTOCOL or inode.fs.magic != SOCKFS_MAGIC:
            check(task, inode, key, MAY_READ)
        data = inode.getxattr(key)
    if key == CAPABILITY:
        data = file_caps.to_show(task.creds, inode.fs.owner, data)
    if size:
        if len(data) > size:
            raise ERANGE(f"{len(data)} bytes")
        value.put(data)
    return len(data)


def list_names(task: Task, place: Place, out: Out, size: int) -> int:
    """listxattr: names with a NUL each; trusted.* only for those who may read them."""
    inode = place().dentry.inode
    names = inode.listxattr()
    if not task.creds.has(CAP_SYS_ADMIN):
        names = [name for name in names if not name.startswith(b"trusted.")]
    data = b"".join(name + b"\0" for name in names)
    if len(data) > XATTR_LIST_MAX:
        raise E2BIG(f"{len(data)} bytes")
    if size:
        if len(data) > size:
            raise ERANGE(f"{len(data)} bytes")
        if data:
            out.put(data)
    return len(data)


def remove(task: Task, place: Place, name: int) -> None:
    """removexattr."""
    key = read_name(task, name)
    with Named(place) as location:
        _remove(task, location, key)


def _remove(task: Task, location: Location, key: bytes) -> None:
    location.mount.check_writable()
    if key in acl.NAMES:
        set_acl(task, location, key, b"")
        return
    inode = location.dentry.inode
    check(task, inode, key, MAY_WRITE)
    with inode.lock:
        inode.removexattr(key)
    tell_changed(location.dentry, IN_ATTRIB)


def by_path(task: Task, path: UserPath, follow: bool) -> Location:
    """The place of a path, read when it is needed."""
    return resolve(task, AT_FDCWD, path.read(), follow=follow)


def by_fd(task: Task, fd: int) -> Location:
    """The place of a descriptor, looked up when it is needed."""
    return task.files.get(fd).location


# --- the calls


@syscall(188)
def sys_setxattr(
    task: Task, path: PathAddr, name: Addr, value: Addr, size: Size, flags: Int
) -> None:
    """setxattr(2)."""
    set_value(task, lambda: by_path(task, path, True), name, (value, size), flags)


@syscall(189)
def sys_lsetxattr(
    task: Task, path: PathAddr, name: Addr, value: Addr, size: Size, flags: Int
) -> None:
    """lsetxattr(2)."""
    set_value(task, lambda: by_path(task, path, False), name, (value, size), flags)


@syscall(190)
def sys_fsetxattr(
    task: Task, fd: UInt, name: Addr, value: Addr, size: Size, flags: Int
) -> None:
    """fsetxattr(2)."""
    set_value(task, lambda: by_fd(task, fd), name, (value, size), flags)


@syscall(191)
def sys_getxattr(
    task: Task, path: PathAddr, name: Addr, value: UserOut, size: Size
) -> int:
    """getxattr(2)."""
    return get_value(task, lambda: by_path(task, path, True), name, value, size)


@syscall(192)
def sys_lgetxattr(
    task: Task, path: PathAddr, name: Addr, value: UserOut, size: Size
) -> int:
    """lgetxattr(2)."""
    return get_value(task, lambda: by_path(task, path, False), name, value, size)


@syscall(193)
def sys_fgetxattr(task: Task, fd: UInt, name: Addr, value: UserOut, size: Size) -> int:
    """fgetxattr(2)."""
    return get_value(task, lambda: by_fd(task, fd), name, value, size)


@syscall(194)
def sys_listxattr(task: Task, path: PathAddr, names: UserOut, size: Size) -> int:
    """listxattr(2)."""
    return list_names(task, lambda: by_path(task, path, True), names, size)


@syscall(195)
def sys_llistxattr(task: Task, path: PathAddr, names: UserOut, size: Size) -> int:
    """llistxattr(2)."""
    return list_names(task, lambda: by_path(task, path, False), names, size)


@syscall(196)
def sys_flistxattr(task: Task, fd: UInt, names: UserOut, size: Size) -> int:
    """flistxattr(2)."""
    return list_names(task, lambda: by_fd(task, fd), names, size)


@syscall(197)
def sys_removexattr(task: Task, path: PathAddr, name: Addr) -> None:
    """removexattr(2)."""
    remove(task, lambda: by_path(task, path, True), name)


@syscall(198)
def sys_lremovexattr(task: Task, path: PathAddr, name: Addr) -> None:
    """lremovexattr(2)."""
    remove(task, lambda: by_path(task, path, False), name)


@syscall(199)
def sys_fremovexattr(task: Task, fd: UInt, name: Addr) -> None:
    """fremovexattr(2)."""
    remove(task, lambda: by_fd(task, fd), name)
