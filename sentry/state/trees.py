"""File systems in memory, with all that is in them: a tmpfs, and the layer over a root. And those
that lie over others: layers.py.

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
    from sentry.wait.steps import Pace


class SavedTree:
    """One of them, as it becomes records: what has no name any more is reached by open files."""
    def __init__(self, saver: Saver, fs: FileSystem, mount: int | None) -> None:
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

    async def record(self, pace: Pace) -> records.Tree:
        """All that is in it. Preconditions: all open files are records by now."""
        self._first()
        made: list[Any] = []
        for inode in self._inodes:  # which grows
            made.append(self._one(inode))
            await pace.rest()
        if isinstance(self.fs, OverlayFs):
            return records.Tree(*self._shown(), differences=made)
        uuid = self.fs.uuid if "uuid" in vars(self.fs) else b""
        return records.Tree(*self._shown(), entries=made, uuid=uuid)

    def _shown(self) -> tuple[int, int | None]:
        """A mount of it, or where it is among the file systems."""
        if self._mount is not None:
            return self._mount, None
        return 0, self._saver.mounts.unmounted(self.fs)

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
    """Those that the container sees, and those on which they lie: the lowest first."""
    mounts: dict[FileSystem, int | None] = {}
    for at, mount in enumerate(saver.mounts.all):
        mounts.setdefault(mount.fs, at)
    for fs in (systems := list(mounts)):  # which grows
        below = [each for each in _below_it(fs) if each not in mounts]
        mounts.update(dict.fromkeys(below))
        systems += below
    found: list[SavedTree] = []
    for fs in sorted(systems, key=lambda fs: fs.stack_depth):
        kind: type[SavedTree] = SavedTree
        if is_stacked(fs):
            from sentry.state import layers  # noqa: PLC0415  few have one

            kind = layers.SavedImage if fs.name == "erofs" else layers.SavedLayers
        elif not isinstance(fs, OverlayFs) and type(fs) not in (TmpFs, RamFs):
            continue
        if fs.name != "erofs" or not saver.mounts.is_first(fs):
            found.append(kind(saver, fs, mounts[fs]))
            found[-1].place(fs.root)
    return found


def is_stacked(fs: FileSystem) -> bool:
    """It lies over others, and a program has mounted it."""
    return fs.name == "erofs" or (fs.name == "overlay" and not isinstance(fs, OverlayFs))


def _below_it(fs: Any) -> list[FileSystem]:
    if not is_stacked(fs):
        return []
    if fs.name == "erofs":
        return [fs.image.file.inode.fs]
    return [layer.root.fs for layer in fs.stack.layers.values()]



