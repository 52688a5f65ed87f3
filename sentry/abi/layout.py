"""A C struct of the Linux ABI as a named tuple with its layout."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=tuple[Any, ...])


class Layout(Generic[T]):
    """Packs and unpacks one struct. `size` is sizeof in bytes."""

    __slots__ = ("_make", "_struct", "name", "pack", "pack_into", "size")

    def __init__(self, name: str, fmt: str, make: type[T]) -> None:
        self.name = name
        self._struct = struct.Struct(fmt)
        self._make = make
        self.size = self._struct.size
        self.pack = self._struct.pack
        """The bytes of a struct with these fields, in their order."""
        self.pack_into = self._struct.pack_into

    def unpack(self, data: bytes | bytearray | memoryview, offset: int = 0) -> T:
        """Read one struct at `offset`."""
        return self._make(*self._struct.unpack_from(data, offset))

    def unpack_all(self, data: bytes | bytearray | memoryview) -> Iterable[T]:
        """Read an array of structs."""
        for fields in self._struct.iter_unpack(data):
            yield self._make(*fields)
