"""Directories in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sentry.abi.fcntl import RENAME_EXCHANGE, RENAME_WHITEOUT
from sentry.abi.stat import S_IFMT
from sentry.ahead import mypyc_attr
from sentry.errors import ENOENT, ENOTEMPTY
from sentry.fs.tmpfs.file import TmpFile
from sentry.fs.tmpfs.inode import TmpInode, TmpLink, TmpSpecial
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.dirents import Dirents, Entry
from sentry.vfs.file import Caller
from sentry.vfs.interface import ABSENT, Absent, DirEntry, Inode, Owner
from sentry.vfs.leftovers import FEW

if TYPE_CHECKING:
    from sentry.fs.tmpfs.filesystem import TmpFs
    from sentry.vfs.location import Location

WHITEOUT_MODE = 0o020000


@mypyc_attr(allow_interpreted_subclasses=True)
class TmpDirectory(TmpInode):
    """A directory: names to inodes."""

    __slots__ = ("_dirents", "children")

    def __init__(self, fs: TmpFs, mode: int, owner: Owner) -> None:
        super().__init__(fs, 0o040000 | mode, owner)
        self.children: dict[bytes, TmpInode] = {}
        self._dirents: Dirents | None = None
        self.nlink = 2

    def __del__(self) -> None:
        children = self.children
        if self.sb.let_go is not None and (
            len(children) > FEW or any(child.is_dir for child in children.values())
        ):
            self.sb.let_go((children.popitem()[1] for _ in range(len(children))), id)
        super().__del__()

    def size_of(self) -> tuple[int, int]:
        """As tmpfs counts: 20 bytes a name, `.` and `..` too."""
        return 20 * (len(self.children) + 2), 0

    # --- reading

    def lookup_cached(self, name: bytes) -> TmpInode | Absent:
        """All names are in memory."""
        return self.children.get(name, ABSENT)

    def entries(self) -> Iterator[DirEntry]:
        """All names, oldest first."""
        find = self.children.get
        return (
            DirEntry(name, each.ino, each.mode & S_IFMT)
            for name in list(self.children)
            if (each := find(name)) is not None
        )

    def _rows(self) -> Iterator[Entry]:
        find = self.children.get
        for name in list(self.children):
            if (each := find(name)) is not None:
                yield name, each.ino, each.mode & S_IFMT

    def dirents(self) -> Dirents:
        """The same, until a name changes."""
        if self._dirents is None:
            self._dirents = Dirents(self._rows(), names=len(self.children))
        return self._dirents

    def touched(self) -> None:
        """A name changed."""
        self._dirents = None
        super().touched()

    def open(self, location: Location, flags: int, caller: Caller) -> DirectoryFile:
        """open(2)."""
        return DirectoryFile(location, flags)

    # --- making

    def add(self, name: bytes, inode: TmpInode) -> None:
        """Give a new inode its first name."""
        if self.nlink == 0:
            raise ENOENT("the directory has been removed")
        self.children[name] = inode
        if inode.is_dir:
            self.nlink += 1
        self.touched()

    def create(self, name: bytes, mode: int, owner: Owner) -> TmpFile:
        """A regular file."""
        self.sb.check_inodes()
        inode = TmpFile(self.sb, mode, owner)
        inode.inherit(self.default_acl())
        self.add(name, inode)
        return inode

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> TmpDirectory:
        """A directory."""
        self.sb.check_inodes()
        inode = TmpDirectory(self.sb, mode, owner)
        inode.inherit(self.default_acl())
        self.add(name, inode)
        return inode

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> TmpSpecial:
        """A special file."""
        self.sb.check_inodes()
        inode = TmpSpecial(self.sb, mode, rdev, owner)
        inode.inherit(self.default_acl())
        self.add(name, inode)
        return inode

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> TmpLink:
        """A symbolic link."""
        self.sb.check_inodes()
        self.sb.check_link(target)
        inode = TmpLink(self.sb, target, owner)
        self.add(name, inode)
        return inode

    def link(self, name: bytes, target: Inode) -> None:
        """A hard link, which counts as an inode, or the first name of an O_TMPFILE file."""
        assert isinstance(target, TmpInode)
        if target.nlink:
            self.sb.check_inodes()
        self.add(name, target)
        self.sb.more_names += target.nlink > 0
        target.nlink += 1
        target.ctime_ns = self.fs.now_ns()

    def tmpfile(self, mode: int, owner: Owner, linkable: bool) -> TmpFile:
        """O_TMPFILE."""
        self.sb.check_inodes()
        inode = TmpFile(self.sb, mode, owner)
        inode.inherit(self.default_acl())
        inode.nlink = 0
        return inode

    # --- removing and moving

    def _take(self, name: bytes) -> TmpInode:
        child = self.children.pop(name)
        child.ctime_ns = self.fs.now_ns()
        if isinstance(child, TmpDirectory):
            child.nlink = 0
            self.nlink -= 1
        else:
            child.nlink -= 1
            self.sb.more_names -= child.nlink > 0
        self.touched()
        return child

    def unlink(self, name: bytes, child: Inode) -> None:
        """Remove a name."""
        self._take(name)

    def rmdir(self, name: bytes, child: Inode) -> None:
        """Remove an empty directory."""
        assert isinstance(child, TmpDirectory)
        if child.children:
            raise ENOTEMPTY(f"{name!r}")
        self._take(name)

    def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        """Move, exchange, or leave a whiteout."""
        assert isinstance(new_dir, TmpDirectory)
        assert isinstance(child, TmpInode)
        victim = new_dir.children.get(new_name)
        if flags & RENAME_EXCHANGE:
            assert victim is not None
            self._swap(name, child, new_dir, new_name, victim)
            return
        if isinstance(victim, TmpDirectory) and victim.children:
            raise ENOTEMPTY(f"{new_name!r}")
        if victim is not None:
            new_dir._take(new_name)
        del self.children[name]
        if child.is_dir:
            self.nlink -= 1
            new_dir.nlink += 1
        new_dir.children[new_name] = child
        if flags & RENAME_WHITEOUT:
            self.children[name] = TmpSpecial(self.sb, WHITEOUT_MODE, 0, Owner(self.uid, self.gid))
        self.touched()
        new_dir.touched()
        child.ctime_ns = self.fs.now_ns()

    def _swap(
        self,
        name: bytes,
        child: TmpInode,
        new_dir: TmpDirectory,
        new_name: bytes,
        victim: TmpInode,
    ) -> None:
        self.children[name], new_dir.children[new_name] = victim, child
        moved = child.is_dir - victim.is_dir
        self.nlink -= moved
        new_dir.nlink += moved
        self.touched()
        new_dir.touched()
        child.ctime_ns = victim.ctime_ns = self.fs.now_ns()
