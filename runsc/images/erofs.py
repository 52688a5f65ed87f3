"""A root file system in one file, an image of EROFS: owners, modes and devices without any right.

fs/erofs/erofs_fs.h. Contents come first, as they are read, each file from a block on; then folders
of many names, then inodes, and the superblock last: what was begun and not finished is no image.
What is written is what `sentry/fs/erofs` reads, without compression; of the same layers it is
always the same file.
"""

from __future__ import annotations

import os
import struct
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG
from typing import Final

from runsc.images.errors import ImageError
from runsc.images.layer import Pieces
from runsc.images.sparse import Spans
from runsc.images.streams import Budget, write_all
from runsc.images.tree import Content, Node, Tree
from sentry.abi.stat import EROFS_SUPER_MAGIC_V1
from sentry.fs.erofs import layout

BITS: Final = 12
BLOCK: Final = 1 << BITS
MAX_BLOCKS: Final = layout.NULL_BLOCK
MAX_CHUNKS: Final = 1 << 12
"""Of a file with holes: their size follows from that."""
FIRST: Final = 2 * layout.SLOT
"""Where inodes begin: there is none of number 0, which readdir(3) would pass over."""
FILE_TYPES: Final = {S_IFREG: 1, S_IFDIR: 2, S_IFCHR: 3, S_IFBLK: 4, S_IFIFO: 5, S_IFLNK: 7}
"""EROFS_FT_*."""
PREFIXES: Final = (
    (b"user.", 1), (b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3),
    (b"trusted.", 4), (b"security.", 6),
)  # fmt: skip
"""EROFS_XATTR_INDEX_*."""
_ENTRY: Final = struct.Struct("<BBH")
"""struct erofs_xattr_entry."""
_HEADER: Final = 12
"""Bytes of struct erofs_xattr_ibody_header: no filter, none that is shared."""
PIECE: Final = 1 << 20


class Writer:
    """A store that makes an image."""

    def __init__(self, path: str, uuid: bytes, budget: Budget) -> None:
        """`uuid`: 16 bytes by which the image is known. Tables of holes are taken from `budget`."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._uuid = uuid
        self._budget = budget
        self._end = 1
        """The next block that is free: the first is the superblock's."""
        self._features = 0

    def keep(self, size: int, spans: Spans, pieces: Pieces) -> Content:
        if spans == ((0, size),):
            block = self._take(_blocks(size))
            for offset, piece in pieces:
                write_all(self._fd, piece, block * BLOCK + offset)
            return Content(block)
        bits = 0
        while size > MAX_CHUNKS << BITS + bits:
            bits += 1
        self._features |= layout.CHUNKS
        self._budget.take(4 * _chunks(size, bits))
        chunks: dict[int, int] = {}
        for offset, piece in pieces:
            self._put(chunks, bits, offset, piece)
        return Content(-1, bits, chunks)

    def _put(self, chunks: dict[int, int], bits: int, offset: int, piece: bytes) -> None:
        """Some bytes of a file with holes, whose chunks are where they are first written to."""
        size = BLOCK << bits
        done = 0
        while done < len(piece):
            number, inside = divmod(offset + done, size)
            if number not in chunks:
                chunks[number] = self._take(1 << bits)
            part = piece[done : done + size - inside]
            write_all(self._fd, part, chunks[number] * BLOCK + inside)
            done += len(part)

    def read(self, content: Content, size: int) -> bytes:
        return os.pread(self._fd, size, content.where * BLOCK)

    def finish(self, tree: Tree) -> None:
        order = list(tree.finished())
        at = FIRST
        blocks: dict[Node, int] = {}
        for node, _ in order:
            body = _body_size(node)
            start, size = _place(node, at, body)
            node.place, at = start // layout.SLOT, start + size
            at += -at % layout.SLOT
            if body and not _is_inline(node, body):
                blocks[node] = self._take(_blocks(body))
        first = self._take(_blocks(at))
        pending, start = bytearray(FIRST), 0
        for node, folder in order:
            data = _body(node, folder)
            where, after = self._where(node, data, blocks)
            offset = node.place * layout.SLOT
            pending += bytes(offset - start - len(pending))
            pending += _inode(node, _size(node, data), where) + _xattrs(node) + after
            if len(pending) >= PIECE:
                write_all(self._fd, bytes(pending), first * BLOCK + start)
                start += len(pending)
                pending.clear()
        write_all(self._fd, bytes(pending), first * BLOCK + start)
        os.ftruncate(self._fd, self._end * BLOCK)
        self._write_super(first, len(order), tree.root)

    def close(self) -> None:
        os.close(self._fd)

    def _where(self, node: Node, body: bytes, blocks: dict[Node, int]) -> tuple[int, bytes]:
        """What an inode says of its data, and what follows its attributes."""
        if node in blocks:
            write_all(self._fd, body, blocks[node] * BLOCK)
            return blocks[node], b""
        kind = S_IFMT(node.mode)
        if kind in (S_IFCHR, S_IFBLK):
            major, minor = node.device
            return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12, b""  # new_encode_dev()
        content = node.content
        if content is None:
            return 0, body
        if content.chunks is None:
            return content.where, b""
        numbers = range(_chunks(node.size, content.chunk_bits))
        table = [content.chunks.get(number, layout.NULL_BLOCK) for number in numbers]
        return content.chunk_bits, struct.pack(f"<{len(table)}I", *table)

    def _take(self, blocks: int) -> int:
        """The first of so many new ones. Raises: ImageError."""
        found = self._end
        self._end += blocks
        if self._end > MAX_BLOCKS:
            raise ImageError("is too large for an image of EROFS")
        return found

    def _write_super(self, first: int, nodes: int, root: Node) -> None:
        raw = layout.SUPER.pack(
            EROFS_SUPER_MAGIC_V1, 0, layout.HAS_CHECKSUM, BITS, 0, root.place, nodes, 0, 0,
            self._end, first, 0, self._uuid, b"", self._features, 0, 0, 0, 0, 0, 0, 0, 0,
        ).ljust(BLOCK - layout.SUPER_OFFSET, b"\0")  # fmt: skip
        checksum = struct.pack("<I", layout.crc32c(raw))
        write_all(self._fd, raw[:4] + checksum + raw[8:], layout.SUPER_OFFSET)


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _chunks(size: int, bits: int) -> int:
    return -(-size >> BITS + bits)


