"""Extents of a compressed file: z_erofs_do_map_blocks() of fs/erofs/zmap.c.

An extent is a run of bytes of the file that lies somewhere in the image as a whole: packed, or as
it is. Each loop over records is bounded, whatever they say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sentry.errors import EOPNOTSUPP, EUCLEAN
from sentry.fs.erofs import layout
from sentry.fs.erofs.indexes import (
    BIG_1,
    BIG_2,
    FRAGMENT,
    HEAD_1,
    HEAD_2,
    INTERLACED,
    NONHEAD,
    PLAIN,
    Cluster,
    Header,
    read_cluster,
    read_header,
)

if TYPE_CHECKING:
    from sentry.fs.erofs.image import Image

LZ4, SHIFTED, ROTATED, ELSEWHERE = range(4)
"""How it lies there: packed; as it is; as it is, each byte where it is in its block; in the packed
inode."""
_ALGORITHMS: Final = ("LZ4", "LZMA", "DEFLATE", "ZSTD")
MOST_PACKED: Final = 1 << 20
"""Z_EROFS_PCLUSTER_MAX_SIZE"""
MOST_BYTES: Final = 12 << 20
"""Z_EROFS_PCLUSTER_MAX_DSIZE"""
_MOST_RECORDS: Final = 64
"""That are looked at in one direction: each of them leads on over 2,047 blocks, if need be."""


class Extent(NamedTuple):
    """A part of a file."""

    start: int
    """Bytes from there on,"""
    length: int
    """so many,"""
    at: int
    """lie there in the image (or in the packed inode),"""
    size: int
    """as so many,"""
    form: int
    """in this way."""


class Map(NamedTuple):
    """What one has to know of a file to find its extents."""

    head: Header
    tail: int
    """The record of the head of the last extent, if that lies elsewhere; else -1;"""
    tail_at: int
    """and where, in the image or in the packed inode."""


def read_map(image: Image, of: layout.Super, node: layout.Node) -> Map:
    """Preconditions: size > 0. Raises: EUCLEAN, EOPNOTSUPP, NotNow."""
    head = read_header(image, of, node)
    if head.whole:
        return Map(head, -1, head.fragment)
    if not head.inline and not head.advice & FRAGMENT:
        return Map(head, -1, 0)
    last = read_cluster(image, of, node, head, node.size - 1 >> of.block_bits)
    first = _head_of(image, of, node, head, node.size - 1)
    if head.inline:
        return Map(head, first.number, last.after)
    at = head.fragment
    if node.layout == layout.COMPRESSED_FULL:
        at |= first.block << 32
    return Map(head, first.number, at)


def extent_at(
    image: Image, of: layout.Super, node: layout.Node, told: Map, offset: int
) -> Extent:
    """The extent that has this byte of the file. Raises: EUCLEAN, EOPNOTSUPP, NotNow."""
    head, bits = told.head, of.block_bits
    if head.whole:
        return Extent(0, node.size, told.tail_at, node.size, ELSEWHERE)
    first = _head_of(image, of, node, head, offset)
    start = (first.number << bits) + first.offset
    length = min(_next_head(image, of, node, head, first), node.size) - start
    if not start <= offset < start + length:
        raise EUCLEAN(f"the extent at {start} of inode {node.number}")
    if first.number == told.tail and not head.inline:
        return Extent(start, length, told.tail_at, length, ELSEWHERE)
    if length > MOST_BYTES:
        raise EUCLEAN(f"an extent of {length} bytes")
    form = _form(head, first.kind)
    if first.number == told.tail:
        at, size = told.tail_at, head.inline
        if at % of.block_size + size > of.block_size:
            raise EUCLEAN("an end that crosses a block")
    else:
        at, size = first.block << bits, _blocks(image, of, node, head, first) << bits
    if size > MOST_PACKED or (form != LZ4 and length > size):
        raise EUCLEAN(f"{length} bytes as {size}")
    image.check(at, size)
    return Extent(start, length, at, size, form)


def _form(head: Header, kind: int) -> int:
    if kind == PLAIN:
        return ROTATED if head.advice & INTERLACED else SHIFTED
    algorithm = head.algorithms[kind == HEAD_2]
    if algorithm:
        known = algorithm < len(_ALGORITHMS)
        name = _ALGORITHMS[algorithm] if known else f"algorithm {algorithm}"
        raise EOPNOTSUPP(f"compressed by {name}")
    return LZ4


def _head_of(
    image: Image, of: layout.Super, node: layout.Node, head: Header, offset: int
) -> Cluster:
    """The record in which the extent begins that has this byte: z_erofs_extent_lookback()."""
    found = read_cluster(image, of, node, head, offset >> of.block_bits)
    back = found.back
    if found.kind != NONHEAD:
        if offset % of.block_size >= found.offset:
            return found
        back = 1
    for _ in range(_MOST_RECORDS):
        if not 0 < back <= found.number:
            break
        found = read_cluster(image, of, node, head, found.number - back)
        if found.kind != NONHEAD:
            return found
        back = found.back
    raise EUCLEAN(f"no beginning of what is at {offset} of inode {node.number}")


def _next_head(
    image: Image, of: layout.Super, node: layout.Node, head: Header, first: Cluster
) -> int:
    """Where the extent ends: z_erofs_get_extent_decompressedlen()."""
    number = first.number + 1
    for _ in range(_MOST_RECORDS):
        if number << of.block_bits >= node.size:
            return node.size
        found = read_cluster(image, of, node, head, number)
        if found.kind != NONHEAD:
            return (number << of.block_bits) + found.offset
        number += found.ahead or 1
    raise EUCLEAN(f"no end of an extent of inode {node.number}")


def _blocks(
    image: Image, of: layout.Super, node: layout.Node, head: Header, first: Cluster
) -> int:
    """How many blocks it has in the image: z_erofs_get_extent_compressedlen()."""
    number = first.number + 1
    is_big = head.advice & (BIG_1 if first.kind == HEAD_1 else BIG_2)
    if not is_big or number << of.block_bits >= node.size:
        return 1
    found = read_cluster(image, of, node, head, number)
    if found.kind != NONHEAD:
        return 1
    if not found.blocks:
        raise EUCLEAN("an extent that does not say how many blocks it has")
    return found.blocks
