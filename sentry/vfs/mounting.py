"""What may be mounted where: the checks of mount(2), move_mount(2), umount2(2). fs/namespace.c.

Every way to mount (the classic calls and those with descriptors) comes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.mount import (
    MS_DIRSYNC,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_NOATIME,
    MS_NODIRATIME,
    MS_RDONLY,
    MS_RELATIME,
    MS_STRICTATIME,
    MS_SYNCHRONOUS,
)
from sentry.errors import EBUSY, EINVAL, ELOOP, ENOTDIR, EPERM, Errno
from sentry.vfs import mount_copies, propagation
from sentry.vfs.file import Caller, FileDescription
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.grafting import graft
from sentry.vfs.location import Location
from sentry.vfs.mount import ATIME_FLAGS, LOCKABLE, MOUNT_FLAGS, Mount, top, tree
from sentry.vfs.mounts import HeldMounts, MountNamespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.vfs.dentry import Dentry
    from sentry.vfs.interface import Inode
    from sentry.vfs.mounter import Mounter
    from sentry.vfs.vfs import MountType
    from sentry.wait.steps import Steps

ANYWHERE: Final = frozenset(
    {
        b"tmpfs", b"ramfs", b"proc", b"sysfs", b"mqueue", b"devpts", b"cgroup2", b"overlay",
        b"fuse",
    }
)
SHOWN: Final[dict[bytes, Callable[[Caller], Any]]] = {
    b"proc": lambda caller: caller.pids,
    b"sysfs": lambda caller: caller.ns.net,
    b"mqueue": lambda caller: caller.ns.ipc,
    b"cgroup2": lambda caller: caller.ns.cgroup,
}
"""Types that show a namespace of the caller, and which."""
REVEALING: Final = frozenset({b"proc", b"sysfs"})
"""SB_I_USERNS_VISIBLE."""
SB_FLAGS: Final = {
    b"dirsync": (MS_DIRSYNC, 0),
    b"lazytime": (MS_LAZYTIME, 0),
    b"mand": (MS_MANDLOCK, 0),
    b"ro": (MS_RDONLY, 0),
    b"sync": (MS_SYNCHRONOUS, 0),
    b"async": (0, MS_SYNCHRONOUS),
    b"nolazytime": (0, MS_LAZYTIME),
    b"nomand": (0, MS_MANDLOCK),
    b"rw": (0, MS_RDONLY),
}
"""Options of every file system: (set, clear). vfs_parse_sb_flag(), fs/fs_context.c."""
SHOWN_FLAGS: Final = MS_SYNCHRONOUS | MS_DIRSYNC | MS_MANDLOCK | MS_LAZYTIME
REMOUNT_FLAGS: Final = MS_SYNCHRONOUS | MS_MANDLOCK | MS_LAZYTIME
"""MS_RMT_MASK, as far as it is shown: what a remount takes anew."""
ATIME_ASKED: Final = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME


def may_mount(caller: Caller) -> None:
    """may_mount(). Raises: EPERM."""
    if not caller.creds.has_in(caller.mounts.owner, CAP_SYS_ADMIN):
        raise EPERM("needs CAP_SYS_ADMIN")


def check_type(caller: Caller, kind: bytes) -> None:
    """FS_USERNS_MOUNT: a user namespace may mount only some types. Raises: EPERM.

    What shows a namespace of another kind is for those who are capable in its owner.
    """
    creds = caller.creds
    if creds.user_ns is None:
        return
    if kind.partition(b".")[0] not in ANYWHERE:
        raise EPERM("not in a user namespace")
    if kind in SHOWN and not creds.has_in(SHOWN[kind](caller).owner, CAP_SYS_ADMIN):
        raise EPERM("it shows another's namespace")


def new_file_system(
    caller: Caller, what: tuple[bytes, bytes, bytes], flags: int, make: MountType
) -> FileSystem:
    """A file system of (type, source, options), owned by the caller's user namespace."""
    kind, source, options = what
    check_type(caller, kind)
    owner = caller.creds.user_ns
    flags, options = take_sb_flags(flags, options)
    fs = make(caller, source, flags, options)
    if not fs.mount_count:
        fs.owner, fs.sb_flags = owner, flags & SHOWN_FLAGS
        fs.is_made_inside = True
        if flags & MS_RDONLY:
            fs.read_only = True
    return fs


