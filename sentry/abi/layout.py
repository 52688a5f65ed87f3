"""A C struct of the Linux ABI as a named tuple with its layout."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

__all__ = ["Layout", "Record"]

T = TypeVar("T", bound=tuple[Any, ...])

if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    try:
        from _collections import _tuplegetter as _getter
    except ImportError:

        def _getter(index, doc):
            return property(itemgetter(index), doc=doc)

    class _RecordMeta(type):
        """Gives a class a getter for each annotation."""

        def __new__(cls, name, bases, scope):
            fields = tuple(scope.get("__annotations__", ()))
            scope |= {field: _getter(index, None) for index, field in enumerate(fields)}
            scope |= {"__slots__": (), "__match_args__": fields, "_fields": fields}
            return type.__new__(cls, name, bases, scope)

    class Record(tuple, metaclass=_RecordMeta):
        """typing.NamedTuple without defaults, made in a tenth of the time: it compiles nothing."""

        def __new__(cls, *args, **named):
            if named:
                args += tuple(named.pop(f) for f in cls._fields[len(args) :] if f in named)
            if named or len(args) != len(cls._fields):
                raise TypeError(f"{cls.__name__} has the fields {', '.join(cls._fields)}")
            return tuple.__new__(cls, args)

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            return type(self)(**(self._asdict() | named))

        def __repr__(self):
            shown = (f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({', '.join(shown)})"



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
        return tuple.__new__(self._make, self._struct.unpack_from(data, offset))

    def unpack_all(self, data: bytes | bytearray | memoryview) -> Iterable[T]:
        """Read an array of structs."""
        for fields in self._struct.iter_unpack(data):
            yield tuple.__new__(self._make, fields)
