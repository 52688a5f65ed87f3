"""Making, removing and moving names: mkdir, mknod, symlink, link, unlink, rmdir, rename.

The checks are in the order of fs/namei.c; the inode operations below them are the file system's.
"""

from __future__ import annotations

from typing import Final

from sentry.abi.capability import CAP_FSETID, CAP_MKNOD
from sentry.abi.fcntl import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from sentry.abi.inotify import (
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from sentry.abi.stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from sentry.auth.permissions import MAY_READ, MAY_WRITE, owner_or_capable
from sentry.errors import (
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    EMLINK,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
    EXDEV,
)
from sentry.vfs.access import allows, check_create, check_delete, check_device, check_inode
from sentry.vfs.dentry import Dentry
from sentry.vfs.file import Caller
from sentry.vfs.flags import check_fixed
from sentry.vfs.interface import Absent, Inode, Owner
from sentry.vfs.location import Location
from sentry.vfs.marks import tell_renamed
from sentry.vfs.mounts import GoingName
from sentry.vfs.walk import Parent, child_for, child_to_remove, resolve_parent
from sentry.vfs.watches import tell_entry, tell_if_gone, tell_self
from sentry.wait.again import NotNow, begun, kept
from sentry.wait.steps import Steps, driven

SPECIAL: Final = (b"", b".", b"..")
"""Last components that are no name."""
MAX_LINKS: Final = 65_000
CLIMB: Final = 4096
"""Directories that are climbed in one go."""


def new_owner(caller: Caller, directory: Inode, mode: int) -> tuple[int, Owner]:
    """Mode and owner of a new inode: vfs_prepare_mode(), inode_init_owner().

    A setgid directory gives its group; the umask counts where it has no default list (acl(5)).
    Raises: NotNow.
    """
    creds = caller.creds
    gid = creds.fsgid
    if directory.mode & 0o2000:
        gid = directory.gid
        if mode & S_IFMT == S_IFDIR:
            mode |= 0o2000
        elif mode & 0o2010 == 0o2010 and not (
            creds.in_group(gid) or creds.over(CAP_FSETID, directory.uid, gid)
        ):
            mode &= ~0o2000
    if mode & caller.fs.umask and directory.default_acl() is None:
        mode &= ~caller.fs.umask
    return mode, tuple.__new__(Owner, (creds.fsuid, gid))


def dentry_of(caller: Caller, directory: Dentry, name: bytes, inode: Inode) -> Dentry:
    """The dentry of a name that the file system just resolved."""
    return directory.child(name, inode, caller.kernel.vfs.dentries)


class NewName:
    """A free name and its locked directory: filename_create(), then may_create().

    A call that was asleep inside goes on with what it found before.
    """

    __slots__ = ("_caller", "_directory", "_dirfd", "_path", "_walk")

    def __init__(self, caller: Caller, dirfd: int, path: bytes, *, directory: bool) -> None:
        self._caller = caller
        self._dirfd = dirfd
        self._path = path
        self._directory = directory

    def __enter__(self) -> Parent:
        path, directory = self._path, self._directory
        walk: Parent | None = kept((NewName, self._dirfd, path))
        if walk is None:
            walk = self._walk = resolve_parent(self._caller, self._dirfd, path)
            if walk.last in SPECIAL:
                raise EEXIST(f"{path!r}")
            with walk.at.dentry.inode.lock:
                child = child_for(self._caller, walk.at.dentry.inode, walk.last)
                if not isinstance(child, Absent):
                    raise EEXIST(f"{path!r}")
            if walk.at.dentry.unlinked:
                raise ENOENT("the directory has been removed")
            if walk.last_slash and not directory:
                raise ENOENT("slashes after the name of a file to create")
            walk.at.mount.check_writable()
        self._walk = walk
        return walk

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, NotNow):
            error.call.answers[NewName, self._dirfd, self._path] = self._walk
        self._walk.at.dentry.inode.lock.__exit__(kind, error, traceback)


def mkdir(caller: Caller, dirfd: int, path: bytes, mode: int) -> None:
    """mkdirat(2)."""
    with NewName(caller, dirfd, path, directory=True) as walk:
        parent = walk.at.dentry
        check_create(caller.creds, parent)
        mode, owner = new_owner(caller, parent.inode, S_IFDIR | mode & 0o1777)
        inode = parent.inode.mkdir(walk.last, mode & 0o7777, owner)
        tell_entry(parent, IN_CREATE, walk.last, inode)


