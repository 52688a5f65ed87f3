"""Path walk: a name becomes a place. path_resolution(7), fs/namei.c.

`Walk.run` is a plain function that goes as far as the caches of the file systems allow. When it
needs a request it says so, and `Walk.finish` makes the request and goes on; so the rules stand here
once, and a cached walk makes no await.

A walk to the parent (`parent=True`) stops before the last component: `last` is its name (b"." and
b".." included; b"" for the root directory itself), `last_slash` says that slashes follow it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

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
from sentry.auth.permissions import MAY_EXEC, check_access
from sentry.errors import EACCES, EAGAIN, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EXDEV
from sentry.vfs.dentry import Location
from sentry.vfs.file import Caller
from sentry.vfs.interface import ABSENT, Absent, Inode
from sentry.vfs.mount import top

MAX_LINKS: Final = 40
_SCOPED: Final = RESOLVE_BENEATH | RESOLVE_IN_ROOT


class Walk:
    """One path walk."""

    __slots__ = (
        "_caller",
        "_dirs_only",
        "_follow",
        "_found",
        "_links",
        "_pending",
        "_resolve",
        "_root",
        "_stack",
        "_target",
        "asked",
        "at",
        "creds",
        "last",
        "last_slash",
        "opens",
        "parent",
    )

    def __init__(
        self,
        caller: Caller,
        dirfd: int,
        path: bytes,
        *,
        follow: bool = True,
        parent: bool = False,
        empty_ok: bool = False,
        resolve: int = 0,
        creds: Credentials | None = None,
    ) -> None:
        self._caller = caller
        self._root = caller.fs.root
        self._resolve = resolve
        self._links = 0
        self._follow = follow
        self._dirs_only = False
        self._found: Inode | Absent | None = None
        self._pending: Coroutine[Any, Any, Any] | None = None
        self._target: bytes | None = None
        self.opens = False
        """The last component is opened next, to be read."""
        self.asked: Inode | None = None
        """What the last component was found to be, if the file system had to be asked."""
        self.creds = creds if creds is not None else caller.creds
        self.parent = parent
        self.last = b""
        self.last_slash = False
        self._stack: list[bytes] = []
        if not path and not empty_ok:
            raise ENOENT("the empty path")
        self.at = self._start(dirfd, path)
        self._push(path)

    def _start(self, dirfd: int, path: bytes) -> Location:
        if path[:1] == b"/" and not self._resolve & RESOLVE_IN_ROOT:
            if self._resolve & RESOLVE_BENEATH:
                raise EXDEV("an absolute path")
            return self._root
        if dirfd == AT_FDCWD:
            start = self._caller.fs.cwd
        else:
            start = self._caller.files.get_raw(dirfd).location
            if path and not start.dentry.inode.is_dir:
                raise ENOTDIR(f"fd {dirfd}")
        if self._resolve & _SCOPED:
            self._root = start
        return start

    def _push(self, path: bytes) -> None:
        """The components of `path` come next. The last text tells whether slashes follow."""
        last = not self._stack
        parts = [part for part in path.split(b"/") if part]
        if last and parts:
            self.last_slash = path[-1:] == b"/"
            if self.last_slash and not self.parent:
                self._follow = self._dirs_only = True
        parts.reverse()
        self._stack += parts

    # --- going

    def run(self) -> bool:
        """Go on; False when `finish` has to make a request first."""
        stack = self._stack
        if self._target is not None:
            self._jump(self._target)
            self._target = None
        while stack:
            name = stack[-1]
            dentry = self.at.dentry
            inode = dentry.inode
            mode = inode.mode
            if mode & 0o170000 != 0o040000:
                raise ENOTDIR(f"{dentry.name!r}")
            if mode & 0o111 != 0o111 and not inode.belongs_to(self._caller):
                check_access(self.creds, mode, inode.uid, inode.gid, MAY_EXEC)
            if self.parent and len(stack) == 1:
                self.last = stack.pop()
                return True
            if name == b".":
                stack.pop()
                continue
            if name == b"..":
                stack.pop()
                self._dotdot()
                continue
            child = self._child(inode, name)
            if child is None:
                return False
            stack.pop()
            if not self._step(name, child):
                return False
        if self._dirs_only and not self.at.dentry.inode.is_dir:
            raise ENOTDIR("slashes after a file that is no directory")
        return True

    async def finish(self) -> Location:
        """Go to the end."""
        while self._pending is not None or not self.run():
            pending, self._pending = self._pending, None
            assert pending is not None
            if self._resolve & RESOLVE_CACHED:
                pending.close()
                raise EAGAIN("not cached")
            result = await pending
            if isinstance(result, bytes):
                self._target = result
            else:
                self._found = result
        return self.at

    def _child(self, inode: Inode, name: bytes) -> Inode | Absent | None:
        if len(name) > NAME_MAX:
            raise ENAMETOOLONG(f"{len(name)} bytes")
        child = self._found
        if child is not None:
            self._found = None
            self.asked = child if not isinstance(child, Absent) else None
            return child
        child = inode.lookup_cached(name)
        if child is None:
            opens = self.opens and len(self._stack) == 1
            self._pending = inode.lookup_to_open(name) if opens else inode.lookup(name)
        return child

    def _step(self, name: bytes, child: Inode | Absent) -> bool:
        """Into a child; False when the text of a link must be asked for."""
        if isinstance(child, Absent):
            raise ENOENT(f"{name!r}")
        mount, dentry = self.at
        place = Location(mount, dentry.child(name, child, self._caller.kernel.vfs.dentries))
        if place.dentry.mounts:
            place = self._mounted(place)
        if child.mode & 0o170000 == 0o120000 and (self._stack or self._follow):
            return self._link(place)
        self.at = place
        return True

    def _mounted(self, place: Location) -> Location:
        found = top(place)
        if self._resolve & RESOLVE_NO_XDEV and found.mount is not place.mount:
            raise EXDEV("a mount point")
        return found

    def _dotdot(self) -> None:
        at = self.at
        while True:
            if at == self._root:
                if self._resolve & RESOLVE_BENEATH:
                    raise EXDEV("above the start")
                break
            if at.dentry is not at.mount.root:
                parent = at.dentry.parent
                if parent is not None:
                    at = Location(at.mount, parent)
                break
            if at.mount.parent is None:
                break
            if self._resolve & RESOLVE_NO_XDEV:
                raise EXDEV("out of a mount")
            at = at.mount.parent
        self.at = self._mounted(at) if at.dentry.mounts else at

    # --- links

    def _link(self, place: Location) -> bool:
        link, directory = place.dentry.inode, self.at.dentry.inode
        self._links += 1
        if self._links > MAX_LINKS or self._resolve & RESOLVE_NO_SYMLINKS:
            raise ELOOP(f"{self._links} links")
        if place.mount.flags & MS_NOSYMFOLLOW:
            raise ELOOP("a nosymfollow mount")
        if not self._stack:
            self._check_protected(link, directory)
        jump = link.follow(self._caller)
        if jump is not None:
            if self._resolve & RESOLVE_NO_MAGICLINKS:
                raise ELOOP("a magic link")
            if self._resolve & (_SCOPED | RESOLVE_NO_XDEV):
                raise EXDEV("a magic link")
            self.at = jump
            return True
        text = link.readlink_for(self._caller) or link.readlink_cached()
        if text is None:
            self._pending = link.readlink()
            return False
        if not place.mount.no_atime:
            link.accessed()
        self._jump(text)
        return True

    def _check_protected(self, link: Inode, directory: Inode) -> None:
        """fs.protected_symlinks: may_follow_link(). Raises: EACCES."""
        if not self._caller.kernel.vfs.protected_symlinks or directory.mode & 0o1002 != 0o1002:
            return
        if link.uid not in (self.creds.fsuid, directory.uid):
            raise EACCES("a link of somebody else in a sticky directory")

    def _jump(self, text: bytes) -> None:
        """Go on with the text of a link, from the directory that holds it."""
        if not text:
            raise ENOENT("an empty link")
        if text[:1] == b"/":
            if self._resolve & RESOLVE_BENEATH:
                raise EXDEV("an absolute link")
            self.at = self._root
        self._push(text)

    # --- the last component, after a walk to the parent

    def follow_last(self, child: Inode) -> None:
        """The last component is a link that is to be followed: the walk to the parent goes on.

        `finish` then leads to the parent of where the link points, or (magic links) right there,
        with `last` b"".
        """
        name, self.last = self.last, b""
        vfs = self._caller.kernel.vfs
        self.parent = True
        place = Location(self.at.mount, self.at.dentry.child(name, child, vfs.dentries))
        self._link(place)


def quick(caller: Caller, dirfd: int, path: bytes) -> Location | None:
    """The common walk: names of directories that anybody may search, all cached, no links.

    None for everything else, which is `Walk`'s. Raises: ENOENT, EBADF as Walk would.
    """
    if not path or path[-1:] == b"/":
        return None
    if path[:1] == b"/":
        mount, dentry = caller.fs.root
    elif dirfd == AT_FDCWD:
        mount, dentry = caller.fs.cwd
    else:
        mount, dentry = caller.files.get_raw(dirfd).location
    for name in path.split(b"/"):
        if not name:
            continue
        inode = dentry.inode
        if inode.mode & 0o170111 != 0o040111:
            return None
        child = inode.lookup_cached(name)
        if child is None:
            return None
        if child is ABSENT:
            if len(name) > NAME_MAX or name in (b".", b".."):
                return None
            raise ENOENT(f"{name!r}")
        if child.mode & 0o170000 == 0o120000:  # type: ignore[union-attr]
            return None
        children = dentry.children
        known = children.get(name) if children is not None else None
        found = known() if known is not None else None
        if found is None or found.inode is not child:
            found = dentry.child(name, child, caller.kernel.vfs.dentries)  # type: ignore[arg-type]
        dentry = found
        while dentry.mounts:  # as `top`
            upper = mount.mounted.get(id(dentry))
            if upper is None:
                break
            if upper.expiring:
                upper.expiring -= 1
            mount, dentry = upper, upper.root
    return tuple.__new__(Location, (mount, dentry))  # half the price of Location()


async def resolve(
    caller: Caller,
    dirfd: int,
    path: bytes,
    *,
    follow: bool = True,
    empty_ok: bool = False,
    creds: Credentials | None = None,
) -> Location:
    """The place that a path names."""
    found = quick(caller, dirfd, path)
    if found is not None:
        return found
    walk = Walk(caller, dirfd, path, follow=follow, empty_ok=empty_ok, creds=creds)
    return walk.at if walk.run() else await walk.finish()


class Parent:
    """The end of a walk to the parent: the directory, and the name in it."""

    __slots__ = ("at", "last", "last_slash")

    def __init__(self, at: Location, last: bytes) -> None:
        self.at = at
        self.last = last
        self.last_slash = False


def quick_parent(caller: Caller, dirfd: int, path: bytes) -> Parent | None:
    """`quick` for a walk to the parent. Raises: ENOENT, EBADF as Walk would."""
    head, slash, name = path.rpartition(b"/")
    if not name or name in (b".", b"..") or len(name) > NAME_MAX:
        return None
    if head:
        at = quick(caller, dirfd, head)
    elif slash:
        at = caller.fs.root
    elif dirfd == AT_FDCWD:
        at = caller.fs.cwd
    else:
        at = caller.files.get_raw(dirfd).location
    if at is None or at.dentry.inode.mode & 0o170111 != 0o040111:
        return None
    return Parent(at, name)


async def resolve_parent(caller: Caller, dirfd: int, path: bytes) -> Walk | Parent:
    """A walk that has stopped before the last component."""
    found = quick_parent(caller, dirfd, path)
    if found is not None:
        return found
    walk = Walk(caller, dirfd, path, parent=True)
    if not walk.run():
        await walk.finish()
    return walk


async def child_of(directory: Inode, name: bytes) -> Inode | Absent:
    """The last component of a walk to the parent. Raises: ENAMETOOLONG."""
    if len(name) > NAME_MAX:
        raise ENAMETOOLONG(f"{len(name)} bytes")
    found = directory.lookup_cached(name)
    return found if found is not None else await directory.lookup(name)


async def child_to_remove(directory: Inode, name: bytes) -> Inode | Absent:
    """`child_of` for somebody who looks at nothing but its type, and its owner if sticky."""
    if len(name) > NAME_MAX:
        raise ENAMETOOLONG(f"{len(name)} bytes")
    found = directory.name_cached(name)
    return found if found is not None else await directory.lookup(name)
