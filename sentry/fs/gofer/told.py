"""What stat(2) tells of files that records change: it stays known, so that nobody has to be asked.

The host makes the changes later, and its clock would say so of directories: before it is asked for
anything, their times are recorded, too (`Journal.settle`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.fs.gofer.wire import linked

if TYPE_CHECKING:
    from sentry.fs.gofer.inode import GoferInode
    from sentry.fs.gofer.journal import Journal
    from sentry.vfs.interface import Attributes


class Told:
    """The attributes of some inodes, as far as they are known before their names change."""

    __slots__ = ("_before", "journal")

    def __init__(self, journal: Journal, *inodes: GoferInode | None) -> None:
        self.journal = journal
        found = [inode for inode in dict.fromkeys(inodes) if inode is not None]
        self._before = [(inode, inode.known_attributes()) for inode in found]

    def knows(self, inode: GoferInode) -> bool:
        """Its attributes were known."""
        return any(each is inode and before is not None for each, before in self._before)

    def stays(self, links: dict[GoferInode, int]) -> None:
        """They are known now. `links`: directories whose names have changed, and how many
        directories more they have."""
        self.journal.about(*[inode for inode, _ in self._before])
        for inode, before in self._before:
            inode.recorded(self.journal)
            if before is None:
                continue
            now = inode.sb.now_ns()
            if inode in links:
                names_changed(self.journal, inode, before, links[inode], now)
            else:
                inode.take(linked(before, inode.attributes.nlink, before.mtime_ns, now))


def names_changed(
    journal: Journal, directory: GoferInode, before: Attributes | None, more: int, now_ns: int
) -> None:
    """Names of a directory whose attributes were these, if they were known, are changed by what was
    recorded last, and it has so many directories more."""
    if before is None:
        return
    nlink = directory.attributes.nlink
    if nlink > 1:  # btrfs counts no directories
        nlink += more
    journal.touched(directory)
    directory.take(linked(before, nlink, now_ns, now_ns))
