"""Where inotify hangs on inodes, and how the rest of this room tells it, and fanotify, of events.

The queue and the descriptor live in sentry.fs.inotify; here is only who is to be told. An inode has
watches for events on itself and, if it is a directory, on its children by name. fanotify's are in
`marks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from sentry.abi.fanotify import FAN_OPEN_EXEC
from sentry.abi.inotify import IN_DELETE_SELF, IN_ISDIR
from sentry.vfs import marks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.wait.steps import Steps


class Hooked(Protocol):
    """Something that hangs on a file system."""

    def unmounted(self) -> None: ...


class Watch(Hooked, Protocol):
    """One inotify watch."""

    mask: int

    def event(self, mask: int, cookie: int, name: bytes, gone: bool) -> None: ...
    def removed(self) -> None: ...


ForEach = Callable[[Iterable[Watch], Callable[[Watch], object]], object]
"""What does something to each of many: Loop.call_for_each."""


class Watches:
    """The watches of one inode."""

    __slots__ = ("_for_each", "_notices", "items")

    def __init__(self) -> None:
        self.items: dict[Watch, None] = {}
        self._notices: dict[Watch, None] = {}
        """dnotify's, one for each open file: many hear in pieces."""
        self._for_each: ForEach | None = None

    def __bool__(self) -> bool:
        return bool(self.items or self._notices)

    def __iter__(self) -> Iterator[Watch]:
        return iter([*self.items, *self._notices])

    def add_notice(self, notice: Watch, for_each: ForEach) -> None:
        """One of dnotify."""
        self._notices[notice] = None
        self._for_each = for_each

    def drop_notice(self, notice: Watch) -> bool:
        """Whether it was there."""
        return notice in self._notices and self._notices.pop(notice) is None

    def tell(self, mask: int, cookie: int = 0, name: bytes = b"", gone: bool = False) -> None:
        """An event happened; watches filter. `gone`: through an open file without a name."""
        for watch in list(self.items):
            watch.event(mask, cookie, name, gone)
        if self._notices and self._for_each is not None:
            self._for_each(list(self._notices), lambda each: each.event(mask, cookie, name, gone))


class Tree(marks.Holder, Protocol):
    """A file system."""

    watched: set[Hooked]
    marked: int


class Watched(marks.Marked, Protocol):
    """An inode."""

    open_count: int
    watches: Watches | None

    @property
    def fs(self) -> Tree: ...
    def has_gone(self) -> bool: ...


class Named(Protocol):
    """A dentry."""

    name: bytes
    unlinked: bool

    @property
    def inode(self) -> Watched: ...
    @property
    def parent(self) -> Named | None: ...


class Place(Protocol):
    """A location."""

    @property
    def heard(self) -> bool: ...
    @property
    def mount(self) -> marks.Holder: ...
    @property
    def dentry(self) -> Named: ...


def tell(place: Place, mask: int) -> None:
    """Something was done through an open file: its watches and those of its directory hear.

    IN_EXCL_UNLINK keeps away those of a file whose name was removed: FSNOTIFY_EVENT_PATH.
    """
    if not place.heard:
        return
    dentry = place.dentry
    _tell(dentry, mask & ~FAN_OPEN_EXEC, dentry.unlinked)
    if dentry.inode.fs.marked:
        marks.tell_place(place, mask)


def tell_changed(dentry: Named, mask: int) -> None:
    """Attributes or the size were changed: the same, name or not. fsnotify_dentry()."""
    if not dentry.inode.fs.watched:
        return
    _tell(dentry, mask, False)
    if dentry.inode.fs.marked:
        marks.tell_dentry(dentry, mask)


def _tell(dentry: Named, mask: int, gone: bool) -> None:
    inode = dentry.inode
    if inode.is_dir:
        mask |= IN_ISDIR
    parent = dentry.parent
    if parent is not None and parent.inode.watches is not None:
        parent.inode.watches.tell(mask, 0, dentry.name, gone)
    if inode.watches is not None:
        inode.watches.tell(mask, gone=gone)


def tell_child(directory: Watched, mask: int, name: bytes) -> None:
    """What has a name in a directory has changed, without its doing."""
    if directory.watches is not None:
        directory.watches.tell(mask, 0, name)


def tell_entry(
    directory: Named, mask: int, name: bytes, inode: Watched, *, cookie: int = 0
) -> None:
    """A name of a directory was made, removed or moved; `inode`: what has it, or had."""
    watches = directory.inode.watches
    if watches is not None:
        watches.tell(mask | (IN_ISDIR if inode.is_dir else 0), cookie, name)
    if inode.fs.marked:
        marks.tell_entry(directory, mask, name, inode)


def tell_if_gone(inode: Watched) -> None:
    """Without a name and closed everywhere: IN_DELETE_SELF, and its watches end."""
    if (inode.watches is None and not inode.fs.marked) or inode.open_count:
        return
    if not inode.has_gone():
        return
    if inode.watches is not None:
        inode.watches.tell(IN_DELETE_SELF)
    for watch in inode.watches or ():
        watch.removed()
    if inode.fs.marked:
        marks.tell_inode(inode, IN_DELETE_SELF)
        for mark in list(inode.marks.values()) if inode.marks is not None else ():
            mark.unmounted()


def tell_unmounted(fs: Tree) -> Steps[None]:
    """The file system is gone, and with it what was watched."""
    for watch in list(fs.watched):
        watch.unmounted()
        yield


def tell_self(inode: Watched, mask: int) -> None:
    """Something that only the inode's own watches hear (IN_DELETE_SELF, IN_MOVE_SELF)."""
    if inode.watches is not None:
        inode.watches.tell(mask)
    if inode.fs.marked:
        marks.tell_inode(inode, mask)
