"""What stat(2) tells of files that records change: it stays known, so that nobody has to be asked.

The host makes the changes later, and its clock would say so of directories: before it is asked for
anything, their times are recorded, too (`Journal.settle`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.fs.gofer.wire import linked

if TYPE_CHECKING:
    from sentry.fs.gofer.directory import GoferDirectory
    from sentry.fs.gofer.inode import GoferInode
    from sentry.fs.gofer.journal import Journal


class Told:
    """The attributes of some inodes, as far as they are known before their names change."""

    __slots__ = ("_before", "_new", "journal")

    def __init__(
        self, journal: Journal, *inodes: GoferInode | None, new: GoferInode | None = None
    ) -> None:
        """`new`: a file that gets its first name."""
        self.journal = journal
        self._new = new
        found = [inode for inode in dict.fromkeys(inodes) if inode is not None]
        self._before = [(inode, inode.known_attributes()) for inode in found]

    def knows(self, inode: GoferInode) -> bool:
        """Its attributes were known."""
        return any(each is inode and before is not None for each, before in self._before)

    def stays(self, links: dict[GoferDirectory, int]) -> None:
        """They are known now. `links`: directories whose names have changed, and how many
        directories more they have."""
        about = [inode for inode, _ in self._before]
        if self._new is not None:
            about.append(self._new)
        self.journal.about(*about, new=self._new)
        for inode, before in self._before:
            inode.recorded(self.journal)
            if before is None:
                continue
            now, nlink = inode.sb.now_ns(), inode.attributes.nlink
            mtime = before.mtime_ns
            for directory, more in links.items():
                if directory is inode:
                    # btrfs counts no directories.
                    nlink += more if nlink > 1 else 0
                    mtime = now
                    self.journal.touched(directory)
            inode.take(linked(before, nlink, mtime, now))
