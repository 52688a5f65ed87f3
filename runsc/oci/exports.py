"""What the Gofer serves of the host, as values: it has them without the rest of a bundle."""

from __future__ import annotations

import stat

import msgspec

from sentry.config import Extents


class Users(msgspec.Struct, frozen=True):
    """Who is who on the host: a new user namespace, or one that is joined."""

    uids: Extents = ()
    gids: Extents = ()
    path: str = ""


class Export(msgspec.Struct, frozen=True):
    """One tree or file of the host that the Gofer serves; its index is its attach name."""

    path: str
    writable: bool
    is_file: bool = False
    recursive: bool = True
    """With what is mounted below it."""
    special: int = 0
    """S_IF* of a file that is no regular one: it is not opened."""
    owners: Users | None = None
    """Of an idmapped mount: whose files on the host are whose."""
    owners_below: bool = False
    """Also of what is mounted below."""
    owners_fd: int = -1
    """A user namespace with these maps: `runsc.launch.users`."""
    connects: bool = True
    """Of a socket: programs may connect to it."""
    reaches: bool = False
    """Programs may connect to sockets in it."""
    binds: bool = False
    """Programs may make sockets in it that the host can connect to."""
    opens: bool = True
    """Of a FIFO: programs may open it."""
    follows: bool = False
    """What the host mounts below it later is there, too."""
    overlay: str = ""
    """Not a path but an overlay that is to be mounted, with these options."""
    is_shared: bool = False
    """Of a root: others change it, too."""
    is_exclusive: bool = False
    """Of a bind mount: it is taken for the container's own."""
    lock_fd: int = -1
    """Of a root: the Gofer holds it, and with it the container's locks (`claims`)."""

    @property
    def is_service(self) -> bool:
        """A socket of the host that programs may connect to."""
        return self.connects and self.special == stat.S_IFSOCK

    @property
    def is_fifo(self) -> bool:
        """A FIFO of the host that programs may open."""
        return self.opens and self.special == stat.S_IFIFO
