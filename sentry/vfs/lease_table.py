"""`LeaseTable`: the leases of an inode, as its locks see them (leases.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Held(Protocol):
    """One lease."""

    kind: int
    target: int | None
    pid: int


class LeaseTable(Protocol):
    """All of an inode."""

    @property
    def items(self) -> Sequence[Held]: ...
    def release(self, file: object) -> None: ...
