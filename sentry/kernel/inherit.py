"""What clone(2) does with a field of a task or a process: said beside the field, in `__slots__`.

A class lists its fields as `{name: how}`, and `inherit` fills those of a child that need no look
at the flags of the call.
"""

from __future__ import annotations

from typing import Any, Final

FRESH: Final = "The child begins with its own."
SHARED: Final = "The child has the same."
COPIED: Final = "The child has what its `for_child` gives."
CLONE: Final = "The flags of clone(2) decide: task_clone.py."


def inherit(child: Any, parent: Any, fields: dict[str, str]) -> None:
    """Fill the fields of a child that are `SHARED` and `COPIED`."""
    for name, how in fields.items():
        if how is SHARED:
            setattr(child, name, getattr(parent, name))
        elif how is COPIED:
            value = getattr(parent, name)
            setattr(child, name, None if value is None else value.for_child())
