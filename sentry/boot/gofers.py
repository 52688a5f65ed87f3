"""The Gofers of further containers: one for a container's root, one for its bind mounts.

What another container has mounted already is taken from there: the same file system. So a Gofer
that serves bind mounts stays as long as any container has one of it, also when the one that brought
it has ended; and then nothing of it is left.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import msgspec

from sentry.boot.tree import options_of
from sentry.errors import EIO
from sentry.fs.gofer import arrival
from sentry.fs.gofer.filesystem import GoferFileSystem
from sentry.fs.gofer.session import Session

if TYPE_CHECKING:
    from sentry.config import MountConfig
    from sentry.fs.gofer.changes import HostChanges
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.mount import Mount


class Gofer:
    """One of them, with the file systems that it serves."""

    def __init__(self, kernel: Kernel, fd: int, container: Container) -> None:
        self._kernel = kernel
        self.session = Session(socket.socket(fileno=fd), kernel.loop)
        self.users = {container}
        """Who has something of it."""
        self._opened: list[GoferFileSystem] = []
        self._changes: HostChanges | None = None
        self._asked = False

    async def open(
        self, index: int, read_only: bool, follows: bool = False, exclusive: bool = False
    ) -> GoferFileSystem:
        """Attachment `index`, 0 for a root. Raises: what the host says, EIO."""
        kernel, name = self._kernel, b"%d" % index
        if not exclusive and not self._asked:
            self._asked = True
            self._changes = await arrival.changes(self.session)
        changes = None if exclusive or follows else self._changes
        options = options_of(kernel, index, exclusive, read_only, changes)
        behind = options.writes_behind is not None
        ours = exclusive and not read_only
        attached = await arrival.attach(self.session, name, ours, behind)
        if follows:
            options = msgspec.structs.replace(options, follows=kernel.loop)
        vfs = kernel.vfs
        made = GoferFileSystem(
            vfs.new_dev(), self.session, name, options, vfs.now_ns, attached
        )
        self._opened.append(made)
        return made

    def close(self) -> None:
        """Nobody needs it: what is cached goes, and so does its process."""
        for fs in self._opened:
            fs.shutdown()
        self._opened.clear()
        if self._changes is not None:
            self._changes.close()
        self.session.close()


class Gofers:
    """Those of a sandbox, but the first container's, which ends last."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._all: dict[Session, Gofer] = {}

    async def add(self, fd: int, container: Container) -> Gofer:
        """One more, brought by a container. Raises: EPROTO, EIO."""
        made = Gofer(self._kernel, fd, container)
        self._all[made.session] = made
        await arrival.negotiate(made.session)
        return made

    def use(self, session: Session, container: Container) -> None:
        """It has a mount of that."""
        if session in self._all:
            self._all[session].users.add(container)

    def users(self, session: Session) -> list[Container]:
        """Who has something of that, also of those that come."""
        gofer = self._all.get(session)
        return [] if gofer is None else list(gofer.users)

    def leave(self, container: Container) -> None:
        """It has ended, and needs none of them."""
        for session, gofer in list(self._all.items()):
            gofer.users.discard(container)
            if not gofer.users:
                del self._all[session]
                gofer.close()
        self._kernel.services.trees.forget_dead()


class RunningTrees:
    """`sentry.boot.tree.Trees` beside programs that run."""

    def __init__(
        self, kernel: Kernel, gofers: Gofers, own: tuple[Gofer, Gofer], container: Container
    ) -> None:
        """`own`: for the root, and for bind mounts."""
        self._kernel = kernel
        self._gofers = gofers
        self._root, self._volumes = own
        self._container = container

    async def root(self, read_only: bool, exclusive: bool) -> FileSystem:
        """Attachment 0 of its own Gofer."""
        return await self._root.open(0, read_only, exclusive=exclusive)

    async def mounted(self, entry: MountConfig) -> FileSystem:
        """What another container has, or a new one. Raises: EIO."""
        if not entry.attachment:
            raise EIO("a bind mount without a source")
        read_only = entry.reads_only
        trees = self._kernel.services.trees
        found, older = trees.find(entry.place, read_only), None
        if found is None:
            fs = await self._volumes.open(
                entry.attachment, read_only, entry.follows, entry.exclusive
            )
            older = None if read_only else trees.find(entry.place, True)
            found = trees.find(entry.place, read_only) or trees.keep(entry.place, read_only, fs)
        self._gofers.use(found.session, self._container)  # who brought it may end from now on
        if older is not None and older is not found:
            await self._replace(older, found)
        return found

    def _having(self, fs: GoferFileSystem) -> list[Container]:
        """Who may have a mount of it: those that are there, and those that come and have got it."""
        there = [self._kernel.container, *self._kernel.further]
        coming = [each for each in self._gofers.users(fs.session) if each not in there]
        return [*there, *(each for each in coming if hasattr(each, "ns"))]

    async def _replace(self, older: GoferFileSystem, newer: GoferFileSystem) -> None:
        """Who has a place to read alone gets the file system that others write to on top of that,
        to read: whoever looks from now on is in the same one. What is open stays, and so does a
        mount that has others below it, which would be hidden.
        """
        kernel = self._kernel
        for container in self._having(older):
            mounts = container.ns.mounts.mounts
            async with mounts.lock:
                if container not in self._having(older):
                    continue  # it has ended meanwhile
                for mount in [each for each in mounts if _is_bare(each, older)]:
                    above = kernel.vfs.new_mount(newer, mount.flags)
                    mounts.attach(above, mount.location)
                    self._gofers.use(newer.session, container)


def _is_bare(mount: Mount, fs: FileSystem) -> bool:
    """All of a file system, with nothing mounted in it."""
    return mount.fs is fs and mount.root.inode is fs.root and not mount.mounted