def new_mount(caller: Caller, fs: FileSystem, flags: int) -> Mount:
    """A mount of a new file system, which has no place yet: mount_too_revealing().

    Raises: EPERM unless the namespace sees one of the type with nothing hidden, whose flags that
    are locked it has, too, and keeps.
    """
    mount: Mount = caller.kernel.vfs.new_mount(fs, flags)
    if caller.mounts.owner is None or fs.name.encode() not in REVEALING:
        return mount
    for seen in caller.mounts:
        if seen.fs.name != fs.name or not shows_all(seen):
            continue
        locked = seen.locked_flags & (MS_RDONLY | ATIME_FLAGS)
        if seen.fs.read_only:
            locked |= MS_RDONLY
        differs = locked & ATIME_FLAGS and (mount.flags ^ seen.flags) & ATIME_FLAGS
        if not differs and not locked & MS_RDONLY & ~mount.flags:
            mount.locked_flags = locked
            return mount
    raise EPERM("it would show, or change, what cannot be seen or changed")


def take_sb_flags(flags: int, options: bytes) -> tuple[int, bytes]:
    """The options of every file system among others: what is left, and the flags with them."""
    rest: list[bytes] = []
    for option in options.split(b","):
        is_cut = bool(rest) and rest[-1].endswith(b"\\")  # the comma is one of a path
        if option in SB_FLAGS and not is_cut:
            give, take = SB_FLAGS[option]
            flags = flags & ~take | give
        elif option:
            rest.append(option)
    return flags, b",".join(rest)


def shows_all(mount: Mount) -> bool:
    """Nothing of its file system is hidden from a less privileged namespace."""
    return mount.root.parent is None and not any(
        child.locked for child in mount.mounted.values()
    )


def is_ours(caller: Mounter, mount: Mount) -> bool:
    """check_mnt()."""
    return mount.namespace is caller.mounts


def is_movable(caller: Mounter, mount: Mount) -> bool:
    """A mount of ours, or the root of a tree that has no place yet."""
    namespace = mount.namespace
    if namespace is not None and namespace.anonymous:
        return True
    return is_ours(caller, mount)


def check_mount_root(caller: Mounter, place: Location) -> Mount:
    """The place is the root of a mount of ours. Raises: EINVAL."""
    mount = place.mount
    if place.dentry is not mount.root or not is_ours(caller, mount):
        raise EINVAL("not a mount point")
    return mount


def check_flags(mount: Mount, flags: int) -> None:
    """can_change_locked_flags(). Raises: EPERM."""
    locked = mount.locked_flags
    if locked & LOCKABLE & ~flags:
        raise EPERM("locked flags")
    if locked & ATIME_FLAGS and (mount.flags ^ flags) & ATIME_FLAGS:
        raise EPERM("locked access times")


def remount_flags(mount: Mount, flags: int) -> int:
    """The flags a remount asks for; access times stay as they are unless it says something."""
    if not flags & ATIME_ASKED:
        return flags & MOUNT_FLAGS & ~ATIME_ASKED | mount.flags & ATIME_ASKED
    return flags & MOUNT_FLAGS


def set_mount_flags(mount: Mount, flags: int) -> None:
    """Other flags for one mount: do_reconfigure_mnt(). Raises: EPERM, EBUSY."""
    model = Mount(0, mount.fs, mount.root, flags)
    check_flags(mount, model.flags)
    if flags & MS_RDONLY and not mount.flags & MS_RDONLY and mount.writers:
        raise EBUSY("open for writing")
    mount.set_flags(flags)
    namespace = mount.namespace
    if namespace is not None:
        namespace.changes.happened()