def mknod(
    caller: Caller, dirfd: int, path: bytes, mode: int, rdev: int, bound: int = 0
) -> Location:
    """mknodat(2); the type is checked. Gives the place of the new inode.

    `bound`: for bind(2), the type of the socket.
    """
    with NewName(caller, dirfd, path, directory=False) as walk:
        parent = walk.at.dentry
        check_create(caller.creds, parent)
        kind = mode & S_IFMT
        is_device = kind in (S_IFCHR, S_IFBLK) and not (kind == S_IFCHR and rdev == 0)
        if is_device and not caller.creds.has(CAP_MKNOD):
            raise EPERM("mknod of a device")
        if is_device:
            check_device(caller, kind, rdev, 0)
        mode, owner = new_owner(caller, parent.inode, kind | mode & 0o7777)
        if kind == S_IFREG:
            inode = parent.inode.create(walk.last, mode & 0o7777, owner)
        elif bound:
            inode = parent.inode.bind(walk.last, bound, mode, owner)
        else:
            inode = parent.inode.mknod(walk.last, mode, rdev, owner)
        tell_entry(parent, IN_CREATE, walk.last, inode)
        return Location(walk.at.mount, dentry_of(caller, parent, walk.last, inode))


def symlink(caller: Caller, target: bytes, dirfd: int, path: bytes) -> None:
    """symlinkat(2)."""
    with NewName(caller, dirfd, path, directory=False) as walk:
        parent = walk.at.dentry
        check_create(caller.creds, parent)
        _, owner = new_owner(caller, parent.inode, S_IFLNK)
        inode = parent.inode.symlink(walk.last, target, owner)
        tell_entry(parent, IN_CREATE, walk.last, inode)


def link(caller: Caller, old: Location, dirfd: int, path: bytes) -> None:
    """linkat(2) of a place that is known."""
    with NewName(caller, dirfd, path, directory=False) as walk:
        parent, inode = walk.at.dentry, old.dentry.inode
        if old.mount is not walk.at.mount:
            raise EXDEV("another mount")
        _check_hardlink(caller, inode)
        check_create(caller.creds, parent)
        if inode.fs is not parent.inode.fs:
            raise EXDEV("another file system")
        check_fixed(inode)
        if inode.is_dir:
            raise EPERM("a directory")
        links = (inode.stat()).nlink
        if not links and not inode.linkable:
            raise ENOENT("the file has no name any more")
        if links >= MAX_LINKS:
            raise EMLINK(f"{links} links")
        parent.inode.link(walk.last, inode)
        inode.linkable = False
        tell_self(inode, IN_ATTRIB)
        tell_entry(parent, IN_CREATE, walk.last, inode)


def _check_hardlink(caller: Caller, inode: Inode) -> None:
    """fs.protected_hardlinks: may_linkat(). Raises: EPERM."""
    if not caller.kernel.vfs.protected_hardlinks or owner_or_capable(caller.creds, inode.uid):
        return
    mode = inode.mode
    safe = inode.is_regular and not mode & 0o4000 and mode & 0o2010 != 0o2010
    if not safe or not allows(caller.creds, inode, MAY_READ | MAY_WRITE):
        raise EPERM("a hard link to somebody else's file")


def unlink(caller: Caller, dirfd: int, path: bytes) -> None:
    """unlinkat(2) without AT_REMOVEDIR: do_unlinkat()."""
    walk: Parent = kept((_remove, path)) or resolve_parent(caller, dirfd, path)
    if walk.last in SPECIAL:
        raise EISDIR(f"{path!r}")
    _remove(caller, walk, path, directory=False)


def rmdir(caller: Caller, dirfd: int, path: bytes) -> None:
    """rmdir(2): do_rmdir()."""
    walk: Parent = kept((_remove, path)) or resolve_parent(caller, dirfd, path)
    if walk.last == b"..":
        raise ENOTEMPTY(f"{path!r}")
    if walk.last == b".":
        raise EINVAL(f"{path!r}")
    if not walk.last:
        raise EBUSY("the root")
    _remove(caller, walk, path, directory=True)


def _remove(caller: Caller, walk: Parent, path: bytes, *, directory: bool) -> None:
    """All that can be refused here is looked at before the file system is asked, and then no more:
    nothing is mounted on a name meanwhile."""
    parent, name = walk.at.dentry, walk.last
    inode = parent.inode
    with inode.lock:
        under_way: tuple[Inode, Dentry | None] | None = kept((_remove, inode, name))
        if under_way is None:
            child = _check_removal(caller, walk, path, directory=directory)
            known = parent.known_child(name)
        else:
            child, known = under_way
        if under_way is None and known is not None:
            _check_goes(caller, known)
        try:
            if directory:
                inode.rmdir(name, child)
            else:
                inode.unlink(name, child)
        except NotNow as need:
            if under_way is None:
                known = known or dentry_of(caller, parent, name, child)
                need.call.hold(GoingName(caller.mounts.budget, known))
            answers = need.call.answers
            answers |= {(_remove, inode, name): (child, known), (_remove, path): walk}
            raise
        if known is not None:
            _gone(caller, known)
    _removed(parent, name, child)


