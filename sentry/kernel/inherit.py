"""What clone(2) does with a field of a task or a process: said beside the field, in `fields`.

A class lists its fields as `{name: how}`, and `inherit` fills those of a child that need no look
at the flags of the call.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

FRESH: Final = "The child begins with its own."
SHARED: Final = "The child has the same."
COPIED: Final = "The child has what its `for_child` gives."
CLONE: Final = "The flags of clone(2) decide: task_clone.py."


@cache
def _given(kind: type) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields of a class that are `SHARED`, and those that are `COPIED`."""
    fields: dict[str, str] = kind.fields  # type: ignore[attr-defined]
    shared = tuple(name for name, how in fields.items() if how is SHARED)
    return shared, tuple(name for name, how in fields.items() if how is COPIED)


def inherit(child: Any, parent: Any, kind: type) -> None:
    """Fill the fields of a child that the class says are `SHARED` and `COPIED`."""
    shared, copied = _given(kind)
    for name in shared:
        setattr(child, name, getattr(parent, name))
    for name in copied:
        value = getattr(parent, name)
        setattr(child, name, None if value is None else value.for_child())
