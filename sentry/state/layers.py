"""File systems that lie over others, as records: overlays that programs have mounted, and images
(EROFS) in files. See layering.py.

What their layers hold is written where these are. Of an overlay there is what it lies over, and
those of its files that nobody would find again as they were: which are open and have lost their
names, and whose numbers no layer tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.fs.layers.directory import LayeredDirectory
from sentry.fs.layers.stack import LOCAL_INOS
from sentry.state import records
from sentry.state.trees import SavedTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.fs.layers.inode import LayeredInode
    from sentry.fs.layers.stack import Stack
    from sentry.wait.steps import Pace


class SavedImage(SavedTree):
    """An EROFS."""

    async def record(self, pace: Pace) -> records.Tree:
        """The file in which it lies."""
        fs: Any = self.fs
        mounts, (mount, dentry) = self._saver.mounts, fs.image.file.location
        where = records.Image(mounts.where(dentry.inode.fs, dentry), mounts.at(mount))
        return records.Tree(*self._shown(), image=where)


class SavedLayers(SavedTree):
    """An overlay."""

    async def record(self, pace: Pace) -> records.Tree:
        """What it lies over, and the files that are needed."""
        from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

        fs: Any = self.fs
        saver, stack, options = self._saver, fs.stack, fs.options
        self._first()
        named: dict[LayeredInode, tuple[LayeredDirectory, bytes]] = {}
        for directory, name, inode in _known(fs.root):
            named.setdefault(inode, (directory, name))
            if _has_own_number(stack, inode):
                self.place(inode)
            await pace.rest()
        files = []
        for inode in self._inodes:  # which grows
            if isinstance(inode, LayeredDirectory) and inode.gone and inode.redirect:
                refused("a directory of an overlay that was moved, and then removed")
            files.append(self._file(inode, named.get(inode)))
            await pace.rest()
        found = records.Overlay(
            options.data.encode("utf-8", "surrogateescape"), options.uuid, saver.creds(stack.creds),
            [saver.mounts.where(each.root.fs, each.mount.root) for each in stack.layers.values()],
            [saver.in_tree(each) for each in stack.others],
            None if stack.work is None else saver.in_tree(stack.work),
            None if stack.whiteout is None else saver.in_tree(stack.whiteout),
            stack.marks, stack.uuid, stack.next_ino, files,
        )  # fmt: skip
        return records.Tree(*self._shown(), overlay=found)

    def _file(
        self, inode: LayeredInode, place: tuple[LayeredDirectory, bytes] | None
    ) -> records.LayeredFile:
        devices, dev = inode.stack.devices, inode._dev
        number = inode.ino, None if dev is None else devices.index(dev)
        if inode is self.fs.root:
            return records.LayeredFile(*number)
        if place is not None:
            return records.LayeredFile(*number, self.place(place[0]), place[1])
        parent: int | None = None
        lowers: list[int] = []
        if inode.parent is not None and (inode.upper is None or inode.is_dir):
            parent, lowers = self.place(inode.parent), [layer for layer, _ in inode.lowers]
        upper = None if inode.upper is None else self._saver.in_tree(inode.upper)
        return records.LayeredFile(*number, parent, inode.name, True, inode.gone, upper, lowers)


def _known(root: LayeredDirectory) -> Iterator[tuple[LayeredDirectory, bytes, LayeredInode]]:
    """What somebody holds and has a name."""
    directories = [root]
    for directory in directories:  # which grows
        for name, held in list(directory._names.items()):
            inode = held()
            if inode is None:
                continue
            yield directory, name, inode
            if isinstance(inode, LayeredDirectory):
                directories.append(inode)


def _has_own_number(stack: Stack, inode: LayeredInode) -> bool:
    """Who looks for it again would find another one."""
    return inode.ino >= LOCAL_INOS or (inode.upper is not None and not stack.marks)
