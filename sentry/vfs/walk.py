"""Path walk: a name becomes a place. path_resolution(7), fs/namei.c.

`walk` has the one loop of all walks. As long as the file systems know the names it keeps its place
in locals. Where one has to be asked and that takes long, the place goes to the call
(sentry/wait/again.py), and the next attempt goes on from there: what a step has done (an access
time of a link, the mark of an expiring mount) happens once.
"""

from __future__ import annotations

from operator import length_hint
from typing import Final

from sentry.abi.fcntl import (
    AT_FDCWD,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from sentry.abi.limits import NAME_MAX
from sentry.abi.mount import MS_NOSYMFOLLOW
from sentry.auth.credentials import Credentials
from sentry.auth.permissions import MAY_EXEC
from sentry.errors import EACCES, EAGAIN, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EXDEV
from sentry.vfs.access import check_rights
from sentry.vfs.dentry import Dentry
from sentry.vfs.file import Caller
from sentry.vfs.interface import ABSENT, Absent, Inode
from sentry.vfs.location import Location
from sentry.vfs.mount import Mount, top
from sentry.wait.again import CURRENT, NotNow

MAX_LINKS: Final = 40
_SCOPED: Final = RESOLVE_BENEATH | RESOLVE_IN_ROOT

Place = tuple[Mount, Dentry, list[bytes], int, bool, bool, Location]
"""Where a walk stands: mount, dentry, components left, links followed, whether a link at the end is
followed, whether the end must be a directory, the root for `..` and `/`."""


def walk(
    caller: Caller,
    dirfd: int,
    path: bytes,
    follow: bool = True,
    empty_ok: bool = False,
    resolve: int = 0,
    creds: Credentials | None = None,
    opens: bool = False,
    place: Place | None = None,
) -> tuple[Mount, Dentry, Inode | None]:
    """Mount and dentry that a path names, and its inode if the file system had to be asked for it.

    `opens`: it is opened to be read next, as far as one knows. `place`: the walk has begun.
    """
    how = follow, place is None  # a call may have two walks of one path
    if CURRENT.call is not None:
        place = CURRENT.call.answers.get((walk, dirfd, path, how), place)
    if place is not None:
        mount, dentry, left, links, follow, dirs_only, root = place
    else:
        root = caller.fs.root
        if path[:1] == b"/" and not resolve:
            mount, dentry = root
        elif not path and not empty_ok:
            raise ENOENT("the empty path")
        elif dirfd == AT_FDCWD and not resolve:
            mount, dentry = caller.fs.cwd
        else:
            mount, dentry = _start(caller, dirfd, resolve, path)
            if resolve & _SCOPED:
                root = Location(mount, dentry)
        links, dirs_only = 0, False
        if path[-1:] == b"/":
            path_left = path.rstrip(b"/")
            follow = dirs_only = True
            left = path_left.split(b"/")
        else:
            left = path.split(b"/")
    asked: Inode | None = None
    marked: Mount | None = None
    try:
        while True:
            names = iter(left)
            for name in names:
                if not name:
                    continue
                inode = dentry.inode
                if inode.mode & 0o170111 != 0o040111 or inode.acl is not None:
                    _enter(caller, creds or caller.creds, dentry)
                child = inode.lookup_cached(name)
                if child is None or child is ABSENT:
                    if name == b".":
                        continue
                    if name == b"..":
                        mount, dentry = _up(mount, dentry, root, resolve)
                        continue
                    last = not length_hint(names)
                    rights = inode.mode, inode.uid, inode.gid
                    there = _ask(caller, inode, name, child, resolve, opens and last)
                    if (inode.mode, inode.uid, inode.gid) != rights:  # somebody outside did it
                        _enter(caller, creds or caller.creds, dentry)
                    if isinstance(there, Absent):
                        raise ENOENT(f"{name!r}")
                    child = asked = there
                else:
                    asked = None
                children = dentry.children
                known = children.get(name) if children is not None else None
                found = known() if known is not None else None
                if found is None or found.inode is not child:
                    found = dentry.child(name, child, caller.kernel.vfs.dentries)  # type: ignore[arg-type]
                if (
                    found.mounts
                    and (over := mount.mounted.get(id(found))) is not None
                    and not over.hidden
                ):
                    if resolve & RESOLVE_NO_XDEV:
                        raise EXDEV("a mount point")
                    while over is not None:  # as `top`
                        if over.expiring and over is not marked:
                            over.expiring -= 1  # once for a walk, however often it comes here
                            marked = over
                        mount, dentry = over, over.root
                        over = mount.mounted.get(id(dentry)) if dentry.mounts else None
                        if over is not None and over.hidden:
                            break
                    continue
                if child.is_symlink:  # type: ignore[union-attr]
                    last = not length_hint(names)
                    if follow or not last:
                        by = creds or caller.creds
                        to = _follow(caller, mount, dentry, found, links, resolve, by, last)
                        links += 1
                        if not isinstance(to, bytes):
                            mount, dentry = to
                            continue
                        break
                dentry = found
            else:
                break
            if to[:1] == b"/":
                mount, dentry = _jump(mount, root, resolve)
            if to[-1:] == b"/" and last:
                to = to.rstrip(b"/")
                follow = dirs_only = True
            left = [*to.split(b"/"), *names]
    except NotNow as need:
        place = mount, dentry, [name, *names], links, follow, dirs_only, root
        need.call.answers[walk, dirfd, path, how] = place
        raise
    if dirs_only and not dentry.inode.is_dir:
        raise ENOTDIR("slashes after a file that is no directory")
    if caller.judge is not None:
        caller.judge.walked(mount, dentry)
    return mount, dentry, asked


def resolve(
    caller: Caller,
    dirfd: int,
    path: bytes,
    *,
    follow: bool = True,
    empty_ok: bool = False,
    creds: Credentials | None = None,
) -> Location:
    """The place that a path names."""
    mount, dentry, _ = walk(caller, dirfd, path, follow, empty_ok, 0, creds)
    return tuple.__new__(Location, (mount, dentry))  # half the price of Location()


class Parent:
    """The directory of a path's last component, and its name.

    `last` may be b"." or b".."; b"" is the root directory itself, or where a magic link led.
    """

    __slots__ = ("at", "last", "last_slash", "links", "root")

    def __init__(self, at: Location, last: bytes, last_slash: bool) -> None:
        self.at = at
        self.last = last
        self.last_slash = last_slash
        """Slashes follow it."""
        self.links = 0
        """Followed by now, for `follow_last`."""
        self.root: Location | None = None


def resolve_parent(caller: Caller, dirfd: int, path: bytes, resolve: int = 0) -> Parent:
    """A walk that stops before the last component."""
    if (judge := caller.judge) is None:
        return _resolve_parent(caller, dirfd, path, resolve)
    judge.heads += 1
    try:
        found = _resolve_parent(caller, dirfd, path, resolve)
    finally:
        judge.heads -= 1
    judge.named(found)
    return found


def _resolve_parent(caller: Caller, dirfd: int, path: bytes, resolve: int) -> Parent:
    head, slash, last = path.rpartition(b"/")
    last_slash = False
    if not last:
        if not path:
            raise ENOENT("the empty path")
        head, slash, last = path.rstrip(b"/").rpartition(b"/")
        last_slash = last != b""
        slash = slash or (b"" if last else b"/")
    if head:
        mount, dentry, _ = walk(caller, dirfd, head, True, False, resolve)
    elif resolve or (not slash and dirfd != AT_FDCWD):
        mount, dentry = _start(caller, dirfd, resolve, path)
    else:
        mount, dentry = caller.fs.root if slash else caller.fs.cwd
    inode = dentry.inode
    if last and (inode.mode & 0o170111 != 0o040111 or inode.acl is not None):
        _enter(caller, caller.creds, dentry)
    return Parent(tuple.__new__(Location, (mount, dentry)), last, last_slash)


def follow_last(
    caller: Caller, dirfd: int, parent: Parent, link: Inode, resolve: int
) -> Parent:
    """The last component is a link that is to be followed: the parent of where that leads."""
    mount, directory = parent.at
    dentry = directory.child(parent.last, link, caller.kernel.vfs.dentries)
    root = parent.root or caller.fs.root
    if resolve & _SCOPED and parent.root is None:
        root = _start(caller, dirfd, resolve, b"x")
    to = _follow(caller, mount, directory, dentry, parent.links, resolve, caller.creds, True)
    links = parent.links + 1
    if not isinstance(to, bytes):
        found = Parent(to, b"", False)
    else:
        if to[:1] == b"/":
            mount, directory = _jump(mount, root, resolve)
        whole = to.rstrip(b"/")
        head, _, last = whole.rpartition(b"/")
        if head:
            place = mount, directory, head.split(b"/"), links, True, True, root
            mount, directory, _ = walk(caller, links, head, True, False, resolve, place=place)
        inode = directory.inode
        if last and (inode.mode & 0o170111 != 0o040111 or inode.acl is not None):
            _enter(caller, caller.creds, directory)
        found = Parent(Location(mount, directory), last, last != b"" and whole != to)
    found.links, found.root = links, root
    return found


def _start(caller: Caller, dirfd: int, resolve: int, path: bytes) -> Location:
    """Where a walk begins."""
    if path[:1] == b"/" and not resolve & RESOLVE_IN_ROOT:
        if resolve & RESOLVE_BENEATH:
            raise EXDEV("an absolute path")
        return caller.fs.root
    if dirfd == AT_FDCWD:
        return caller.fs.cwd
    start = caller.files.get_raw(dirfd).location
    if path and not start.dentry.inode.is_dir:
        raise ENOTDIR(f"fd {dirfd}")
    return start


def _enter(caller: Caller, creds: Credentials, dentry: Dentry) -> None:
    """May names of it be looked up? Raises: ENOTDIR, EACCES, NotNow."""
    inode = dentry.inode
    mode = inode.mode
    if mode & 0o170000 != 0o040000:
        raise ENOTDIR(f"{dentry.name!r}")
    if inode.own_rights:
        inode.check_rights(creds, MAY_EXEC)
    elif (mode & 0o111 != 0o111 or inode.acl is not None) and not inode.belongs_to(caller):
        try:
            check_rights(creds, inode, MAY_EXEC)
        except EACCES:
            inode.stat()  # somebody outside may have given them
            check_rights(creds, inode, MAY_EXEC)


def _ask(
    caller: Caller, directory: Inode, name: bytes, known: Absent | None, resolve: int, opens: bool
) -> Inode | Absent:
    """A name that is not in memory. Raises: ENAMETOOLONG, EAGAIN, NotNow."""
    if len(name) > NAME_MAX:
        raise ENAMETOOLONG(f"{len(name)} bytes")
    if known is None:
        if resolve & RESOLVE_CACHED:
            raise EAGAIN("not cached")
        return directory.lookup_for(caller, name, opens)
    return known


def _jump(mount: Mount, root: Location, resolve: int) -> Location:
    """The root, for a link that begins there: nd_jump_root(). Raises: EXDEV."""
    if resolve & RESOLVE_NO_XDEV and mount is not root.mount:
        raise EXDEV("a link to another mount")
    return root


def down(mount: Mount, dentry: Dentry, resolve: int) -> Location:
    """Into what is mounted there. Raises: EXDEV."""
    found = top(Location(mount, dentry))
    if resolve & RESOLVE_NO_XDEV and found.mount is not mount:
        raise EXDEV("a mount point")
    return found


def _up(mount: Mount, dentry: Dentry, root: Location, resolve: int) -> Location:
    """`..`: the parent; out of a mount where this is its root; never above `root`."""
    while True:
        if dentry is root.dentry and mount is root.mount:
            if resolve & RESOLVE_BENEATH:
                raise EXDEV("above the start")
            break
        if dentry is not mount.root:
            dentry = dentry.parent or dentry
            break
        if mount.parent is None or mount.hidden:
            break
        if resolve & RESOLVE_NO_XDEV:
            raise EXDEV("out of a mount")
        mount, dentry = mount.parent
    return down(mount, dentry, resolve) if dentry.mounts else Location(mount, dentry)


def _follow(
    caller: Caller,
    mount: Mount,
    directory: Dentry,
    dentry: Dentry,
    links: int,
    resolve: int,
    creds: Credentials,
    last: bool,
) -> Location | bytes:
    """The text of a link, or where a magic one leads. Raises: ELOOP, EXDEV, EACCES, ENOENT."""
    link = dentry.inode
    if links >= MAX_LINKS or resolve & RESOLVE_NO_SYMLINKS:
        raise ELOOP(f"{links} links")
    if mount.flags & MS_NOSYMFOLLOW:
        raise ELOOP("a nosymfollow mount")
    if last:
        _check_protected(caller, creds, link, directory.inode)
    jump = link.follow(caller)
    if jump is not None:
        if resolve & RESOLVE_NO_MAGICLINKS:
            raise ELOOP("a magic link")
        if resolve & (_SCOPED | RESOLVE_NO_XDEV):
            raise EXDEV("a magic link")
        return jump
    text = link.readlink_for(caller)
    if text is None:
        if resolve & RESOLVE_CACHED and not link.link_is_known:
            raise EAGAIN("not cached")
        text = link.readlink()
    if not mount.no_atime:
        link.accessed()
    if not text:
        raise ENOENT("an empty link")
    if text[:1] == b"/" and resolve & RESOLVE_BENEATH:
        raise EXDEV("an absolute link")
    return text


def _check_protected(caller: Caller, creds: Credentials, link: Inode, directory: Inode) -> None:
    """fs.protected_symlinks: may_follow_link(). Raises: EACCES."""
    if not caller.kernel.vfs.protected_symlinks or directory.mode & 0o1002 != 0o1002:
        return
    if link.uid not in (creds.fsuid, directory.uid):
        raise EACCES("a link of somebody else in a sticky directory")


def child_for(caller: Caller, directory: Inode, name: bytes) -> Inode | Absent:
    """The last component of a walk to the parent, as the caller finds it. Raises: ENAMETOOLONG."""
    if len(name) > NAME_MAX:
        raise ENAMETOOLONG(f"{len(name)} bytes")
    found = directory.lookup_cached(name)
    return found if found is not None else directory.lookup_for(caller, name)


def child_of(directory: Inode, name: bytes) -> Inode | Absent:
    """A name in a directory that looks the same to everybody. Raises: ENAMETOOLONG."""
    if len(name) > NAME_MAX:
        raise ENAMETOOLONG(f"{len(name)} bytes")
    found = directory.lookup_cached(name)
    return found if found is not None else directory.lookup(name)


def child_to_remove(caller: Caller, directory: Inode, name: bytes) -> Inode | Absent:
    """`child_for` for somebody who looks at nothing but its type, and its owner if sticky."""
    if len(name) > NAME_MAX:
        raise ENAMETOOLONG(f"{len(name)} bytes")
    found = directory.name_cached(name)
    return found if found is not None else directory.lookup_for(caller, name)
