"""Inodes of /proc and /sys: directories made of tables, text files, links."""

from __future__ import annotations

from _weakref import ref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sentry.abi.poll import EPOLLIN, EPOLLRDNORM
from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from sentry.errors import EPERM
from sentry.fs.pseudo.files import Store, Text, TextFile
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.interface import ABSENT, Absent, Attributes, Changes, DirEntry, Inode, Owner

if TYPE_CHECKING:
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location

ROOT_OWNER = Owner(0, 0)


class Node(Inode):
    """What all kinds have: the time they were first looked up."""

    __slots__ = ("_directory", "_name", "made_ns", "sb")

    def __init__(self, fs: TableFs, mode: int, owner: Owner = ROOT_OWNER) -> None:
        super().__init__(fs, fs.root_ino, mode, owner)
        self.sb = fs
        self.made_ns = fs.now_ns()
        self._directory: Directory | None = None
        self._name = b""

    def __del__(self) -> None:
        if self._directory is not None:
            self._directory.forget(self._name, self)

    def found(self, directory: Directory, name: bytes) -> None:
        """It was made as a child."""
        self._directory, self._name = directory, name
        self.ino = self.sb.child_ino(directory.ino, name)

    def links(self) -> int:
        """st_nlink."""
        return 2 if self.is_dir else 1

    def size(self) -> int:
        """st_size."""
        return 0

    def stat(self) -> Attributes:
        """Everything is in memory."""
        made = self.made_ns
        return Attributes(
            self.ino, self.mode, self.links(), self.uid, self.gid, 0, self.size(), 0,
            self.sb.block_size, made, made, made,
        )  # fmt: skip

    def setattr(self, changes: Changes) -> None:
        """Truncation is accepted and does nothing; the rest cannot be changed."""
        if changes.mode is not None or changes.uid is not None or changes.gid is not None:
            raise EPERM("attributes cannot be changed")


class GeneratedDirectoryFile(DirectoryFile):
    """An open directory of /proc or /sys."""

    __slots__ = ()
    seeks_from_end = True


class Directory(Node):
    """A directory whose children are made when asked for, and kept while somebody holds them."""

    __slots__ = ("_made",)

    def __init__(self, fs: TableFs, mode: int = 0o555, owner: Owner = ROOT_OWNER) -> None:
        super().__init__(fs, S_IFDIR | mode, owner)
        self._made: dict[bytes, ref[Node]] = {}

    def names(self) -> Iterable[tuple[bytes, int]]:
        """(name, S_IFMT bits) of all children."""
        raise NotImplementedError

    def make(self, name: bytes) -> Node | None:
        """The child, made anew; None if there is no such name."""
        raise NotImplementedError

    def stale(self, node: Node) -> bool:
        """A kept child stands for something that is gone."""
        return False

    def lookup_cached(self, name: bytes) -> Inode | Absent:
        """Always answered at once."""
        known = self._made.get(name)
        node = known() if known is not None else None
        if node is not None and not self.stale(node):
            return node
        node = self.make(name)
        if node is None:
            return ABSENT
        node.found(self, name)
        self._made[name] = ref(node)
        return node

    def forget(self, name: bytes, node: Node) -> None:
        """Nobody holds the child any more."""
        known = self._made.get(name)
        if known is not None and known() is node:
            del self._made[name]

    def entries(self) -> Iterator[DirEntry]:
        """The listing, with the numbers that the inodes get when they are made."""
        number = self.sb.child_ino
        return (DirEntry(name, number(self.ino, name), kind) for name, kind in self.names())

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """For getdents."""
        return GeneratedDirectoryFile(location, flags)

    def create(self, name: bytes, mode: int, owner: Owner) -> Inode:
        """Nothing can be made; the errno is that of the lookup in Linux."""
        raise self.sb.cannot_create_file

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        """Nor here."""
        raise self.sb.cannot_create

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> Inode:
        """As `mkdir`."""
        raise self.sb.cannot_create

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> Inode:
        """As `mkdir`."""
        raise self.sb.cannot_create

    def link(self, name: bytes, target: Inode) -> None:
        """As `mkdir`."""
        raise self.sb.cannot_create

    def rename(
        self, name: bytes, child: Inode, new_dir: Inode, new_name: bytes, flags: int
    ) -> None:
        """As `mkdir`."""
        raise self.sb.cannot_create