def remount(caller: Mounter, place: Location, asked: int, options: bytes) -> None:
    """do_remount(): other options for the file system, and flags for this mount."""
    mount = check_mount_root(caller, place)
    flags = remount_flags(mount, asked)
    model = Mount(0, mount.fs, mount.root, flags)
    check_flags(mount, model.flags)
    kept = mount.fs.sb_flags & ~REMOUNT_FLAGS | asked & REMOUNT_FLAGS
    reconfigure(caller, mount.fs, options, kept | asked & MS_RDONLY)
    set_mount_flags(mount, flags)


def reconfigure(caller: Mounter, fs: FileSystem, options: bytes, flags: int) -> None:
    """reconfigure_super(), for who has the rights where the file system was mounted.

    Raises: EPERM, EBUSY while something is open for writing, EINVAL, EROFS.
    """
    if not caller.creds.has_in(fs.owner, CAP_SYS_ADMIN):
        raise EPERM("somebody else's file system")
    flags, options = take_sb_flags(flags, options)
    if (flags ^ fs.sb_flags) & MS_DIRSYNC:
        raise EINVAL("dirsync cannot be changed")
    if not flags & MS_RDONLY:
        fs.check_writable()
    read_only = bool(flags & MS_RDONLY) or fs.only_read
    if read_only and not fs.read_only:
        for namespace in list(caller.mounts.budget.namespaces):
            if any(mount.fs is fs and mount.writers for mount in namespace):
                raise EBUSY("open for writing")
    fs.reconfigure(options)
    fs.read_only, fs.sb_flags = read_only, flags & SHOWN_FLAGS
    for namespace in list(caller.mounts.budget.namespaces):
        for mount in namespace:
            if mount.fs is fs:
                mount.set_flags(mount.flags)


def check_kinds(one: Location, other: Location) -> None:
    """graft_tree(): a directory goes on a directory, a file on a file. Raises: ENOTDIR."""
    if one.dentry.inode.is_dir != other.dentry.inode.is_dir:
        raise ENOTDIR("a directory and a file")


def check_target(caller: Mounter, place: Location) -> None:
    """Something can be mounted there: lock_mount(). Raises: EINVAL, ENOENT."""
    if not is_ours(caller, place.mount):
        raise EINVAL("not in this namespace")


def _is_loop(caller: Mounter, inode: Inode) -> bool:
    """It stands for the caller's mount namespace, or an older one: mnt_ns_loop()."""
    held = inode.namespace
    return isinstance(held, HeldMounts) and held.mounts.id <= caller.mounts.id


def hides_below(mount: Mount, dentry: Dentry) -> Steps[bool]:
    """has_locked_children(): one after the other; there may be many, and they may lie deep."""
    for child in list(mount.mounted.values()):
        if child.locked and child.parent is not None and child.parent.dentry.is_below(dentry):
            return True
        yield
    return False


def clone_tree(caller: Mounter, source: Location, *, recursive: bool) -> Steps[Mount]:
    """__do_loopback(): a copy of what is seen at a place. Raises: EINVAL, ENOSPC."""
    mount = source.mount
    if mount.unbindable:
        raise EINVAL("unbindable")
    nameless = mount.namespace is None and mount.fs.nameless
    inode = source.dentry.inode
    if not is_movable(caller, mount) and not (nameless and inode.bindable):
        raise EINVAL("not in this namespace")
    if _is_loop(caller, inode):
        raise EINVAL("a loop of mount namespaces")
    if not recursive and (yield from hides_below(mount, source.dentry)):
        raise EINVAL("it would show what locked mounts hide")
    if recursive:
        copy = yield from mount_copies.copy_tree.steps(caller.mounts, mount, source.dentry)
    else:
        caller.mounts.check_room()
        copy = mount_copies.clone(caller.mounts, mount, source.dentry)
    copy.locked = False
    return copy


