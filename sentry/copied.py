"""`copied`: what `copy` does for objects of ours. That module brings `weakref`, 0.15 MiB of each
sandbox."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def copied(one: T) -> T:
    """Another of its class with the same attributes, of whose values there is one each."""
    kind = type(one)
    made: Any = kind.__new__(kind)
    made_of: Any = one
    for each in kind.__mro__:
        for name in each.__dict__.get("__slots__", ()):
            if hasattr(one, name):
                setattr(made, name, getattr(made_of, name))
    if hasattr(one, "__dict__"):
        made.__dict__.update(made_of.__dict__)
    return made  # type: ignore[no-any-return]
