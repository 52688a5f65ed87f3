"""`Unpacked`: the contents of compressed files, of which some are kept.

An extent is unpacked as a whole, in steps, and kept until others need the room: who reads a file
reads the rest of it next.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.errors import EUCLEAN
from sentry.fs.erofs import extents, layout
from sentry.fs.erofs.indexes import FRAGMENT
from sentry.platform.lz4 import Lz4
from sentry.wait.again import again, begun
from sentry.wait.lock import Lock
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.fs.erofs.extents import Extent, Map
    from sentry.fs.erofs.image import Image

KEPT_BYTES: Final = 4 << 20
"""Of all images of a sandbox; one extent at least, whatever it has."""


class Kept:
    """Extents that were unpacked, those used last."""

    __slots__ = ("_bytes", "_extents", "lock")

    def __init__(self) -> None:
        self._extents: OrderedDict[tuple[Unpacked, Extent], bytes] = OrderedDict()
        self._bytes = 0
        self.lock = Lock()
        """Of who unpacks one: many at once would take as much memory each."""

    def get(self, key: tuple[Unpacked, Extent]) -> bytes | None:
        found = self._extents.get(key)
        if found is not None:
            self._extents.move_to_end(key)
        return found

    def put(self, key: tuple[Unpacked, Extent], data: bytes) -> None:
        """Preconditions: it is not there."""
        self._extents[key] = data
        self._bytes += len(data)
        while self._bytes > KEPT_BYTES and len(self._extents) > 1:
            self._bytes -= len(self._extents.popitem(last=False)[1])

    def forget(self, image: Unpacked) -> None:
        """It is not mounted any more."""
        for key in [key for key in self._extents if key[0] is image]:
            self._bytes -= len(self._extents.pop(key))


class Unpacked:
    """The contents of the compressed files of an image."""

    __slots__ = ("_image", "_kept", "_last", "_packed", "_super")

    def __init__(self, image: Image, of: layout.Super, kept: Kept) -> None:
        self._image = image
        self._super = of
        self._kept = kept
        self._last: tuple[int, Extent] | None = None
        """The extent that was found last, and the number of its file."""
        self._packed: tuple[layout.Node, Map | None] | None = None

    def close(self) -> None:
        """It is not mounted any more."""
        self._kept.forget(self)

    def read_map(self, node: layout.Node) -> Map:
        """How the file is laid out. Raises: EUCLEAN, EOPNOTSUPP, NotNow."""
        return extents.read_map(self._image, self._super, node)

    def piece(self, node: layout.Node, told: Map, offset: int, size: int) -> bytes:
        """Some of these bytes. Preconditions: they are in the file. Raises: EUCLEAN, EOPNOTSUPP,
        NotNow."""
        found = self._extent(node, told, offset)
        skipped = offset - found.start
        size = min(size, found.length - skipped)
        if found.form == extents.ELSEWHERE:
            return self._fragment(found.at + skipped, size)
        key = self, found
        data = self._kept.get(key) or begun(key, partial(self._unpack, found))
        return data[skipped : skipped + size]

    def _extent(self, node: layout.Node, told: Map, offset: int) -> Extent:
        if self._last is not None:
            number, last = self._last
            if number == node.number and 0 <= offset - last.start < last.length:
                return last
        found = extents.extent_at(self._image, self._super, node, told, offset)
        self._last = node.number, found
        return found

    def _fragment(self, at: int, size: int) -> bytes:
        """Of the packed inode: z_erofs_read_fragment(). It has none itself."""
        image, of = self._image, self._super
        if self._packed is None:
            if not of.features & layout.FRAGMENTS:
                raise EUCLEAN("a fragment in an image without")
            node = layout.read_node(image, of, of.packed)
            told = None
            if node.layout in layout.COMPRESSED_LAYOUTS and node.size:
                told = self.read_map(node)
                if told.head.advice & FRAGMENT:
                    raise EUCLEAN("fragments of fragments")
            self._packed = node, told
        node, told = self._packed
        if at + size > node.size:
            raise EUCLEAN(f"a fragment at {at} of {node.size}")
        if told is not None:
            return self.piece(node, told, at, size)
        place, length = layout.extent(image, of, node, at)
        length = min(length, size)
        return bytes(length) if place < 0 else image.data(place, length)

    async def _unpack(self, of: Extent) -> bytes:
        data: bytes = await again(self._image.data, of.at, of.size)
        if of.form == extents.SHIFTED:
            return data[: of.length]
        if of.form == extents.ROTATED:
            return rotated(data, of, self._super.block_size)
        if self._super.features & layout.PADDED:
            block = self._super.block_size
            data = data[:block].lstrip(b"\0") + data[block:]
        async with self._kept.lock:
            known = self._kept.get((self, of))
            if known is None:
                known = await self._unpacked(data, of)
                self._kept.put((self, of), known)
            return known

    async def _unpacked(self, data: bytes, of: Extent) -> bytes:
        unpacking, pace = Lz4(data, of.length), Pace()
        try:
            while not unpacking.step():
                await pace.rest()
        except ValueError as error:
            raise EUCLEAN(f"{error} at {of.at}") from None
        return unpacking.result()


def rotated(data: bytes, of: Extent, block_size: int) -> bytes:
    """What lies as it is, but that each byte has its place in a block: z_erofs_transform_plain().

    Raises: EUCLEAN.
    """
    skew = of.start % block_size
    first = min(block_size - skew, of.length)
    at = skew if len(data) < block_size else len(data) - block_size + skew
    found = data[at : at + first] + data[: of.length - first]
    if len(found) < of.length:
        raise EUCLEAN(f"{len(found)} bytes as {of.length}")
    return found
