"""`Rows`: a registry of what has a number, one row each. Socket options and ioctl(2) requests are.

A registry may stand on others: what it lacks it finds there. So a family of sockets has the rows
that all have, and some of its own, which come first.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row")


class Rows(dict[Key, Row]):
    """Rows by number."""

    def __init__(self, *bases: Rows[Key, Row]) -> None:
        super().__init__()
        self.bases = bases
        self.declared: list[Row] = []
        """Its own rows, in their order."""

    def declare(self, key: Key, row: Row) -> None:
        """Take in a row. Raises: TypeError for a number that has one."""
        if key in self:
            raise TypeError(f"{key} is declared twice")
        self[key] = row
        self.declared.append(row)

    def find(self, key: Key) -> Row | None:
        """The row of a number, which after the first time is one look-up."""
        row = self.get(key)
        if row is None:
            for base in self.bases:
                row = base.find(key)
                if row is not None:
                    self[key] = row
                    break
        return row

    def everything(self) -> dict[Key, Row]:
        """Its own rows and those that it stands on."""
        found: dict[Key, Row] = {}
        for base in reversed(self.bases):
            found |= base.everything()
        return found | self