def _check_removal(caller: Caller, walk: Parent, path: bytes, *, directory: bool) -> Inode:
    """What the name is, if it may be removed. Raises: EROFS, ENOENT, EISDIR, ENOTDIR, NotNow."""
    parent = walk.at.dentry
    walk.at.mount.check_writable()
    child = child_to_remove(caller, parent.inode, walk.last)
    if isinstance(child, Absent):
        raise ENOENT(f"{path!r}")
    if walk.last_slash and not directory:
        raise EISDIR(f"{path!r}") if child.is_dir else ENOTDIR(f"{path!r}")
    check_delete(caller.creds, parent, child, want_dir=directory)
    return child


def _check_goes(caller: Caller, dentry: Dentry) -> None:
    """Nothing may be mounted on a name that goes, unless elsewhere. Raises: EBUSY."""
    if dentry.mounts and caller.mounts.is_mount_point(dentry):
        raise EBUSY("a mount point")


def _gone(caller: Caller, dentry: Dentry) -> None:
    """The name is; what others have mounted there goes, too: detach_mounts()."""
    dentry.drop(caller.kernel.vfs.dentries)
    if dentry.mounts:
        caller.mounts.name_has_gone(dentry)


def _removed(parent: Dentry, name: bytes, child: Inode) -> None:
    """Who watches hears of a removed name: the child first, if it was its last one."""
    if not child.fs.watched:
        return
    if not child.is_dir:
        tell_self(child, IN_ATTRIB)
    tell_if_gone(child)
    tell_entry(parent, IN_DELETE, name, child)


def rename(
    caller: Caller, old: tuple[int, bytes], new: tuple[int, bytes], flags: int
) -> None:
    """renameat2(2); the flags are checked: do_renameat2()."""
    source, target = kept(rename) or (
        resolve_parent(caller, *old), resolve_parent(caller, *new)
    )
    if source.at.mount is not target.at.mount:
        raise EXDEV("another mount")
    if source.last in SPECIAL:
        raise EBUSY(f"{old[1]!r}")
    if target.last in SPECIAL:
        raise EEXIST(f"{new[1]!r}") if flags & RENAME_NOREPLACE else EBUSY(f"{new[1]!r}")
    source.at.mount.check_writable()
    from_dir, to_dir = source.at.dentry, target.at.dentry
    try:
        if from_dir.inode is to_dir.inode:
            with from_dir.inode.lock:
                _rename_locked(caller, source, target, flags, None)
            return
        with from_dir.inode.fs.renaming:
            first, second, trap = begun(
                (rename, from_dir, to_dir), lambda: driven(_lock_order(from_dir, to_dir))
            )
            with first.inode.lock, second.inode.lock:
                _rename_locked(caller, source, target, flags, trap)
    except NotNow as need:
        need.call.answers[rename] = source, target
        raise


def _lock_order(a: Dentry, b: Dentry) -> Steps[tuple[Dentry, Dentry, Dentry | None]]:
    """lock_rename(): ancestors first, then by address.

    The third is the name in the ancestor that leads to the other: it can neither go to where it
    leads nor be replaced by what is there.
    """
    trap = yield from _way(a, b)
    if trap is not None:
        return a, b, trap
    trap = yield from _way(b, a)
    if trap is not None or id(b.inode) < id(a.inode):
        return b, a, trap
    return a, b, None


def _way(above: Dentry, below: Dentry) -> Steps[Dentry | None]:
    """d_ancestor(): the name in `above` that leads to `below`. Trees may be a million deep."""
    at = below
    while True:
        for _ in range(CLIMB):
            parent = at.parent
            if parent is None:
                return None
            if parent is above:
                return at
            at = parent
        yield


