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
            defaults = {field: scope[field] for field in fields if field in scope}
            scope |= {field: _getter(index, None) for index, field in enumerate(fields)}
            scope |= {"__slots__": (), "__match_args__": fields, "_fields": fields}
            scope["_field_defaults"] = defaults
            return type.__new__(cls, name, bases, scope)

    def _filled(cls, args, named):
        """All fields: those that `args` does not have by name, or as they are by default."""
        rest = cls._fields[len(args) :]
        found = cls._field_defaults | named
        values = (*args, *(found[field] for field in rest if field in found))
        if len(values) != len(cls._fields) or not named.keys() <= set(rest):
            raise TypeError(f"{cls.__name__} has the fields {', '.join(cls._fields)}")
        return values

    class Record(tuple, metaclass=_RecordMeta):
        """typing.NamedTuple, made in a tenth of the time: it compiles nothing. It has no further
        classes below it."""

        def __new__(cls, *args, **named):
            if named or len(args) != len(cls._fields):
                args = _filled(cls, args, named)
            return tuple.__new__(cls, args)

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            made = tuple.__new__(type(self), map(named.pop, self._fields, self))
            if named:
                raise TypeError(f"{type(self).__name__} has no {', '.join(named)}")
            return made

        def __getnewargs__(self):
            return tuple(self)

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
