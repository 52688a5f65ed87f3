"""`Refusals`: what the host has refused of what was written behind, told once to each who listens.

An errseq_t (lib/errseq.c): whoever has the file open hears of it at the next fsync(2) or close(2),
and so does the next who opens it, if nobody has yet.
"""

from __future__ import annotations

from typing import Protocol

from sentry.errors import EDQUOT, EIO, ENOSPC
from sentry.platform.host_io import host_error

_TOLD_AS_THEY_ARE = (ENOSPC.number, EDQUOT.number)


class Refusals:
    """Those of one file, or of a file system."""

    __slots__ = ("_number", "_seen", "count")

    def __init__(self) -> None:
        self.count = 0
        self._number = 0
        """The last one's errno."""
        self._seen = True

    def add(self, number: int) -> None:
        """One more."""
        self.count += 1
        self._number = number
        self._seen = False

    def sample(self) -> int:
        """What somebody who comes now has heard of."""
        return self.count if self._seen else self.count - 1

    def tell(self) -> None:
        """Raises: EIO, ENOSPC, EDQUOT."""
        self._seen = True
        if self._number in _TOLD_AS_THEY_ARE:
            raise host_error(self._number)
        raise EIO(f"the host has refused a change: errno {self._number}")


class Place(Protocol):
    """A file system."""

    refusals: Refusals


class Refused(Protocol):
    """A file of it."""

    refusals: Refusals | None

    @property
    def sb(self) -> Place: ...


class Listener:
    """An open file: what it has heard of its own refusals, and of all of its file system."""

    __slots__ = ("_all", "_inode", "_own")

    def __init__(self, inode: Refused) -> None:
        own = inode.refusals
        self._inode = inode
        self._own = 0 if own is None else own.sample()
        self._all = inode.sb.refusals.sample()

    def hear(self) -> None:
        """fsync(2), close(2). Raises: EIO, ENOSPC, EDQUOT, once."""
        own = self._inode.refusals
        if own is not None and self._own != own.count:
            self._own = own.count
            own.tell()

    def hear_all(self) -> None:
        """syncfs(2). Raises: the same."""
        refusals = self._inode.sb.refusals
        if self._all != refusals.count:
            self._all = refusals.count
            refusals.tell()
