"""Handles: open files of the host, by donated descriptors, or by fids where there are too many.

An inode has at most one handle to read and one to read and write, shared by all its open files. A
handle without users stays for the next open (exclusive mode), the oldest are closed first.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from sentry.mm.backing import HostBacking

if TYPE_CHECKING:
    from sentry.fs.gofer.regular import GoferRegular
    from sentry.platform.memory import Windows


class Handle:
    """One open file of the host; `fd` is -1 if only `fid` is open."""

    __slots__ = ("__weakref__", "_backing", "fd", "fid", "owner", "users", "writable")

    def __init__(self, owner: GoferRegular, fd: int, fid: int, writable: bool) -> None:
        self.owner = weakref.ref(owner)
        self.fd = fd
        self.fid = fid
        self.writable = writable
        self.users = 0
        self._backing: HostBacking | None = None

    def backing(self, windows: Windows) -> HostBacking:
        """What mappings of the file are made of."""
        if self._backing is None:
            self._backing = HostBacking(windows, self.fd, self.writable)
        return self._backing

    def close(self) -> None:
        """Give the descriptor back. The fid is the owner's to clunk."""
        if self._backing is not None:
            self._backing.close()
            self._backing = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class HandleCache:
    """The bound on donated descriptors, shared by the file systems of a sandbox."""

    def __init__(self, limit: int = 8192) -> None:
        self.limit = limit
        self.open = 0
        self._idle: dict[Handle, None] = {}

    def __len__(self) -> int:
        return self.open

    def room(self) -> bool:
        """Whether one more descriptor may be asked for."""
        if self.open >= self.limit:
            self.evict(1)
        return self.open < self.limit

    def opened(self, _handle: Handle) -> None:
        """A handle with a descriptor was made."""
        self.open += 1

    def use(self, handle: Handle) -> None:
        """One more open file needs it."""
        handle.users += 1
        self._idle.pop(handle, None)

    def idle(self, handle: Handle) -> None:
        """It is kept, but may be closed."""
        self._idle[handle] = None
        if self.open > self.limit:
            self.evict(self.open - self.limit)

    def close(self, handle: Handle) -> None:
        """It is not needed any more."""
        self._idle.pop(handle, None)
        if handle.fd >= 0:
            self.open -= 1
        handle.close()

    def evict(self, count: int) -> None:
        """Close the handles that have been idle longest."""
        for handle in list(self._idle)[:count]:
            owner = handle.owner()
            if owner is not None:
                owner.drop_handle(handle)
            else:
                self.close(handle)
