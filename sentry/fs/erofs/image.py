"""`Image`: the bytes of a file system image that lies in a file."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import EUCLEAN
from sentry.mm.buffers import KernelDest
from sentry.wait.again import again, begun

if TYPE_CHECKING:
    from sentry.vfs.file import FileDescription

BLOCK: Final = 4096
"""What is read at once of metadata,"""
MOST: Final = 64
"""and how many of these are kept."""


class Image:
    """A file that is open to be read, with a use; `size` bytes of it."""

    __slots__ = ("_blocks", "file", "size")

    def __init__(self, file: FileDescription, size: int) -> None:
        self.file = file
        self.size = size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def check(self, offset: int, size: int) -> None:
        """These bytes are there. Raises: EUCLEAN."""
        if size < 0 or not 0 <= offset <= self.size - size:
            raise EUCLEAN(f"{size} bytes at {offset} of {self.size}")

    def read(self, offset: int, size: int) -> bytes:
        """Metadata. Raises: EUCLEAN, NotNow."""
        self.check(offset, size)
        first, last = offset // BLOCK, (offset + size + BLOCK - 1) // BLOCK
        data = b"".join([self._block(number) for number in range(first, last)])
        at = offset - first * BLOCK
        if len(data) < at + size:
            raise EUCLEAN("the image has become shorter")
        return data[at : at + size]

    def _block(self, number: int) -> bytes:
        blocks = self._blocks
        known = blocks.get(number)
        if known is None:
            known = begun((self, number), partial(self._fetch, number * BLOCK, BLOCK))
            blocks[number] = known
            if len(blocks) > MOST:
                blocks.popitem(last=False)
        else:
            blocks.move_to_end(number)
        return known

    def data(self, offset: int, size: int) -> bytes:
        """Contents of a file, which are not kept. Raises: EUCLEAN, NotNow."""
        self.check(offset, size)
        found = begun((self, offset, size), partial(self._fetch, offset, size))
        if len(found) < size:
            raise EUCLEAN("the image has become shorter")
        return found

    async def _fetch(self, offset: int, size: int) -> bytes:
        """Fewer bytes at the end of the file."""
        nobody: Any = None
        found = bytearray()
        while len(found) < size:
            dest = KernelDest(size - len(found))
            got = await again(self.file.read_at, nobody, dest, offset + len(found))
            if not got:
                break
            found += dest.data[:got]
        return bytes(found)
