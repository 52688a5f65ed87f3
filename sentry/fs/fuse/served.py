"""`Served`: the file systems that programs of a sandbox serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.fs.fuse.mounted import MountedFs


MAX_NAMES: Final = 131_072
"""Names of directories that are remembered."""


MAX_AHEAD: Final = 64
"""Open files that have data which they were not asked for yet: up to 128 KiB each."""


class Reader(Protocol):
    """An open file: sentry.fs.fuse.ahead."""

    def drop_ahead(self) -> None: ...


class Served:
    """The file systems of servers that are mounted in a sandbox."""

    def __init__(self) -> None:
        self._all: dict[int, MountedFs] = {}
        self.bytes = 0
        """Of requests that have no answer."""
        self._names = 0
        self._ahead: dict[Reader, None] = {}

    def __iter__(self) -> Iterator[MountedFs]:
        return iter(list(self._all.values()))

    def add(self, fs: MountedFs) -> None:
        """One more, until its connection ends for good."""
        self._all[fs.connection.number] = fs

    def remove(self, fs: MountedFs) -> None:
        """It is mounted nowhere any more."""
        self._all.pop(fs.connection.number, None)

    def count_name(self) -> None:
        """One more is remembered, of any of them; beyond the ceiling all are forgotten."""
        self._names += 1
        if self._names > MAX_NAMES:
            self._names = 0
            for fs in self:
                fs.forget_names()

    def keeps(self, reader: Reader) -> None:
        """An open file has read more than it was asked for; those that did so long ago have not."""
        self._ahead.pop(reader, None)
        self._ahead[reader] = None
        if len(self._ahead) > MAX_AHEAD:
            next(iter(self._ahead)).drop_ahead()

    def lets_go(self, reader: Reader) -> None:
        """It has nothing any more."""
        self._ahead.pop(reader, None)

    def find(self, name: bytes) -> MountedFs | None:
        """By the name of its directory."""
        return self._all.get(int(name)) if name.isdigit() and len(name) < 12 else None
