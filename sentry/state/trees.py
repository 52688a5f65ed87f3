"""File systems in memory, with all that is in them: a tmpfs, and the layer over a root.

A tree that is loaded meets what the container's start has made in it: what other mounts sit on
stays the same object, and gets the attributes of the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.fs.overlay.filesystem import OverlayFs
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.fs.tmpfs.file import TmpFile
from sentry.fs.tmpfs.filesystem import RamFs, TmpFs
from sentry.fs.tmpfs.inode import TmpInode, TmpLink
from sentry.state import records
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Absent, Inode

if TYPE_CHECKING:
    from sentry.fs.overlay.inode import OverlayInode
    from sentry.state.saver import Saver


class SavedTree:
    """One of them, as it becomes records: what has no name any more is reached by open files."""

    def __init__(self, saver: Saver, fs: FileSystem, mount: int) -> None:
        self.fs = fs
        self._saver = saver
        self._mount = mount
        self._places: dict[int, int] = {}
        self._inodes: list[Any] = []

    def place(self, inode: Inode) -> int:
        """Its place among the tree's files."""
        found = self._places.get(id(inode))
        if found is None:
            found = self._places[id(inode)] = len(self._inodes)
            self._inodes.append(inode)
        return found

    def record(self) -> records.Tree:
        """All that is in it. Preconditions: all open files are records by now."""
        self._first()
        made: list[Any] = []
        for inode in self._inodes:  # which grows
            made.append(self._one(inode))
        if isinstance(self.fs, OverlayFs):
            return records.Tree(self._mount, differences=made)
        return records.Tree(self._mount, entries=made)

    def _first(self) -> None:
        """The root has place 0, whatever an open file has asked for before."""
        root = self.fs.root
        if self._inodes and self._inodes[0] is not root:
            raise AssertionError("the root of a tree comes first")
        self.place(root)
        if isinstance(self.fs, OverlayFs):
            for inode in self.fs.kept:
                self.place(inode)

    def _one(self, inode: Any) -> records.Entry | records.Difference:
        if isinstance(inode, TmpInode):
            children = inode.children.items() if isinstance(inode, TmpDirectory) else ()
            return records.Entry(
                self._node(inode), [(name, self.place(child)) for name, child in children]
            )
        changed = [
            (name, None if isinstance(now, Absent) else self.place(now))
            for name, now in (inode.changed or {}).items()
        ]
        return records.Difference(
            inode.ino, _below(inode), self._node(inode.upper) if inode.upper else None,
            inode.links, inode.removed, changed,
        )  # fmt: skip

    def _node(self, inode: TmpInode) -> records.Node:
        return node(self._saver, inode)


def node(saver: Saver, inode: TmpInode) -> records.Node:
    """A file in memory."""
    data = inode.data if isinstance(inode, TmpFile) else None
    return records.Node(
        inode.mode, inode.uid, inode.gid, inode.ino, inode.nlink,
        (inode.atime_ns, inode.mtime_ns, inode.ctime_ns, inode.btime_ns),
        inode.rdev, inode.file_flags, inode.seals,
        inode.target if isinstance(inode, TmpLink) else None,
        None if data is None else saver.bytes(data),
        list((inode.xattrs or {}).items()),
    )  # fmt: skip


def _below(inode: OverlayInode) -> bytes | None:
    """The path of the lower file, as it was found first."""
    if inode.lower is None:
        return None
    parts: list[bytes] = []
    at = inode
    while at.above is not None:
        parts.append(at.called)
        at = at.above
    return b"/".join(reversed(parts))


def find(saver: Saver) -> list[SavedTree]:
    """Those that the container sees."""
    found: dict[int, SavedTree] = {}
    for at, mount in enumerate(saver.mounts.all):
        fs = mount.fs
        if id(fs) not in found and (isinstance(fs, OverlayFs) or type(fs) in (TmpFs, RamFs)):
            tree = found[id(fs)] = SavedTree(saver, fs, at)
            tree.place(fs.root)
    return list(found.values())



