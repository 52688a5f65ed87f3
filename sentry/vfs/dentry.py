"""Names: `Dentry` (one name of one directory) and `Location` (a dentry seen through a mount).

The file system is the authority on what a name means: a walk asks it for every component and only
then finds the dentry. A dentry gives the things an inode cannot have: one parent, the path, what is
mounted on it. A child holds its parent; a parent knows its children by weak references, so nothing
here is a cycle. `DentryCache` keeps the recently used ones alive.
"""

from __future__ import annotations

from _weakref import ref
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from sentry.ahead import Referable

if TYPE_CHECKING:
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.interface import Inode
    from sentry.wait.steps import Steps

PIECE: Final = 1024
"""Places of the cache that are looked at in one go."""


class Dentry(Referable):
    """A name that has an inode. `parent` is None at the root of a file system and for files without
    a name (pipes, memfds), whose `name` is then their label, as in /proc/self/fd.
    """

    __slots__ = (
        "cache_slot", "children", "inode", "mounts", "name", "parent", "unlinked",
    )  # fmt: skip

    def __init__(self, parent: Dentry | None, name: bytes, inode: Inode) -> None:
        self.parent = parent
        self.name = name
        self.inode = inode
        self.children: dict[bytes, ref[Dentry]] | None = None
        self.mounts = 0
        """How many mounts, of all namespaces, sit on this name."""
        self.unlinked = False
        self.cache_slot = 0
        """Where the cache holds it, if it still does."""

    def __del__(self) -> None:
        if not self.unlinked:
            self._leave()

    def child(self, name: bytes, inode: Inode, cache: DentryCache) -> Dentry:
        """The dentry of `name`, which the file system says is `inode` now."""
        children = self.children
        if children is None:
            children = self.children = {}
        known = children.get(name)
        if known is not None:
            dentry = known()
            if dentry is not None:
                if dentry.inode is inode or dentry.mounts:
                    return dentry
                dentry.unlinked = True
        dentry = Dentry(self, name, inode)
        children[name] = ref(dentry)
        if inode.fs.keeps_names:
            cache.keep(dentry)
        return dentry

    def known_child(self, name: bytes) -> Dentry | None:
        """The dentry of `name` if there is one in memory."""
        if self.children is None:
            return None
        known = self.children.get(name)
        return known() if known is not None else None

    def drop(self, cache: DentryCache) -> None:
        """The name is gone (unlink, rmdir, rename); the object lives while it is open."""
        cache.release(self)
        self._leave()
        self.unlinked = True

    def _leave(self) -> None:
        if self.parent is not None and self.parent.children is not None:
            mine = self.parent.children.get(self.name)
            if mine is not None and mine() is self:  # in `__del__`, too
                del self.parent.children[self.name]

    def move(self, parent: Dentry, name: bytes) -> None:
        """The file got another name (rename)."""
        self._leave()
        self.parent, self.name = parent, name
        if parent.children is None:
            parent.children = {}
        parent.children[name] = ref(self)

    def is_below(self, other: Dentry) -> bool:
        """`other` is this dentry or one of its ancestors."""
        at: Dentry | None = self
        while at is not None:
            if at is other:
                return True
            at = at.parent
        return False


class DentryCache:
    """Keeps the youngest dentries alive; older ones live as long as somebody holds them."""

    __slots__ = ("_mask", "_next", "_ring", "handles")

    def __init__(self, size: int = 16384) -> None:
        assert size & (size - 1) == 0
        self._ring: list[Dentry | None] = [None] * size
        self._mask = size - 1
        self._next = 0
        self.handles: OrderedDict[tuple[int, int], Dentry | ref[Dentry]] = OrderedDict()
        """By st_dev and number, those whose file handles are out: sentry.vfs.handles."""

    def keep(self, dentry: Dentry) -> None:
        """Hold it until `size` others came after it."""
        at = self._next
        self._ring[at] = dentry
        dentry.cache_slot = at
        self._next = (at + 1) & self._mask

    def release(self, dentry: Dentry) -> None:
        """Its name is gone: it must not keep a file that nobody opens from being freed."""
        if self._ring[dentry.cache_slot] is dentry:
            self._ring[dentry.cache_slot] = None
        inode = dentry.inode
        held = self.handles.get((inode.fs.dev, inode.ino)) if self.handles else None
        if isinstance(held, Dentry) and held.inode is inode and inode.has_gone():
            self.handles[inode.fs.dev, inode.ino] = ref(held)  # for as long as it is open

    def without(self, fs: FileSystem) -> Steps[None]:
        """Let go of a file system's, which is gone: shrink_dcache_for_umount()."""
        for at in range(0, len(self._ring), PIECE):
            for dentry in self._ring[at : at + PIECE]:
                if dentry is not None and dentry.inode.fs is fs:
                    self.release(dentry)
                    yield
            yield
        for key in [key for key in self.handles if key[0] == fs.dev]:
            self.handles.pop(key, None)
            yield

    def forget(self) -> None:
        """Let go of all of them."""
        self._ring = [None] * (self._mask + 1)
