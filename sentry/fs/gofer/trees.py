"""`SharedTrees`: trees of the host that several containers of a sandbox may have mounted.

What a bind mount is about has a name, its `place`; mounts of the same place are one file system, as
on Linux: one device number, one set of locks, watches and sockets. One that may be written serves
who only reads, too (the mount says no), not the other way round: who has it to read alone when the
first comes who writes gets that one (`sentry.boot.gofers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentry.fs.gofer.filesystem import GoferFileSystem


class SharedTrees:
    """Those that there are, by place and whether they are read-only."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], GoferFileSystem] = {}

    def find(self, place: str, read_only: bool) -> GoferFileSystem | None:
        """One that serves, if its Gofer lives."""
        for kind in (False, True) if read_only else (False,):
            found = self._known.get((place, kind))
            if found is not None and not found.session.dead:
                return found
        return None

    def keep(self, place: str, read_only: bool, fs: GoferFileSystem) -> GoferFileSystem:
        """This one from now on."""
        if place:
            self._known[place, read_only] = fs
        return fs

    def forget_dead(self) -> None:
        """A session has ended."""
        alive = {key: fs for key, fs in self._known.items() if not fs.session.dead}
        self._known = alive
