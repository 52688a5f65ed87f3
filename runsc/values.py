"""Values with named fields for what every command imports; it costs nothing to import.

msgspec's structs, which are used everywhere else, cost a command 27 ms of CPU before its first one.
A field is an annotation in the class; its default, which must never be changed, stands beside it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform() -> object:
        """typing's, which is for type checkers alone."""
        return lambda made: made


@dataclass_transform()
class Value:
    """The base of such classes, which have no bases of their own."""

    def __init__(self, *values: Any, **given: Any) -> None:
        fields = self.fields()
        if len(values) > len(fields):
            raise TypeError(f"{type(self).__name__}: {len(values)} values")
        given |= zip(fields, values, strict=False)
        missing = [name for name in fields if name not in given and not hasattr(self, name)]
        if missing or not given.keys() <= fields.keys():
            raise TypeError(f"{type(self).__name__}: {missing or sorted(given)}")
        self.__dict__.update(given)

    @classmethod
    def fields(cls) -> dict[str, str]:
        """Name → annotation, in their order."""
        return cls.__annotations__

    def changed(self, **given: Any) -> Self:
        """Another one, with these fields instead."""
        return type(self)(**(self.__dict__ | given))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.fields())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__dict__})"
