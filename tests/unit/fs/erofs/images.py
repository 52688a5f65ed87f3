"""Makes images of EROFS, as mkfs.erofs(1) would: of compression the oldest form alone."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

from sentry.fs.erofs import layout
from tests.unit.fs.erofs.lz4 import packed

BITS = 12
BLOCK = 1 << BITS
META = 1
"""The block in which inodes begin."""
MOST_OF_AN_EXTENT = 8 * BLOCK
FILE_TYPES = {0o10: 1, 0o4: 2, 0o2: 3, 0o6: 4, 0o1: 5, 0o14: 6, 0o12: 7}


@dataclass
class Node:
    """A file: `data` is bytes, names and their nodes, or a device number."""

    mode: int
    data: bytes | dict[bytes, Node] | int = b""
    owner: tuple[int, int] = (0, 0)
    mtime_ns: int = 0
    extended: bool = False
    layout: int = layout.FLAT_INLINE
    chunk_bits: int = 0
    """Of CHUNK_BASED: as many blocks as a power of two."""
    indexes: bool = True
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    shared: list[int] = field(default_factory=list)
    number: int = -1
    nlink: int = 1


def file(data: bytes, mode: int = 0o644, **more: object) -> Node:
    return Node(stat.S_IFREG | mode, data, **more)  # type: ignore[arg-type]


def directory(names: dict[bytes, Node], mode: int = 0o755, **more: object) -> Node:
    return Node(stat.S_IFDIR | mode, names, **more)  # type: ignore[arg-type]


def link(text: bytes) -> Node:
    return Node(stat.S_IFLNK | 0o777, text)


def of_folder(path: Path) -> Node:
    """What lies there, but for special files."""
    names: dict[bytes, Node] = {}
    for child in path.iterdir():
        mode = child.lstat().st_mode
        if stat.S_ISLNK(mode):
            node = link(os.fsencode(os.readlink(child)))
        elif stat.S_ISDIR(mode):
            node = of_folder(child)
        elif stat.S_ISREG(mode):
            node = file(child.read_bytes(), stat.S_IMODE(mode), layout=layout.FLAT_PLAIN)
        else:
            continue
        names[os.fsencode(child.name)] = node
    mode = stat.S_IMODE(path.lstat().st_mode)
    return directory(names, mode, layout=layout.FLAT_PLAIN, nlink=2)


def entry(index: int, name: bytes, value: bytes) -> bytes:
    """struct erofs_xattr_entry."""
    raw = struct.pack("<BBH", len(name), index, len(value)) + name + value
    return raw + bytes(-len(raw) % 4)


PREFIXES = {
    b"user.": 1, b"system.posix_acl_access": 2, b"system.posix_acl_default": 3, b"trusted.": 4,
    b"security.": 6,
}  # fmt: skip


def named(name: bytes, value: bytes) -> bytes:
    """The same, of a whole name."""
    prefix = next(each for each in PREFIXES if name.startswith(each))
    return entry(PREFIXES[prefix], name[len(prefix) :], value)


def _ibody(node: Node) -> bytes:
    if not node.xattrs and not node.shared:
        return b""
    head = struct.pack("<IB7x", 0, len(node.shared)) + struct.pack(
        f"<{len(node.shared)}I", *node.shared
    )
    return head + b"".join(named(name, value) for name, value in node.xattrs.items())


def dirents(names: dict[bytes, tuple[int, int]]) -> bytes:
    """Blocks of a directory, of names to numbers and types."""
    blocks: list[bytes] = []
    group: list[bytes] = []
    room = BLOCK
    for name in sorted(names):
        if len(name) + layout.DIRENT.size > room:
            blocks.append(_block(group, names).ljust(BLOCK, b"\0"))
            group, room = [], BLOCK
        group.append(name)
        room -= len(name) + layout.DIRENT.size
    return b"".join([*blocks, _block(group, names)])


def _block(group: list[bytes], names: dict[bytes, tuple[int, int]]) -> bytes:
    at = len(group) * layout.DIRENT.size
    heads, tail = b"", b""
    for name in group:
        heads += layout.DIRENT.pack(names[name][0], at + len(tail), names[name][1], 0)
        tail += name
    return heads + tail


class Builder:
    """One image."""

    def __init__(self, top: Node, shared: dict[bytes, bytes] | None = None) -> None:
        self.top = top
        self.nodes: list[Node] = []
        self.meta = bytearray(2 * layout.SLOT)
        self.data = bytearray()
        self.shared = bytearray()
        self.places: dict[bytes, int] = {}
        for name, value in (shared or {}).items():
            self.places[name] = len(self.shared) // 4
            self.shared += named(name, value)
        self._collect(top)

    def _collect(self, node: Node) -> None:
        if node.number >= 0:
            return
        node.number = 0
        self.nodes.append(node)
        if isinstance(node.data, dict):
            for child in node.data.values():
                self._collect(child)

    def _names(self, node: Node, parent: Node) -> bytes:
        assert isinstance(node.data, dict)
        names = {b".": (node.number, 2), b"..": (parent.number, 2)}
        for name, child in node.data.items():
            names[name] = child.number, FILE_TYPES[child.mode >> 12]
        return dirents(names)

    def _body(self, node: Node, parent: Node) -> bytes:
        if isinstance(node.data, dict):
            return self._names(node, parent)
        return node.data if isinstance(node.data, bytes) else b""

    def build(self, *, checksum: bool = True) -> bytes:
        parents = {id(self.top): self.top}
        for node in self.nodes:
            if isinstance(node.data, dict):
                parents.update({id(child): node for child in node.data.values()})
        sizes = [len(self._after(node, self._body(node, parents[id(node)]))) for node in self.nodes]
        for node, after in zip(self.nodes, sizes, strict=True):
            self._place(node, after)
        meta_blocks = -(-len(self.meta) // BLOCK)
        xattr_block = META + meta_blocks
        self.first_data = xattr_block + max(-(-len(self.shared) // BLOCK), 1)
        for node in self.nodes:
            self._write(node, self._body(node, parents[id(node)]))
        head = bytes(layout.SUPER_OFFSET) + self._super(xattr_block)
        parts = head.ljust(BLOCK, b"\0"), bytes(self.meta).ljust(meta_blocks * BLOCK, b"\0")
        shared = bytes(self.shared).ljust((self.first_data - xattr_block) * BLOCK, b"\0")
        image = bytearray(b"".join(parts) + shared + bytes(self.data))
        if checksum:
            raw = bytes(image[layout.SUPER_OFFSET : BLOCK])
            struct.pack_into("<I", image, layout.SUPER_OFFSET + 4, layout.crc32c(raw))
        return bytes(image)

    def _super(self, xattr_block: int) -> bytes:
        blocks = self.first_data + len(self.data) // BLOCK
        return layout.SUPER.pack(
            0xE0F5E1E2, 0, 1, BITS, 0, self.top.number, len(self.nodes), 1_700_000_000, 5, blocks,
            META, xattr_block, b"0123456789abcdef", b"", layout.CHUNKS | layout.PADDED, 0, 0, 0, 0,
            0, 0, 0, 0,
        )  # fmt: skip

    def _header(self, node: Node) -> int:
        return layout.EXTENDED.size if node.extended else layout.COMPACT.size

    def _after(self, node: Node, body: bytes) -> bytes:
        """What follows the attributes: as long as it will be."""
        if node.layout == layout.FLAT_INLINE:
            return body[len(body) - 1 & ~(BLOCK - 1) if body else 0 :]
        if node.layout == layout.CHUNK_BASED:
            unit = 8 if node.indexes else 4
            chunks = -(-len(body) >> BITS + node.chunk_bits)
            return bytes(unit * chunks + unit)
        if node.layout == layout.COMPRESSED_FULL:
            return bytes(8 + 16 + 8 * -(-len(body) // BLOCK))
        return b""

    def _place(self, node: Node, after: int) -> None:
        size = self._header(node) + len(_ibody(node)) + after
        assert size <= BLOCK
        at = len(self.meta)
        if at % BLOCK + size > BLOCK:
            at += -at % BLOCK
        node.number = at // layout.SLOT
        self.meta += bytes(at - len(self.meta) + size)
        self.meta += bytes(-len(self.meta) % layout.SLOT)

    def _write(self, node: Node, body: bytes) -> None:
        where, after = self._where(node, body)
        xattrs = _ibody(node)
        count = (len(xattrs) - 12) // 4 + 1 if xattrs else 0
        form = node.layout << 1 | node.extended
        if node.extended:
            seconds, nsec = divmod(node.mtime_ns, 10**9)
            head = layout.EXTENDED.pack(
                form, count, node.mode, 0, len(body), where, node.number, *node.owner, seconds,
                nsec, node.nlink,
            )  # fmt: skip
        else:
            head = layout.COMPACT.pack(
                form, count, node.mode, node.nlink, len(body), 0, where, node.number, *node.owner, 0
            )
        at = node.number * layout.SLOT
        raw = head + xattrs
        if node.layout == layout.CHUNK_BASED:
            raw += bytes(-(at + len(raw)) % (8 if node.indexes else 4))
        if node.layout == layout.COMPRESSED_FULL:
            raw += bytes(-(at + len(raw)) % 8)
        raw += after
        self.meta[at : at + len(raw)] = raw

    def _where(self, node: Node, body: bytes) -> tuple[int, bytes]:
        """The number in the inode, and what follows the attributes."""
        if isinstance(node.data, int):
            return node.data, b""
        if node.layout == layout.CHUNK_BASED:
            return self._chunks(node, body)
        if node.layout == layout.COMPRESSED_FULL:
            return self._extents(body)
        after = self._after(node, body)
        return self._store(body[: len(body) - len(after)]), after

    def _store(self, body: bytes) -> int:
        block = self.first_data + len(self.data) // BLOCK
        self.data += body + bytes(-len(body) % BLOCK)
        return block

    def _chunks(self, node: Node, body: bytes) -> tuple[int, bytes]:
        size, table = BLOCK << node.chunk_bits, b""
        for at in range(0, len(body), size):
            chunk = body[at : at + size]
            block = self._store(chunk) if chunk.strip(b"\0") else layout.NULL_BLOCK
            table += struct.pack("<HHI", 0, 0, block) if node.indexes else struct.pack("<I", block)
        return node.chunk_bits | (layout.CHUNK_INDEXES if node.indexes else 0), table

    def _extents(self, body: bytes) -> tuple[int, bytes]:
        """How many blocks there are, and the records: a block each, of LZ4 or as it is."""
        table, blocks = struct.pack("<IHBBQ", 0, 0, 0, 0, 0), 0
        at = 0
        while at < len(body):
            size = min(MOST_OF_AN_EXTENT, len(body) - at)
            while len(block := packed(body[at : at + size])) > BLOCK and size > BLOCK:
                size = (size - 1) // BLOCK * BLOCK
            fits = len(block) <= BLOCK and size > BLOCK
            if not fits:
                size, block = min(BLOCK, len(body) - at), body[at : at + BLOCK]
            stored = self._store(block.rjust(BLOCK, b"\0") if fits else block)
            table += struct.pack("<HHI", 1 if fits else 0, 0, stored)
            clusters = -(-size // BLOCK)
            for number in range(1, clusters):
                table += struct.pack("<HHHH", 2, 0, number, clusters - number)
            blocks += 1
            at += size
        return blocks, table
