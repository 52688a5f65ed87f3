"""`LayeredDirectory`: names of the merged tree. fs/overlayfs/dir.c, namei.c, readdir.c.

A change is made in the upper layer (`above.py`), by a sequence of steps that a call begins once;
what the merged tree knows of it follows without a sleep.
"""

from __future__ import annotations

from _weakref import ref
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sentry.abi.fcntl import RENAME_EXCHANGE, RENAME_WHITEOUT
from sentry.abi.stat import S_IFCHR, S_IFMT
from sentry.errors import EINVAL, EIO, ENOENT, ENOTEMPTY, EPERM, EXDEV
from sentry.fs.layers import above
from sentry.fs.layers.above import Name
from sentry.fs.layers.copyup import copied
from sentry.fs.layers.file import LayeredListing
from sentry.fs.layers.inode import LayeredInode
from sentry.fs.layers.listing import Listing, Merged
from sentry.fs.layers.search import Found, find
from sentry.fs.layers.stack import MAX_REDIRECT, OPAQUE, REDIRECT
from sentry.vfs.interface import ABSENT, Absent, DirEntry, Inode, Owner
from sentry.vfs.walk import child_of
from sentry.wait.again import again, begun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentry.fs.layers.filesystem import LayersFs
    from sentry.vfs.dirents import Dirents
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location


class _Both(NamedTuple):
    """Two names with their directories, in the overlay and in the upper layer."""

    source: tuple[LayeredDirectory, bytes, LayeredInode, Inode]
    target: tuple[LayeredDirectory, bytes, LayeredInode | None, Inode]