def _rename_locked(
    caller: Caller, source: Parent, target: Parent, flags: int, trap: Dentry | None
) -> None:
    from_dir, to_dir = source.at.dentry, target.at.dentry
    found = kept(_rename_locked) or (
        child_for(caller, from_dir.inode, source.last),
        child_for(caller, to_dir.inode, target.last),
    )
    child, victim = found
    if isinstance(child, Absent):
        raise ENOENT("nothing to rename")
    exists = not isinstance(victim, Absent)
    if flags & RENAME_NOREPLACE and exists:
        raise EEXIST("the new name is taken")
    if flags & RENAME_EXCHANGE:
        if isinstance(victim, Absent):
            raise ENOENT("nothing to exchange with")
        if target.last_slash and not victim.is_dir:
            raise ENOTDIR("slashes after the new name")
    if not child.is_dir:
        if source.last_slash:
            raise ENOTDIR("slashes after the old name")
        if not flags & RENAME_EXCHANGE and target.last_slash:
            raise ENOTDIR("slashes after the new name")
    moved = dentry_of(caller, from_dir, source.last, child)
    if moved is trap:
        raise EINVAL("into itself")
    replaced = None
    if not isinstance(victim, Absent):
        replaced = dentry_of(caller, to_dir, target.last, victim)
        if replaced is trap:
            raise EINVAL("into itself") if flags & RENAME_EXCHANGE else ENOTEMPTY("an ancestor")
    if child is victim:
        return
    over = None if flags & RENAME_EXCHANGE else replaced
    if kept(_rename_locked) is None:
        _check_rename(caller, (from_dir, moved), (to_dir, replaced), flags)
    try:
        from_dir.inode.rename(source.last, child, to_dir.inode, target.last, flags)
    except NotNow as need:
        if over is not None and kept(_rename_locked) is None:
            need.call.hold(GoingName(caller.mounts.budget, over))
        need.call.answers[_rename_locked] = found
        raise
    _moved(caller, (from_dir, source.last, moved), (to_dir, target.last, replaced), flags)


def _check_rename(
    caller: Caller,
    source: tuple[Dentry, Dentry],
    target: tuple[Dentry, Dentry | None],
    flags: int,
) -> None:
    """The rights and types of vfs_rename()."""
    (from_dir, moved), (to_dir, replaced), creds = source, target, caller.creds
    child = moved.inode
    check_delete(creds, from_dir, child, want_dir=child.is_dir)
    if replaced is None:
        check_create(creds, to_dir)
    elif flags & RENAME_EXCHANGE:
        check_delete(creds, to_dir, replaced.inode, want_dir=replaced.inode.is_dir)
    else:
        check_delete(creds, to_dir, replaced.inode, want_dir=child.is_dir)
    if from_dir.inode is not to_dir.inode:
        if child.is_dir:
            check_inode(creds, child, MAY_WRITE)
        if flags & RENAME_EXCHANGE and replaced is not None and replaced.inode.is_dir:
            check_inode(creds, replaced.inode, MAY_WRITE)
    if flags & RENAME_WHITEOUT and not creds.has(CAP_MKNOD):
        raise EPERM("RENAME_WHITEOUT")
    for dentry in (moved, replaced):
        if dentry is not None and dentry.mounts and caller.mounts.is_mount_point(dentry):
            raise EBUSY("a mount point")
    if child.fs is not to_dir.inode.fs:
        raise EXDEV("another file system")


def _moved(
    caller: Caller,
    source: tuple[Dentry, bytes, Dentry],
    target: tuple[Dentry, bytes, Dentry | None],
    flags: int,
) -> None:
    """Dentries and watches follow what the file system did."""
    (from_dir, old_name, moved), (to_dir, new_name, replaced) = source, target
    if flags & RENAME_EXCHANGE and replaced is not None:
        replaced.move(from_dir, old_name)
    elif replaced is not None:
        _gone(caller, replaced)
    from_known = from_dir.known_child(old_name)
    moved.move(to_dir, new_name)
    if flags & RENAME_EXCHANGE and replaced is not None and from_known is replaced:
        replaced.move(from_dir, old_name)
    if not from_dir.inode.fs.watched:
        return
    _tell_moved(caller, (from_dir, old_name), (to_dir, new_name), moved.inode)
    over = replaced is not None and not flags & RENAME_EXCHANGE
    if replaced is not None and over:
        tell_self(replaced.inode, IN_ATTRIB | (IN_ISDIR if replaced.inode.is_dir else 0))
    tell_self(moved.inode, IN_MOVE_SELF)
    if replaced is not None and over:
        tell_if_gone(replaced.inode)
    elif replaced is not None:
        _tell_moved(caller, (to_dir, new_name), (from_dir, old_name), replaced.inode)
        tell_self(replaced.inode, IN_MOVE_SELF)


def _tell_moved(
    caller: Caller, source: tuple[Dentry, bytes], target: tuple[Dentry, bytes], inode: Inode
) -> None:
    """fsnotify_move()."""
    if inode.fs.marked:
        tell_renamed(source, target, inode)
    cookie = caller.kernel.vfs.new_cookie()
    tell_entry(source[0], IN_MOVED_FROM, source[1], inode, cookie=cookie)
    tell_entry(target[0], IN_MOVED_TO, target[1], inode, cookie=cookie)
