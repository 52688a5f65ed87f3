"""`Location`: where a path has led."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sentry.vfs.dentry import Dentry
    from sentry.vfs.interface import Inode
    from sentry.vfs.mount import Mount


class Location(NamedTuple):
    """A dentry seen through a mount: Linux's struct path."""

    mount: Mount
    dentry: Dentry

    @property
    def heard(self) -> bool:
        """Who watches it is told of what is done there."""
        return True

    @property
    def inode(self) -> Inode:
        """The file."""
        return self.dentry.inode


class UnheardLocation(Location):
    """Where somebody opens a file that was told of it: FMODE_NONOTIFY."""

    __slots__ = ()

    @property
    def heard(self) -> bool:
        return False
