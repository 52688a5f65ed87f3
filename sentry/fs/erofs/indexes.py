"""How a compressed file says where its parts lie: fs/erofs/zmap.c, erofs_fs.h.

Each block of the file, a logical cluster, has a record: an extent begins in it (a head), or so many
blocks before it (NONHEAD). Records have eight bytes each, or lie in packs of 2 or 16 of them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.errors import EOPNOTSUPP, EUCLEAN
from sentry.fs.erofs import layout

if TYPE_CHECKING:
    from sentry.fs.erofs.image import Image

_HEADER: Final = struct.Struct("<IHBB")
"""struct z_erofs_map_header."""
_FULL: Final = struct.Struct("<4H")
"""struct z_erofs_lcluster_index."""
_TAIL: Final = struct.Struct("<I")

PAIRS, BIG_1, BIG_2, INLINE, INTERLACED, FRAGMENT = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
"""Z_EROFS_ADVISE_*; PAIRS: packs of 16 records of two bytes, after those of four."""
_ADVICE: Final = 0x3F
WHOLE: Final = 0x80
"""Z_EROFS_FRAGMENT_INODE_BIT: all of it is a fragment."""
PLAIN, HEAD_1, NONHEAD, HEAD_2 = range(4)
"""Z_EROFS_LCLUSTER_TYPE_*"""
COUNTS: Final = 1 << 11
"""Z_EROFS_LI_D0_CBLKCNT: a count of blocks, in place of a distance of 1."""


class Header(NamedTuple):
    """What holds for all records of a file."""

    advice: int
    algorithms: tuple[int, int]
    """Of HEAD_1 and HEAD_2."""
    at: int
    """Where the records begin."""
    inline: int
    """Bytes of the last extent, if they follow the records; else 0."""
    fragment: int
    """Where its end begins in the packed inode, or `whole` of it."""
    whole: bool


class Cluster(NamedTuple):
    """A record."""

    number: int
    kind: int
    offset: int
    """Of a head: where in this block its extent begins."""
    block: int
    """Of a head: where it lies in the image."""
    back: int
    """Of NONHEAD: so many records before it is its head, or one that tells more;"""
    ahead: int
    """and so many after it the next head, or less; 0: not told."""
    blocks: int
    """How many blocks of the image the extent has, if this says it."""
    after: int
    """Where the record, or its pack, ends."""


def read_header(image: Image, of: layout.Super, node: layout.Node) -> Header:
    """z_erofs_fill_inode_lazy(). Raises: EUCLEAN, EOPNOTSUPP, NotNow."""
    begin = node.inline + 7 & ~7
    raw = image.read(begin, _HEADER.size)
    if raw[7] & WHOLE:
        at = int.from_bytes(raw, "little") ^ WHOLE << 56
        return Header(FRAGMENT, (0, 0), begin + 8, 0, at, True)
    first, advice, algorithms, bits = _HEADER.unpack(raw)
    if bits or advice & ~_ADVICE:
        raise EOPNOTSUPP(f"compressed: advice {advice:#x}, clusters of {bits} bits more")
    is_compact = node.layout == layout.COMPRESSED_COMPACT
    if not is_compact and advice & PAIRS:
        raise EOPNOTSUPP("compressed: records of extents")
    big = advice & (BIG_1 | BIG_2)
    if big and not of.features & layout.BIG_CLUSTERS:
        raise EUCLEAN("big clusters in an image without")
    if is_compact and big not in (0, BIG_1 | BIG_2):
        raise EUCLEAN("big clusters of one kind alone")
    inline = first >> 16 if advice & INLINE else 0
    at = begin + (8 if is_compact else 16)
    return Header(advice, (algorithms & 15, algorithms >> 4), at, inline, first, False)


def read_cluster(
    image: Image, of: layout.Super, node: layout.Node, head: Header, number: int
) -> Cluster:
    """z_erofs_load_lcluster_from_disk(). Raises: EUCLEAN, NotNow."""
    if not 0 <= number < -(-node.size >> of.block_bits):
        raise EUCLEAN(f"record {number} of inode {node.number}")
    read = _compact if node.layout == layout.COMPRESSED_COMPACT else _full
    return read(image, of, node, head, number)


def _full(
    image: Image, of: layout.Super, node: layout.Node, head: Header, number: int
) -> Cluster:
    at = head.at + number * _FULL.size
    advice, offset, low, high = _FULL.unpack(image.read(at, _FULL.size))
    kind, after = advice & 3, at + _FULL.size
    if kind != NONHEAD:
        if offset >= of.block_size:
            raise EUCLEAN(f"an extent at {offset} of a block")
        return Cluster(number, kind, offset, low | high << 16, 0, 1, 0, after)
    blocks = 0
    if low & COUNTS:
        blocks, low = _counted(head, low), 1
    return Cluster(number, kind, of.block_size, 0, low, high, blocks, after)


def _counted(head: Header, value: int) -> int:
    if not head.advice & (BIG_1 | BIG_2):
        raise EUCLEAN("a count of blocks where all have one")
    return value & ~COUNTS


class _Pack:
    """Some records, and the block that the first of their extents lies in, or the one before it."""

    __slots__ = ("_bits", "_low", "_value", "base", "count")

    def __init__(self, raw: bytes, count: int, block_bits: int) -> None:
        self.count = count
        self._value = int.from_bytes(raw[: -_TAIL.size], "little")
        self._bits = (len(raw) - _TAIL.size) * 8 // count
        self._low = max(block_bits, 12)
        self.base: int = _TAIL.unpack(raw[-_TAIL.size :])[0]

    def entry(self, at: int) -> tuple[int, int]:
        """decode_compactedbits(): type and value."""
        bits = self._value >> self._bits * at
        return bits >> self._low & 3, bits & (1 << self._low) - 1

    def ahead(self, at: int) -> int:
        """get_compacted_la_distance(). The last one says how far it is to the next head."""
        distance = value = 0
        for each in range(at, self.count):
            kind, value = self.entry(each)
            if kind != NONHEAD:
                return distance
            distance += 1
        return distance if value & COUNTS else distance + value - 1

    def back(self, at: int, value: int) -> int:
        """How far it is to the head: the last one has no room for that."""
        if at + 1 < self.count:
            return value
        kind, before = self.entry(at - 1)
        if kind != NONHEAD:
            return 1
        return 2 if before & COUNTS else before + 1

    def block(self, at: int, is_big: bool) -> int:
        """Where the extent lies of a head: after those of the heads before it."""
        passed = 0 if is_big else 1
        while at > 0:
            at -= 1
            kind, value = self.entry(at)
            if not is_big:
                at -= value if kind == NONHEAD else 0
                passed += at >= 0
            elif kind != NONHEAD:
                passed += 1
            elif value & COUNTS:
                at -= 1
                passed += value & ~COUNTS
            elif value <= 1:
                raise EUCLEAN("a distance of 1 where a count of blocks is told")
            else:
                at -= value - 2
        return self.base + passed


def _compact(
    image: Image, of: layout.Super, node: layout.Node, head: Header, number: int
) -> Cluster:
    """z_erofs_load_compact_lcluster(): pairs until 32 bytes are reached, sixteens, pairs."""
    total = -(-node.size >> of.block_bits)
    first = (32 - head.at % 32) // 4 & 7
    sixteens = 0
    if head.advice & PAIRS and first < total:
        sixteens = (total - first) // 16 * 16
    at, left, unit, count = head.at, number, 4, 2
    if left >= first:
        at, left = at + first * 4, left - first
        if left < sixteens:
            unit, count = 2, 16
        else:
            at, left = at + sixteens * 2, left - sixteens
    at += left * unit
    size = unit * count
    pack = _Pack(image.read(at - at % size, size), count, of.block_bits)
    place, after = at % size // unit, at - at % size + size
    kind, value = pack.entry(place)
    if kind != NONHEAD:
        if value >= of.block_size:
            raise EUCLEAN(f"an extent at {value} of a block")
        block = pack.block(place, bool(head.advice & BIG_1))
        return Cluster(number, kind, value, block, 0, 1, 0, after)
    ahead = pack.ahead(place)
    if value & COUNTS:
        return Cluster(number, kind, of.block_size, 0, 1, ahead, _counted(head, value), after)
    return Cluster(number, kind, of.block_size, 0, pack.back(place, value), ahead, 0, after)
