"""Where inotify hangs on inodes, and how the rest of this room tells it what happened.

The queue and the descriptor live in sentry.fs.inotify; here is only who is to be told. An inode has
watches for events on itself and, if it is a directory, on its children by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sentry.abi.inotify import IN_DELETE_SELF, IN_ISDIR

if TYPE_CHECKING:
    from sentry.wait.steps import Steps


class Watch(Protocol):
    """One inotify watch."""

    mask: int

    def event(self, mask: int, cookie: int, name: bytes, gone: bool) -> None: ...
    def removed(self) -> None: ...
    def unmounted(self) -> None: ...


class Watches:
    """The watches of one inode."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: dict[Watch, None] = {}

    def tell(self, mask: int, cookie: int = 0, name: bytes = b"", gone: bool = False) -> None:
        """An event happened; watches filter. `gone`: through an open file without a name."""
        for watch in list(self.items):
            watch.event(mask, cookie, name, gone)


class Watched(Protocol):
    """An inode."""

    is_dir: bool
    open_count: int
    watches: Watches | None

    def has_gone(self) -> bool: ...


class Named(Protocol):
    """A dentry."""

    name: bytes
    unlinked: bool

    @property
    def inode(self) -> Watched: ...
    @property
    def parent(self) -> Named | None: ...


class Tree(Protocol):
    """A file system."""

    watched: set[Watch]


def tell(dentry: Named, mask: int) -> None:
    """Something was done through an open file: its watches and those of its directory hear.

    IN_EXCL_UNLINK keeps away those of a file whose name was removed: FSNOTIFY_EVENT_PATH.
    """
    _tell(dentry, mask, dentry.unlinked)


def tell_changed(dentry: Named, mask: int) -> None:
    """Attributes or the size were changed: the same, name or not. fsnotify_dentry()."""
    _tell(dentry, mask, False)


def _tell(dentry: Named, mask: int, gone: bool) -> None:
    inode = dentry.inode
    if inode.is_dir:
        mask |= IN_ISDIR
    parent = dentry.parent
    if parent is not None and parent.inode.watches is not None:
        parent.inode.watches.tell(mask, 0, dentry.name, gone)
    if inode.watches is not None:
        inode.watches.tell(mask, gone=gone)


def tell_child(
    directory: Watched, mask: int, name: bytes, *, is_dir: bool = False, cookie: int = 0
) -> None:
    """A name of a directory was made, removed or moved."""
    if directory.watches is not None:
        directory.watches.tell(mask | (IN_ISDIR if is_dir else 0), cookie, name)


def tell_if_gone(inode: Watched) -> None:
    """Without a name and closed everywhere: IN_DELETE_SELF, and its watches end."""
    if inode.watches is None or inode.open_count:
        return
    if not inode.has_gone():
        return
    inode.watches.tell(IN_DELETE_SELF)
    for watch in list(inode.watches.items) if inode.watches is not None else ():
        watch.removed()


def tell_unmounted(fs: Tree) -> Steps[None]:
    """The file system is gone, and with it what was watched."""
    for watch in list(fs.watched):
        watch.unmounted()
        yield


def tell_self(inode: Watched, mask: int) -> None:
    """Something that only the inode's own watches hear (IN_DELETE_SELF, IN_MOVE_SELF)."""
    if inode.watches is not None:
        inode.watches.tell(mask)
