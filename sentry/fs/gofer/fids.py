"""`DirectoryFids`: the directories of an attachment that have a fid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from sentry.fs.gofer.handles import Timers


class Directory(Protocol):
    """Who has one (sentry.fs.gofer.directory_cache)."""

    fid: int
    sb: Any

    def unheard(self) -> None: ...


class DirectoryFids:
    """The directories that have a fid, least recently used first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._order: dict[Directory, None] = {}

    def __len__(self) -> int:
        return len(self._order)

    def bound(self, directory: Directory) -> None:
        """It has just got one."""
        self._order[directory] = None
        while len(self._order) > self._limit:
            self.give_back(next(iter(self._order)))

    def give_back(self, directory: Directory) -> None:
        """It gets another one when it needs one."""
        if directory in self._order:
            del self._order[directory]
            journal = directory.sb.journal
            if journal is not None:
                journal.settle(directory)
            if directory.sb.hearing is not None:
                directory.unheard()
            fid, directory.fid = directory.fid, -1
            directory.sb.session.clunk(fid)

    def give_all_back(self) -> None:
        """Some may never have been bound."""
        while self._order:
            self.give_back(next(iter(self._order)))

    def used(self, directory: Directory) -> None:
        """Move it to the end; roots and removed directories are not in the order."""
        if directory in self._order:
            del self._order[directory]
            self._order[directory] = None

    def moved(self, directory: Directory) -> None:
        """The host has moved it: the Gofer would look for its fid at the old place."""
        self.give_back(directory)

    def keep(self, directory: Directory) -> None:
        """Its fid cannot be had again: it goes only with the inode."""
        self._order.pop(directory, None)


BRIEFLY_NS: Final = 500_000_000


class BriefFids(DirectoryFids):
    """Where each is given back soon after its last use: the Gofer has a descriptor for it, and the
    host could not unmount what it is in (EBUSY)."""

    def __init__(self, limit: int, timers: Timers) -> None:
        super().__init__(limit)
        self._timers = timers
        self._young: set[Directory] = set()
        self._armed = False

    def bound(self, directory: Directory) -> None:
        """It has just got one."""
        super().bound(directory)
        self._use(directory)

    def used(self, directory: Directory) -> None:
        """It is needed still."""
        super().used(directory)
        self._use(directory)

    def _use(self, directory: Directory) -> None:
        self._young.add(directory)
        if not self._armed:
            self._arm()

    def _arm(self) -> None:
        self._armed = True
        self._timers.call_at(self._timers.now_ns() + BRIEFLY_NS, self._turn)

    def _turn(self) -> None:
        """Those that were not used since the last turn."""
        young, self._young = self._young, set()
        for directory in [each for each in self._order if each not in young]:
            self.give_back(directory)
        self._armed = False
        if self._order:
            self._arm()
