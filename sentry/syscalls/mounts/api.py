"""Mounting by descriptors: fsopen, fsconfig, fsmount, fspick, open_tree, move_mount, mount_setattr.

fs/fsopen.c, fs/namespace.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import mount as m
from sentry.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_RECURSIVE,
    AT_SYMLINK_NOFOLLOW,
    O_CLOEXEC,
    O_PATH,
)
from sentry.abi.mount import (
    FSCONFIG_CMD_CREATE,
    FSCONFIG_CMD_CREATE_EXCL,
    FSCONFIG_CMD_RECONFIGURE,
    FSCONFIG_SET_BINARY,
    FSCONFIG_SET_FD,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_PATH,
    FSCONFIG_SET_PATH_EMPTY,
    FSCONFIG_SET_STRING,
    FSMOUNT_CLOEXEC,
    FSPICK_CLOEXEC,
    FSPICK_EMPTY_PATH,
    FSPICK_NO_AUTOMOUNT,
    FSPICK_SYMLINK_NOFOLLOW,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.errors import (
    E2BIG,
    EBUSY,
    EINVAL,
    ENODEV,
    EOPNOTSUPP,
)
from sentry.fs.fsopen import FsContextFile
from sentry.platform.constants import PAGE_SIZE
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, DirFd, Int, PathAddr, Size, UInt
from sentry.vfs import mounting
from sentry.vfs.file import FileDescription, Result
from sentry.vfs.grafting import check_place
from sentry.vfs.location import Location
from sentry.vfs.mount import Mount, top, tree
from sentry.vfs.mounting import TreeFile, may_mount
from sentry.vfs.mounts import MountNamespace
from sentry.vfs.open import open_o_path
from sentry.vfs.propagation import KINDS, change
from sentry.vfs.walk import resolve
from sentry.wait.steps import in_steps

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.wait.steps import Steps

MAX_STRING: Final = 256
MAX_BINARY: Final = 1 << 20
FSMOUNT_ATTRS: Final = (
    m.MOUNT_ATTR_RDONLY
    | m.MOUNT_ATTR_NOSUID
    | m.MOUNT_ATTR_NODEV
    | m.MOUNT_ATTR_NOEXEC
    | m.MOUNT_ATTR__ATIME
    | m.MOUNT_ATTR_NODIRATIME
    | m.MOUNT_ATTR_NOSYMFOLLOW
)
SAME: Final = (
    (m.MOUNT_ATTR_RDONLY, m.MS_RDONLY),
    (m.MOUNT_ATTR_NOSUID, m.MS_NOSUID),
    (m.MOUNT_ATTR_NODEV, m.MS_NODEV),
    (m.MOUNT_ATTR_NOEXEC, m.MS_NOEXEC),
    (m.MOUNT_ATTR_NODIRATIME, m.MS_NODIRATIME),
    (m.MOUNT_ATTR_NOSYMFOLLOW, m.MS_NOSYMFOLLOW),
)
ATIMES: Final = {
    m.MOUNT_ATTR_RELATIME: m.MS_RELATIME,
    m.MOUNT_ATTR_NOATIME: m.MS_NOATIME,
    m.MOUNT_ATTR_STRICTATIME: m.MS_STRICTATIME,
}
ATIME_MASK: Final = m.MS_RELATIME | m.MS_NOATIME | m.MS_STRICTATIME


def mount_flags(attributes: int) -> int:
    """MOUNT_ATTR_* as MS_*, but for the access times."""
    return sum(flag for attribute, flag in SAME if attributes & attribute)


def install(task: Task, file: FileDescription, *, cloexec: bool) -> int:
    """A descriptor for a new file."""
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=cloexec)


def context_of(task: Task, fd: int) -> FsContextFile:
    """The context behind a descriptor. Raises: EBADF, EINVAL."""
    file = task.files.get(fd)
    if not isinstance(file, FsContextFile):
        raise EINVAL("no file-system context")
    return file


# --- contexts


@syscall(430)
def sys_fsopen(task: Task, name: Addr, flags: UInt) -> int:
    """fsopen(2)."""
    may_mount(task)
    if flags & ~m.FSOPEN_CLOEXEC:
        raise EINVAL(f"flags {flags:#x}")
    kind = task.mm.read_cstr(name, PAGE_SIZE, EINVAL)
    vfs = task.kernel.vfs
    make = vfs.type_of(kind)
    if make is None:
        raise ENODEV(f"{kind!r}")
    file = FsContextFile(vfs, kind, make, None)
    return install(task, file, cloexec=bool(flags & m.FSOPEN_CLOEXEC))


@syscall(433)
def sys_fspick(task: Task, dirfd: DirFd, path: PathAddr, flags: UInt) -> int:
    """fspick(2)."""
    may_mount(task)
    known = FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW | FSPICK_NO_AUTOMOUNT | FSPICK_EMPTY_PATH
    if flags & ~known:
        raise EINVAL(f"flags {flags:#x}")
    place = resolve(
        task,
        dirfd,
        path.read(),
        follow=not flags & FSPICK_SYMLINK_NOFOLLOW,
        empty_ok=bool(flags & FSPICK_EMPTY_PATH),
    )
    if place.dentry is not place.mount.root:
        raise EINVAL("not a mount point")
    fs = place.mount.fs
    file = FsContextFile(task.kernel.vfs, fs.name.encode(), None, fs)
    return install(task, file, cloexec=bool(flags & FSPICK_CLOEXEC))


def check_command(command: int, key: int, value: int, aux: int) -> None:
    """Which arguments a command of fsconfig(2) has. Raises: EINVAL, EOPNOTSUPP."""
    if command == FSCONFIG_SET_FLAG:
        good = key and not value and not aux
    elif command == FSCONFIG_SET_STRING:
        good = key and value and not aux
    elif command == FSCONFIG_SET_BINARY:
        good = key and value and 0 < aux <= MAX_BINARY
    elif command in (FSCONFIG_SET_PATH, FSCONFIG_SET_PATH_EMPTY):
        good = key and value and (aux == AT_FDCWD or aux >= 0)
    elif command == FSCONFIG_SET_FD:
        good = key and not value and aux >= 0
    elif FSCONFIG_CMD_CREATE <= command <= FSCONFIG_CMD_CREATE_EXCL:
        good = not key and not value and not aux
    else:
        raise EOPNOTSUPP(f"command {command}")
    if not good:
        raise EINVAL(f"arguments of command {command}")


@syscall(431)
def sys_fsconfig(
    task: Task, fd: Int, command: UInt, key: Addr, value: Addr, aux: Int
) -> None:
    """fsconfig(2)."""
    if fd < 0:
        raise EINVAL(f"fd {fd}")
    check_command(command, key, value, aux)
    context = context_of(task, fd)
    name = task.mm.read_cstr(key, MAX_STRING, EINVAL) if key else b""
    with context.held():
        if command == FSCONFIG_SET_FLAG:
            context.set_option(task.kernel.vfs, name, None)
        elif command == FSCONFIG_SET_STRING:
            text = task.mm.read_cstr(value, MAX_STRING, EINVAL)
            context.set_option(task.kernel.vfs, name, text)
        elif command == FSCONFIG_SET_FD:
            task.files.get_raw(aux)
            raise context.invalid(f"{name.decode(errors='replace')} takes no descriptor")
        elif command in (FSCONFIG_SET_PATH, FSCONFIG_SET_PATH_EMPTY, FSCONFIG_SET_BINARY):
            raise context.invalid(f"{name.decode(errors='replace')} takes a string")
        elif command == FSCONFIG_CMD_RECONFIGURE:
            context.reconfigure(task)
        else:
            context.create(task)


@syscall(432)
def sys_fsmount(task: Task, fd: Int, flags: UInt, attributes: UInt) -> int:
    """fsmount(2): a mount that has no place yet."""
    may_mount(task)
    if flags & ~FSMOUNT_CLOEXEC or attributes & ~FSMOUNT_ATTRS:
        raise EINVAL(f"flags {flags:#x} {attributes:#x}")
    atime = ATIMES.get(attributes & m.MOUNT_ATTR__ATIME)
    if atime is None:
        raise EINVAL("access times")
    context = context_of(task, fd)
    task.files.free_from(0, task.rlimit(RLIMIT_NOFILE))
    task.mounts.check_room()
    if context.fs is None:
        raise EINVAL("nothing was created")
    mount = mounting.new_mount(task, context.fs, mount_flags(attributes) | atime)
    context.mounted()
    return install(task, tree_file(task, mount), cloexec=bool(flags & FSMOUNT_CLOEXEC))


def tree_file(task: Task, mount: Mount) -> TreeFile:
    """A mount that has no place yet, as an O_PATH file; those on it are to be listed there."""
    namespace = MountNamespace(
        mount,
        task.kernel.vfs.mount_ids,
        task.kernel.vfs.budget,
        anonymous=True,
        owner=task.mounts.owner,
    )
    file = TreeFile(mount.location, O_PATH, namespace)
    file.count(task.kernel.vfs.budget)
    return file


# --- trees


@syscall(428)
def sys_open_tree(task: Task, dirfd: DirFd, path: PathAddr, flags: UInt) -> Result:
    """open_tree(2)."""
    known = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW
    if flags & ~(known | m.OPEN_TREE_CLONE | O_CLOEXEC):
        raise EINVAL(f"flags {flags:#x}")
    clones = bool(flags & m.OPEN_TREE_CLONE)
    if flags & AT_RECURSIVE and not clones:
        raise EINVAL("AT_RECURSIVE without OPEN_TREE_CLONE")
    if clones:
        may_mount(task)
    place = resolve(
        task,
        dirfd,
        path.read(),
        follow=not flags & AT_SYMLINK_NOFOLLOW,
        empty_ok=bool(flags & AT_EMPTY_PATH),
    )
    if clones:
        task.files.free_from(0, task.rlimit(RLIMIT_NOFILE))
        return in_steps(cloned(task, place, flags), task.mounts.lock)
    task.kernel.vfs.budget.check_files()
    file = open_o_path(task, place, O_PATH)
    return install(task, file, cloexec=bool(flags & O_CLOEXEC))


def cloned(task: Task, place: Location, flags: int) -> Steps[int]:
    """open_detached_copy(): a descriptor of a copy of what is there."""
    copy = yield from mounting.clone_tree(task, place, recursive=bool(flags & AT_RECURSIVE))
    file = tree_file(task, copy)
    namespace = copy.namespace
    assert namespace is not None
    with file.held():  # it goes if there is no number for it any more
        for each in tree(copy):
            namespace.enlist(each)
            yield
        return install(task, file, cloexec=bool(flags & O_CLOEXEC))


@syscall(429)
def sys_move_mount(
    task: Task,
    from_fd: DirFd,
    from_path: PathAddr,
    to_fd: DirFd,
    to_path: PathAddr,
    flags: UInt,
) -> Result:
    """move_mount(2)."""
    may_mount(task)
    if flags & ~m.MOVE_MOUNT__MASK:
        raise EINVAL(f"flags {flags:#x}")
    beneath, group = flags & m.MOVE_MOUNT_BENEATH, flags & m.MOVE_MOUNT_SET_GROUP
    if beneath and group:
        raise EINVAL("MOVE_MOUNT_BENEATH with MOVE_MOUNT_SET_GROUP")
    source = resolve(
        task,
        from_fd,
        from_path.read(),
        follow=bool(flags & m.MOVE_MOUNT_F_SYMLINKS),
        empty_ok=bool(flags & m.MOVE_MOUNT_F_EMPTY_PATH),
    )
    target = resolve(
        task,
        to_fd,
        to_path.read(),
        follow=bool(flags & m.MOVE_MOUNT_T_SYMLINKS),
        empty_ok=bool(flags & m.MOVE_MOUNT_T_EMPTY_PATH),
    )
    lock = task.mounts.lock
    lock.check()
    if group:
        mounting.set_group(task, source, target)
        return 0
    check_place(task.mounts, target)
    move = move_beneath if beneath else mounting.move
    return in_steps(move(task, source, target), lock)


def move_beneath(task: Task, source: Location, target: Location) -> Steps[None]:
    """MOVE_MOUNT_BENEATH: under the mount that is on top there. can_move_mount_beneath()."""
    above = top(target).mount
    if above.parent is None or target.dentry is not above.root or above.locked:
        raise EINVAL("nothing is mounted there")
    place = above.parent
    if above is task.fs.root.mount or source.mount is above:
        raise EINVAL("the root, or itself")
    yield from mounting.move(task, source, place)
    task.mounts.swap(above, source.mount)


# --- attributes


@syscall(442, partial="no id-mapped mounts: EINVAL, as of file systems that cannot")
def sys_mount_setattr(
    task: Task, dirfd: DirFd, path: PathAddr, flags: UInt, attr: Addr, size: Size
) -> Result:
    """mount_setattr(2)."""
    if flags & ~(AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT):
        raise EINVAL(f"flags {flags:#x}")
    if size > PAGE_SIZE:
        raise E2BIG(f"{size} bytes")
    if size < m.MOUNT_ATTR_SIZE_VER0:
        raise EINVAL(f"{size} bytes")
    may_mount(task)
    data = task.mm.read(attr, size)
    if any(data[m.MOUNT_ATTR_SIZE_VER0 :]):
        raise E2BIG("unknown fields are set")
    give, take, propagation, userns = struct.unpack_from("<4Q", data)
    if not (give or take or propagation):
        return 0
    check_attributes(task, give, take, propagation, userns)
    place = resolve(
        task,
        dirfd,
        path.read(),
        follow=not flags & AT_SYMLINK_NOFOLLOW,
        empty_ok=bool(flags & AT_EMPTY_PATH),
    )
    task.mounts.lock.check()
    if place.dentry is not place.mount.root or not mounting.is_movable(task, place.mount):
        raise EINVAL("not a mount of ours")
    mounts = tree(place.mount) if flags & AT_RECURSIVE else [place.mount]
    return in_steps(changed(task, mounts, (give, take, propagation)), task.mounts.lock)


def changed(task: Task, mounts: list[Mount], how: tuple[int, int, int]) -> Steps[None]:
    """do_mount_setattr(): all of them or none. Raises: EPERM, EBUSY."""
    give, take, propagation = how
    for mount in mounts:
        check_change(mount, new_flags(mount.flags, give, take))
        yield
    before: list[tuple[Mount, int]] = []
    try:
        for mount in mounts:
            flags = new_flags(mount.flags, give, take)
            check_change(mount, flags)  # by now somebody may write there
            before.append((mount, mount.flags))
            mount.set_flags(flags)
            yield
    except EBUSY:
        for mount, flags in before:
            mount.set_flags(flags)
        raise
    for mount in mounts if propagation else ():
        change(mount, propagation, task.mounts.budget.group_ids)
        yield
    task.mounts.changes.happened()


def check_change(mount: Mount, flags: int) -> None:
    """mount_setattr_prepare(). Raises: EPERM, EBUSY."""
    mounting.check_flags(mount, flags)
    if flags & ~mount.flags & m.MS_RDONLY and mount.writers:
        raise EBUSY("open for writing")


def check_attributes(task: Task, give: int, take: int, propagation: int, userns: int) -> None:
    """build_mount_kattr(). Raises: EINVAL, EBADF, EPERM."""
    if propagation & ~KINDS or propagation & (propagation - 1):
        raise EINVAL(f"propagation {propagation:#x}")
    if (give | take) & ~(FSMOUNT_ATTRS | m.MOUNT_ATTR_IDMAP):
        raise EINVAL(f"attributes {give:#x} {take:#x}")
    if take & m.MOUNT_ATTR__ATIME:
        if take & m.MOUNT_ATTR__ATIME != m.MOUNT_ATTR__ATIME:
            raise EINVAL("access times are cleared together")
        if give & m.MOUNT_ATTR__ATIME not in ATIMES:
            raise EINVAL("access times")
    elif give & m.MOUNT_ATTR__ATIME:
        raise EINVAL("access times are set without being cleared")
    if (give | take) & m.MOUNT_ATTR_IDMAP:
        if take & m.MOUNT_ATTR_IDMAP or userns > 0x7FFFFFFF:
            raise EINVAL("MOUNT_ATTR_IDMAP")
        task.files.get(userns)
        raise EINVAL("not a user namespace, or no file system here that maps ids")


def new_flags(old: int, give: int, take: int) -> int:
    """recalc_flags()."""
    flags = old & ~mount_flags(take)
    if take & m.MOUNT_ATTR__ATIME:
        flags = flags & ~ATIME_MASK | ATIMES[give & m.MOUNT_ATTR__ATIME]
    return flags | mount_flags(give)
