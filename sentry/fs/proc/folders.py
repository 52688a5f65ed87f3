"""Directories of /proc that belong to no process: of a table, and of what is served."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.limits import NAME_MAX
from sentry.errors import EEXIST, EINVAL, ENOTDIR
from sentry.fs.pseudo.nodes import Node, TableDirectory, TextNode

if TYPE_CHECKING:
    from sentry.fs.proc.filesystem import ProcFs
    from sentry.fs.pseudo.nodes import Maker
    from sentry.fs.served.proc import ServedText

    Leaf = Callable[[ProcFs], Maker]

OTHERS: Final = ("net", "sys/net/ipv4/conf", "sys/net/ipv6/conf")
"""Directories that are another one for each network namespace."""
MOST_PARTS: Final = 16


class ProcFolder(TableDirectory):
    """`path`: where it is below /proc."""

    __slots__ = ("_path",)
    fs: ProcFs

    def __init__(self, fs: ProcFs, path: bytes, table: dict[bytes, Maker]) -> None:
        super().__init__(fs, table)
        self._path = path

    def names(self) -> Iterable[tuple[bytes, int]]:
        """The table's, and what is served."""
        served = self.fs.kernel.services.proc_files.names(self._path)
        return {**served, **dict(super().names())}.items()

    def stale(self, node: Node) -> bool:
        """As `has_left`."""
        return has_left(node)

    def make(self, name: bytes) -> Node | None:
        """From the table, else what is served."""
        return super().make(name) or served_node(self.fs, self._path + b"/" + name)

    @property
    def is_empty(self) -> bool:
        """It was there for what was served, and nothing is any more."""
        return not (self.table or self.fs.kernel.services.proc_files.has_folder(self._path))


class SysFolder(ProcFolder):
    """/proc/sys: what is in it is imported when somebody looks into it."""

    __slots__ = ()

    def __init__(self, fs: ProcFs) -> None:
        super().__init__(fs, b"sys", {})

    def names(self) -> Iterable[tuple[bytes, int]]:
        """As of any other."""
        self._fill()
        return super().names()

    def make(self, name: bytes) -> Node | None:
        """As of any other."""
        self._fill()
        return super().make(name)

    def _fill(self) -> None:
        if not self.table:
            from sentry.fs.proc.sysctl_tree import tree  # noqa: PLC0415  few programs look

            self.table = table_of(self.fs, b"sys", tree())

    @property
    def is_empty(self) -> bool:
        """Never."""
        return False


class ServedNode(TextNode):
    """A file that is served from outside; `text` is who makes what it shows."""

    __slots__ = ("_path", "_text")
    fs: ProcFs

    def __init__(self, fs: ProcFs, path: bytes, text: ServedText) -> None:
        super().__init__(fs, text.mode, text.show, text.store if text.mode & 0o222 else None)
        self._path = path
        self._text = text

    @property
    def is_left(self) -> bool:
        """Nobody serves it any more, or somebody else does."""
        return self.fs.kernel.services.proc_files.find(self._path) is not self._text


def has_left(node: Node) -> bool:
    """Who still holds it keeps it; by its name there is nothing, or something else."""
    if isinstance(node, ServedNode):
        return node.is_left
    return isinstance(node, ProcFolder) and node.is_empty


def served_node(fs: ProcFs, path: bytes) -> Node | None:
    """What is served from outside, or a directory that is there for it."""
    served = fs.kernel.services.proc_files
    if (text := served.find(path)) is not None:
        return ServedNode(fs, path, text)
    return ProcFolder(fs, path, {}) if served.has_folder(path) else None


def maker_of(fs: ProcFs, path: bytes, item: dict[str, Any] | Leaf) -> Maker:
    """A function that makes the directory of a tree, once somebody looks for it; or a leaf of it.
    `path`: below /proc."""
    if not isinstance(item, dict):
        return item(fs)

    return lambda: ProcFolder(fs, path, table_of(fs, path, item))


def table_of(fs: ProcFs, path: bytes, tree: dict[str, Any]) -> dict[bytes, Maker]:
    """What is in the directory of a tree."""
    below = {text.encode(): each for text, each in tree.items()}
    return {name: maker_of(fs, path + b"/" + name, each) for name, each in below.items()}


def check_new(path: str, links: Iterable[bytes]) -> None:
    """A file of this path below /proc may be added, as far as the kernel's own files go; `links`:
    names of the top that are others for each process. Raises: EINVAL, EEXIST, ENOTDIR."""
    from sentry.fs.proc.declared import ROOT  # noqa: PLC0415  few files are served
    from sentry.fs.proc.sysctl_tree import SYSCTLS  # noqa: PLC0415

    parts = path.split("/")
    if len(parts) > MOST_PARTS or any(
        part in ("", ".", "..") or len(part.encode(errors="surrogateescape")) > NAME_MAX
        for part in parts
    ):
        raise EINVAL("a path below /proc")
    if parts[0].isdigit() or any(f"{path}/".startswith(f"{each}/") for each in OTHERS):
        raise EINVAL("a directory that is another one for each who looks")
    if parts[0].encode(errors="surrogateescape") in links:
        raise EEXIST("there is such a name")
    for there in (*ROOT, *(f"sys/{name}" for name in SYSCTLS), "fs/"):
        if there == path or there.startswith(f"{path}/"):
            raise EEXIST("there is such a file")
        if path.startswith(f"{there}/"):
            raise ENOTDIR("below a file")