# --- inodes


def _place(node: Node, at: int, body: int) -> tuple[int, int]:
    """Where an inode can begin from `at` on, and how long it is with what follows.

    What is shorter than a block lies in one.
    """
    size = layout.EXTENDED.size + _xattrs_size(node)
    if node.content is not None and node.content.chunks is not None:
        size += 4 * _chunks(node.size, node.content.chunk_bits)
    elif _is_inline(node, body):
        size += body
    if at % BLOCK + min(size, BLOCK) > BLOCK:
        at += -at % BLOCK
    return at, size


def _is_inline(node: Node, body: int) -> bool:
    """A short folder, or a link, lies behind its inode."""
    return layout.EXTENDED.size + _xattrs_size(node) + body <= BLOCK


def _inode(node: Node, size: int, where: int) -> bytes:
    """struct erofs_inode_extended."""
    kind = S_IFMT(node.mode)
    form = layout.FLAT_PLAIN
    if node.content is not None and node.content.chunks is not None:
        form = layout.CHUNK_BASED
    elif kind in (S_IFDIR, S_IFLNK) and _is_inline(node, size):
        form = layout.FLAT_INLINE
    xattrs = _xattrs_size(node)
    count = (xattrs - _HEADER) // 4 + 1 if xattrs else 0
    seconds, nsec = divmod(max(node.mtime_ns, 0), 10**9)  # the format has none before 1970
    return layout.EXTENDED.pack(
        form << 1 | 1, count, node.mode, 0, size, where, node.place, node.uid, node.gid, seconds,
        nsec, node.links,
    )  # fmt: skip


def _size(node: Node, body: bytes) -> int:
    return node.size if S_IFMT(node.mode) == S_IFREG else len(body)


# --- folders and links


def _body_size(node: Node) -> int:
    """Bytes of a folder or a link."""
    if node.children is None:
        return len(node.target)
    groups = _groups(node.children)
    return (len(groups) - 1) * BLOCK + sum(layout.DIRENT.size + len(name) for name in groups[-1])


def _body(node: Node, folder: Node) -> bytes:
    """A link's text, or a folder's entries: blocks whose names are in order over all of them."""
    if node.children is None:
        return node.target
    places = {b".": (node.place, FILE_TYPES[S_IFDIR]), b"..": (folder.place, FILE_TYPES[S_IFDIR])}
    for name, child in node.children.items():
        places[name] = child.place, FILE_TYPES[S_IFMT(child.mode)]
    blocks = [_entries(names, places) for names in _groups(node.children)]
    return b"".join([*(block.ljust(BLOCK, b"\0") for block in blocks[:-1]), blocks[-1]])


def _groups(children: dict[bytes, Node]) -> list[list[bytes]]:
    """The names of each block: as many as fit."""
    groups: list[list[bytes]] = [[]]
    room = BLOCK
    for name in sorted([b".", b"..", *children]):
        size = layout.DIRENT.size + len(name)
        if size > room:
            groups.append([])
            room = BLOCK
        groups[-1].append(name)
        room -= size
    return groups


def _entries(names: list[bytes], places: dict[bytes, tuple[int, int]]) -> bytes:
    at = len(names) * layout.DIRENT.size
    heads = []
    for name in names:
        number, kind = places[name]
        heads.append(layout.DIRENT.pack(number, at, kind, 0))
        at += len(name)
    return b"".join([*heads, *names])


# --- extended attributes


def _xattrs(node: Node) -> bytes:
    """struct erofs_xattr_ibody_header and its entries."""
    if not node.xattrs:
        return b""
    parts = [bytes(_HEADER)]
    for name, value in sorted(node.xattrs.items()):
        prefix, index = next(each for each in PREFIXES if name.startswith(each[0]))
        rest = name[len(prefix) :]
        raw = _ENTRY.pack(len(rest), index, len(value)) + rest + value
        parts.append(raw + bytes(-len(raw) % 4))
    return b"".join(parts)


def _xattrs_size(node: Node) -> int:
    return len(_xattrs(node)) if node.xattrs else 0
