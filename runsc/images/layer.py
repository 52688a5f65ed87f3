"""A layer: from the bytes of a blob to changes of a tree, and to contents in a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from runsc.images.errors import ImageError
from runsc.images.sparse import Spans
from runsc.images.streams import Budget, Buffered, Counted, Hashed, Stream, opened
from runsc.images.tar import TarReader
from runsc.images.tree import Content, Tree

BLOCK: Final = 4096
"""What a piece of a file with holes takes on a disk, however short it is."""
Pieces = Iterator[tuple[int, bytes]]
"""Bytes of a file, each with its offset; what none has is a hole."""


class Store(Protocol):
    """Where a root file system is made: contents as they come, names when all layers are known."""

    def keep(self, size: int, spans: Spans, pieces: Pieces) -> Content:
        """Write a regular file of `size` bytes, holes included. Raises: ImageError, OSError."""

    def read(self, content: Content, size: int) -> bytes:
        """The first bytes of a file without holes that was kept. Raises: OSError."""

    def finish(self, tree: Tree) -> None:
        """Make the file system of what was kept. Raises: ImageError, OSError."""

    def close(self) -> None:
        """Let go of descriptors."""


class Layer(msgspec.Struct, frozen=True):
    """What a manifest says of one."""

    blob: str
    """Its name where it comes from."""
    digest: str | None
    """Of the blob as it lies there; None: nobody says."""
    diff_id: str
    """Of the archive in it."""


def apply(layer: Layer, source: Stream, budget: Budget, tree: Tree, store: Store) -> None:
    """Apply a layer to the tree of those below it. Raises: ImageError, OSError."""
    blob = Hashed(source)
    archive = Hashed(Counted(opened(blob), budget))
    reader = TarReader(Buffered(archive))
    tree.begin_layer()
    while (member := reader.next()) is not None:
        budget.take(BLOCK * max(len(member.spans) - 1, 0))
        node = tree.add(member)
        if node is not None:
            node.content = store.keep(node.size, member.spans, reader.data())
    _check(archive, layer.diff_id)
    if layer.digest is not None:
        _check(blob, layer.digest)


def _check(source: Hashed, digest: str) -> None:
    found = source.digest()
    if found != digest:
        raise ImageError(f"is not what it should be: {found} instead of {digest}")
