"""`Served`: the file systems that programs of a sandbox serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.fs.fuse.filesystem import FuseFs


class Served:
    """The file systems of servers that are mounted in a sandbox."""

    def __init__(self) -> None:
        self._all: dict[int, FuseFs] = {}

    def __iter__(self) -> Iterator[FuseFs]:
        return iter(list(self._all.values()))

    def add(self, fs: FuseFs) -> None:
        """One more, until its connection ends for good."""
        self._all[fs.connection.number] = fs

    def remove(self, fs: FuseFs) -> None:
        """It is mounted nowhere any more."""
        self._all.pop(fs.connection.number, None)

    def find(self, name: bytes) -> FuseFs | None:
        """By the name of its directory."""
        return self._all.get(int(name)) if name.isdigit() and len(name) < 12 else None
