"""`ErofsInode`: files of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from sentry.abi.limits import PATH_MAX
from sentry.abi.stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK
from sentry.auth.acl import ACCESS
from sentry.errors import ENODATA, EUCLEAN
from sentry.fs.erofs import layout
from sentry.fs.erofs.xattrs import Place, find_xattrs
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.dirents import Dirents
from sentry.vfs.interface import ABSENT, Absent, Attributes, DirEntry, Inode, Owner
from sentry.wait.again import again, begun
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.fs.erofs.filesystem import ErofsFs
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location

MAX_ENTRIES: Final = 1 << 20
KIND_OF: Final = (0, S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK)
"""S_IFMT bits of EROFS_FT_*."""
MAX_NAMES: Final = 1024
"""What a directory remembers of lookups."""


class ErofsInode(Inode):
    """A file of any kind."""

    __slots__ = ("_attributes", "_target", "_xattrs", "node", "sb")
    def __init__(self, fs: ErofsFs, node: layout.Node) -> None:
        super().__init__(fs, node.number, node.mode, Owner(node.uid, node.gid))
        self.sb = fs
        self.node = node
        if node.xattrs:
            self.acl = b""  # there may be one
        if not (self.is_dir or self.is_regular or self.is_symlink):
            self.rdev = node.where
        self._xattrs: dict[bytes, Place] | None = None
        self._target: bytes | None = None
        size = node.size if self.is_dir or self.is_regular or self.is_symlink else 0
        block = fs.super.block_size
        blocks = -(-size // block)
        if size and node.layout in layout.COMPRESSED_LAYOUTS:
            blocks = node.where
        self._attributes = Attributes(
            node.number, node.mode, node.nlink, node.uid, node.gid, self.rdev, size,
            blocks * block // 512, block, node.time_ns, node.time_ns, node.time_ns,
        )  # fmt: skip

    def __del__(self) -> None:
        self.sb.forget(self)

    def stat(self) -> Attributes:
        """As the image says."""
        return self._attributes

    # --- links

    @property
    def link_is_known(self) -> bool:  # type: ignore[override]
        """It has been read."""
        return self._target is not None

    def readlink(self) -> bytes:
        """The text of a link."""
        if not self.is_symlink:
            return super().readlink()
        if self._target is None:
            size = self.node.size
            if not 0 < size < PATH_MAX:
                raise EUCLEAN(f"a link of {size} bytes")
            text = layout.contents(self.sb.image, self.sb.super, self.node, 0, size)
            if b"\0" in text:
                raise EUCLEAN("a link with a zero")
            self._target = text
        return self._target

    # --- extended attributes

    def _places(self) -> dict[bytes, Place]:
        if self._xattrs is None:
            self._xattrs = find_xattrs(self.sb.image, self.sb.super, self.node)
        return self._xattrs

    def getxattr(self, name: bytes) -> bytes:
        """The value."""
        place = self._places().get(name)
        if place is None:
            raise ENODATA(f"{name!r}")
        return self.sb.image.read(*place)

    def listxattr(self) -> Sequence[bytes]:
        """All names."""
        return tuple(self._places())

    def access_acl(self) -> bytes | None:
        """The access list."""
        if self.acl is not None:
            self.acl = self.getxattr(ACCESS) if ACCESS in self._places() else None
        return self.acl


class ErofsDirectory(ErofsInode):
    """A directory: blocks of names, which are in order over all of them."""

    __slots__ = ("_dirents", "_names")

    def __init__(self, fs: ErofsFs, node: layout.Node) -> None:
        super().__init__(fs, node)
        self._dirents: Dirents | None = None
        self._names: dict[bytes, int] = {}

    def _blocks(self) -> int:
        return -(-self.node.size // self.sb.super.block_size)

    def _block(self, number: int) -> bytes:
        size = self.sb.super.block_size
        at = number * size
        length = min(size, self.node.size - at)
        return layout.contents(self.sb.image, self.sb.super, self.node, at, length)

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:
        """What was looked up before, if somebody still has it."""
        number = self._names.get(name)
        return self.sb.known(number) if number is not None else None

    def lookup(self, name: bytes, opens: bool = False) -> Inode | Absent:
        """erofs_namei(): the last block whose first name is not behind it has the name."""
        low, high = 0, self._blocks() - 1
        if high < 0 or name in (b".", b".."):
            return ABSENT
        while low < high:
            middle = (low + high + 1) // 2
            if layout.first_name(self._block(middle)) <= name:
                low = middle
            else:
                high = middle - 1
        for found, number, _ in layout.entries(self._block(low)):
            if found == name:
                inode = self.sb.inode(number)
                if len(self._names) >= MAX_NAMES:
                    self._names.clear()
                self._names[name] = number
                return inode
        return ABSENT

    def entries(self) -> Iterator[DirEntry]:
        """All names."""
        return iter(begun((self, "entries"), self._read))

    async def _read(self) -> list[DirEntry]:
        found: list[DirEntry] = []
        pace = Pace()
        for number in range(self._blocks()):
            for name, ino, kind in layout.entries(await again(self._block, number)):
                if name not in (b".", b".."):
                    found.append(DirEntry(name, ino, KIND_OF[kind] if kind < len(KIND_OF) else 0))
            if len(found) > MAX_ENTRIES:
                raise EUCLEAN("more names than there could be")
            await pace.rest()
        return found

    def dirents(self) -> Dirents:
        """The same, once."""
        if self._dirents is None:
            self._dirents = Dirents(self.entries())
        return self._dirents

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """open(2)."""
        return DirectoryFile(location, flags)
