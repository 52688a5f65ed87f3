"""Nodes: the files that clients have walked to, and the descriptors that stand for them.

A `Node` is a name below its parent's node, plus the device and inode number seen there. Its
descriptor is opened when it is needed and may be closed again when too many are open; it is opened
anew by the same name, and only if the same inode is found there. Paths are never put together:
each step is one component relative to the parent's descriptor.

A node that this server unlinked cannot be found by its name again, so its descriptor is opened
before the unlink and kept (`linked` is False then).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from types import TracebackType
from typing import Final

from gofer.attachment import Attachment
from gofer.hot import Hot
from gofer.native import check_name, error, open_stat, stat_block

_MODE: Final = struct.Struct("<I")
_OWNER: Final = struct.Struct("<II")
_DEV_INO: Final = struct.Struct("<QQ")
_PATH_FLAGS: Final = os.O_PATH
_MAX_REOPEN_DEPTH = 256


def mode_of(block: bytes) -> int:
    """st_mode of an attribute block."""
    return int(_MODE.unpack_from(block)[0])


def owner_of(block: bytes) -> tuple[int, int]:
    """(st_uid, st_gid) of an attribute block."""
    uid, gid = _OWNER.unpack_from(block, 4)
    return uid, gid


def identity_of(block: bytes) -> tuple[int, int]:
    """(st_dev, st_ino) of an attribute block."""
    dev, ino = _DEV_INO.unpack_from(block, 16)
    return dev, ino


class Node:
    """One file below an attachment. Owned by the fids and children that count in `refs`."""

    __slots__ = (
        "__weakref__",
        "attachment",
        "children",
        "fd",
        "fmt",
        "hot",
        "identity",
        "linked",
        "name",
        "parent",
        "refs",
        "used",
    )

    def __init__(
        self, attachment: Attachment, parent: Node | None, name: bytes, block: bytes
    ) -> None:
        self.attachment = attachment
        self.parent = parent
        self.name = name
        self.identity = identity_of(block)
        self.fmt = stat.S_IFMT(mode_of(block))
        self.fd = -1
        self.hot = False
        """`Hot` knows its descriptor by a fid."""
        self.refs = 0
        self.used = 0
        self.linked = True
        self.children: dict[bytes, Node] = {}

    def is_dir(self) -> bool:
        return self.fmt == stat.S_IFDIR

    def is_now(self, block: bytes) -> bool:
        """Whether these are attributes of it. An overlayfs may give a file another number when it
        is copied up, which a descriptor of it tells."""
        found = identity_of(block)
        if found != self.identity and self.fd >= 0:
            own = stat_block(self.fd, b"")
            if isinstance(own, bytes):
                self.identity = identity_of(own)
        return found == self.identity


class Use:
    """A node is referenced as long as this is entered."""

    __slots__ = ("_node", "_table")

    def __init__(self, table: NodeTable, node: Node) -> None:
        self._table, self._node = table, node

    def __enter__(self) -> Node:
        self._node.refs += 1
        return self._node

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._table.release(self._node)


class NodeTable:
    """All nodes of a server, and the bound on the descriptors they hold."""

    def __init__(self, max_nodes: int, max_open: int) -> None:
        self.max_nodes = max_nodes
        self.max_open = max_open
        self.count = 0
        self.open: dict[Node, None] = {}
        """Nodes whose descriptor may be closed to save descriptors."""
        self.pinned = 0
        self.hot = Hot()
        self._tick = 0

    def root(self, attachment: Attachment) -> Node:
        """The node of an attachment; its descriptor is never closed."""
        block = stat_block(attachment.fd, b"")
        if isinstance(block, int):
            raise error(-block)
        node = Node(attachment, None, b"", block)
        node.fd = attachment.fd
        node.refs = 1
        self.count += 1
        return node

    def child(self, parent: Node, name: bytes) -> tuple[Node | None, bytes | int]:
        """Look `name` up below `parent`: the node (not yet referenced) and its attributes."""
        block = stat_block(self.fd(parent), name)
        if isinstance(block, int):
            return None, block
        return self.adopt(parent, name, block), block

    def child_or_self(self, node: Node, name: bytes) -> Use:
        """`node`, or its child `name` if that is not empty, referenced for a while."""
        found: Node | None = node
        if name:
            found, block = self.child(node, check_name(name))
            if found is None:
                assert isinstance(block, int)
                raise error(-block)
        assert found is not None
        return Use(self, found)

    def adopt(self, parent: Node, name: bytes, block: bytes) -> Node:
        """The node of what was just seen as `name` below `parent`."""
        node = parent.children.get(name)
        if node is not None:
            if node.identity == identity_of(block) and node.fmt == stat.S_IFMT(mode_of(block)):
                return node
            self.detach(node)  # somebody put another file there
        if self.count >= self.max_nodes:
            raise error(errno.ENFILE)
        node = Node(parent.attachment, parent, name, block)
        self.hot.changed(parent)
        parent.children[name] = node
        parent.refs += 1
        self.count += 1
        return node

    def nameless(self, directory: Node, block: bytes, fd: int) -> Node:
        """The node of a file that has no name yet, with its only descriptor. Raises: ENFILE."""
        self.check_nameless()
        node = Node(directory.attachment, directory, b"", block)
        node.fd = fd
        node.linked = False
        directory.refs += 1
        self.count_nameless(1)
        return node

    def check_nameless(self) -> None:
        """There may be one more. Raises: ENFILE."""
        if self.nameless_left <= 0:
            raise error(errno.ENFILE)

    @property
    def nameless_left(self) -> int:
        """So many more there may be."""
        return min(self.max_nodes - self.count, self.max_open // 2 - self.pinned)

    def count_nameless(self, more: int) -> None:
        """So many more files without a name, each with a descriptor that stays."""
        self.count += more
        self.pinned += more

    def fd(self, node: Node) -> int:
        """A descriptor of `node`: O_PATH, or better. Raises ESTALE if its name means another file.

        It stays open at least until the next call of `trim`.
        """
        self._tick += 1
        node.used = self._tick
        if node.fd >= 0:
            return node.fd
        chain: list[Node] = []
        at: Node = node
        while at.fd < 0:
            if not at.linked or at.parent is None or len(chain) == _MAX_REOPEN_DEPTH:
                raise error(errno.ESTALE)
            chain.append(at)
            at = at.parent
        for at in reversed(chain):
            assert at.parent is not None
            fd, block = open_stat(at.parent.fd, at.name, _PATH_FLAGS)
            if fd < 0:
                raise error(errno.ESTALE if fd in (-errno.ENOENT, -errno.ENOTDIR) else -fd)
            if identity_of(block) != at.identity:
                os.close(fd)
                raise error(errno.ESTALE)
            at.fd = fd
            at.used = self._tick
            self.open[at] = None
        return node.fd

    def attributes(self, node: Node) -> bytes:
        """The attribute block of `node` as it is now."""
        if node.fd < 0 and node.linked and node.parent is not None and node.parent.fd >= 0:
            block = stat_block(node.parent.fd, node.name)
            if not isinstance(block, int) and identity_of(block) == node.identity:
                return block
            raise error(errno.ESTALE)
        block = stat_block(self.fd(node), b"")
        if isinstance(block, int):
            raise error(-block)
        return block

    def pin(self, parent: Node, name: bytes) -> Node | None:
        """Before `name` is unlinked or replaced: keep a descriptor of the node that has it."""
        node = parent.children.get(name)
        if node is None:
            return None
        try:
            self.fd(node)
        except OSError:
            return None
        if node.fmt == stat.S_IFREG and not node.attachment.readonly:
            # A real descriptor serves chmod, truncate and xattrs of an unlinked file too.
            for flags in (os.O_RDWR, os.O_RDONLY):
                fd, block = open_stat(self.fd(parent), name, flags)
                if fd < 0:
                    continue
                if identity_of(block) != node.identity:
                    os.close(fd)
                    continue
                os.close(node.fd)
                node.fd = fd
                break
        return node

    def detach(self, node: Node) -> None:
        """`node`'s name is gone or means something else now."""
        parent = node.parent
        if parent is None or not node.linked:
            return
        node.linked = False
        if parent.children.get(node.name) is node:
            del parent.children[node.name]
        if self.open.pop(node, 0) is None:
            self.pinned += 1

    def move(self, node: Node, parent: Node, name: bytes) -> None:
        """`node` is called `name` below `parent` now (rename(2) has been done)."""
        old = node.parent
        assert old is not None
        above: Node | None = parent
        while above is not None:
            if above is node:  # what is known here is older than moves made on the host
                self.detach(node)
                return
            above = above.parent
        if old.children.get(node.name) is node:
            del old.children[node.name]
        node.parent, node.name = parent, name
        self.hot.changed(parent)
        parent.children[name] = node
        parent.refs += 1
        self.release(old)

    def release(self, node: Node | None) -> None:
        """Give a reference back; nodes without any are dropped, up the tree."""
        while node is not None:
            node.refs -= 1
            if node.refs > 0:
                return
            parent = node.parent
            if parent is None:
                return
            if node.linked and parent.children.get(node.name) is node:
                del parent.children[node.name]
            if self.open.pop(node, 0) is not None and node.fd >= 0:
                self.pinned -= 1
            if node.fd >= 0:
                os.close(node.fd)
                node.fd = -1
            self.count -= 1
            node = parent

    def trim(self) -> None:
        """Close the descriptors used longest ago if too many are open; between requests only."""
        if len(self.open) + self.pinned <= self.max_open:
            return
        victims = sorted(self.open, key=lambda node: node.used)
        for node in victims[: max(len(victims) // 4, 1)]:
            del self.open[node]
            self.hot.changed(node)
            os.close(node.fd)
            node.fd = -1
