"""Where fanotify(7) hangs: marks of inodes, mounts, file systems, and whom what happens concerns.

A group hears of something once, with all of its marks that concern it, since one of them may say
that another is to be ignored: fsnotify(), fs/notify/fsnotify.c. The groups, their queues and
descriptors are in sentry.fs.fanotify; that anything is told, in `watches`.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from sentry.abi.fanotify import (
    FAN_CREATE,
    FAN_DELETE,
    FAN_EVENT_ON_CHILD,
    FAN_MOVED_FROM,
    FAN_MOVED_TO,
    FAN_ONDIR,
    FAN_RENAME,
)
from sentry.abi.layout import Record

DIRENT_EVENTS: Final = FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO | FAN_RENAME
"""Of the directory alone: ALL_FSNOTIFY_DIRENT_EVENTS."""
EVENT_FLAGS: Final = FAN_ONDIR | FAN_EVENT_ON_CHILD
ON_INODE, ON_PARENT, ON_MOUNT, ON_FILE_SYSTEM, ON_TARGET = range(5)
"""What a mark hangs on, seen from what happened: FSNOTIFY_ITER_TYPE_*. ON_TARGET: where something
was moved to."""


class Mark(Protocol):
    """One of a group. `unmounted`: what it hangs on is gone."""

    mask: int
    ignored: int

    def watches_children(self) -> bool: ...
    def unmounted(self) -> None: ...


Found = list[tuple[int, Mark]]
"""Marks of a group by what they hang on."""


class Group(Protocol):
    """Who is told."""

    def happened(self, what: Happening, marks: Found) -> None: ...


Marks = dict[Group, Mark]


class Holder(Protocol):
    """An inode, a mount or a file system."""

    marks: Marks | None


class Marked(Holder, Protocol):
    """An inode."""

    is_dir: bool

    @property
    def fs(self) -> Holder: ...


class Named(Protocol):
    """A dentry."""

    name: bytes

    @property
    def inode(self) -> Marked: ...
    @property
    def parent(self) -> Named | None: ...


class Place(Protocol):
    """A location."""

    @property
    def mount(self) -> Holder: ...
    @property
    def dentry(self) -> Named: ...


class Happening(Record):
    """What happened, to whom."""

    mask: int
    """FAN_* events, with FAN_ONDIR."""
    inode: Any
    """An inode. Of an event about a name, what has the name."""
    place: Any
    """A location: where it was done. None: that is not known."""
    directory: Any
    """The dentry of the name's directory, or of the file's; or None."""
    name: bytes
    moved: tuple[Any, bytes] | None = None
    """Of FAN_RENAME: where it is now."""


def _with_type(mask: int, inode: Marked) -> int:
    return mask | FAN_ONDIR if inode.is_dir else mask


def tell_place(place: Place, mask: int) -> None:
    """Something was done there through a mount: fsnotify_path()."""
    _tell_file(place.dentry, mask, place)


def tell_dentry(dentry: Named, mask: int) -> None:
    """Something was done to a file: fsnotify_dentry()."""
    _tell_file(dentry, mask, None)


def _tell_file(dentry: Named, mask: int, place: Place | None) -> None:
    """Who marked it hears of it, and whose mark of the directory is for what is in it."""
    inode, parent = dentry.inode, dentry.parent
    what = Happening(_with_type(mask, inode), inode, place, parent, dentry.name)
    above = parent.inode if parent is not None else None
    _deliver(what, (inode, above, place.mount if place is not None else None, inode.fs, None))


def tell_inode(inode: Marked, mask: int) -> None:
    """What has nothing to do with any of its names: fsnotify_inode()."""
    what = Happening(_with_type(mask, inode), inode, None, None, b"")
    _deliver(what, (inode, None, None, inode.fs, None))


def tell_entry(directory: Named, mask: int, name: bytes, inode: Marked) -> None:
    """A name was made, or taken away: fsnotify_name()."""
    what = Happening(_with_type(mask, inode), inode, None, directory, name)
    _deliver(what, (directory.inode, None, None, inode.fs, None))


def tell_renamed(source: tuple[Named, bytes], target: tuple[Named, bytes], inode: Marked) -> None:
    """FAN_RENAME."""
    (directory, name), mask = source, _with_type(FAN_RENAME, inode)
    what = Happening(mask, inode, None, directory, name, target)
    _deliver(what, (directory.inode, None, None, inode.fs, target[0].inode))


Holders = tuple[Marked, Marked | None, Holder | None, Holder, Marked | None]
"""In the order of ON_INODE and its kin."""


def _deliver(what: Happening, holders: Holders) -> None:
    found: dict[Group, Found] = {}
    for kind, holder in enumerate(holders):
        marks = holder.marks if holder is not None else None
        if marks is None:
            continue
        for group, mark in marks.items():
            if kind != ON_PARENT or mark.watches_children():
                found.setdefault(group, []).append((kind, mark))
    for group, its in found.items():
        group.happened(what, its)
