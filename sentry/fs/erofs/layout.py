"""What the bytes of an image mean: fs/erofs/erofs_fs.h, super.c, inode.c, data.c."""

from __future__ import annotations

import struct
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.abi.stat import EROFS_SUPER_MAGIC_V1
from sentry.errors import EBADMSG, EINVAL, EOPNOTSUPP, EUCLEAN

if TYPE_CHECKING:
    from sentry.fs.erofs.image import Image

SUPER_OFFSET: Final = 1024
SUPER: Final = struct.Struct("<3I2BH2Q4I16s16sI3H2BIQB23x")
"""struct erofs_super_block."""
COMPACT: Final = struct.Struct("<4HIIII2HI")
"""struct erofs_inode_compact."""
EXTENDED: Final = struct.Struct("<4HQIIIIQII16x")
"""struct erofs_inode_extended."""
DIRENT: Final = struct.Struct("<QHBB")
"""struct erofs_dirent."""
_INDEX: Final = struct.Struct("<HHI")
"""struct erofs_inode_chunk_index."""

HAS_CHECKSUM: Final = 1
"""EROFS_FEATURE_COMPAT_SB_CHKSUM."""
CHUNKS, DEVICES, PREFIXES = 0x4, 0x8, 0x40
PADDED, BIG_CLUSTERS, FRAGMENTS = 0x1, 0x2, 0x20
COMPRESSION: Final = PADDED | BIG_CLUSTERS | 0x8 | 0x10 | FRAGMENTS
"""EROFS_FEATURE_INCOMPAT_*: how compressed files are laid out. DEVICES is one of its bits, too."""
KNOWN: Final = CHUNKS | COMPRESSION

FLAT_PLAIN, COMPRESSED_FULL, FLAT_INLINE, COMPRESSED_COMPACT, CHUNK_BASED = range(5)
"""EROFS_INODE_*: data layouts."""
COMPRESSED_LAYOUTS: Final = frozenset((COMPRESSED_FULL, COMPRESSED_COMPACT))
SLOT: Final = 32
"""Inodes are counted in these."""
NULL_BLOCK: Final = 0xFFFFFFFF
CHUNK_BITS, CHUNK_INDEXES = 0x1F, 0x20
MAX_XATTRS: Final = 1 << 16
"""Bytes of extended attributes with an inode; what listxattr(2) could show is no more."""
KINDS: Final = frozenset(kind << 12 for kind in (1, 2, 4, 6, 8, 10, 12))
TIME_MAX: Final = (1 << 63) - 1
"""The last moment, in ns, that is told."""


class Super(NamedTuple):
    """The superblock, checked."""

    block_bits: int
    root: int
    """Number of the top inode."""
    inodes: int
    blocks: int
    inodes_at: int
    """Where inode 0 would be, in bytes;"""
    xattrs_at: int
    """and shared extended attributes."""
    time_ns: int
    """From which on compact inodes count theirs."""
    uuid: bytes
    features: int
    """EROFS_FEATURE_INCOMPAT_*"""
    packed: int
    """Number of the inode that has the ends of others."""

    @property
    def block_size(self) -> int:
        return 1 << self.block_bits


class Node(NamedTuple):
    """An inode."""

    number: int
    layout: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    where: int
    """First block, device number, or how chunks are told, by layout and type."""
    time_ns: int
    body: int
    """Where its extended attributes begin, in bytes, and how many they are:"""
    xattrs: int

    @property
    def inline(self) -> int:
        """Where what follows the inode begins: the end of a file, or a table of chunks."""
        return self.body + self.xattrs


def crc32c(data: bytes) -> int:
    """CRC-32C as Linux's crc32c(): of all ones, not inverted at the end."""
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found


def _time(seconds: int, ns: int) -> int:
    return min(seconds * 1_000_000_000 + ns, TIME_MAX)


def read_super(image: Image) -> Super:
    """erofs_read_superblock(). Raises: EINVAL, EBADMSG, EUCLEAN, EOPNOTSUPP."""
    if image.size < SUPER_OFFSET + SUPER.size:
        raise EINVAL("too short for an image")
    raw = image.read(SUPER_OFFSET, SUPER.size)
    (
        magic, checksum, compat, bits, _, root, inodes, seconds, nsec, blocks, inodes_at,
        xattrs_at, uuid, _, incompat, _, devices, _, directory_bits, _, _, packed, _,
    ) = SUPER.unpack(raw)  # fmt: skip
    if magic != EROFS_SUPER_MAGIC_V1:
        raise EINVAL("not an image of EROFS")
    if not 9 <= bits <= 12 or directory_bits:
        raise EINVAL(f"blocks of {bits} bits")
    if compat & HAS_CHECKSUM:
        rest = (1 << bits) - SUPER_OFFSET if bits > 10 else 1 << bits
        whole = image.read(SUPER_OFFSET, rest)
        if crc32c(whole[:4] + bytes(4) + whole[8:]) != checksum:
            raise EBADMSG("the superblock")
    if incompat & ~(KNOWN | PREFIXES):
        raise EINVAL(f"features {incompat:#x}")
    if devices or incompat & PREFIXES:
        raise EOPNOTSUPP("more devices, or prefixes of extended attributes")
    time_ns = _time(seconds, nsec)
    return Super(
        bits, root, inodes, blocks, inodes_at << bits, xattrs_at << bits, time_ns, uuid, incompat,
        packed,
    )  # fmt: skip