class TableDirectory(Directory):
    """A directory with fixed names: name → a function that makes the child."""

    __slots__ = ("table",)

    def __init__(
        self, fs: TableFs, table: dict[bytes, Callable[[], Node]], mode: int = 0o555
    ) -> None:
        super().__init__(fs, mode)
        self.table = table

    def names(self) -> Iterable[tuple[bytes, int]]:
        """The table's."""
        return [(name, self._kind(name)) for name in self.table]

    def _kind(self, name: bytes) -> int:
        node = self.lookup_cached(name)
        return node.kind if isinstance(node, Inode) else 0

    def make(self, name: bytes) -> Node | None:
        """From the table."""
        maker = self.table.get(name)
        return maker() if maker is not None else None

    def links(self) -> int:
        """Two, and one for each directory in it."""
        return 2 + sum(1 for _, kind in self.names() if kind == S_IFDIR)


class TextNode(Node):
    """A file whose text comes from a function of who reads it."""

    __slots__ = ("_show", "_store")

    pollable = True
    """poll and epoll work on it."""
    can_pwrite = True
    """pwrite(2) works on it."""
    from_start = False
    """It is written at position 0 only, which a write does not move."""
    stores_nothing = False
    """A write of no bytes is one, too."""
    has_end = False
    """lseek(2) counts from its size; else it is a seq_file."""
    ready: int = EPOLLIN | EPOLLRDNORM
    """What poll(2) says of a file that tells of changes, while there are none."""

    opens_itself = True

    def __init__(
        self,
        fs: TableFs,
        mode: int,
        show: Callable[[Any], Text] | None,
        store: Callable[[Any, bytes], None] | None = None,
        owner: Owner = ROOT_OWNER,
    ) -> None:
        super().__init__(fs, S_IFREG | mode, owner)
        self._show = show
        self._store = store

    def shown(self, caller: Caller) -> tuple[Callable[[Any], Text] | None, Any]:
        """What an open file shows, and the ChangeCount that tells that it is another text now."""
        return self._show, None

    def stored(self, opener: Caller) -> Store | None:
        """What a write does, given who writes."""
        store = self._store
        return (lambda _, data: store(opener, data)) if store is not None else None

    def written(self, caller: Caller, offset: int, data: bytes) -> bytes:
        """What is stored where somebody writes at a position, which mostly does not count."""
        return data

    def check_open(self, caller: Caller, flags: int) -> None:
        """A last check at open(2)."""

    def check_reader(self, caller: Caller) -> None:
        """A check at each read(2)."""

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """The text belongs to the task that opened it."""
        self.check_open(caller, flags)
        return self.opened(location, flags, caller)

    def opened(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """Without the last check: of a caller whose credentials the file keeps."""
        show, changes = self.shown(caller)

        make = partial(show, caller) if show is not None else None
        return TextFile(location, flags, make, self.stored(caller), changes)


class LinkNode(Node):
    """A symbolic link whose text may depend on who reads it."""

    __slots__ = ("_text",)

    def __init__(
        self,
        fs: TableFs,
        text: Callable[[Any], bytes],
        mode: int = 0o777,
        owner: Owner = ROOT_OWNER,
    ) -> None:
        super().__init__(fs, S_IFLNK | mode, owner)
        self._text = text

    def readlink_for(self, caller: Caller) -> bytes | None:
        """The text."""
        return self._text(caller)


class MagicNode(LinkNode):
    """A link that jumps to a file, wherever it is: /proc/PID/exe, fd/N."""

    __slots__ = ("_target",)

    def __init__(
        self,
        fs: TableFs,
        text: Callable[[Any], bytes],
        target: Callable[[Any], Location],
        mode: int = 0o777,
        owner: Owner = ROOT_OWNER,
    ) -> None:
        super().__init__(fs, text, mode, owner)
        self._target = target

    def follow(self, caller: Caller) -> Location | None:
        """Where it jumps."""
        return self._target(caller)


Maker = Callable[[], Node]


def put(tree: dict[str, Any], path: str, maker: object) -> None:
    """Hang what makes an inode, or is to make what does, into a tree of dictionaries."""
    *folders, name = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[name] = maker


def directory_maker(fs: TableFs, tree: dict[str, Any]) -> Maker:
    """A function that makes the directory of a tree whose leaves are makers."""
    table: dict[bytes, Maker] = {}
    for name, item in tree.items():
        table[name.encode()] = directory_maker(fs, item) if isinstance(item, dict) else item
    return lambda: TableDirectory(fs, table)
