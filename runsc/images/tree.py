"""The file system that layers make, as nodes in memory: names, owners, links. No file of the host.

So whatever an archive calls its files, no path of it is ever looked up on the host: a name is found
here, component by component, and never through a link. Layers and their whiteouts are those of the
OCI image specification, "Image Layer Filesystem Changeset"; what it leaves open is as overlayfs
would show the layers: a folder instead of a link that an earlier layer has in the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from typing import Final

import msgspec

from runsc.images.errors import ImageError, shown
from runsc.images.tar import HARD_LINK, Member

MAX_NODES: Final = 1 << 20
"""Files that an image may have, also those that a later layer removes."""
MAX_HELD: Final = 256 << 20
"""Bytes of names, links and extended attributes."""
MAX_DEPTH: Final = 200
MAX_PATH: Final = 4095
MAX_NAME: Final = 255
WHITEOUT: Final = b".wh."
META: Final = b".wh..wh."
"""What aufs wrote for itself;"""
OPAQUE: Final = b".wh..wh..opq"
"""but this one hides all that earlier layers have in its folder."""
XATTRS: Final = (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
XATTR_PREFIXES: Final = (b"user.", b"trusted.")
"""Extended attributes that are kept. Others are labels of security modules, which are the host's
affair;"""
OVERLAY: Final = (b"user.overlay.", b"trusted.overlay.")
"""or what overlayfs would take for its own."""


class Content(msgspec.Struct, frozen=True, gc=False):
    """Where a store has the bytes of a file: what the numbers mean is its affair."""

    where: int
    chunk_bits: int = 0
    chunks: dict[int, int] | None = None


class Node:
    """One file, of any number of names."""

    __slots__ = (
        "children", "content", "device", "gid", "links", "mode", "mtime_ns", "place", "size",
        "target", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, mode: int, mtime_ns: int = 0) -> None:
        self.mode = mode
        """With the kind."""
        self.uid = self.gid = 0
        self.mtime_ns = mtime_ns
        self.target = b""
        """Of a symbolic link."""
        self.device = (0, 0)
        self.size = 0
        self.content: Content | None = None
        """Of a regular file that is not empty."""
        self.xattrs: dict[bytes, bytes] = {}
        self.children: dict[bytes, Node] | None = {} if S_IFMT(mode) == S_IFDIR else None
        self.links = 0
        """Names, in the finished tree: `Tree.finished`."""
        self.place = -1
        """For the store: a number that it finds this file by."""

    @classmethod
    def of(cls, member: Member) -> Node:
        """What a member of an archive is."""
        made = cls(member.kind | member.mode)
        made.describe(member)
        made.target, made.device, made.size = member.target, member.device, member.size
        return made

    def describe(self, member: Member) -> None:
        """Take owner, mode, time and extended attributes of a member of the same kind."""
        self.mode = S_IFMT(self.mode) | member.mode
        self.uid, self.gid, self.mtime_ns = member.uid, member.gid, member.mtime_ns
        self.xattrs = {name: value for name, value in member.xattrs.items() if _is_kept(name)}


class Tree:
    """The layers so far."""

    def __init__(self) -> None:
        self.root = Node(S_IFDIR | 0o755)
        self._nodes = self._held = 0
        self._new: set[tuple[Node, bytes]] = set()
        """Names of the layer that is being applied, by their folder: what it hides is older."""
        self._swept: set[Node] = set()
        """Folders in which this layer has hidden all older names: there will be no more of them."""

    def begin_layer(self) -> None:
        """Another layer begins."""
        self._new.clear()
        self._swept.clear()

    def add(self, member: Member) -> Node | None:
        """Take a member of the layer; its node, if its bytes are wanted. Raises: ImageError."""
        parts = split(member.path)
        self._count(sum(map(len, parts)) + len(member.target) + _size(member.xattrs))
        if not parts:
            if member.kind != S_IFDIR:
                raise ImageError("has a root that is no folder")
            self.root.describe(member)
            return None
        if any(part.startswith(META) for part in parts):
            if parts[-1] == OPAQUE:
                self._hide_below(self._find(parts[:-1]))
            return None
        if parts[-1].startswith(WHITEOUT):
            self._hide(parts, parts[-1][len(WHITEOUT) :])
            return None
        return self._put(parts, member)

    def find(self, path: bytes) -> Node | None:
        """The file of a path, through no link. Raises: ImageError for a path that none has."""
        return self._find(split(path))

    def finished(self) -> Iterator[tuple[Node, Node]]:
        """Each node once, with a folder it is in, from the root on; links are counted first."""
        order = [(self.root, self.root)]
        seen: set[Node] = set()
        self.root.links = 2
        for folder, _ in order:
            for node in (folder.children or {}).values():
                if node.children is not None:
                    folder.links += 1
                    node.links = 2
                elif node in seen:
                    node.links += 1
                    continue
                else:
                    seen.add(node)
                    node.links = 1
                order.append((node, folder))
        return iter(order)

    # --- names

    def _find(self, parts: list[bytes]) -> Node | None:
        at: Node | None = self.root
        for part in parts:
            at = at.children.get(part) if at is not None and at.children is not None else None
        return at

    def _folder(self, parts: list[bytes], member: Member) -> Node:
        """The folder of these names, made where it is missing. Raises: ImageError."""
        at = self.root
        for part in parts:
            children = _children(at)
            found = children.get(part)
            if found is None or found.children is None:
                if found is not None and (at, part) in self._new:
                    raise ImageError(
                        f"has {shown(member.path)} behind {shown(part)}, which is no folder"
                    )
                self._count(len(part))
                found = children[part] = Node(S_IFDIR | 0o755, member.mtime_ns)
            self._new.add((at, part))
            at = found
        return at

    def _put(self, parts: list[bytes], member: Member) -> Node | None:
        if member.kind == S_IFLNK and not 0 < len(member.target) <= MAX_PATH:
            raise ImageError(f"has a link that leads nowhere: {shown(member.path)}")
        node = self._linked(member) if member.kind == HARD_LINK else None
        folder, name = self._folder(parts[:-1], member), parts[-1]
        children = _children(folder)
        there = children.get(name)
        if node is None:
            if there is not None and there.children is not None and member.kind == S_IFDIR:
                node = there
                node.describe(member)
            else:
                node = Node.of(member)
        children[name] = node
        self._new.add((folder, name))
        return node if member.kind == S_IFREG and member.size else None

    def _linked(self, member: Member) -> Node:
        """What a hard link is to: a file of this layer, or of one before it."""
        found = self._find(split(member.target))
        if found is None or found.children is not None:
            raise ImageError(
                f"has a link {shown(member.path)} to {shown(member.target)}, which is no file in it"
            )
        return found

    # --- whiteouts

    def _hide(self, parts: list[bytes], name: bytes) -> None:
        if name in (b"", b".", b".."):
            raise ImageError(f"has a whiteout of no file: {shown(parts[-1])}")
        folder = self._find(parts[:-1])
        if folder is None or folder.children is None:
            return
        if (folder, name) in self._new:
            self._hide_below(folder.children.get(name))
        else:
            folder.children.pop(name, None)

    def _hide_below(self, folder: Node | None) -> None:
        """All names that earlier layers have in a folder, and below it."""
        if folder is None or folder.children is None or folder in self._swept:
            return
        self._swept.add(folder)
        for name, child in list(folder.children.items()):
            if (folder, name) in self._new:
                self._hide_below(child)
            else:
                del folder.children[name]

    def _count(self, size: int) -> None:
        """Before a node is made. Raises: ImageError."""
        self._nodes += 1
        self._held += size
        if self._nodes > MAX_NODES:
            raise ImageError(f"has more than {MAX_NODES} files")
        if self._held > MAX_HELD:
            raise ImageError(f"has more than {MAX_HELD} bytes of names and attributes")


def _children(folder: Node) -> dict[bytes, Node]:
    assert folder.children is not None
    return folder.children


def _is_kept(name: bytes) -> bool:
    if name in XATTRS:
        return True
    known = name.startswith(XATTR_PREFIXES) and name not in XATTR_PREFIXES
    return known and not name.startswith(OVERLAY)


def _size(xattrs: dict[bytes, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in xattrs.items())


def split(path: bytes) -> list[bytes]:
    """The components of a path below the root, whether it begins with a slash or not.

    Raises: ImageError where one is "..", or nothing that a file system could have.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageError(f"has a path that leads out of it: {shown(path)}")
    if b"\0" in path or len(path) > MAX_PATH or len(parts) > MAX_DEPTH:
        raise ImageError(f"has a path that no file can have: {shown(path)}")
    if any(len(part) > MAX_NAME for part in parts):
        raise ImageError(f"has a name of more than {MAX_NAME} bytes: {shown(path)}")
    return parts
