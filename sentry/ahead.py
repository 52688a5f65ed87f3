"""How a class is compiled, where its module is (ci/ahead/modules.py): marks that mypyc reads.

Interpreted, as the tree runs, they do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr  # noqa: PLC0414
else:

    def mypyc_attr(*_flags, **_values):
        """`@mypyc_attr(allow_interpreted_subclasses=True)`: classes of modules that are not
        compiled inherit from this one."""
        return lambda cls: cls


class Referable:
    """Base of what weak references are made to."""

    __slots__ = ("__weakref__",)


Referable.__slots__ = ()  # type: ignore[assignment]  # it has given its one: mypyc refuses more


class Frozen(Struct, frozen=True):
    """Base of structs that are: mypyc hands on no keyword of a class (ci/ahead/constants.py)."""


class Unequal(Struct, eq=False):
    """And of those that are equal to themselves alone,"""


class Untracked(Struct, gc=False):
    """and that hold nothing which could hold them."""
