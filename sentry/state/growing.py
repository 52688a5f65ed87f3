"""Trees of files in memory, from their records: see trees.py."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from sentry.fs.overlay.filesystem import OverlayFs
from sentry.fs.overlay.inode import OverlayInode
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.fs.tmpfs.file import TmpFile
from sentry.fs.tmpfs.filesystem import RamFs, TmpFs
from sentry.fs.tmpfs.inode import TmpInode, TmpLink, TmpSpecial
from sentry.state import records
from sentry.state.loader import at, step
from sentry.state.pages import Damaged
from sentry.state.saver import mounted
from sentry.vfs.interface import ABSENT, Absent, Inode, Owner
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentry.state.loader import Loader

KINDS = frozenset({0o010000, 0o020000, S_IFDIR, 0o060000, S_IFREG, S_IFLNK, 0o140000})


async def load(loader: Loader, tree: records.Tree) -> list[Inode]:
    """The files of a tree, by their places. Raises: Damaged, ENOSPC, ENOMEM."""
    fs = loader.file_system(tree)
    what = [tree.entries, tree.differences, tree.overlay, tree.image]
    if sum(map(bool, what)) > 1:
        raise Damaged("a tree that is two")
    if isinstance(fs, OverlayFs) and tree.differences:
        return await Layer(loader, fs, tree.differences).load()
    if isinstance(fs, TmpFs) and tree.entries:
        if tree.uuid and not isinstance(fs, RamFs):
            fs.uuid = tree.uuid.ljust(16, b"\0")
        return await Memory(loader, fs, tree.entries).load()
    if tree.overlay is not None or tree.image is not None:
        from sentry.state import layering  # noqa: PLC0415  few have one

        return await layering.load(loader, fs, tree)
    raise Damaged(f"a tree of another kind than {fs.name}")


def checked(names: Iterable[tuple[bytes, Any]]) -> dict[bytes, Any]:
    """Names of one directory. Raises: Damaged."""
    found: dict[bytes, Any] = {}
    for name, what in names:
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or name in found:
            raise Damaged(f"a directory cannot have the name {name!r}")
        found[name] = what
    return found


def made(loader: Loader, fs: TmpFs, node: records.Node) -> TmpInode:
    """A new file, that some program can have made. Raises: ENOSPC, Damaged."""
    loader.rights.check_made(node)
    return _new(fs, node)


def _new(fs: TmpFs, node: records.Node) -> TmpInode:
    fs.check_inodes()
    owner, kind = Owner(node.uid, node.gid), node.mode & S_IFMT
    if kind not in KINDS:
        raise Damaged(f"a file of mode {node.mode:o}")
    if kind == S_IFREG:
        return TmpFile(fs, node.mode & 0o7777, owner)
    if kind == S_IFDIR:
        return TmpDirectory(fs, node.mode & 0o7777, owner)
    if kind == S_IFLNK:
        if node.target is None or not 0 < len(node.target) < 4096:
            raise Damaged("a symbolic link without a text")
        return TmpLink(fs, node.target, owner)
    return TmpSpecial(fs, node.mode & ~0xF0000, node.rdev, owner)


def pass_number(fs: TmpFs, ino: int) -> None:
    """No new file gets this number any more."""
    fs._inos = itertools.count(max(ino + 1, next(fs._inos)))


def same_kind(inode: Inode, node: records.Node) -> bool:
    """It can become what the record says."""
    same = inode.kind == node.mode & S_IFMT and inode.rdev == node.rdev
    return same and (not isinstance(inode, TmpLink) or inode.target == node.target)


def fill(loader: Loader, inode: TmpInode, node: records.Node) -> None:
    """Attributes, and bytes. Raises: Damaged, ENOSPC, ENOMEM."""
    if node.mode & S_IFMT != inode.kind:
        raise Damaged(f"a file has become one of mode {node.mode:o}")
    for name in list(inode.xattrs or ()):
        inode.removexattr(name)
    for name, value in node.xattrs:
        inode.setxattr(name, value, 0)
    if node.bytes is not None:
        if not isinstance(inode, TmpFile) or loader.used_twice(node.bytes):
            raise Damaged("bytes that belong to two files")
        if inode.data is not None:
            inode.data.close()
            inode.data = None
        loader.ram_file(node.bytes, inode.bytes)
    elif isinstance(inode, TmpFile) and inode.data is not None:
        inode.data.truncate(0)
    mode = inode.kind | loader.rights.mode(node)
    inode.mode, inode.uid, inode.gid = mode, node.uid, node.gid
    inode.ino, inode.nlink, inode.file_flags = node.ino, max(node.nlink, 0), node.flags  # type: ignore[misc]
    if isinstance(inode, TmpFile):
        inode.seals = node.seals  # type: ignore[misc]
    inode.atime_ns, inode.mtime_ns, inode.ctime_ns, inode.btime_ns = node.times


class Memory:
    """A tmpfs."""

    def __init__(self, loader: Loader, fs: TmpFs, entries: list[records.Entry]) -> None:
        self._loader = loader
        self._fs = fs
        self._entries = entries
        self._inodes: list[TmpInode | None] = [None] * len(entries)
        self._taken: set[int] = set()

    async def load(self) -> list[Inode]:
        """See `load`."""
        root, pace = self._fs.root, Pace()
        assert isinstance(root, TmpDirectory)
        self._inodes[0] = root
        waiting = [0]
        while waiting:
            waiting += self._directory(waiting.pop())
            await pace.rest()
        found: list[Inode] = []
        for place, entry in enumerate(self._entries):
            inode = self._inodes[place]
            if inode is None:
                inode = made(self._loader, self._fs, entry.node)
            fill(self._loader, inode, entry.node)
            found.append(inode)
            await pace.rest()
        self._fs._inos = itertools.count(max(inode.ino for inode in found) + 1)
        files = [each for each in found if isinstance(each, TmpInode) and not each.is_dir]
        self._fs.more_names = sum(max(each.nlink - 1, 0) for each in files)
        return found

    def _directory(self, place: int) -> list[int]:
        """Give it its names; the directories in it come next."""
        directory, below = self._inodes[place], []
        if not isinstance(directory, TmpDirectory):
            raise Damaged("names in what is no directory")
        children: dict[bytes, TmpInode] = {}
        for name, which in checked(self._entries[place].children).items():
            entry = at(self._entries, which, "file")
            inode = self._inodes[which]
            if inode is None:
                inode = directory.children.get(name)
                if inode is None or not same_kind(inode, entry.node) or id(inode) in self._taken:
                    inode = made(self._loader, self._fs, entry.node)
                self._inodes[which] = inode
                self._taken.add(id(inode))
                if inode.is_dir:
                    below.append(which)
            elif inode.is_dir:
                raise Damaged("a directory with two names")
            children[name] = inode
        directory.children = children
        directory.touched()
        return below


class Layer:
    """A container's own layer over its root."""

    def __init__(
        self, loader: Loader, fs: OverlayFs, differences: list[records.Difference]
    ) -> None:
        self._loader = loader
        self._fs = fs
        self._records = differences
        self._inodes: list[OverlayInode | None] = [None] * len(differences)
        self._taken: set[int] = set()
        self._ways: dict[bytes, OverlayInode] = {b"": fs.root}
        """What has been found below, by path."""
        self._covered = [
            mounted(mount).path + b"/" for mount in loader.first
            if mount.parent is not None and mount.parent.mount.fs is fs
        ]  # fmt: skip
        """What other mounts sit on: nothing in there is seen, and nothing above it moves."""

    async def load(self) -> list[Inode]:
        """See `load`."""
        pace = Pace()
        if self._records[0].lower != b"":
            raise Damaged("the first file of a tree is its root")
        for place, record in enumerate(self._records):
            if record.lower is not None:
                inode = self._inodes[place] = await self._below(record.lower)
                if id(inode) in self._taken:
                    raise Damaged("a file of the root that is there twice")
                self._taken.add(id(inode))
            await pace.rest()
        named: set[int] = {0}
        for place, record in enumerate(self._records):
            self._names(place, record, named)
            await pace.rest()
        found: list[Inode] = []
        for place, record in enumerate(self._records):
            found.append(self._fill(self._inode(place), record))
            await pace.rest()
        self._fs._inos = itertools.count(
            max((each.ino for each in self._records if each.lower is None), default=1 << 32) + 1
        )
        return found

    async def _below(self, path: bytes) -> OverlayInode:
        """What stands for a file of the root that is not changed otherwise."""
        if path.startswith(tuple(self._covered)):
            raise Damaged("a file of the root that a mount hides")
        directory, at_path = self._fs.root, b""
        for name in filter(None, path.split(b"/")):
            at_path = at_path + b"/" + name if at_path else name
            known = self._ways.get(at_path)
            if known is None:
                if directory.lower is None:
                    raise Damaged(f"{path!r} is no path of a snapshot")
                lower = await step(directory.lower, name, path)
                known = self._ways[at_path] = self._fs.wrap(lower, directory, name)
            directory = known
        return directory

    def _inode(self, place: int) -> OverlayInode:
        found = self._inodes[place]
        if found is None:
            record = self._records[place]
            if record.upper is None:
                raise Damaged("a file that is nowhere")
            upper = made(self._loader, self._fs.upper, record.upper)
            found = OverlayInode(self._fs, upper, None)
            self._inodes[place] = found
        return found

    def _names(self, place: int, record: records.Difference, named: set[int]) -> None:
        if not record.changed:
            return
        directory = self._inode(place)
        if not directory.is_dir:
            raise Damaged("names in what is no directory")
        before = directory.changed or {}
        now: dict[bytes, OverlayInode | Absent] = {}
        for name, which in checked(record.changed).items():
            if which is None:
                now[name] = ABSENT
                continue
            other = at(self._records, which, "file")
            if self._inodes[which] is None and other.upper is not None:
                known = before.get(name)
                if (
                    isinstance(known, OverlayInode)
                    and known.lower is None
                    and same_kind(known, other.upper)
                    and id(known) not in self._taken
                ):
                    self._inodes[which] = known
                    self._taken.add(id(known))
            inode = self._inode(which)
            if inode.is_dir and which in named:
                raise Damaged("a directory with two names")
            below = other.lower
            if below is not None and any(each.startswith(below + b"/") for each in self._covered):
                raise Damaged("what a mount sits on has moved")
            named.add(which)
            now[name] = inode
        directory.changed = now

    def _fill(self, inode: OverlayInode, record: records.Difference) -> OverlayInode:
        node = record.upper
        if node is not None:
            if inode.upper is None:
                if (node.mode & S_IFMT, node.rdev) != (inode.kind, inode.rdev):
                    raise Damaged("a file of the root is of another kind now")
                inode.upper = _new(self._fs.upper, node)
            fill(self._loader, inode.upper, node)
            inode.mode, inode.uid, inode.gid = inode.upper.mode, node.uid, node.gid
            inode.acl, inode.file_flags = inode.upper.acl, node.flags  # type: ignore[misc]
            self._fs.keep(inode)
        if inode.lower is None:
            inode.ino = record.ino
        if inode.upper is not None:
            inode.upper.ino = inode.ino
        inode.links, inode.removed, inode._dirents = record.links, record.removed, None
        return inode