class LayeredDirectory(LayeredInode):
    """A directory of one layer, or of several that are merged."""

    __slots__ = ("_changes", "_names", "listing", "redirect")

    def __init__(
        self, fs: LayersFs, found: Found, parent: LayeredDirectory | None, name: bytes
    ) -> None:
        super().__init__(fs, found, parent, name)
        self.redirect = found.redirect
        """Where lower layers have it, if it is elsewhere."""
        self._names: dict[bytes, ref[LayeredInode]] = {}
        """What somebody holds."""
        self._changes = 0
        self.listing: tuple[int, Dirents] | None = None
        """Which names there were after so many changes, while somebody has it open."""

    # --- what is known

    def lookup_cached(self, name: bytes) -> LayeredInode | None:
        """What somebody holds; the layers know the rest."""
        known = self._names.get(name)
        return known() if known is not None else None

    def know(self, name: bytes, inode: LayeredInode) -> None:
        """It has this name."""
        self._names[name] = ref(inode)

    def forget(self, name: bytes, inode: LayeredInode) -> None:
        """Nobody holds it any more."""
        known = self._names.get(name)
        if known is not None and known() in (None, inode):
            del self._names[name]

    def _changed(self, name: bytes, inode: LayeredInode | None) -> None:
        """The name is another file's, or nobody's; who looks for one at this time looks again."""
        self._changes += 1
        if inode is None:
            self._names.pop(name, None)
        else:
            self.know(name, inode)

    # --- walking

    def lookup(self, name: bytes, opens: bool = False) -> LayeredInode | Absent:
        """A name, asked for."""
        known = self.lookup_cached(name)
        if known is not None:
            return known
        if self.gone:
            return ABSENT
        return begun((self, "lookup", name), partial(self._lookup, name))

    async def _lookup(self, name: bytes) -> LayeredInode | Absent:
        while True:
            changes = self._changes
            found = await find(self.sb.stack, self.upper, self.lowers, name)
            known = self.lookup_cached(name)
            if known is not None:
                return known
            if changes == self._changes:
                return ABSENT if found is None else self.sb.inode_of(found, self, name)

    def _merged(self) -> Merged:
        return Merged(self.sb.stack, self.upper, self.lowers, self.lookup_cached)

    def entries(self) -> Iterator[DirEntry]:
        """The names of all layers that hold."""
        return iter(begun((self, "entries"), self._entries))

    async def _entries(self) -> list[DirEntry]:
        return [] if self.gone else await self._merged().entries()

    def dirents(self) -> Dirents:
        """The same, once for all who have it open."""
        known = self.listing
        if known is not None and known[0] == self._changes:
            return known[1]
        return begun((self, "dirents"), self._dirents)

    async def _dirents(self) -> Dirents:
        changes = self._changes
        made = Listing(await self._entries(), self.sb.budget)
        self.listing = changes, made
        return made

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """open(2)."""
        return LayeredListing(location, flags)

    async def _is_below(self, name: bytes) -> bool:
        """Lower layers have the name."""
        return bool(self.lowers) and (
            await find(self.sb.stack, None, self.lowers, name) is not None
        )

    # --- making

    async def _upper(self) -> Inode:
        """The directory in the upper layer. Raises: ENOENT, it has been removed."""
        if self.gone:
            raise ENOENT("the directory has been removed")
        return await copied(self)

    def _make(self, name: bytes, make: Callable[[Inode], Inode]) -> LayeredInode:
        return begun((self, "make", name), partial(self._made, name, make))

    async def _made(self, name: bytes, make: Callable[[Inode], Inode]) -> LayeredInode:
        upper = await self._put(name, make)
        self._changed(name, None)
        return self.sb.inode_of(Found(upper, ()), self, name)

    async def _put(self, name: bytes, make: Callable[[Inode], Inode]) -> Inode:
        def checked(upper: Inode) -> Inode:
            if self.gone:
                raise ENOENT("the directory has been removed")
            return make(upper)

        stack, upper = self.sb.stack, await self._upper()
        marks = bool(self.lowers) and not stack.lowers_may_change
        return await above.made(stack, upper, name, checked, marks)

    def create(self, name: bytes, mode: int, owner: Owner) -> LayeredInode:
        """A regular file in the upper layer, as all that is made."""
        return self._make(name, lambda upper: upper.create(name, mode, owner))

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> LayeredInode:
        """A directory."""
        return self._make(name, lambda upper: upper.mkdir(name, mode, owner))

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> LayeredInode:
        """A special file, but none that would be a whiteout: ovl_mknod()."""
        if mode & S_IFMT == S_IFCHR and not rdev:
            raise EPERM("a whiteout")
        return self._make(name, lambda upper: upper.mknod(name, mode, rdev, owner))

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> LayeredInode:
        """A symbolic link."""
        return self._make(name, lambda upper: upper.symlink(name, target, owner))

    def link(self, name: bytes, target: Inode) -> None:
        """One more name of a file, which is copied up."""
        assert isinstance(target, LayeredInode)
        if target.gone:  # of a lower file stat(2) tells the links that it has in its layer
            raise ENOENT("the file has no name any more")
        begun((self, "link", name), partial(self._link, name, target))

    async def _link(self, name: bytes, target: LayeredInode) -> None:
        file = await copied(target)

        def link(upper: Inode) -> Inode:
            upper.link(name, file)
            return file

        await self._put(name, link)
        if target.parent is None:  # it was made without a name
            target.parent, target.name = self, name
        self._changed(name, target)

    def tmpfile(self, mode: int, owner: Owner, linkable: bool) -> LayeredInode:
        """O_TMPFILE."""
        return begun((self, "tmpfile"), partial(self._tmpfile, mode, owner, linkable))

    async def _tmpfile(self, mode: int, owner: Owner, linkable: bool) -> LayeredInode:
        upper = await again((await self._upper()).tmpfile, mode, owner, linkable)
        return self.sb.inode_of(Found(upper, ()), None, b"")

    # --- removing

    def unlink(self, name: bytes, child: Inode) -> None:
        """Remove a name."""
        assert isinstance(child, LayeredInode)
        begun((self, "unlink", name), partial(self._unlink, name, child))

    async def _unlink(self, name: bytes, child: LayeredInode) -> None:
        upper, hide = await self._upper(), await self._is_below(name)
        async with child.copying:
            await above.unlinked(self.sb.stack, Name(upper, name, child.upper), hide)
            self._lost(name, child)

    def _lost(self, name: bytes, child: LayeredInode) -> None:
        """A file has a name less; that of a lower layer is the only one."""
        child.gone = child.upper is None
        self._changed(name, None)

    def rmdir(self, name: bytes, child: Inode) -> None:
        """Remove a directory without names."""
        assert isinstance(child, LayeredDirectory)
        begun((self, "rmdir", name), partial(self._rmdir, name, child))

    async def _rmdir(self, name: bytes, child: LayeredDirectory) -> None:
        await self._take_empty(Name(await self._upper(), name, None), child)

    async def check_empty(self) -> None:
        """No name is seen in it. Raises: ENOTEMPTY."""
        if not await self._merged().is_empty():
            raise ENOTEMPTY("names are in it")

    async def _take_empty(self, at: Name, child: LayeredDirectory) -> None:
        await child.check_empty()
        hide = await self._is_below(at.name)

        def gone() -> None:
            child.gone = True
            self._changed(at.name, None)

        async with child.copying:  # what is made in it from now on is in the upper layer, or fails
            await above.set_aside(self.sb.stack, at._replace(inode=child.upper), hide, gone)

    # --- moving

    def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        """Move or exchange; directories of lower layers only with redirect_dir=on: EXDEV."""
        assert isinstance(child, LayeredInode)
        assert isinstance(new_dir, LayeredDirectory)
        if flags & RENAME_WHITEOUT:
            raise EINVAL("no whiteouts by renaming")
        key = (self, "rename", name, new_name)
        begun(key, partial(self._rename, (name, child), (new_dir, new_name), flags))

    async def _rename(
        self,
        source: tuple[bytes, LayeredInode],
        target: tuple[LayeredDirectory, bytes],
        flags: int,
    ) -> None:
        (name, child), (new_dir, new_name) = source, target
        exchange = bool(flags & RENAME_EXCHANGE)
        victim: Any = await again(child_of, new_dir, new_name)
        if isinstance(victim, Absent):
            victim = None
        moving = [child, victim] if exchange else [child]
        if not self.sb.stack.redirects and any(each.is_dir and each.lowers for each in moving):
            raise EXDEV("a directory of a lower layer")
        if victim is not None and victim.is_dir and not exchange:
            await victim.check_empty()
        uppers = (await self._upper(), await new_dir._upper())
        for each in moving:
            await copied(each)
        await self._mark_moved(child, new_dir)
        if exchange:
            await new_dir._mark_moved(victim, self)
        hide = not exchange and await self._is_below(name)
        there = _Both((self, name, child, uppers[0]), (new_dir, new_name, victim, uppers[1]))
        if victim is None:
            await self._move(there, flags, hide)
            return
        async with victim.copying:
            await self._move(there, flags, hide)

    async def _move(self, both: _Both, flags: int, hide: bool) -> None:
        (_, name, child, upper), (new_dir, new_name, victim, new_upper) = both
        goes = Name(upper, name, child.upper)
        comes = Name(new_upper, new_name, victim.upper if victim is not None else None)

        def done() -> None:
            if not flags & RENAME_EXCHANGE:
                self._changed(name, None)
                if victim is not None:
                    victim.gone = victim.is_dir or victim.upper is None
            elif victim is not None:
                self._changed(name, victim)
                victim.parent, victim.name = self, name
            new_dir._changed(new_name, child)
            child.parent, child.name = new_dir, new_name

        replaces = comes.inode is not None and comes.inode.is_dir and not flags & RENAME_EXCHANGE
        if replaces:
            await above.moved_over(self.sb.stack, goes, comes, hide, done)
        else:
            await above.moved(self.sb.stack, goes, comes, flags, hide)
            done()

    async def _mark_moved(self, child: LayeredInode, new_dir: LayeredDirectory) -> None:
        """A directory says before it is moved where lower layers have it, or that they have
        nothing of it: ovl_rename(). Raises: EXDEV."""
        if not isinstance(child, LayeredDirectory):
            return
        mark, value = OPAQUE, b"y"
        if child.lowers:
            mark, value = REDIRECT, child.redirect_from(same=new_dir is self)
        elif not new_dir.lowers:
            return
        if mark == REDIRECT and value == child.redirect:
            return
        assert child.upper is not None
        try:
            await again(self.sb.stack.mark, child.upper, mark, value)
        except EIO as error:
            raise EXDEV(str(error)) from error
        if mark == REDIRECT:
            child.redirect = value

    def redirect_from(self, same: bool) -> bytes:
        """What a redirect to where it is would say, `same`: for a name in the same directory.

        ovl_get_redirect(). Raises: EXDEV, it is too long.
        """
        if self.redirect[:1] == b"/" or (self.redirect and same):
            return self.redirect
        if same:
            return self.name
        path, at = b"", self
        while at.parent is not None and path[:1] != b"/" and len(path) <= MAX_REDIRECT:
            part = at.redirect or at.name
            path = part + b"/" + path if path else part
            at = at.parent
        path = path if path[:1] == b"/" else b"/" + path
        if len(path) > MAX_REDIRECT:
            raise EXDEV("too long a redirect")
        return path
