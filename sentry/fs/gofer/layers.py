"""A tree of the host that is an overlayfs: what it copies up from a lower layer before a change.

A change of a file copies all of it to the upper layer, and a change of names every directory above
(Documentation/filesystems/overlayfs.rst, "Non-directories"). The host may lack the room, and would
say so too late: so with a journal it is asked for before, as for what is made. Whether a file has
been copied is not known here; it counts each time.

Others are never recorded: a directory of a lower layer cannot be renamed (EXDEV, without
`redirect_dir`), and of several names of one file only one is copied, as another file (without
`index`). So each such name has an inode of its own, of which nothing is kept (`GoferInode.apart`),
unless the names were made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from sentry.vfs.interface import Attributes

_STEP: Final = 1024
"""Bytes that one change leaves room for at least: two blocks, the smallest of which have 512."""
_XATTRS: Final = 64
"""The same for what else is copied: XATTR_SIZE_MAX."""


class Inode(Protocol):
    """What is copied (sentry.fs.gofer.inode)."""

    sb: Any
    attributes: Attributes
    apart: bool

    @property
    def parent(self) -> Any: ...
    @property
    def is_dir(self) -> bool: ...


def copied(inode: Inode, *others: Inode | None) -> int:
    """How many changes more take as much room as copying these up; directories are those whose
    names are changed. 0 where there are no layers."""
    if not inode.sb.layered:
        return 0
    room = 0
    above: dict[Inode, None] = {}
    for each in (inode, *others):
        if each is None:
            continue
        if not each.is_dir:
            room += each.attributes.size // _STEP + _XATTRS
        at = each if each.is_dir else each.parent
        while at is not None and at not in above:
            above[at] = None
            at = at.parent
    return room + len(above) * _XATTRS


def may_stay(inode: Inode | None) -> bool:
    """Whether only the host can say if it is renamed, and as what."""
    if inode is None or not inode.sb.layered:
        return False
    return inode.is_dir or inode.apart