def bind(
    caller: Mounter, source: Location, place: Location, *, recursive: bool
) -> Steps[None]:
    """MS_BIND: do_loopback()."""
    check_target(caller, place)
    copy = yield from clone_tree(caller, source, recursive=recursive)
    try:
        check_kinds(source, place)
        yield from graft.steps(caller.mounts, copy, place)
    except Errno:
        yield from mount_copies.drop.steps(copy)
        raise


def add_new(caller: Mounter, mount: Mount, place: Location) -> Steps[None]:
    """do_add_mount(): the mount of a new file system. Raises: EINVAL, EBUSY, ENOTDIR, ENOENT."""
    place = top(place)
    check_target(caller, place)
    if place.mount.fs is mount.fs and place.dentry is place.mount.root:
        raise EBUSY("the same file system is mounted there")
    check_kinds(mount.location, place)
    yield from graft.steps(caller.mounts, mount, place)


def change_propagation(
    caller: Mounter, place: Location, kind: int, *, recursive: bool
) -> Steps[None]:
    """do_change_type()."""
    mount = check_mount_root(caller, place)
    for each in tree(mount) if recursive else [mount]:
        propagation.change(each, kind, caller.mounts.budget.group_ids)
        yield
    caller.mounts.changes.happened()


def move(caller: Mounter, source: Location, place: Location) -> Steps[None]:
    """do_move_mount(). Raises: EINVAL, ELOOP, ENOENT."""
    mount, place = source.mount, top(place)
    if not is_ours(caller, place.mount) or mount.namespace is None:
        raise EINVAL("not in this namespace")
    if source.dentry is not mount.root or mount.locked:
        raise EINVAL("not a mount that can be moved")
    if mount.parent is None:
        if not mount.namespace.anonymous:
            raise _below_or_root(mount, place)
    elif not is_ours(caller, mount):
        raise EINVAL("not in this namespace")
    if mount.root.inode.is_dir != place.dentry.inode.is_dir:
        raise EINVAL("a directory and a file")
    if mount.parent is not None and mount.parent.mount.group is not None:
        raise EINVAL("on a shared mount")
    if place.mount.group is not None and any(each.unbindable for each in tree(mount)):
        raise EINVAL("unbindable below a shared mount")
    if any(_is_loop(caller, each.root.inode) for each in tree(mount)):
        raise ELOOP("a loop of mount namespaces")
    at: Mount | None = place.mount
    while at is not None:
        if at is mount:
            raise ELOOP("below itself")
        at = at.parent.mount if at.parent is not None else None
    yield from graft.steps(caller.mounts, mount, place)


def _below_or_root(mount: Mount, place: Location) -> Exception:
    """The root of a namespace does not move; everything in it is below it."""
    return ELOOP("below itself") if place.mount.namespace is mount.namespace else EINVAL("root")


def set_group(caller: Caller, source: Location, target: Location) -> None:
    """MOVE_MOUNT_SET_GROUP: do_set_group(). Raises: EINVAL, EPERM."""
    one, other = source.mount, target.mount
    if source.dentry is not one.root or target.dentry is not other.root:
        raise EINVAL("not a mount point")
    for mount in (one, other):
        namespace = mount.namespace
        if namespace is None:
            raise EINVAL("not mounted")
        if not caller.creds.has_in(namespace.owner, CAP_SYS_ADMIN):
            raise EPERM("CAP_SYS_ADMIN")
    if other.group is not None or other.master is not None or one.fs is not other.fs:
        raise EINVAL("has a group, or is of another file system")
    if not other.root.is_below(one.root):
        raise EINVAL("shows more than the model")
    group = one.group
    if one.master is not None:
        propagation.follow(other, one.master)
    if group is not None:
        other.group = group
        group.members[other.id] = other


class TreeFile(FileDescription):
    """What open_tree(2) and fsmount(2) give: a tree without a place, gone with its last use."""

    __slots__ = ("_tree",)

    def __init__(self, location: Location, flags: int, tree: MountNamespace) -> None:
        super().__init__(location, flags)
        self._tree = HeldMounts(tree)

    def release(self) -> None:
        """dissolve_on_fput(); what was moved to a place is not in it."""
        self._tree.mounts.dissolve()