def read_node(image: Image, of: Super, number: int) -> Node:
    """erofs_read_inode(). Raises: EUCLEAN, EOPNOTSUPP."""
    at = of.inodes_at + number * SLOT
    raw = image.read(at, COMPACT.size)
    form = int.from_bytes(raw[:2], "little")
    layout = form >> 1 & 7
    if form >> 4 or layout > CHUNK_BASED:
        raise EOPNOTSUPP(f"inode {number} of format {form:#x}")
    if form & 1:
        raw = image.read(at, EXTENDED.size)
        _, count, mode, _, size, where, _, uid, gid, seconds, nsec, nlink = EXTENDED.unpack(raw)
        time_ns, body = _time(seconds, nsec), at + EXTENDED.size
    else:
        _, count, mode, nlink, size, later, where, _, uid, gid, _ = COMPACT.unpack(raw)
        time_ns, body = _time(later, of.time_ns), at + COMPACT.size
    xattrs = 12 + 4 * (count - 1) if count else 0
    if S_IFMT(mode) not in KINDS or size >> 63 or xattrs > MAX_XATTRS:
        raise EUCLEAN(f"inode {number}")
    node = Node(number, layout, mode, nlink, uid, gid, size, where, time_ns, body, xattrs)
    _check_size(image, of, node)
    return node


def _check_size(image: Image, of: Super, node: Node) -> None:
    """It fits into the image: only a regular file may have holes."""
    kind = S_IFMT(node.mode)
    if kind not in (S_IFREG, S_IFDIR, S_IFLNK):
        return
    if kind != S_IFREG and node.size > image.size:
        raise EUCLEAN(f"{node.size} bytes of inode {node.number}")
    if node.layout == FLAT_PLAIN and node.size:
        image.check(node.where << of.block_bits, node.size)
    elif node.layout == FLAT_INLINE:
        tail = _tail(of, node)
        if tail:
            image.check(node.where << of.block_bits, tail)
        last = node.size - tail
        if node.inline % of.block_size + last > of.block_size:
            raise EUCLEAN(f"the end of inode {node.number} crosses a block")
        image.check(node.inline, last)


def _tail(of: Super, node: Node) -> int:
    """Where the last block of a file begins, which follows the inode."""
    blocks = -(-node.size >> of.block_bits)
    return max(blocks - 1, 0) << of.block_bits


def extent(image: Image, of: Super, node: Node, offset: int) -> tuple[int, int]:
    """Where the data from `offset` on lies, -1 for a hole, and how much of it lies there.

    erofs_map_blocks(). Preconditions: offset < size. Raises: EUCLEAN, EOPNOTSUPP.
    """
    if node.layout == FLAT_PLAIN:
        return (node.where << of.block_bits) + offset, node.size - offset
    if node.layout == FLAT_INLINE:
        tail = _tail(of, node)
        if offset < tail:
            return (node.where << of.block_bits) + offset, tail - offset
        return node.inline + offset - tail, node.size - offset
    if node.layout == CHUNK_BASED:
        return _chunk(image, of, node, offset)
    raise EOPNOTSUPP("compressed")


def _chunk(image: Image, of: Super, node: Node, offset: int) -> tuple[int, int]:
    form = node.where & 0xFFFF
    if form & ~(CHUNK_BITS | CHUNK_INDEXES):
        raise EOPNOTSUPP(f"chunks of format {form:#x}")
    bits = of.block_bits + (form & CHUNK_BITS)
    unit = _INDEX.size if form & CHUNK_INDEXES else 4
    number = offset >> bits
    table = node.inline + unit - 1 & ~(unit - 1)
    raw = image.read(table + number * unit, unit)
    block = int.from_bytes(raw[-4:], "little")
    if form & CHUNK_INDEXES and _INDEX.unpack(raw)[1] and block != NULL_BLOCK:
        raise EOPNOTSUPP("another device")
    length = min(number + 1 << bits, node.size) - offset
    if block == NULL_BLOCK:
        return -1, length
    return (block << of.block_bits) + (offset & (1 << bits) - 1), length


def contents(image: Image, of: Super, node: Node, offset: int, size: int) -> bytes:
    """Bytes of a directory or a link. Preconditions: they are in it. Raises: EUCLEAN."""
    found = b""
    while len(found) < size:
        at, length = extent(image, of, node, offset + len(found))
        length = min(length, size - len(found))
        found += image.read(at, length) if at >= 0 else bytes(length)
    return found


Entry = tuple[bytes, int, int]
"""Name, number of the inode, EROFS_FT_*."""


def entries(data: bytes) -> list[Entry]:
    """Those of one block of a directory. Raises: EUCLEAN."""
    names_at = first_name_at(data)
    heads = [DIRENT.unpack_from(data, at) for at in range(0, names_at, DIRENT.size)]
    ends = [head[1] for head in heads[1:]] + [len(data)]
    found: list[Entry] = []
    for (number, at, kind, _), end in zip(heads, ends, strict=True):
        found.append((_name(data, at, end, names_at), number, kind))
    return found


def first_name_at(data: bytes) -> int:
    """Where names begin in a block. Raises: EUCLEAN."""
    if len(data) < DIRENT.size:
        raise EUCLEAN("a directory's block")
    at: int = DIRENT.unpack_from(data)[1]
    if not DIRENT.size <= at < len(data) or at % DIRENT.size:
        raise EUCLEAN("where names begin")
    return at


def first_name(data: bytes) -> bytes:
    """The least name of a block. Raises: EUCLEAN."""
    names_at = first_name_at(data)
    many = names_at > DIRENT.size
    end = DIRENT.unpack_from(data, DIRENT.size)[1] if many else len(data)
    return _name(data, names_at, end, names_at)


def _name(data: bytes, at: int, end: int, names_at: int) -> bytes:
    if not names_at <= at < end <= len(data):
        raise EUCLEAN("a name's place")
    name = data[at:end].split(b"\0")[0]
    if not name or len(name) > 255 or b"/" in name:
        raise EUCLEAN(f"the name {name[:300]!r}")
    return name
